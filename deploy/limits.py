"""Every limit of the engines and of Ray Serve, derived from the few numbers of the catalog.

A request passes HAProxy, the replica's queue in Serve, and vLLM's own admission. They are set so that vLLM refuses first: it
answers with JSON and an honest 503, whereas Serve answers in plain text. Serve's queues are finite all the same, and a burst
that is faster than vLLM prepares images can meet them. And nothing that restarts, reloads or drains may cut an answer that is
younger than `longest_answer_s`.
"""

import math
from dataclasses import dataclass

from gateway.catalog.models import MIB, Catalog, Model

SPARE_REQUESTS = 16
"""Places in Serve beside those that vLLM admits: for /v1/models and /metrics, and for requests whose images vLLM is still
preparing, which hold a place in Serve before vLLM counts them."""

HEALTH_CHECK_PERIOD_S = 2.0
HEALTH_CHECK_TIMEOUT_S = 15.0
"""Serve gives a replica up after three checks that failed. One whose engine is dead fails each at once, so after 3 x 2 s; one
whose event loop hangs after 3 x 15 s. An engine core that hangs passes for well: vLLM's check asks only whether it has died."""

DRAIN_S = 30.0
"""How long a replica that stops is still handed requests, until every HAProxy knows of it. Ray's default, made explicit
because the time to shut down begins with it."""

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
        max_ongoing_requests=admitted + SPARE_REQUESTS,
        # For the burst that Serve sees before vLLM does; finite, because -1 would be without end.
        max_queued_requests=admitted + SPARE_REQUESTS,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        health_check_timeout_s=HEALTH_CHECK_TIMEOUT_S,
        graceful_shutdown_wait_loop_s=1.0,
        # An answer may begin in the last moment of the drain.
        graceful_shutdown_timeout_s=DRAIN_S + model.longest_answer_s + SHUTDOWN_MARGIN_S,
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
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": f"{DRAIN_S:g}",
        # What failed its health checks has no answers left to wait for, and would hold its GPUs while it drained.
        "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
        # While no replica runs, requests take Serve's fallback proxy and its gRPC; the default of 4 MiB refuses images.
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(catalog.limits.body_bytes + ENVELOPE_BYTES),
        # Prompts are nobody's to log.
        "RAYLLM_ENABLE_REQUEST_PROMPT_LOGS": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
