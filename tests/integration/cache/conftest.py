from collections.abc import Iterator

import pytest
from redis import Redis

from tests.redis_server import RedisServer, running_redis


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(shared_redis: RedisServer) -> RedisServer:
    """One that is empty, and is not to be hurt."""
    with Redis.from_url(shared_redis.url) as client:
        client.flushall()
    return shared_redis
