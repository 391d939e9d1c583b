"""Every limit of the engines and of Ray Serve, derived from the few numbers of the catalog.

A request passes HAProxy, the replica's queue in Serve, and vLLM's own admission. They are set so that the one that refuses
is always vLLM: it answers with JSON and an honest 503, whereas Serve answers in plain text. And nothing that restarts,
reloads or drains may cut an answer that is younger than `longest_answer_s`.
"""

import math
from dataclasses import dataclass

from gateway.catalog.models import MIB, Catalog, Model

CONTROL_REQUESTS = 16
"""Places beside the generations for health checks, /v1/models and /metrics, which take a place in Serve as well."""

HEALTH_CHECK_PERIOD_S = 5.0
HEALTH_CHECK_TIMEOUT_S = 15.0
"""Serve gives a replica up after three checks that failed: an engine that is dead, rather than busy, answers its check at
once with an error and is replaced after 3 x 5 s; one that hangs is after 3 x 15 s at most."""

SHUTDOWN_MARGIN_S = 10.0
"""From the last byte of the longest answer to a stopped process."""

ENVELOPE_BYTES = MIB
"""What the fallback proxy's gRPC message holds beside the body: the pickled ASGI scope and the headers."""


@dataclass(frozen=True, slots=True)
class ReplicaLimits:
    """What one replica of a model takes on; counts are requests, times are seconds."""

    max_num_seqs: int
    max_num_queued_reqs: int
    max_ongoing_requests: int
    max_queued_requests: int
    health_check_period_s: float
    health_check_timeout_s: float
    graceful_shutdown_wait_loop_s: float
    graceful_shutdown_timeout_s: float


def replica_limits(model: Model) -> ReplicaLimits:
    """The limits of one replica of `model`."""
    # vLLM counts running requests among its "queued" ones (v1/engine/async_llm.py, check_admission).
    admitted = model.concurrency + model.queue_depth
    return ReplicaLimits(
        max_num_seqs=model.concurrency,
        max_num_queued_reqs=admitted,
        # Serve lets through more than vLLM admits, so that it is vLLM that refuses the next one.
        max_ongoing_requests=admitted + CONTROL_REQUESTS,
        # Reached only by requests that vLLM is about to refuse anyway; finite, because -1 would be without end.
        max_queued_requests=admitted + CONTROL_REQUESTS,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        health_check_timeout_s=HEALTH_CHECK_TIMEOUT_S,
        graceful_shutdown_wait_loop_s=1.0,
        graceful_shutdown_timeout_s=model.longest_answer_s + SHUTDOWN_MARGIN_S,
    )


def serve_environment(catalog: Catalog) -> dict[str, str]:
    """The environment that Serve's controller, proxies and replicas start with, for direct streaming within the limits.

    Ray reads it when its modules are imported, so it must be there before any of them starts.
    """
    longest_answer_s = max(model.longest_answer_s for model in catalog.models.values())
    return {
        # Direct streaming: HAProxy speaks to vLLM's own HTTP application in the replica.
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
        # A reload (every change of replicas) ends streams older than this; the default is 120 s.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(math.ceil(longest_answer_s + SHUTDOWN_MARGIN_S)),
        # While no replica runs, requests take Serve's fallback proxy and its gRPC; the default of 4 MiB refuses images.
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(catalog.limits.body_bytes + ENVELOPE_BYTES),
        # Prompts are nobody's to log.
        "RAYLLM_ENABLE_REQUEST_PROMPT_LOGS": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
