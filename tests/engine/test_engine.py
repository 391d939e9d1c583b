import dataclasses
import pathlib
from typing import Any

import pytest
import yaml
from ray.serve import Application
from ray.serve._private.build_app import build_app
from ray.serve._private.constants import SERVE_SESSION_ID
from ray.serve.config import RequestRouterConfig
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import FrontendArgs
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest as VllmRequest
from vllm.entrypoints.pooling.embed.protocol import EmbeddingChatRequest, EmbeddingCompletionRequest

from deploy.app import BuildArgs, build
from deploy.engine import engine_args, llm_config
from deploy.limits import serve_environment
from gateway.catalog.models import Catalog
from gateway.catalog.read import CatalogError, check_catalog, load_catalog, parse_catalog
from gateway.upstream.openai_http import SESSION_HEADER
from gateway.wire import embeddings
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
        args = engine_args(name, model, catalog.hardware)
        assert args.keys() <= KNOWN_TO_VLLM
        assert llm_config(name, model, catalog).get_engine_config() is not None


def test_what_makes_answers_safe_is_always_set(catalog: Catalog) -> None:
    args = engine_args("tiny", catalog.models["tiny"], catalog.hardware)
    assert args["structured_outputs_config"] == {"backend": "xgrammar", "disable_any_whitespace": True}
    assert args["generation_config"] == "vllm"
    assert args["enable_log_requests"] is False
    assert (args["max_num_seqs"], args["max_num_queued_reqs"]) == (4, 12)
    assert args["kv_cache_memory_bytes"] == 1024**3
    assert (args["enable_auto_tool_choice"], args["tool_call_parser"]) == (True, "hermes")
    assert "tool_call_parser" not in engine_args("mute", catalog.models["mute"], catalog.hardware)


def test_videos_are_off_unless_the_entry_says_so_and_then_bounded(catalog: Catalog) -> None:
    off = engine_args("tiny", catalog.models["tiny"], catalog.hardware)
    assert (off["limit_mm_per_prompt"], "media_io_kwargs" in off) == ({"image": 2, "video": 0}, False)
    on = parse_catalog(CATALOG.replace("tool_parser: hermes", "videos_per_request: 2\n    video_frames: 16"))
    args = engine_args("tiny", on.models["tiny"], on.hardware)
    assert args["limit_mm_per_prompt"] == {"image": 2, "video": {"count": 2, "num_frames": 16}}
    assert args["media_io_kwargs"] == {"video": {"num_frames": 16, "max_frames": 16}}
    assert args.keys() <= KNOWN_TO_VLLM
    config = llm_config("tiny", on.models["tiny"], on)
    assert config.get_engine_config() is not None
    assert config.runtime_env["env_vars"]["VLLM_MAX_IMAGE_PIXELS"] == "50000000"
    assert "VLLM_MAX_IMAGE_PIXELS" not in llm_config("mute", on.models["mute"], on).runtime_env["env_vars"]


def test_an_argument_that_is_derived_cannot_be_named_beside() -> None:
    catalog = parse_catalog(CATALOG.replace("tool_parser: hermes", "engine_args: {max_model_len: 5}"))
    with pytest.raises(ValueError, match="engine_args may not name max_model_len"):
        engine_args("tiny", catalog.models["tiny"], catalog.hardware)


def test_the_cache_has_a_fraction_of_a_gib_where_the_catalog_says_so() -> None:
    catalog = parse_catalog(CATALOG.replace("memory_gib: 1}", "memory_gib: 0.25}"))
    args = engine_args("tiny", catalog.models["tiny"], catalog.hardware)
    assert args["kv_cache_memory_bytes"] == 1024**3 // 4
    environment = llm_config("tiny", catalog.models["tiny"], catalog).runtime_env or {}
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment["env_vars"], "which would win"


def test_further_arguments_are_passed_on() -> None:
    catalog = parse_catalog(CATALOG.replace("tool_parser: hermes", "engine_args: {block_size: 32}"))
    assert engine_args("tiny", catalog.models["tiny"], catalog.hardware)["block_size"] == 32


def test_adapters_are_loaded_under_the_names_that_requests_have_for_them() -> None:
    adapters = "adapters: {words: {source: /models/words}, noise: {source: demo:random-adapter}}"
    catalog = parse_catalog(CATALOG.replace("tool_parser: hermes", f"{adapters}\n    adapter_rank: 8"))
    args = engine_args("tiny", catalog.models["tiny"], catalog.hardware)
    assert (args["enable_lora"], args["max_loras"], args["max_lora_rank"]) == (True, 2, 8)
    assert [(module.name, module.base_model_name) for module in args["lora_modules"]] == [
        ("tiny:words", "tiny"),
        ("tiny:noise", "tiny"),
    ]
    assert args["lora_modules"][0].path == "/models/words"
    assert "enable_lora" not in engine_args("mute", catalog.models["mute"], catalog.hardware)


