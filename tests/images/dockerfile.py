"""A Dockerfile as its instructions, as far as ours use the language."""

import pathlib
from dataclasses import dataclass

FOLDER = pathlib.Path(__file__).parents[2] / "deploy" / "images"
DOCKERFILES = sorted(FOLDER.glob("*.Dockerfile"))


@dataclass(frozen=True)
class Instruction:
    word: str
    rest: str


def read(path: pathlib.Path) -> list[Instruction]:
    """The instructions of a Dockerfile: comments left out, lines that end in a backslash joined with the next."""
    kept = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(kept).replace("\\\n", " ")
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines()]


def stages(path: pathlib.Path) -> list[list[Instruction]]:
    """The same, cut where a FROM begins a stage."""
    found: list[list[Instruction]] = []
    for instruction in read(path):
        if instruction.word == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found


def copied(path: pathlib.Path) -> list[str]:
    """What the COPY instructions of a Dockerfile take out of the repository."""
    copies = [instruction.rest.split() for instruction in read(path) if instruction.word == "COPY"]
    return [source for words in copies if not words[0].startswith("--from=") for source in words[:-1]]
