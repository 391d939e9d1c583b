"""`python -m deploy.chart.readme` writes the table of values in helm/fovea/README.md, from the comments of values.yaml.

A comment that begins with `# --` tells what the key below it is for; it may go on in the lines that follow.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from deploy.chart.schema import CHART

VALUES = CHART / "values.yaml"
FILE = CHART / "README.md"
BEGIN = "<!-- values: written by `make manifests` -->"
END = "<!-- end of values -->"

_COMMENT = re.compile(r"\s*# ?(?P<text>.*)")
_KEY = re.compile(r"(?P<indent> *)(?P<name>[A-Za-z_][\w.-]*):(\s.*)?")


@dataclass(frozen=True)
class Told:
    """A key of values.yaml, by its whole path, and what its comment says."""

    path: str
    meaning: str


def told(text: str) -> Iterator[Told]:
    """Every key that has a comment of its own, in the order of the file."""
    meaning: list[str] = []
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        comment, key = _COMMENT.fullmatch(line), _KEY.fullmatch(line)
        if comment:
            words = comment["text"]
            meaning = [words.removeprefix("-- ")] if words.startswith("-- ") else [*meaning, words] if meaning else []
        elif key:
            indent = len(key["indent"])
            above = [*(step for step in above if step[0] < indent), (indent, key["name"])]
            if meaning:
                yield Told(".".join(name for _, name in above), " ".join(meaning))
            meaning = []
        else:
            meaning = []


def table(text: str) -> str:
    """The table, in Markdown."""
    values = yaml.safe_load(text)
    entries = list(told(text))
    paths = {entry.path for entry in entries}
    rows = [f"| `{entry.path}` | {_default(entry.path, values, paths)} | {_cell(entry.meaning)} |" for entry in entries]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def _default(path: str, values: Any, paths: set[str]) -> str:
    """What the file says; nothing for a key whose parts have rows of their own."""
    if any(other.startswith(f"{path}.") for other in paths):
        return ""
    for name in path.split("."):
        values = values[name]
    return f"`{json.dumps(values)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def written(readme: str, text: str) -> str:
    """The README with the table of these values in it."""
    before, rest = readme.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    return f"{before}{BEGIN}\n{table(text)}\n{END}{after}"


def main() -> None:
    """Writes it."""
    readme = FILE.read_text(encoding="utf-8")
    FILE.write_text(written(readme, VALUES.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
