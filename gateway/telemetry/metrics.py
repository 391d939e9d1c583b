"""Every instrument; docs/configuration.md lists them, and a test holds it to that."""

import pathlib
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

CONTENT_TYPE = CONTENT_TYPE_LATEST
METRICS_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client looks for the folder that several workers write into."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Series(NamedTuple):
    """What the times of requests are told apart by; `stream` is "true" or "false"."""

    path: str
    model: str
    stream: str


class Metrics:
    """The instruments of one gateway process, in a registry of their own; of several workers, those who share `folder`."""

    def __init__(self, folder: pathlib.Path | None = None) -> None:
        self._folder = folder
        self._of_series: dict[Series, tuple[Histogram, Histogram, dict[int, Counter]]] = {}
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
        self.cache_requests = Counter(
            "fovea_cache_requests",
            "Completions and embeddings by what the cache did for them: hit, miss, joined or bypass.",
            ("model", "result"),
            registry=self.registry,
        )
        self.broken_answers = Counter(
            "fovea_broken_answers",
            "Answers of engines that were not as promised, by why, and by what became of them: asked_again or error.",
            ("model", "reason", "became"),
            registry=self.registry,
        )
        self.ways_on = Counter(
            "fovea_requests_gone_on",
            "Requests that went on to another model, by the code of the error for which the first was left.",
            ("model", "to", "reason"),
            registry=self.registry,
        )
        self.cache_failures = Counter(
            "fovea_cache_store_failures",
            "Questions to Redis that failed; the requests they were for went on without.",
            ("operation", "reason"),
            registry=self.registry,
        )
        self.cache_breaker_open = self._gauge(
            "fovea_cache_breaker_open", "Workers that leave Redis alone for now, because it did not answer."
        )
        self.cache_memory_bytes = self._gauge("fovea_cache_memory_bytes", "Bytes of answers in the workers' own memory.")
        self.grammar_questions = Counter(
            "fovea_grammar_questions",
            "Constraints that the compiling process was asked about: accepted, refused, or unavailable, which lets them pass.",
            ("result",),
            registry=self.registry,
        )
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

    def ended(self, series: Series, status: int, seconds: float, first_byte_s: float | None) -> None:
        """Counts a request that has ended; `seconds` and `first_byte_s` are from its first byte on."""
        instruments = self._of_series.get(series)
        if instruments is None:
            # By name once for each series: prometheus_client's look-up by labels takes as long as counting.
            instruments = self._of_series[series] = (
                self.request_seconds.labels(*series),
                self.first_byte_seconds.labels(*series),
                {},
            )
        request_seconds, first_byte_seconds, by_status = instruments
        if status not in by_status:
            by_status[status] = self.requests.labels(series.path, series.model, str(status))
        by_status[status].inc()
        request_seconds.observe(seconds)
        if first_byte_s is not None:
            first_byte_seconds.observe(first_byte_s)

    def cached(self, model: str, result: str) -> None:
        """Counts a completion by what the cache did for it."""
        self.cache_requests.labels(model, result).inc()

    def cache_failed(self, operation: str, reason: str) -> None:
        """Counts a question to Redis that failed."""
        self.cache_failures.labels(operation, reason).inc()

    def broken(self, model: str, reason: str, is_asked_again: bool) -> None:  # noqa: FBT001  # it is what happened
        """Counts an answer that was not as promised."""
        self.broken_answers.labels(model, reason, "asked_again" if is_asked_again else "error").inc()

    def went_on(self, model: str, to: str, reason: str) -> None:
        """Counts a request that went on to another model."""
        self.ways_on.labels(model, to, reason).inc()

    def asked_about_grammar(self, result: str) -> None:
        """Counts a question to the process that compiles constraints."""
        self.grammar_questions.labels(result).inc()

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
