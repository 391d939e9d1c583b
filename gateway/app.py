"""The application: routes, error handlers and the resources it opens and closes."""

import logging
import platform
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import __version__
from gateway.cache.flush import PATH as FLUSH_PATH
from gateway.cache.flush import Flush
from gateway.cache.key import model_identity
from gateway.cache.memory import MemoryResults
from gateway.cache.redis import RedisResults
from gateway.cache.results import ResultStore
from gateway.cache.single_flight import Flights
from gateway.cache.tiered import TieredResults
from gateway.catalog.models import MIB, Catalog
from gateway.drain import Drain
from gateway.errors import GatewayError, InternalError, MethodNotAllowed, PathNotFound, shortened
from gateway.images.digest import PixelDigests
from gateway.images.engine_ids import EngineIds
from gateway.images.fetch import ImageFetcher
from gateway.images.made import MadeImages
from gateway.images.shrunk import ShrunkImages
from gateway.images.sized import ImageLimits
from gateway.images.workers import PixelWorkers
from gateway.memory import BodyMemory
from gateway.pipeline.answers import Answers
from gateway.pipeline.chat import PATH, ChatCompletions
from gateway.pipeline.embed import PATH as EMBEDDINGS_PATH
from gateway.pipeline.embed import Embeddings
from gateway.pipeline.generate import Generation
from gateway.pipeline.images import Images
from gateway.pipeline.preview import ESTIMATE_PATH, ROUTE_PATH, Previews
from gateway.pipeline.route import Routes
from gateway.pipeline.vectors import VectorMaking
from gateway.pipeline.verdicts import StoredVerdicts
from gateway.pipeline.way_on import WayOn
from gateway.routing.budget import RetryBudget
from gateway.routing.choose import Present
from gateway.settings import Settings
from gateway.structured.grammar_client import GrammarClient
from gateway.structured.limits import SchemaLimits
from gateway.structured.promise import Promises
from gateway.telemetry.logs import log_event
from gateway.telemetry.metrics import CONTENT_TYPE, Metrics
from gateway.telemetry.request import RequestRecord, RequestTelemetry
from gateway.telemetry.tracing import tracing_to
from gateway.tenants.auth import RequireKey
from gateway.tenants.keys import KeyFile
from gateway.upstream.affinity import HotImages
from gateway.upstream.dispatch import Dispatch
from gateway.upstream.health import HealthProbe, ModelHealth, State
from gateway.upstream.openai_http import OpenAIHttpEngine
from gateway.upstream.presence import Presence
from gateway.upstream.provider_http import ProviderEngine
from gateway.upstream.provider_keys import read_provider_keys
from gateway.wire.errors import error_response
from gateway.wire.models import adapter_document, model_list, model_with_status, name_document

_PIXEL_DIGESTS = 16_384
"""How many are kept by each worker, in some 6 MB."""


