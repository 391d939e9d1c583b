"""A plan as text: the table that `fovea plan` prints."""

from rich.console import Console
from rich.table import Table

from deploy.chart.values import ProfilePlan
from deploy.placement import Placement

_WIDTH = 110


def plan_table(placements: list[Placement]) -> str:
    """The table, and a line for each model whose concurrency its cache cannot hold at full length."""
    table = Table(box=None, pad_edge=False)
    table.add_column("MODEL")
    for heading in ("REPLICAS", "TP", "GPUS", "NODES EACH", "WEIGHTS/GPU", "KV/GPU", "KV TOKENS", "HOLDS", "CONCURRENCY"):
        table.add_column(heading, justify="right", no_wrap=True)
    for placement in placements:
        table.add_row(*_row(placement))
    console = Console(width=_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join([captured.get().rstrip(), "", _LEGEND, *_warnings(placements)])


def profiles_table(plans: list[ProfilePlan]) -> str:
    """The same for each profile of the chart, with what it takes of nodes, and what an upgrade takes beside."""
    return "\n\n".join("\n".join([_profile_line(plan), plan_table(plan.placements), *_upgrade(plan)]) for plan in plans)


def _profile_line(plan: ProfilePlan) -> str:
    if plan.hardware.kind == "cpu":
        return f"profile {plan.profile}: CPU"
    counted = "as the values say" if plan.is_said else "the fewest that hold it"
    return f"profile {plan.profile}: {plan.hardware.nodes} x {plan.hardware.gpus_per_node} GPUs, {counted}"


def _upgrade(plan: ProfilePlan) -> list[str]:
    widest = max(plan.placements, key=lambda placement: placement.gpus)
    if not widest.gpus:
        return []
    return [
        f"A change that makes a new Ray cluster takes the model's GPUS once more until the old one is gone: "
        f"up to {widest.gpus} ({widest.name}); of several models at once, of each."
    ]


_LEGEND = """\
WEIGHTS/GPU and KV/GPU in GiB (per worker on CPU); HOLDS: requests of full context one replica's KV cache has room for."""


def _row(placement: Placement) -> tuple[str, ...]:
    return (
        placement.name,
        str(placement.replicas),
        str(placement.tensor_parallel),
        str(placement.gpus) if placement.gpus else "-",
        str(placement.nodes_per_replica),
        f"{placement.weights_gib:.1f}",
        f"{placement.kv_gib:.1f}",
        f"{placement.kv_tokens:,}",
        f"{placement.holds:.1f}",
        str(placement.concurrency),
    )


def _warnings(placements: list[Placement]) -> list[str]:
    return [
        f"{placement.name}: {placement.concurrency} requests at once, {placement.holds:.1f} of them have room at full context; "
        "when more are that long, vLLM puts some back and computes them again."
        for placement in placements
        if placement.preempts
    ]
