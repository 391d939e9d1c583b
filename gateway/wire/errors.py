"""OpenAI's error form."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from gateway.errors import GatewayError


def error_document(error: GatewayError) -> dict[str, Any]:
    """What the caller gets to read of `error`."""
    document = {"message": error.message, "type": error.type, "param": error.param, "code": error.error_code}
    return {"error": document if error.details is None else document | {"details": dict(error.details)}}


def error_response(error: GatewayError, headers: Mapping[str, str] | None = None) -> Response:
    """The whole answer that `error` is, with `headers` beside its own."""
    told = error.headers | dict(headers or {})
    return Response(orjson.dumps(error_document(error)), error.status, told, media_type="application/json")