def create_app(settings: Settings, catalog: Catalog, created: int, drain: Drain, metrics: Metrics) -> ASGIApp:
    """The gateway as one ASGI application; `created`, in seconds since 1970, is the models' age as the list tells it.

    Raises KeysError, ProviderKeysError: a file of keys cannot be used.
    """
    base = settings.engines_url.rstrip("/")
    urls = {name: model.own_engine_urls or [f"{base}/{name}"] for name, model in catalog.models.items()}
    probe = HealthProbe(urls, settings.engines_key)
    engine = OpenAIHttpEngine(probe, metrics.engine_requests, settings.connect_timeout_s, settings.engines_key)
    provider_keys = read_provider_keys(settings.provider_keys_file, catalog.providers)
    providers = ProviderEngine(catalog.providers, provider_keys, metrics.engine_requests, settings.connect_timeout_s)
    health: dict[str, ModelHealth | Presence] = {**probe.models, **providers.presences}
    tracing = tracing_to(settings.otlp_endpoint, settings.trace_ratio)
    memory = BodyMemory(settings.body_mib_in_flight * MIB // settings.workers, metrics.body_bytes.set)
    images = _images(settings)
    results, redis = _results(settings, metrics)
    flights = Flights()
    generation = Generation(
        images,
        Dispatch(engine, providers, catalog.providers),
        EngineIds((settings.engines_key or "").encode()),
        HotImages({name: model.concurrency for name, model in catalog.models.items()}),
        tracing,
        catalog.limits.body_bytes,
        metrics.broken,
    )
    answers = Answers(catalog, generation, results, flights, metrics.cached)
    grammars = GrammarClient(settings.grammar_url, StoredVerdicts(results, catalog), metrics.asked_about_grammar)
    promises = Promises(_schema_limits(settings))
    routes = Routes(catalog, partial(_present, health, engine, providers))
    budget = RetryBudget(max((model.places for model in catalog.generating.values()), default=1))
    chat = ChatCompletions(
        routes,
        images,
        promises,
        WayOn(routes, budget, metrics.went_on, grammars, answers),
        tracing,
        settings.request_timeout_s,
        catalog.limits.body_bytes,
        memory,
    )
    embeddings = Embeddings(
        catalog,
        {name: model_identity(name, model) for name, model in catalog.embedding.items()},
        images,
        VectorMaking(images, engine, tracing, catalog.limits.body_bytes),
        results,
        flights,
        metrics.cached,
        tracing,
        settings.request_timeout_s,
        memory,
    )
    pages = _Pages(catalog, routes, created, metrics, health, drain)
    previews = Previews(catalog, routes, images, promises, settings.request_timeout_s, memory)
    keys = KeyFile(settings.api_keys_file) if settings.api_keys_file else None
    flush = Flush(results, None if keys is None else settings.admins, _cannot_flush(settings))
    paths = [
        Route(PATH, chat, methods=["POST"]),
        Route(EMBEDDINGS_PATH, embeddings, methods=["POST"]),
        Route(ESTIMATE_PATH, previews.estimate, methods=["POST"]),
        Route(ROUTE_PATH, previews.route, methods=["POST"]),
        Route(FLUSH_PATH, flush.flush, methods=["DELETE"]),
        Route("/v1/models", pages.models),
        Route("/v1/models/{model:path}", pages.model),
        Route("/healthz", pages.healthz),
        Route("/readyz", pages.readyz),
        Route("/metrics", pages.metrics),
        Route("/version", pages.version),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with probe.running(), engine, providers, images.workers, redis, grammars, aclosing(flights):
            log_event("gateway_started", version=__version__, models=list(catalog.models))
            if keys is None:
                log_event("no_api_keys", logging.WARNING, reason="everybody who reaches this address is let in")
            if catalog.providers:
                hosts = {name: provider.host for name, provider in catalog.providers.items()}
                log_event("data_may_leave", logging.WARNING, providers=hosts)
            yield
        tracing.close()

    pages_app = Starlette(
        routes=paths,
        lifespan=lifespan,
        exception_handlers={
            GatewayError: _on_gateway_error,
            HTTPException: _on_http_exception,
            Exception: _on_defect,
        },
    )
    pages_app.router.redirect_slashes = False
    app: ASGIApp = _Straight(chat, pages_app)
    if keys is not None:
        app = RequireKey(app, keys)
    return RequestTelemetry(app, metrics, {route.endpoint: route.path_format for route in paths})


def _present(
    health: Mapping[str, ModelHealth | Presence], ours: OpenAIHttpEngine, theirs: ProviderEngine, name: str
) -> Present:
    known = health[name]
    is_there = known.state != State.UNAVAILABLE
    if isinstance(known, Presence):
        return Present(is_there, theirs.in_flight(name))
    return Present(is_there, ours.in_flight(name), ours.has_refused(name))


def _results(settings: Settings, metrics: Metrics) -> tuple[ResultStore, AbstractAsyncContextManager[object]]:
    """Where answers are stored, and what is to be open for that."""
    answer_bytes = settings.cache_answer_kib * 1024
    memory = MemoryResults(settings.cache_mib * MIB, time.time, answer_bytes, metrics.cache_memory_bytes.set)
    if settings.redis_url is None:
        return memory, nullcontext()
    redis = RedisResults(
        settings.redis_url.get_secret_value(),
        settings.redis_budget_s,
        answer_bytes,
        metrics.cache_failed,
        opened=metrics.cache_breaker_open.set,
    )
    return TieredResults(memory, redis), redis


def _cannot_flush(settings: Settings) -> str | None:
    if settings.redis_url is not None or settings.workers == 1:
        return None
    return f"Each of the {settings.workers} workers keeps answers of its own (no FOVEA_REDIS_URL): restart the gateway instead."


def _schema_limits(settings: Settings) -> SchemaLimits:
    return SchemaLimits(**{field.name: getattr(settings, field.name) for field in fields(SchemaLimits)})


def _images(settings: Settings) -> Images:
    limits = ImageLimits(
        image_mib=settings.image_mib,
        images_mib=settings.images_mib,
        image_megapixels=settings.image_megapixels,
        image_side_pixels=settings.image_side_pixels,
        image_min_side_pixels=settings.image_min_side_pixels,
        image_aspect=settings.image_aspect,
    )
    fetcher = ImageFetcher(
        schemes=frozenset(settings.image_url_schemes),
        allowed_hosts=frozenset(settings.image_url_hosts),
        max_bytes=int(settings.image_mib * MIB),
        at_once=settings.image_fetches,
        total_s=settings.image_fetch_s,
    )
    workers = PixelWorkers(
        processes=settings.pixel_processes,
        memory_mib=settings.image_memory_mib,
        timeout_s=settings.image_decode_s,
        max_pixels=int(settings.image_megapixels * 1e6),
    )
    made = MadeImages(workers, ShrunkImages(settings.shrunk_images_mib * MIB), PixelDigests(_PIXEL_DIGESTS))
    return Images(limits, fetcher, workers, made)


@dataclass(frozen=True, slots=True, eq=False)
class _Straight:
    """Completions go past Starlette's router and error handlers, a tenth of what the gateway itself does for a request."""

    chat: ChatCompletions
    others: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self.others(scope, receive, send)
            return
        scope["endpoint"] = self.chat
        try:
            await self.chat(scope, receive, send)
        except Exception as error:
            if not RequestRecord.of(scope).is_answering:
                await _on_defect(Request(scope), error)(scope, receive, send)
            raise  # uvicorn logs the traceback


@dataclass(frozen=True, slots=True, eq=False)
class _Pages:
    """Everything that is answered without an engine."""

    catalog: Catalog
    routes: Routes
    created: int
    instruments: Metrics
    health: Mapping[str, ModelHealth | Presence]
    drain: Drain

    async def models(self, _: Request) -> Response:
        aliases = {alias: self.routes.models(alias) for alias in self.catalog.routing.aliases}
        return _json(model_list(self.catalog, aliases, self.created))

    async def model(self, request: Request) -> Response:
        name = request.path_params["model"]
        models = self.routes.models(name)
        answerer = self.catalog.models.get(name) or self.catalog.providers.get(name)
        if answerer is not None:
            return _json(model_with_status(name, answerer, self.created, self.health[name].state))
        if name in self.catalog.adapters:
            parent, _ = self.catalog.adapters[name]
            document = adapter_document(name, parent, self.catalog.models[parent], self.created)
            return _json(document | {"status": self.health[parent].state})
        states = {self.health[model].state for model in models}
        state = next((state for state in (State.AVAILABLE, State.UNKNOWN) if state in states), State.UNAVAILABLE)
        return _json(name_document(name, self.catalog, models, self.created) | {"status": state})

    async def healthz(self, _: Request) -> Response:
        return PlainTextResponse("ok")

    async def readyz(self, _: Request) -> Response:
        """About this process alone: an engine that is away makes no gateway unready."""
        return PlainTextResponse("draining", 503) if self.drain.begun else PlainTextResponse("ready")

    async def metrics(self, _: Request) -> Response:
        for name, model in self.health.items():
            self.instruments.model_available.labels(name).set(model.state == State.AVAILABLE)
        return Response(self.instruments.exposition(), media_type=CONTENT_TYPE)

    async def version(self, _: Request) -> Response:
        return _json({"version": __version__, "python": platform.python_version()})


def _json(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")


def _on_gateway_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    return error_response(error)


def _on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: a path that does not exist, or not with this method."""
    assert isinstance(error, HTTPException)
    path = f"{request.method} {shortened(request.url.path)}"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return _on_gateway_error(request, MethodNotAllowed(f"{path} is not allowed; {allowed} is.", allowed=allowed))
    return _on_gateway_error(request, PathNotFound(f"Nothing answers {path}."))


def _on_defect(request: Request, error: Exception) -> Response:
    log_event("defect", logging.ERROR, request_id=RequestRecord.of(request.scope).request_id, kind=type(error).__name__)
    return error_response(InternalError("The gateway failed on this request."))
