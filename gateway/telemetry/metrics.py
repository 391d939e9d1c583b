"""Every instrument; docs/configuration.md lists them, and a test holds it to that."""

import pathlib

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

CONTENT_TYPE = CONTENT_TYPE_LATEST
METRICS_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client looks for the folder that several workers write into."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The instruments of one gateway process, in a registry of their own; of several workers, those who share `folder`."""

    def __init__(self, folder: pathlib.Path | None = None) -> None:
        self._folder = folder
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
        self.in_flight = self._gauge("fovea_requests_in_flight", "Requests that are being answered.")
        self.engine_requests = self._gauge(
            "fovea_engine_requests_in_flight", "Requests that an engine of the model is answering.", "model"
        )
        self.body_bytes = self._gauge("fovea_body_bytes_in_flight", "Bytes of request bodies that are held.")
        self.model_available = Gauge(
            "fovea_model_available",
            "Whether engines of the model answer: 1, or 0.",
            ("model",),
            registry=self.registry,
            multiprocess_mode="livemostrecent",
        )

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        """One of which the workers that live each have a part."""
        return Gauge(name, meaning, labels, registry=self.registry, multiprocess_mode="livesum")

    def exposition(self) -> bytes:
        """All instruments, of all workers, in the Prometheus text format."""
        if self._folder is None:
            return generate_latest(self.registry)
        of_all = CollectorRegistry()
        MultiProcessCollector(of_all, str(self._folder))  # type: ignore[no-untyped-call]
        return generate_latest(of_all)


def metrics_of_worker(folder: pathlib.Path, worker: int) -> Metrics:
    """The instruments of a worker, by its number, in the files of `folder`.

    The next worker of that number counts on where one that was killed has stopped, so that no count is lost.
    """
    # prometheus_client's own way to name the files by something else than the process's id.
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]
    return Metrics(folder)


def forget_worker(folder: pathlib.Path, worker: int) -> None:
    """What a worker that died was doing it does no more."""
    mark_process_dead(worker, str(folder))  # type: ignore[no-untyped-call]
