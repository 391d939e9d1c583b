"""One request: its id, what became of it, in the response, the metrics and the log."""

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import GatewayError
from gateway.telemetry.logs import log_event
from gateway.telemetry.metrics import Metrics, Series

REQUEST_ID_HEADER = "x-request-id"
CLIENT_CLOSED_REQUEST = 499

_UNKNOWN_PATH = "other"
"""One label for every path that does not exist, or whoever scans us would fill the registry."""


@dataclass(slots=True)
class RequestRecord:
    """What is known of a request so far. It lives in the ASGI scope, for whoever answers to add to."""

    request_id: str
    started_s: float
    tenant: str = ""
    """The name of the API key; empty where no keys are asked for."""
    model: str = ""
    served: str = ""
    """What requests call the model: with its adapter, if it is asked for with one."""
    route: str = ""
    """How the request came to the model, as the response says it."""
    stream: bool = False
    status: int = 500
    first_byte_s: float | None = None
    is_answering: bool = False
    left_early: bool = False
    broke_off: int | None = None

    @classmethod
    def of(cls, scope: Scope) -> "RequestRecord":
        record = scope["fovea.request"]
        assert isinstance(record, RequestRecord)
        return record

    def routed(self, model: str, *, stream: bool) -> None:
        """The request goes to `model`."""
        self.model = model
        self.stream = stream

    def asked_of(self, model: str, served: str, route: str) -> None:
        """The model has been chosen, or the next one has; `served` is what it is called, the adapter included."""
        self.model = model
        self.served = served
        self.route = route

    def disconnected(self) -> None:
        """The client went away before it had its answer."""
        self.left_early = True

    def failed(self, error: GatewayError) -> None:
        """The request fails for a reason that is not the caller's; the cause goes to the log, and there only.

        A stream that breaks off has long been answered with 200: here it counts by the status that it deserves.
        """
        self.broke_off = error.status
        cause = repr(error.__cause__) if error.__cause__ else None
        log_event("request_failed", logging.WARNING, request_id=self.request_id, reason=error.logged, cause=cause)

    @property
    def final_status(self) -> int:
        if self.left_early:
            return CLIENT_CLOSED_REQUEST
        return self.broke_off or self.status


class RequestTelemetry:
    """Middleware around everything else: gives a request its id and records its end.

    `paths` holds the path of each endpoint, by which requests are counted; `clock` gives seconds that only grow.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, paths: Mapping[object, str], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(request_id=secrets.token_hex(16), started_s=self._clock())
        inner = {**scope, "fovea.request": record}
        # Who asks first whether to send the body (RFC 9110, 10.1.1) and is refused may keep it to himself: then nobody can
        # tell where his next request begins, unless the connection ends here.
        unread = any(name == b"expect" for name, _ in scope["headers"])

        async def receive_recorded() -> Message:
            nonlocal unread
            unread = False
            return await receive()

        async def send_recorded(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                record.is_answering = True
                message["headers"] = [*message["headers"], (REQUEST_ID_HEADER.encode(), record.request_id.encode())]
                if unread:
                    message["headers"].append((b"connection", b"close"))
            elif record.first_byte_s is None and message.get("body"):
                record.first_byte_s = self._clock()
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(inner, receive_recorded, send_recorded)
            finally:
                # The router has written into the scope where the request went.
                self._record_end(record, self._paths.get(inner.get("endpoint"), _UNKNOWN_PATH))

    def _record_end(self, record: RequestRecord, path: str) -> None:
        seconds = self._clock() - record.started_s
        first_byte_s = None if record.first_byte_s is None else record.first_byte_s - record.started_s
        series = Series(path, record.model, "true" if record.stream else "false")
        self._metrics.ended(series, record.final_status, seconds, first_byte_s)
        log_event(
            "request_ended",
            logging.DEBUG if path in ("/healthz", "/readyz", "/metrics") else logging.INFO,
            request_id=record.request_id,
            path=path,
            model=record.model,
            route=record.route,
            stream=record.stream,
            status=record.final_status,
            seconds=round(seconds, 4),
        )
