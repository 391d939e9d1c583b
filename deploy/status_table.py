"""What `fovea status` prints: every model of a running gateway, what it has to do, and what the cache spares it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from rich.table import Table

_IN_FLIGHT = "fovea_engine_requests_in_flight"
_CACHE = "fovea_cache_requests_total"
_GONE_ON = "fovea_requests_gone_on_total"
_SPARED = ("hit", "joined")


class Work(NamedTuple):
    """What a gateway counts of one model; all but `in_flight` since it started."""

    in_flight: int
    completions: int
    from_cache: int
    gone_on: int
    """Requests that went on to another model."""


def work_of(exposition: str) -> Mapping[str, Work]:
    """What the gateway's metrics, in Prometheus' text format, say of each model."""
    counts: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            model = sample.labels.get("model", "")
            counts[sample.name, model] += int(sample.value)
            if sample.name == _CACHE and sample.labels["result"] in _SPARED:
                counts["spared", model] += int(sample.value)
    return {
        model: Work(*(counts[name, model] for name in (_IN_FLIGHT, _CACHE, "spared", _GONE_ON))) for _, model in list(counts)
    }


def status_table(models: Sequence[Mapping[str, Any]], work: Mapping[str, Work]) -> Table:
    """A row for each of `models`, as `GET /v1/models/{model}` gives them."""
    table = Table(box=None, pad_edge=False)
    for heading in ("MODEL", "TIER", "STATE"):
        table.add_column(heading, no_wrap=True)
    for heading in ("REPLICAS", "IN FLIGHT", "WAITING", "COMPLETIONS", "FROM CACHE", "GONE ON"):
        table.add_column(heading, justify="right", no_wrap=True)
    for model in models:
        table.add_row(*_row(model, work.get(model["id"], Work(0, 0, 0, 0))))
    return table


def _row(model: Mapping[str, Any], work: Work) -> tuple[str, ...]:
    # Of a provider none are known, and nobody waits there.
    least, most = (model["replicas"]["min"], model["replicas"]["max"]) if "replicas" in model else (1, 1)
    replicas = "-" if "replicas" not in model else str(least) if least == most else f"{least}-{most}"
    # Which of them wait only the engines know; as many as all replicas together do not work on. How many of those that may be
    # added are there nobody here knows: so it is those beyond the least.
    waiting = max(0, work.in_flight - model["concurrency"] * least)
    spared = f"{work.from_cache / work.completions:.0%}" if work.completions else "-"
    return (
        model["id"],
        model["tier"],
        model["status"],
        replicas,
        str(work.in_flight),
        str(waiting),
        str(work.completions),
        spared,
        str(work.gone_on),
    )
