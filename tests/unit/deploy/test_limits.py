import pytest

from deploy.limits import replica_limits, serve_environment
from gateway.catalog.models import MIB, Catalog
from gateway.catalog.read import parse_catalog
from tests.conftest import CATALOG


@pytest.fixture
def catalog() -> Catalog:
    return parse_catalog(CATALOG.replace("longest_answer_s: 60", "longest_answer_s: 150", 1))


def test_vllm_is_the_first_to_refuse(catalog: Catalog) -> None:
    limits = replica_limits(catalog.models["tiny"])
    assert limits.max_num_seqs == 4
    assert limits.max_num_queued_reqs == 12, "vLLM counts running requests among the queued ones"
    assert limits.max_ongoing_requests > limits.max_num_queued_reqs
    assert limits.max_queued_requests > 0, "-1 would be a queue without end"


def test_nothing_cuts_the_longest_answer(catalog: Catalog) -> None:
    drain_s = float(serve_environment(catalog)["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"])
    assert replica_limits(catalog.models["tiny"]).graceful_shutdown_timeout_s > drain_s + 150
    assert int(serve_environment(catalog)["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"]) > 150


def test_the_fallback_proxy_takes_a_body_of_the_limit(catalog: Catalog) -> None:
    assert int(serve_environment(catalog)["RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH"]) > catalog.limits.body_mib * MIB


def test_prompts_are_not_logged(catalog: Catalog) -> None:
    assert serve_environment(catalog)["RAYLLM_ENABLE_REQUEST_PROMPT_LOGS"] == "0"
