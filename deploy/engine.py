"""Catalog entry -> `LLMConfig`: what Ray Serve LLM needs to run one model as its owner described it.

Importing this module imports ray, torch and vLLM; on a machine without a GPU that needs `cpu_torch/` on the PYTHONPATH.
"""

import logging
import os
import pathlib
from typing import Any

from ray.llm._internal.common.callbacks.base import CallbackBase, CallbackConfig
from ray.serve.llm import LLMConfig
from vllm.entrypoints.openai.models.protocol import LoRAModulePath

from deploy.cpu_torch import with_cpu_torch
from deploy.demo import demo_model_path, is_demo_source
from deploy.limits import replica_limits
from deploy.placement import GIB
from gateway.catalog.models import Catalog, Hardware, Model, served_name

# One worker of the model beside the actor that drives it. Fractions, because they are for Ray's bookkeeping only: engine
# processes share the cores of the machine whatever is written here.
_CPU_PER_WORKER = 0.5
_CPU_PER_REPLICA = 0.1

_CONSISTENT_HASH = "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter"


def engine_args(name: str, model: Model, hardware: Hardware) -> dict[str, Any]:
    """vLLM's arguments (engine and frontend ones, by their own names) for one replica of the model that is called `name`.

    Raises ValueError: the entry's `engine_args` names one that Fovea derives.
    """
    derived = _derived_engine_args(model, hardware) | _kind_args(model) | _adapter_args(name, model)
    taken = sorted(derived.keys() & model.engine_args.keys())
    if taken:
        raise ValueError(f"engine_args may not name {', '.join(taken)}: Fovea derives it from the rest of the entry")
    return derived | model.engine_args


def _derived_engine_args(model: Model, hardware: Hardware) -> dict[str, Any]:
    limits = replica_limits(model)
    args: dict[str, Any] = {
        "tensor_parallel_size": model.tensor_parallel,
        "max_model_len": model.context_tokens,
        "max_num_seqs": limits.max_num_seqs,
        "max_num_queued_reqs": limits.max_num_queued_reqs,
        "enable_log_requests": False,
        # The engine fetches from nowhere.
        "allowed_media_domains": ["none.invalid"],
        "trust_remote_code": model.trust_remote_code,
    }
    if model.revision is not None:
        args["revision"] = model.revision
    if hardware.kind == "cpu":
        assert model.kv_cache.memory_gib is not None
        args |= {
            "dtype": "bfloat16" if model.kind == "generate" else "float32",
            "enforce_eager": True,
            # In bytes: VLLM_CPU_KVCACHE_SPACE takes whole GiB only (vLLM 0.32, platforms/cpu.py).
            "kv_cache_memory_bytes": int(model.kv_cache.memory_gib * GIB),
        }
    else:
        args |= {"gpu_memory_utilization": model.gpu_memory_utilization}
    return args


def _kind_args(model: Model) -> dict[str, Any]:
    if model.kind == "embedding":
        return {
            "runner": "pooling",
            "limit_mm_per_prompt": {"image": 1, "video": 0},
            # Nothing is worth keeping: what comes twice the gateway has stored, and knows tenants apart.
            "enable_prefix_caching": False,
            "mm_processor_cache_gb": 0,
        }
    args: dict[str, Any] = {
        # One backend for good: with `auto`, vLLM keeps the one of the first request that is structured, and compiles
        # schemas with it that were meant for another. Without any-whitespace a model cannot loop on blanks, but for
        # the arguments of calls: vLLM 0.32 compiles those with whitespace.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        # Sampling defaults are vLLM's own, not what a model's repository happens to carry.
        "generation_config": "vllm",
        # Both come as data: URLs.
        "limit_mm_per_prompt": {"image": model.images_per_request, "video": 0},
    } | _video_args(model)
    if model.effective_tool_parser is not None:
        # Level `parameter`: what a tool is called with fits its schema, whether or not the caller said `strict`.
        args |= {
            "enable_auto_tool_choice": True,
            "tool_call_parser": model.effective_tool_parser,
            "tool_strict_level": "parameter",
        }
    return args


def _video_args(model: Model) -> dict[str, Any]:
    if not model.videos_per_request:
        return {}
    count, frames = model.videos_per_request, model.video_frames
    return {
        # With `num_frames` the memory that vLLM tries out at its start is that of such a video, not of the context's length.
        "limit_mm_per_prompt": {"image": model.images_per_request, "video": {"count": count, "num_frames": frames}},
        # vLLM's readers go by one or the other (0.32, multimodal/video.py): Qwen's by `max_frames`, the others by `num_frames`.
        "media_io_kwargs": {"video": {"num_frames": frames, "max_frames": frames}},
    }


def _adapter_args(name: str, model: Model) -> dict[str, Any]:
    """All adapters are loaded at the start, and none is ever put out for another: adding one is a rolling update."""
    if not model.adapters:
        return {}
    modules = [
        LoRAModulePath(name=served_name(name, adapter), path=_path(entry.source), base_model_name=name)
        for adapter, entry in model.adapters.items()
    ]
    return {
        "enable_lora": True,
        "max_loras": len(modules),
        "max_cpu_loras": len(modules),
        "max_lora_rank": model.adapter_rank,
        "lora_modules": modules,
    }


class ReplicaStart(CallbackBase):  # type: ignore[misc]  # Ray's is untyped here
    """What happens in a replica before its engine starts; `files_are_here` says that there is nothing to download."""

    async def on_before_node_init(self) -> None:
        """See `CallbackBase`."""
        if self.kwargs["files_are_here"]:
            self.ctx.run_init_node = False  # it takes a process that imports all of vLLM: a fifth of the start
        _keep_serve_s_log_open()


