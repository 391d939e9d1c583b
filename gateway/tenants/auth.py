"""The middleware that asks for an API key."""

from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import InvalidApiKey
from gateway.telemetry.request import RequestRecord
from gateway.wire.errors import error_response

_OPEN = frozenset({"/healthz", "/readyz"})
"""Who asks after our health (a kubelet) has no key."""


_REFUSAL = InvalidApiKey("This gateway asks for an API key it knows: send it as 'Authorization: Bearer <key>'.")


class Keys(Protocol):
    """What is needed of a store of keys."""

    def name_of(self, key: str) -> str | None:
        """Whose key it is; None where it is nobody's."""
        ...


class RequireKey:
    """Lets only requests with a key pass, to whatever path. No key, a wrong one and one badly sent get one answer."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in _OPEN:
            name = self._keys.name_of(_bearer(scope))
            if name is None:
                await error_response(_REFUSAL)(scope, receive, send)
                return
            RequestRecord.of(scope).tenant = name
        await self._app(scope, receive, send)


def _bearer(scope: Scope) -> str:
    """The key in the Authorization header; empty where there is none, which is nobody's key."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, key = values[0].decode("latin-1").partition(" ") if len(values) == 1 else ("", "", "")
    return str(key.strip()) if scheme.lower() == "bearer" else ""
