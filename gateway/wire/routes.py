"""Why a request goes to a model: a form of our own, in the manner of OpenAI's objects."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class ModelFacts(NamedTuple):
    """A model that may answer. `place` is its turn, from 1; None where it does not take the request, for what it `lacks`."""

    model: str
    tier: str
    place: int | None
    lacks: str | None
    available: bool
    in_flight: int
    image_tokens: int | None


def route_document(
    requested: Sequence[str],
    route: str,
    signals: Mapping[str, Any],
    rules: Mapping[str, tuple[str, bool]],
    models: Sequence[ModelFacts],
) -> dict[str, Any]:
    """The answer. `models` are in their order, the first is chosen; `rules` have their tier and whether they apply, by name."""
    return {
        "object": "route",
        "requested": list(requested),
        "model": models[0].model,
        "route": route,
        "signals": dict(signals),
        "rules": [{"name": name, "tier": tier, "applies": applies} for name, (tier, applies) in rules.items()],
        "models": [model._asdict() for model in models],
    }
