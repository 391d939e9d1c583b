"""OpenAI's error form."""

from typing import Any

from gateway.errors import GatewayError


def error_document(error: GatewayError) -> dict[str, Any]:
    """What the caller gets to read of `error`."""
    return {
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.error_code},
    }
