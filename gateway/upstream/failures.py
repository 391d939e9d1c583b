"""Whatever Ray, HAProxy or vLLM say when they do not answer, as our errors."""

import orjson

from gateway.errors import EngineFailed, EngineRefused, EngineUnavailable, GatewayError

RETRY_AFTER_BUSY_S = 1
"""A full queue moves as soon as an answer ends."""

RETRY_AFTER_DOWN_S = 10
"""An engine that is gone takes tens of seconds to come back."""

_UNDECODABLE_IMAGE = "Failed to load image"


def failure(model: str, status: int, content_type: str, body: bytes) -> GatewayError:
    """The error that an engine's answer of another status than 200 stands for."""
    said = _vllm_error(content_type, body)
    if said is None:
        return _not_vllm(model, status)
    message, param = said
    if status in (429, 503):
        return EngineUnavailable(f"The model '{model}' is busy: its queue is full.", retry_after_s=RETRY_AFTER_BUSY_S)
    if 400 <= status < 500:
        if message.startswith(_UNDECODABLE_IMAGE):
            # The rest of vLLM's words is about its own objects.
            return EngineRefused("An image of the request cannot be decoded.", status=400, param="messages")
        return EngineRefused(message, status=status, param=param)
    return EngineFailed(f"The engine of model '{model}' failed on this request.")


def unreachable(model: str) -> GatewayError:
    """The error for an engine to which no connection could be made."""
    return EngineUnavailable(f"The model '{model}' is not available right now.", retry_after_s=RETRY_AFTER_DOWN_S)


def _not_vllm(model: str, status: int) -> GatewayError:
    """Plain text comes from Ray or HAProxy: 404 without a route, 503 on a full queue, 500 without a replica."""
    if status in (404, 500, 502, 503, 504):
        return unreachable(model)
    return EngineFailed(f"The engine of model '{model}' gave no usable answer.")


def _vllm_error(content_type: str, body: bytes) -> tuple[str, str | None] | None:
    """vLLM's message and parameter, where `body` is in its error form."""
    if not content_type.startswith("application/json"):
        return None
    try:
        error = orjson.loads(body)["error"]
        message, param = error["message"], error.get("param")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
    return str(message), param if isinstance(param, str) else None
