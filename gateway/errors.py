"""The exception tree. Whatever refuses or fails raises one of these; `app.py` turns it into OpenAI's error form, once.

GatewayError
├── RequestError                400  the caller can mend it
│   ├── MalformedJson           400  the body is not JSON
│   ├── InvalidField            400  a field has the wrong type or value
│   │   └── EngineRefused       400  the engine found fault with the request, in its own words
│   ├── UnknownField            400  no such field
│   ├── UnsupportedField        400  a field that exists elsewhere, with what to use instead
│   ├── InvalidImage            400  an image that cannot be taken
│   │   └── ImageOverLimit      400  an image, or all of a request's, beyond a limit that the message names
│   ├── InvalidVideo            400  a video that cannot be taken
│   ├── SchemaRefused           400  a schema whose promise could not be kept
│   │   └── SchemaOverLimit     400  a schema beyond a limit that the message names
│   ├── NoModelFits             400  of several models that may answer none takes the request
│   ├── InvalidApiKey           401
│   ├── NotAnAdmin              403
│   ├── ModelNotFound           404
│   ├── PathNotFound            404
│   ├── MethodNotAllowed        405
│   ├── BodyTooSlow             408  the body did not come within the request's deadline
│   ├── BodyTooLarge            413
│   └── UnsupportedMediaType    415
├── TryLater                    503  comes with Retry-After
│   ├── Overloaded              503  the gateway holds as many bytes, or fetches as many images, as it may
│   ├── EngineUnavailable       503  no engine could take it
│   │   └── EngineLost          503  it had the request and is gone, for which that may be why
│   └── CacheUnavailable        503  the store of answers could not be flushed
├── EngineFailed                502  the engine gave no usable answer
│   ├── EngineErred             502  it lives, and says that it failed on the request, which may be why
│   └── EnginesFailed           502  two of them in turn
├── IncompleteJson              502  what it answered is not the JSON that was promised
├── DeadlineExceeded            504  the answer did not come within the request's deadline
├── NotCached                   504  the caller takes stored answers only, and there is none
└── InternalError               500  ours

The caller of a status of 500 and above learns nothing of what is inside; the log does.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

_SHOWN_CHARACTERS = 100


def shortened(text: str) -> str:
    """What of a caller's own words a message repeats: at most 100 characters."""
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


class GatewayError(Exception):
    """A request that ends in an error.

    `message`, `param`, a path such as `messages[0].role`, and `details`, which a program can read, are for the caller.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = None if param is None else shortened(param)
        self.details = details

    @property
    def error_code(self) -> str | None:
        return self.code

    @property
    def headers(self) -> dict[str, str]:
        return {}

    @property
    def logged(self) -> str:
        """What the log says of it."""
        return self.message


class RequestError(GatewayError):
    """The caller can mend it."""

    status = 400
    type = "invalid_request_error"
    code: ClassVar[str | None] = None


class MalformedJson(RequestError):
    """The body is not a JSON object."""

    code = "invalid_json"


class InvalidField(RequestError):
    """A field is missing, or has the wrong type or value; `reason` says which, as OpenAI's own codes do."""

    code = "invalid_value"

    def __init__(self, message: str, *, param: str | None, reason: str = "invalid_value") -> None:
        super().__init__(message, param=param)
        self._reason = reason

    @property
    def error_code(self) -> str:
        return self._reason


class UnknownField(RequestError):
    """A field that neither OpenAI nor Fovea knows."""

    code = "unknown_parameter"


class UnsupportedField(RequestError):
    """A field that means something elsewhere; the message says what to use instead."""

    code = "unsupported_parameter"


class InvalidImage(RequestError):
    """An image that cannot be taken: its source, its encoding or its format."""

    code = "invalid_image"


class ImageOverLimit(InvalidImage):
    """An image beyond a limit, which the message names with its value and the image's own."""

    code = "image_over_limit"


class InvalidVideo(RequestError):
    """A video that cannot be taken: its source, its encoding or its format."""

    code = "invalid_video"


