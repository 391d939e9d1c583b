import dataclasses
import pathlib

import pytest
from ray.serve._private.constants import SERVE_SESSION_ID
from ray.serve.config import RequestRouterConfig
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import FrontendArgs
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest as VllmRequest

from deploy.app import BuildArgs, build
from deploy.engine import engine_args, llm_config
from deploy.limits import serve_environment
from gateway.catalog.models import Catalog
from gateway.catalog.read import load_catalog, parse_catalog
from gateway.upstream.openai_http import SESSION_HEADER
from gateway.wire.chat import LEFT_OUT, REFUSED, ChatCompletionRequest
from tests.conftest import CATALOG

CATALOGS = sorted((pathlib.Path(__file__).parents[2] / "deploy" / "catalogs").glob("*.yaml"))
KNOWN_TO_VLLM = {field.name for kind in (AsyncEngineArgs, FrontendArgs) for field in dataclasses.fields(kind)}


@pytest.fixture
def catalog() -> Catalog:
    return parse_catalog(CATALOG)


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.name)
def test_every_model_that_ships_gets_arguments_that_vllm_knows(path: pathlib.Path) -> None:
    catalog = load_catalog(path)
    for name, model in catalog.models.items():
        args = engine_args(model, catalog.hardware)
        assert args.keys() <= KNOWN_TO_VLLM
        assert llm_config(name, model, catalog).get_engine_config() is not None


def test_what_makes_answers_safe_is_always_set(catalog: Catalog) -> None:
    args = engine_args(catalog.models["tiny"], catalog.hardware)
    assert args["structured_outputs_config"] == {"backend": "xgrammar", "disable_any_whitespace": True}
    assert args["generation_config"] == "vllm"
    assert args["enable_log_requests"] is False
    assert (args["max_num_seqs"], args["max_num_queued_reqs"]) == (4, 12)
    assert (args["enable_auto_tool_choice"], args["tool_call_parser"]) == (True, "hermes")
    assert "tool_call_parser" not in engine_args(catalog.models["mute"], catalog.hardware)


def test_an_argument_that_is_derived_cannot_be_named_beside() -> None:
    catalog = parse_catalog(CATALOG.replace("tool_parser: hermes", "engine_args: {max_model_len: 5}"))
    with pytest.raises(ValueError, match="engine_args may not name max_model_len"):
        engine_args(catalog.models["tiny"], catalog.hardware)


def test_further_arguments_are_passed_on() -> None:
    catalog = parse_catalog(CATALOG.replace("tool_parser: hermes", "engine_args: {block_size: 32}"))
    assert engine_args(catalog.models["tiny"], catalog.hardware)["block_size"] == 32


def test_serve_gets_the_limits(catalog: Catalog) -> None:
    deployment = llm_config("tiny", catalog.models["tiny"], catalog).deployment_config
    assert deployment["max_ongoing_requests"] == 4 + 8 + 16
    assert deployment["graceful_shutdown_timeout_s"] == 30 + 60 + 10


def test_several_replicas_are_chosen_by_session_and_one_is_not_chosen() -> None:
    catalog = parse_catalog(CATALOG.replace("tier: edge", "tier: edge\n    replicas: 2", 1))
    several = llm_config("tiny", catalog.models["tiny"], catalog).deployment_config
    router = RequestRouterConfig(**several["request_router_config"]).get_request_router_class()
    assert issubclass(router, ConsistentHashRouter)
    assert "request_router_config" not in llm_config("mute", catalog.models["mute"], catalog).deployment_config


def test_the_gateway_names_sessions_as_serve_reads_them() -> None:
    assert SERVE_SESSION_ID == SESSION_HEADER


def test_build_refuses_to_serve_without_the_environment_that_it_needs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG)
    monkeypatch.delenv("RAY_SERVE_ENABLE_HA_PROXY", raising=False)
    with pytest.raises(ValueError, match="RAY_SERVE_ENABLE_HA_PROXY=1"):
        build(BuildArgs(catalog=path, model="tiny"))


def test_build_refuses_a_model_that_the_catalog_does_not_have(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG)
    for key, value in serve_environment(load_catalog(path)).items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ValueError, match="the catalog has no model other; it has tiny, mute"):
        build(BuildArgs(catalog=path, model="other"))


def test_every_field_of_vllm_s_request_has_its_place() -> None:
    placed = set(ChatCompletionRequest.model_fields) | LEFT_OUT.keys() | REFUSED.keys()
    assert set(VllmRequest.model_fields) - placed == set()
