"""Whatever Ray, HAProxy or vLLM say when they do not answer, as our errors."""

import orjson

from gateway.errors import EngineErred, EngineRefused, EngineUnavailable, GatewayError

RETRY_AFTER_BUSY_S = 1
"""A full queue moves as soon as an answer ends."""

_UNDECODABLE_IMAGE = "Failed to load image"
_TOO_LONG = "maximum context length"


def failure(model: str, status: int, content_type: str, body: bytes, back_in_s: int) -> GatewayError:
    """The error that an engine's answer of another status than 200 stands for.

    `back_in_s` is when it makes sense to try again, should it turn out that no engine is there.
    """
    if status in (429, 503):
        # vLLM's own refusal, or in plain text Serve's: both are full queues.
        return EngineUnavailable(f"The model '{model}' is busy: its queue is full.", retry_after_s=RETRY_AFTER_BUSY_S)
    said = _vllm_error(content_type, body)
    if said is not None and status in (400, 422):
        return _refused(*said)
    if said is None and status in (404, 500, 502, 504):
        # Plain text comes from Ray or HAProxy: 404 without a route, 500 without a replica.
        return unreachable(model, back_in_s)
    return EngineErred(f"The engine of model '{model}' failed on this request.")


def failure_in_answer(model: str, error: bytes) -> GatewayError:
    """The error that comes with status 200, as an event or a body; `error` is its JSON. vLLM gives the status as `code`."""
    try:
        status = orjson.loads(error)["error"]["code"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        status = None
    return failure(model, status if isinstance(status, int) else 500, "application/json", error, back_in_s=0)


def unreachable(model: str, back_in_s: int) -> GatewayError:
    """The error for a model of which no engine is there."""
    return EngineUnavailable(f"The model '{model}' is not available right now.", retry_after_s=back_in_s)


def _refused(message: str, param: str | None) -> EngineRefused:
    if message.startswith(_UNDECODABLE_IMAGE):
        # The rest of vLLM's words is about its own objects.
        return EngineRefused("An image of the request cannot be decoded.", param="messages", reason="invalid_image")
    if _TOO_LONG in message:
        return EngineRefused(message, param=param or "messages", reason="context_length_exceeded")
    return EngineRefused(message, param=param)


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
