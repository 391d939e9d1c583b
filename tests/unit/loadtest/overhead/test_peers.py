"""A gateway is told what it has beside the rest, and nothing of what it has not."""

import pathlib

from loadtest.overhead.peers import Gateway, Site
from loadtest.overhead.upstream import Upstream

CACHE = {"FOVEA_REDIS_URL", "FOVEA_CACHE_MIB"}


def environment(tmp_path: pathlib.Path, gateway: Gateway) -> dict[str, str]:
    return dict(gateway.peer(Site(tmp_path, Upstream(1))).environment)


def test_a_gateway_has_its_cache_as_it_is_by_default(tmp_path: pathlib.Path) -> None:
    assert not CACHE & environment(tmp_path, Gateway("Fovea", keys=True, metrics=True)).keys()


def test_a_gateway_can_have_redis_and_no_memory_of_its_own(tmp_path: pathlib.Path) -> None:
    told = environment(tmp_path, Gateway("Fovea", redis_url="redis://127.0.0.1:1/0", cache_mib=0))
    assert {name: told[name] for name in CACHE} == {"FOVEA_REDIS_URL": "redis://127.0.0.1:1/0", "FOVEA_CACHE_MIB": "0"}
