"""What `fovea status` makes of a gateway's models and metrics."""

from typing import Any

from rich.console import Console

from deploy.status_table import status_table, work_of
from gateway.telemetry.metrics import Metrics


def model(name: str, tier: str, least: int = 1, most: int = 1, status: str = "available") -> dict[str, Any]:
    return {
        "id": name,
        "tier": tier,
        "status": status,
        "replicas": {"min": least, "max": most},
        "concurrency": 4,
        "queue_depth": 8,
    }


def exposition() -> str:
    metrics = Metrics()
    metrics.engine_requests.labels("small").set(11)
    for result in ("hit", "joined", "miss", "bypass"):
        metrics.cached("small", result)
    metrics.went_on("small", "large", "model_unavailable")
    metrics.cached("large", "miss")
    return metrics.exposition().decode()


def test_a_model_s_work_is_counted_by_the_gateway() -> None:
    work = work_of(exposition())
    assert work["small"] == (11, 4, 2, 1)
    assert work["large"] == (0, 1, 0, 0)


def test_each_model_has_its_row() -> None:
    models = [model("small", "edge", 2, 3), model("large", "server", status="unavailable"), model("new", "server")]
    models.append({"id": "far", "tier": "server", "status": "unknown", "concurrency": 4})
    console = Console(width=120, color_system=None)
    with console.capture() as captured:
        console.print(status_table(models, work_of(exposition())))
    assert [line.split() for line in captured.get().splitlines()] == [
        ["MODEL", "TIER", "STATE", "REPLICAS", "IN", "FLIGHT", "WAITING", "COMPLETIONS", "FROM", "CACHE", "GONE", "ON"],
        ["small", "edge", "available", "2-3", "11", "3", "4", "50%", "1"],
        ["large", "server", "unavailable", "1", "0", "0", "1", "0%", "0"],
        ["new", "server", "available", "1", "0", "0", "0", "-", "0"],
        ["far", "server", "unknown", "-", "0", "0", "0", "-", "0"],
    ]
