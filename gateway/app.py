"""The application: routes, error handlers and the resources it opens and closes."""

import logging
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gateway import __version__
from gateway.catalog.models import Catalog
from gateway.errors import GatewayError, InternalError, MethodNotAllowed, PathNotFound, shortened
from gateway.pipeline.chat import ChatCompletions, unknown_model
from gateway.settings import Settings
from gateway.telemetry.logs import log_event
from gateway.telemetry.metrics import CONTENT_TYPE, Metrics
from gateway.telemetry.request import RequestRecord, RequestTelemetry
from gateway.upstream.openai_http import OpenAIHttpEngine
from gateway.wire.errors import error_document
from gateway.wire.models import model_document, model_list


def create_app(settings: Settings, catalog: Catalog, created: int) -> ASGIApp:
    """The gateway as one ASGI application; `created`, in seconds since 1970, is the models' age as the list tells it."""
    metrics = Metrics()
    urls = {name: model.engine_url or f"{settings.engines_url.rstrip('/')}/{name}" for name, model in catalog.models.items()}
    engine = OpenAIHttpEngine(urls, settings.connect_timeout_s)
    pages = _Pages(catalog, created, metrics)
    routes = [
        Route("/v1/chat/completions", ChatCompletions(catalog, engine), methods=["POST"]),
        Route("/v1/models", pages.models),
        Route("/v1/models/{model}", pages.model),
        Route("/healthz", pages.healthz),
        Route("/readyz", pages.readyz),
        Route("/metrics", pages.metrics),
        Route("/version", pages.version),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with engine:
            log_event("gateway_started", version=__version__, models=list(catalog.models))
            yield

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={
            GatewayError: _on_gateway_error,
            HTTPException: _on_http_exception,
            Exception: _on_defect,
        },
    )
    app.router.redirect_slashes = False
    return RequestTelemetry(app, metrics, {route.endpoint: route.path for route in routes})


class _Pages:
    """Everything that is answered without an engine."""

    def __init__(self, catalog: Catalog, created: int, metrics: Metrics) -> None:
        self._catalog = catalog
        self._created = created
        self._metrics = metrics

    async def models(self, _: Request) -> Response:
        return _json(model_list(self._catalog.models, self._created))

    async def model(self, request: Request) -> Response:
        name = request.path_params["model"]
        model = self._catalog.models.get(name)
        if model is None:
            raise unknown_model(name, self._catalog)
        return _json(model_document(name, model, self._created))

    async def healthz(self, _: Request) -> Response:
        return PlainTextResponse("ok")

    async def readyz(self, _: Request) -> Response:
        return PlainTextResponse("ready")

    async def metrics(self, _: Request) -> Response:
        return Response(self._metrics.exposition(), media_type=CONTENT_TYPE)

    async def version(self, _: Request) -> Response:
        return _json({"version": __version__, "python": platform.python_version()})


def _json(document: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(document), status, headers, media_type="application/json")


def _on_gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    if error.status >= 500:
        RequestRecord.of(request.scope).failed(error, error.status)
    return _json(error_document(error), error.status, error.headers)


def _on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: a path that does not exist, or not with this method."""
    assert isinstance(error, HTTPException)
    path = f"{request.method} {shortened(request.url.path)}"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return _on_gateway_error(request, MethodNotAllowed(f"{path} is not allowed; {allowed} is.", allowed=allowed))
    return _on_gateway_error(request, PathNotFound(f"Nothing answers {path}."))


def _on_defect(request: Request, error: Exception) -> Response:
    # Starlette raises it again behind this, and uvicorn logs the traceback.
    log_event("defect", logging.ERROR, request_id=RequestRecord.of(request.scope).request_id, kind=type(error).__name__)
    return _json(error_document(InternalError("The gateway failed on this request.")), InternalError.status)
