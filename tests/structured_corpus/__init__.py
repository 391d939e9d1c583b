"""Schemas to try the gateway on: 200 that people would write, and 30 that nobody should.

Each file holds what one source of shape writes: people who read invoices write other schemas than those who declare functions.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.structured_corpus import made_by_pydantic

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Realistic:
    """A schema as somebody hands it over, under the name of its source and its own."""

    source: str
    name: str
    schema: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.source}/{self.name}"


def realistic() -> Iterator[Realistic]:
    """All 200, by source."""
    for file in sorted(_HERE.glob("*.json")):
        for name, schema in json.loads(file.read_bytes()).items():
            yield Realistic(file.stem, name, schema)
    for name, schema in made_by_pydantic.schemas().items():
        yield Realistic("pydantic", name, schema)
