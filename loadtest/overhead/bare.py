"""The gateway without its metrics, its log of requests and their ids: what remains is what forwarding costs.

The gateway has no switch for that, and needs none. So its composition is changed here, from outside; all else is as it is.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import server
from gateway.__main__ import main
from gateway.app import create_app
from gateway.catalog.models import Catalog
from gateway.drain import Drain
from gateway.settings import Settings
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.request import RequestRecord, RequestTelemetry


class Unrecorded:
    """Stands where RequestTelemetry stands, and only gives requests the record that everything within counts on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "fovea.request": RequestRecord("bench", 0.0)}, receive, send)


def create_bare_app(settings: Settings, catalog: Catalog, created: int, drain: Drain, metrics: Metrics) -> ASGIApp:
    """See `gateway.app.create_app`."""
    app = create_app(settings, catalog, created, drain, metrics)
    assert isinstance(app, RequestTelemetry)
    return Unrecorded(app._app)  # noqa: SLF001 - nobody else has a use for it


if __name__ == "__main__":
    server.create_app = create_bare_app  # type: ignore[attr-defined]
    main()
