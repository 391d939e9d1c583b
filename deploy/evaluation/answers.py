"""The file that every answer is added to as it comes. The same command finds there what it has asked already."""

import fcntl
import os
import pathlib
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError


class AnswersError(Exception):
    """The file of answers cannot be written to; the message says why."""


class Refusal(BaseModel):
    """Why there is no answer: what the server said, or what became of the request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: int | None = None
    code: str
    message: str


class Answer(BaseModel):
    """What came of one row: `text`, or `error`; `latency_s` is of the last attempt, in seconds.

    `digest` is that of the server's address and the request with all that is in it; `size` that of the row's first image in
    pixels, upright, and `sent_size` the one that the gateway shrank it to, if it did.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    digest: str
    text: str | None = None
    error: Refusal | None = None
    model: str | None = None
    finish_reason: str | None = None
    latency_s: float = 0
    attempts: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cache: str | None = None
    size: tuple[int, int] | None = None
    sent_size: tuple[int, int] | None = None


class AnswerFile:
    """A file of answers, a JSON object in each line, held by one process at a time; a context manager.

    A line that was torn by a crash is no answer. Of a row that is there twice the last counts.
    """

    def __init__(self, path: pathlib.Path) -> None:
        """Opens or makes the file. Raises AnswersError: that is not possible, or another process has it open."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise AnswersError(f"{path} cannot be opened: {error}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise AnswersError(f"{path}: another evaluation writes there; say another --out") from error
        written = path.read_bytes()
        self.known: Mapping[str, Answer] = _answers(written)
        if written and not written.endswith(b"\n"):
            self._write(b"\n")

    def add(self, answer: Answer) -> None:
        """Writes one answer. Raises AnswersError: the disk does not take it."""
        self._write(answer.model_dump_json(exclude_none=True).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError as error:
            raise AnswersError(f"an answer cannot be written: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        os.close(self._file)


def _answers(written: bytes) -> dict[str, Answer]:
    answers = {}
    for line in written.split(b"\n"):
        try:
            answer = Answer.model_validate_json(line)
        except ValidationError:
            continue
        answers[answer.id] = answer
    return answers