def test_a_number_of_replicas_that_changes_is_serve_s_to_keep() -> None:
    scaling = "autoscaling: {min_replicas: 1, max_replicas: 3, target_in_flight: 6, upscale_delay_s: 5}"
    catalog = parse_catalog(CATALOG.replace("tool_parser: hermes", scaling))
    deployment = llm_config("tiny", catalog.models["tiny"], catalog).deployment_config
    assert "num_replicas" not in deployment
    assert deployment["autoscaling_config"] == {
        "min_replicas": 1,
        "max_replicas": 3,
        "target_ongoing_requests": 6,
        "upscale_delay_s": 5,
        "downscale_delay_s": 600,
    }
    # Three may be there, so that it matters which of them a question about an image meets.
    assert "request_router_config" in deployment


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


def test_an_application_is_built_of_a_document_as_of_its_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG.replace("source: nowhere", "source: demo:random-small"))
    for key, value in serve_environment(load_catalog(path)).items():
        monkeypatch.setenv(key, value)
    of_file = build(BuildArgs(catalog=path, model="tiny"))
    of_document = build(BuildArgs.model_validate({"catalog": yaml.safe_load(path.read_text()), "model": "tiny"}))
    assert deployments(of_document) == deployments(of_file)


def test_a_mistake_in_a_document_is_named_by_its_key() -> None:
    with pytest.raises(CatalogError, match=r"^args\.catalog: models\.tiny\.family: is required$"):
        build(BuildArgs.model_validate({"catalog": document_without("family"), "model": "tiny"}))


def test_serve_calls_a_model_s_deployment_by_its_name_with_its_dots_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    document = yaml.safe_load(CATALOG)
    document["models"] = {"qwen2.5-vl-3b": document["models"]["tiny"] | {"source": "demo:random-small"}}
    for key, value in serve_environment(check_catalog(document)).items():
        monkeypatch.setenv(key, value)
    built = build(BuildArgs(catalog=document, model="qwen2.5-vl-3b"))
    assert "LLMServer:qwen2_5-vl-3b" in deployments(built), "by which the chart says how many replicas it has"


def document_without(key: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(CATALOG)
    del document["models"]["tiny"][key]
    return document


def deployments(application: Application) -> dict[str, Any]:
    """What Serve is told of each deployment of an application, by its name."""
    built = build_app(application, name="app").deployments
    return {deployment.name: deployment._deployment_config.model_dump() for deployment in built}


def test_every_field_of_vllm_s_request_has_its_place() -> None:
    placed = set(ChatCompletionRequest.model_fields) | LEFT_OUT.keys() | REFUSED.keys()
    assert set(VllmRequest.model_fields) - placed == set()


EMBEDDER = """
hardware: {kind: cpu}
models:
  clip:
    source: demo:clip
    family: clip
    kind: embedding
    tier: edge
    parameters_b: 0.0005
    kv_cache: {layers: 2, attention_heads: 2, kv_heads: 2, head_dim: 32, memory_gib: 1}
    context_tokens: 77
    concurrency: 4
    queue_depth: 8
    longest_answer_s: 60
"""


def test_a_model_of_embeddings_is_run_to_pool_and_keeps_nothing() -> None:
    catalog = parse_catalog(EMBEDDER)
    args = engine_args("clip", catalog.models["clip"], catalog.hardware)
    assert (args["runner"], args["dtype"], args["max_model_len"]) == ("pooling", "float32", 77)
    assert args["limit_mm_per_prompt"] == {"image": 1, "video": 0}
    assert (args["enable_prefix_caching"], args["mm_processor_cache_gb"]) == (False, 0)
    assert not {"structured_outputs_config", "generation_config", "enable_auto_tool_choice"} & args.keys()
    assert args.keys() <= KNOWN_TO_VLLM
    assert llm_config("clip", catalog.models["clip"], catalog).get_engine_config() is not None


def test_every_field_of_vllm_s_requests_for_embeddings_has_its_place() -> None:
    placed = set(embeddings.EmbeddingRequest.model_fields) | embeddings.LEFT_OUT.keys() | embeddings.REFUSED.keys()
    for kind in (EmbeddingCompletionRequest, EmbeddingChatRequest):
        assert set(kind.model_fields) - placed == set()
