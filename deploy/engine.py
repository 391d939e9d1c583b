"""Catalog entry -> `LLMConfig`: what Ray Serve LLM needs to run one model as its owner described it.

Importing this module imports ray, torch and vLLM; on a machine without a GPU that needs `cpu_torch/` on the PYTHONPATH.
"""

import logging
import os
import pathlib
from typing import Any

from ray.llm._internal.common.callbacks.base import CallbackBase, CallbackConfig
from ray.serve.llm import LLMConfig

from deploy.cpu_torch import with_cpu_torch
from deploy.demo import demo_model_path, is_demo_source
from deploy.limits import replica_limits
from gateway.catalog.models import Catalog, Hardware, Model

# One worker of the model beside the actor that drives it. Fractions, because they are for Ray's bookkeeping only: engine
# processes share the cores of the machine whatever is written here.
_CPU_PER_WORKER = 0.5
_CPU_PER_REPLICA = 0.1

_CONSISTENT_HASH = "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter"


def engine_args(model: Model, hardware: Hardware) -> dict[str, Any]:
    """vLLM's arguments (engine and frontend ones, by their own names) for one replica.

    Raises ValueError: the entry's `engine_args` names one that Fovea derives.
    """
    derived = _derived_engine_args(model, hardware)
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
        # One backend for good: with `auto`, vLLM keeps the one of the first request that is structured, and compiles
        # schemas with it that were meant for another. Without any-whitespace a model cannot loop on blanks, but for
        # the arguments of calls: vLLM 0.32 compiles those with whitespace.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        # Sampling defaults are vLLM's own, not what a model's repository happens to carry.
        "generation_config": "vllm",
        "enable_log_requests": False,
        # Fovea sends images only, as data: URLs; the engine fetches from nowhere.
        "limit_mm_per_prompt": {"image": model.images_per_request, "video": 0},
        "allowed_media_domains": ["none.invalid"],
        "trust_remote_code": model.trust_remote_code,
    }
    if model.revision is not None:
        args["revision"] = model.revision
    if model.effective_tool_parser is not None:
        # Level `parameter`: what a tool is called with fits its schema, whether or not the caller said `strict`.
        args |= {
            "enable_auto_tool_choice": True,
            "tool_call_parser": model.effective_tool_parser,
            "tool_strict_level": "parameter",
        }
    if hardware.kind == "cpu":
        args |= {"dtype": "bfloat16", "enforce_eager": True}
    else:
        args |= {"gpu_memory_utilization": model.gpu_memory_utilization}
    return args


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
        model_loading_config={"model_id": name, "model_source": _source(model)},
        engine_kwargs=engine_args(model, catalog.hardware),
        runtime_env={"env_vars": _engine_environment(model, catalog.hardware)},
        callback_config=CallbackConfig(callback_class=ReplicaStart, callback_kwargs={"files_are_here": _is_local(model)}),
        # With it vLLM's counters go to Ray's exporter, and the replica's own /metrics lacks them.
        log_engine_metrics=False,
        deployment_config={
            "num_replicas": model.replicas,
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


def _routing(model: Model) -> dict[str, Any]:
    """How Serve chooses a replica: by a request's `x-session-id`, or by chance. Where there is one replica, nothing is chosen.

    Direct streaming takes the ring's first replica as it is (ray 2.60, router.py, choose_replica with _reserve=False): the
    router's fallbacks, for one that is full, are of no effect. So a home that is full refuses, and who chooses sessions has to
    spread them (gateway/upstream/affinity.py).
    """
    return {} if model.replicas == 1 else {"request_router_config": {"request_router_class": _CONSISTENT_HASH}}


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
    return is_demo_source(model.source) or pathlib.Path(model.source).is_absolute()


def _source(model: Model) -> str:
    return str(demo_model_path(model.source)) if is_demo_source(model.source) else model.source


def _engine_environment(model: Model, hardware: Hardware) -> dict[str, str]:
    environment = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CONFIGURE_LOGGING": "0",  # until Serve's log is safe from it, in ReplicaStart
    }
    if _is_local(model):
        environment["HF_HUB_OFFLINE"] = "1"  # the files are here: no look-up may delay or fail the start
    if hardware.kind == "cpu":
        environment |= {
            "PYTHONPATH": with_cpu_torch(os.environ.get("PYTHONPATH")),
            "VLLM_CPU_KVCACHE_SPACE": f"{model.kv_cache.memory_gib:g}",
            # vLLM would bind its threads to cores of their own, which several engines on one machine cannot all have.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        }
        if model.tensor_parallel > 1:
            # Where one worker has died, the engine core says so only once the others have ended, which hang in a collective
            # with the dead: callers would wait for this long (5 s) and 4 s more.
            environment["VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS"] = "1"
    return environment
