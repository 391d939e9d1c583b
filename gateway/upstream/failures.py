"""Whatever Ray, HAProxy or vLLM say when they do not answer, as our errors."""

import orjson

from gateway.errors import EngineErred, EngineLost, EngineRefused, EngineUnavailable, GatewayError

RETRY_AFTER_BUSY_S = 1
"""A full queue moves as soon as an answer ends."""

BUSY = (429, 503)
"""vLLM's own refusal, or in plain text Serve's: both are full queues."""

_UNDECODABLE_IMAGE = "Failed to load image"
_NO_VIDEO = ("Could not open video stream", "Cannot get size of empty video")
_NO_PROCESSING = ("Failed to apply ", "'videos': ")
"""What vLLM 0.32 says, beside its own objects and pixels, of a video that opens and of which its processor makes nothing."""
_TOO_LONG = ("maximum context length", "exceeds the pre-allocated encoder cache size")
"""A video may also be of more tokens than vLLM has set memory aside for: another model may hold it."""
_TOO_LONG_CODE = "context_length_exceeded"


def failure(model: str, status: int, content_type: str, body: bytes, back_in_s: int) -> GatewayError:
    """The error that an engine's answer of another status than 200 stands for.

    `back_in_s` is when it makes sense to try again, should it turn out that no engine is there.
    """
    if status in BUSY:
        return EngineUnavailable(f"The model '{model}' is busy: its queue is full.", retry_after_s=RETRY_AFTER_BUSY_S)
    said = _vllm_error(content_type, body)
    if said is not None and status in (400, 422):
        return _refused(*said)
    if status == 404 or (said is None and status == 500):
        # Plain text comes from Ray or HAProxy: 404 without a route, 500 without a replica. vLLM's own 404 is a replica that
        # does not know the name yet: its adapter comes with the rolling update that is under way.
        return unreachable(model, back_in_s)
    if said is None and status in (502, 504):
        return lost(model, back_in_s)
    return EngineErred(f"The engine of model '{model}' failed on this request.")


def refusal(content_type: str, body: bytes, secret: str | None) -> EngineRefused | None:
    """What a provider finds wrong with a request, in its words, less our `secret` should it repeat that; None without words."""
    said = _vllm_error(content_type, body)
    if said is None:
        return None
    message, param, code = said
    if secret:
        message, param = message.replace(secret, "***"), param and param.replace(secret, "***")
    return _refused(message, param, code)


def failure_in_answer(model: str, error: bytes) -> GatewayError:
    """The error that comes with status 200, as an event or a body; `error` is its JSON. vLLM gives the status as `code`."""
    try:
        status = orjson.loads(error)["error"]["code"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        status = None
    return failure(model, status if isinstance(status, int) else 500, "application/json", error, back_in_s=0)


def unreachable(model: str, back_in_s: int) -> GatewayError:
    """The error for a model of which no engine is there."""
    return EngineUnavailable(_not_available(model), retry_after_s=back_in_s)


def lost(model: str, back_in_s: int) -> GatewayError:
    """The error for a model whose engine had the request, and went away with it."""
    return EngineLost(_not_available(model), retry_after_s=back_in_s)


def _not_available(model: str) -> str:
    return f"The model '{model}' is not available right now."


def _refused(message: str, param: str | None, code: str | None) -> EngineRefused:
    if message.startswith(_UNDECODABLE_IMAGE):
        # The rest of vLLM's words is about its own objects.
        return EngineRefused("An image of the request cannot be decoded.", param="messages", reason="invalid_image")
    if message.startswith(_NO_VIDEO) or all(words in message for words in _NO_PROCESSING):
        return EngineRefused("A video of the request cannot be decoded.", param="messages", reason="invalid_video")
    if any(words in message for words in _TOO_LONG) or code == _TOO_LONG_CODE:
        return EngineRefused(message, param=param or "messages", reason=_TOO_LONG_CODE)
    return EngineRefused(message, param=param)


def _vllm_error(content_type: str, body: bytes) -> tuple[str, str | None, str | None] | None:
    """The message, parameter and code of an error in OpenAI's form, if `body` is one; as a code vLLM has a number."""
    if not content_type.startswith("application/json"):
        return None
    try:
        error = orjson.loads(body)["error"]
        message, param, code = error["message"], error.get("param"), error.get("code")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
    return str(message), param if isinstance(param, str) else None, code if isinstance(code, str) else None
