import pathlib
from collections.abc import Iterator

import openai
import pytest

from tests.conftest import RunningGateway, running_gateway
from tests.fake_engine import FakeEngine, running_fake_engine


@pytest.fixture(scope="session")
def fake_engine() -> Iterator[FakeEngine]:
    with running_fake_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def gateway(fake_engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder: pathlib.Path = tmp_path_factory.mktemp("gateway")
    with running_gateway(folder, fake_engine.url) as running:
        yield running


@pytest.fixture
def engine(fake_engine: FakeEngine) -> FakeEngine:
    fake_engine.reset()
    return fake_engine


@pytest.fixture
def client(gateway: RunningGateway, engine: FakeEngine) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="unused", max_retries=0) as client:
        yield client
