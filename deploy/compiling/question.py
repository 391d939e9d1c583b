"""What is asked, and what is answered, as lines of JSON between `workers.py` and `keeper.py`."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import orjson


class Kind(StrEnum):
    """What a constraint is written in."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    GRAMMAR = "grammar"
    """EBNF as xgrammar takes it, or Lark: vLLM tells them apart by the first rule."""
    CHOICE = "choice"
    """A JSON list of texts."""


@dataclass(frozen=True, slots=True)
class Question:
    """A constraint, and the model of the catalog whose answers it is for."""

    model: str
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a constraint may go to an engine, why not, and how long compiling it took."""

    accepted: bool
    reason: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class WorkLimits:
    """What one constraint may take: seconds of compiling, MiB beside the vocabulary, ms for the mask of one token."""

    seconds: float = 8.0
    memory_mib: int = 512
    mask_ms: float = 50.0


READY = b'"ready"\n'
"""The keeper's first line: every vocabulary is loaded."""


def question_line(number: int, question: Question) -> bytes:
    """A question as the keeper reads it."""
    return orjson.dumps([number, question.model, question.kind, question.text]) + b"\n"


def read_question(line: bytes) -> tuple[int, Question]:
    """What `question_line` wrote."""
    number, model, kind, text = orjson.loads(line)
    return number, Question(model, Kind(kind), text)


def answer_line(number: int, answer: Verdict | str) -> bytes:
    """A verdict as `workers.py` reads it, or why there is none."""
    return orjson.dumps([number, asdict(answer) if isinstance(answer, Verdict) else answer]) + b"\n"


def read_answer(line: bytes) -> tuple[int, Verdict | str]:
    """What `answer_line` wrote."""
    number, answer = orjson.loads(line)
    said: dict[str, Any] | str = answer
    return number, said if isinstance(said, str) else Verdict(**said)