class SchemaRefused(RequestError):
    """A schema, or what else is to constrain an answer, whose promise could not be kept; the message says what and why."""

    code = "schema_refused"


class SchemaOverLimit(SchemaRefused):
    """A schema beyond a limit, which the message names with its value and the schema's own."""

    code = "schema_over_limit"


class NoModelFits(RequestError):
    """Several models may answer, and none takes the request; the message says what each lacks."""

    code = "no_model_fits"


class InvalidApiKey(RequestError):
    """The request has no key, or none of ours: the message is the same."""

    status = 401
    code = "invalid_api_key"

    @property
    def headers(self) -> dict[str, str]:
        return {"www-authenticate": "Bearer"}


class NotAnAdmin(RequestError):
    """The key is a good one, and not one of those that may do this."""

    status = 403
    code = "not_an_admin"


class ModelNotFound(RequestError):
    """The catalog has no such model."""

    status = 404
    code = "model_not_found"


class PathNotFound(RequestError):
    """Nothing answers under the path."""

    status = 404
    code = "path_not_found"


class MethodNotAllowed(RequestError):
    """The path answers, but not to this method."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: str) -> None:
        super().__init__(message)
        self._allowed = allowed

    @property
    def headers(self) -> dict[str, str]:
        return {"allow": self._allowed}


class BodyTooSlow(RequestError):
    """The body did not come within the request's deadline."""

    status = 408
    code = "request_timeout"


class BodyTooLarge(RequestError):
    """The body is over the catalog's `limits.body_mib`."""

    status = 413
    code = "body_too_large"


class UnsupportedMediaType(RequestError):
    """The body is compressed, or is said not to be JSON."""

    status = 415
    code = "unsupported_media_type"


class EngineRefused(InvalidField):
    """The engine found fault with the request, in its own words."""


class TryLater(GatewayError):
    """Trying again after `retry_after_s` seconds makes sense."""

    status = 503

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": str(self.retry_after_s)}


class Overloaded(TryLater):
    """The gateway holds as many bytes of bodies as it may."""

    code = "overloaded"


class EngineUnavailable(TryLater):
    """No engine of the model could take the request."""

    code = "model_unavailable"


class EngineLost(EngineUnavailable):
    """An engine had the request, and is not there any more: something in it may be why."""


class EngineFailed(GatewayError):
    """The engine took the request and gave no usable answer."""

    status = 502
    code = "engine_error"


class EngineErred(EngineFailed):
    """The engine lives, and says that it failed on this request: something in it may be why."""


class EnginesFailed(EngineFailed):
    """Two engines in turn took the request and gave no usable answer: most likely it is why, and no third is asked."""

    @property
    def headers(self) -> dict[str, str]:
        # The SDK would ask both of them twice more.
        return {"x-should-retry": "false"}


class IncompleteJson(GatewayError):
    """The engine's answer is cut off, or not what was promised; `details` has what was produced."""

    status = 502
    code = "incomplete_json"

    @property
    def logged(self) -> str:
        """Not its message, which has words of the answer."""
        return f"incomplete_json: {(self.details or {}).get('reason')}"

    @property
    def headers(self) -> dict[str, str]:
        # It was tried twice where that could help; the SDK would try twice more.
        return {"x-should-retry": "false"}


class DeadlineExceeded(GatewayError):
    """The answer did not come within the request's deadline."""

    status = 504
    code = "deadline_exceeded"


class NotCached(GatewayError):
    """The caller takes stored answers only (RFC 9111, only-if-cached), and there is none."""

    status = 504
    code = "not_cached"

    @property
    def headers(self) -> dict[str, str]:
        # The SDK would ask twice more, as it does on every 5xx.
        return {"x-should-retry": "false"}


class CacheUnavailable(TryLater):
    """The store of answers could not be reached to be flushed; no completion fails for that."""

    code = "cache_unavailable"


class InternalError(GatewayError):
    """A defect of the gateway's own."""
