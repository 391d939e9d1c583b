"""Documents with one thing changed, so that a rule has something to find."""

import copy
from typing import Any

GONE = object()
"""Instead of a value: the key is taken away."""


def spoilt(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`document` with `value` at `path`, whose steps are divided by slashes; a number is a place in a list."""
    result = copy.deepcopy(document)
    *steps, last = [int(step) if step.isdecimal() else step for step in path.split("/")]
    place: Any = result
    for step in steps:
        place = place[step] if isinstance(step, int) else place.setdefault(step, {})
    if value is GONE:
        del place[last]
    else:
        place[last] = value
    return result