def _keep_serve_s_log_open() -> None:
    """Lets vLLM set up its logs without closing Serve's.

    It calls logging.config.dictConfig, which closes every handler that is there. A replica with its handler closed fails the
    first question of a controller that was restarted, which takes it for broken and replaces it: every engine at once. vLLM
    does so when it is imported, which the environment of a replica forbids, and again when the engine starts.
    """
    for handler in logging.getLogger("ray.serve").handlers:
        handler.close = handler.flush  # type: ignore[method-assign]
    os.environ["VLLM_CONFIGURE_LOGGING"] = "1"


def llm_config(name: str, model: Model, catalog: Catalog) -> LLMConfig:
    """The configuration of one model for `ray.serve.llm`; `name` is what engines know the model by."""
    limits = replica_limits(model)
    return LLMConfig(
        model_loading_config={"model_id": name, "model_source": _path(model.source)},
        engine_kwargs=engine_args(name, model, catalog.hardware),
        runtime_env={"env_vars": _engine_environment(model, catalog.hardware)},
        callback_config=CallbackConfig(callback_class=ReplicaStart, callback_kwargs={"files_are_here": _is_local(model)}),
        # With it vLLM's counters go to Ray's exporter, and the replica's own /metrics lacks them.
        log_engine_metrics=False,
        deployment_config={
            **_replicas(model),
            "ray_actor_options": {"num_cpus": _CPU_PER_REPLICA if catalog.hardware.kind == "cpu" else 1},
            "max_ongoing_requests": limits.max_ongoing_requests,
            "max_queued_requests": limits.max_queued_requests,
            "health_check_period_s": limits.health_check_period_s,
            "health_check_timeout_s": limits.health_check_timeout_s,
            "graceful_shutdown_wait_loop_s": limits.graceful_shutdown_wait_loop_s,
            "graceful_shutdown_timeout_s": limits.graceful_shutdown_timeout_s,
            **_routing(model),
        },
        **_accelerator(model, catalog.hardware),
    )


def _replicas(model: Model) -> dict[str, Any]:
    """How many replicas Serve keeps. Its own default target, of 10^9 requests in Serve LLM, is never reached (ray 2.60).

    With `initial_replicas` each change of the deployment would begin with so many, whatever it is working on (ray 2.60,
    DeploymentAutoscalingState.register).
    """
    scaling = model.autoscaling
    if scaling is None:
        return {"num_replicas": model.replicas}
    return {
        "autoscaling_config": {
            "min_replicas": scaling.min_replicas,
            "max_replicas": scaling.max_replicas,
            "target_ongoing_requests": scaling.target_in_flight,
            "upscale_delay_s": scaling.upscale_delay_s,
            "downscale_delay_s": scaling.downscale_delay_s,
        }
    }


def _routing(model: Model) -> dict[str, Any]:
    """How Serve chooses a replica: by a request's `x-session-id`, or by chance. Where there is one replica, nothing is chosen.

    Direct streaming takes the ring's first replica as it is (ray 2.60, router.py, choose_replica with _reserve=False): the
    router's fallbacks, for one that is full, are of no effect. So a home that is full refuses, and who chooses sessions has to
    spread them (gateway/upstream/affinity.py).
    """
    return {} if model.most_replicas == 1 else {"request_router_config": {"request_router_class": _CONSISTENT_HASH}}


def _accelerator(model: Model, hardware: Hardware) -> dict[str, Any]:
    if hardware.kind == "gpu":
        # Workers that fit on one node stay on one node; Ray's default would spread them where room is short.
        strategy = "STRICT_PACK" if model.tensor_parallel <= hardware.gpus_per_node else "PACK"
        return {
            "accelerator_type": hardware.accelerator_type,
            "accelerator_config": {"kind": "gpu"},
            "placement_group_config": {"bundle_per_worker": {"GPU": 1}, "strategy": strategy},
        }
    return {
        "accelerator_config": {"kind": "cpu"},
        "placement_group_config": {"bundle_per_worker": {"CPU": _CPU_PER_WORKER}},
    }


def _is_local(model: Model) -> bool:
    sources = [model.source, *(adapter.source for adapter in model.adapters.values())]
    return all(is_demo_source(source) or pathlib.Path(source).is_absolute() for source in sources)


def _path(source: str) -> str:
    return str(demo_model_path(source)) if is_demo_source(source) else source


_FRAME_PIXELS_AT_MOST = 50_000_000
"""As the gateway has it for images by default. All frames that are taken out of a video are in memory at once, three bytes a
pixel, and a file of a few KB can hold large ones; vLLM's own limit is 179 million (0.32)."""


def _engine_environment(model: Model, hardware: Hardware) -> dict[str, str]:
    environment = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CONFIGURE_LOGGING": "0",  # until Serve's log is safe from it, in ReplicaStart
    }
    if model.videos_per_request:
        environment["VLLM_MAX_IMAGE_PIXELS"] = str(_FRAME_PIXELS_AT_MOST)
    if _is_local(model):
        environment["HF_HUB_OFFLINE"] = "1"  # the files are here: no look-up may delay or fail the start
    if hardware.kind == "cpu":
        environment |= {
            "PYTHONPATH": with_cpu_torch(os.environ.get("PYTHONPATH")),
            # vLLM would bind its threads to cores of their own, which several engines on one machine cannot all have.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        }
        if model.tensor_parallel > 1:
            # Where one worker has died, the engine core says so only once the others have ended, which hang in a collective
            # with the dead: callers would wait for this long (5 s) and 4 s more.
            environment["VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS"] = "1"
    return environment
