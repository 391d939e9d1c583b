"""Every instrument; docs/configuration.md lists them, and a test holds it to that."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The instruments of one gateway process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "fovea_requests",
            "Requests that have ended, by path, model and status; status 499 is a client that went away.",
            ("path", "model", "status"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "fovea_request_seconds",
            "Time from a request's first byte to its answer's last.",
            ("path", "model", "stream"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.first_byte_seconds = Histogram(
            "fovea_first_byte_seconds",
            "Time from a request's first byte to its answer's first: with a stream, close to the time to first token.",
            ("path", "model", "stream"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge("fovea_requests_in_flight", "Requests that are being answered.", registry=self.registry)
        self.body_bytes = Gauge(
            "fovea_body_bytes_in_flight", "Bytes of request bodies that the process holds.", registry=self.registry
        )
        self.model_available = Gauge(
            "fovea_model_available", "Whether engines of the model answer: 1, or 0.", ("model",), registry=self.registry
        )

    def exposition(self) -> bytes:
        """All instruments in the Prometheus text format."""
        return generate_latest(self.registry)
