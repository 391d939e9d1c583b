"""Traces of requests, by OpenTelemetry: off unless an OTLP endpoint is set.

A request is one tree: a server span, the caller's `traceparent` its parent; below it a span for each step, the last of them
the call of the engine, with the attributes of the GenAI semantic conventions. The engine gets that span's `traceparent`.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway import __version__

_SCOPE = "fovea.gateway"
_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing(Protocol):
    """Makes the spans of requests."""

    def request(self, route: str, headers: Mapping[str, str], request_id: str) -> AbstractContextManager[trace.Span]:
        """The span of a whole request."""
        ...

    def step(self, name: str) -> AbstractContextManager[trace.Span]:
        """The span of a step within the current request."""
        ...

    def engine_call(
        self, model: str, headers: Mapping[str, str], operation: str = "chat"
    ) -> AbstractContextManager[Mapping[str, str]]:
        """The span of the engine's part; gives the headers by which the engine can go on with the trace.

        `headers` are the caller's.
        """
        ...

    def close(self) -> None:
        """Sends what has not been sent yet."""
        ...


def tracing_to(endpoint: str | None, ratio: float) -> Tracing:
    """Tracing to `endpoint` (OTLP over HTTP), or none.

    `ratio` of the traces that no caller has begun are kept; of those that one has, what the caller decided.
    """
    return OtlpTracing(endpoint, ratio) if endpoint else NoTracing()


class NoTracing:
    """Makes no spans, and passes on the caller's: OpenTelemetry's own stand-ins cost as much as the parsing of a request."""

    _SPAN = nullcontext(trace.INVALID_SPAN)
    _HEADERS: AbstractContextManager[Mapping[str, str]] = nullcontext({})

    def request(self, route: str, headers: Mapping[str, str], request_id: str) -> AbstractContextManager[trace.Span]:  # noqa: ARG002
        return self._SPAN

    def step(self, name: str) -> AbstractContextManager[trace.Span]:  # noqa: ARG002
        return self._SPAN

    def engine_call(
        self,
        model: str,  # noqa: ARG002
        headers: Mapping[str, str],
        operation: str = "chat",  # noqa: ARG002
    ) -> AbstractContextManager[Mapping[str, str]]:
        if "traceparent" not in headers:
            return self._HEADERS
        passed_on: dict[str, str] = {}
        _PROPAGATOR.inject(passed_on, _PROPAGATOR.extract(headers))
        return nullcontext(passed_on)

    def close(self) -> None:
        pass


class OtlpTracing:
    """Makes the spans of requests, and sends them to `endpoint` as long as it is not closed."""

    def __init__(self, endpoint: str, ratio: float) -> None:
        self._provider = _provider(endpoint, ratio)
        self._tracer = self._provider.get_tracer(_SCOPE, __version__)

    def request(self, route: str, headers: Mapping[str, str], request_id: str) -> AbstractContextManager[trace.Span]:
        attributes = {"http.request.method": "POST", "http.route": route, "fovea.request_id": request_id}
        return self._span(f"POST {route}", SpanKind.SERVER, attributes, _PROPAGATOR.extract(headers))

    def step(self, name: str) -> AbstractContextManager[trace.Span]:
        return self._span(name)

    @contextmanager
    def engine_call(self, model: str, headers: Mapping[str, str], operation: str = "chat") -> Iterator[Mapping[str, str]]:  # noqa: ARG002
        attributes = {"gen_ai.operation.name": operation, "gen_ai.provider.name": "vllm", "gen_ai.request.model": model}
        with self._span(f"{operation} {model}", SpanKind.CLIENT, attributes) as span:
            passed_on: dict[str, str] = {}
            _PROPAGATOR.inject(passed_on)
            try:
                yield passed_on
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                raise

    def _span(
        self,
        name: str,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: dict[str, str] | None = None,
        context: Context | None = None,
    ) -> AbstractContextManager[trace.Span]:
        # Messages of exceptions can repeat a caller's words, and a caller's mistake is no error of ours: so neither is
        # written by itself.
        return self._tracer.start_as_current_span(
            name, context, kind, attributes, record_exception=False, set_status_on_exception=False
        )

    def close(self) -> None:
        self._provider.shutdown()


def tell_end(span: trace.Span, model: str, status: int) -> None:
    """Writes into a request's span what became of it."""
    span.set_attribute("http.response.status_code", status)
    if model:
        span.set_attribute("gen_ai.request.model", model)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))


def _provider(endpoint: str, ratio: float) -> TracerProvider:
    # `create` adds what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say.
    resource = Resource.create({SERVICE_NAME: "fovea-gateway", SERVICE_VERSION: __version__})
    provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(ratio)), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    return provider
