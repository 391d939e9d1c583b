"""The file of rows, one JSON object in each line; every mistake is named with its line and field."""

import pathlib
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic_core import ErrorDetails

from deploy.evaluation.scores import as_box, is_number
from gateway.errors import shortened

Metric: TypeAlias = Literal["fields", "anls", "relaxed", "choice"]

_MAX_PROBLEMS = 20
_DATA = "data:"
_Text = Annotated[str, Field(min_length=1)]


class DatasetError(Exception):
    """The dataset cannot be used; the message has one sentence for each mistake, and where it is."""


class Row(BaseModel):
    """A question about images, and the truth; docs/evaluation.md tells every field."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: str = Field(min_length=1, max_length=200)
    image: _Text | None = None
    images: tuple[_Text, ...] = Field((), max_length=64)
    question: str = Field(min_length=1)
    answer: JsonValue
    options: tuple[_Text, ...] = Field((), max_length=len(string.ascii_uppercase))
    metric: Metric | None = None
    tags: dict[_Text, str] = {}

    @property
    def pictures(self) -> tuple[str, ...]:
        """Paths and data: URLs, in the order in which they are shown."""
        return (*((self.image,) if self.image else ()), *self.images)

    @property
    def scored_by(self) -> Metric:
        """`metric`, or else what the truth looks like."""
        if self.metric:
            return self.metric
        if self.options:
            return "choice"
        if isinstance(self.answer, dict):
            return "fields"
        return "anls" if isinstance(self.answer, list) else "relaxed"

    @property
    def acceptable(self) -> tuple[str, ...]:
        """The texts of a truth that is none but text, or a number."""
        return tuple(map(str, self.answer)) if isinstance(self.answer, list) else (str(self.answer),)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.pictures or (self.image and self.images):
            raise ValueError("image: say image, or images with at least one")
        if bool(self.options) != (self.scored_by == "choice"):
            raise ValueError(f"options: are for the metric choice, and it needs them; this row's is {self.scored_by}")
        problem = _wrong_truth(self)
        if problem:
            raise ValueError(f"answer: {problem}, got {shortened(repr(self.answer))}")
        return self


def is_box_field(name: str) -> bool:
    """Whether a field of a truth is a box: [left, top, right, bottom], or null where there is none."""
    return name == "bbox" or name.endswith("_bbox")


def _wrong_truth(row: Row) -> str | None:
    """What is wrong with the row's answer for its metric."""
    answer, metric = row.answer, row.scored_by
    match metric:
        case "fields":
            return _wrong_fields(answer)
        case "anls":
            texts = answer if isinstance(answer, list) else [answer]
            fits = bool(texts) and all(isinstance(text, str) for text in texts)
            return None if fits else f"for the metric {metric} must be a text, or a list of at least one"
        case "relaxed":
            fits = isinstance(answer, str) or is_number(answer)
            return None if fits else f"for the metric {metric} must be a number or a text"
        case "choice":
            letters = string.ascii_uppercase[: len(row.options)]
            fits = isinstance(answer, str) and len(answer) == 1 and answer in letters
            return None if fits else f"must be the letter of an option, one of {letters}"


def _wrong_fields(answer: JsonValue) -> str | None:
    if not isinstance(answer, dict) or not answer:
        return "for the metric fields must be an object with at least one field"
    for name, value in answer.items():
        if is_box_field(name) and value is not None and as_box(value) is None:
            return f"has in {name} neither null nor a box of four numbers [left, top, right, bottom]"
    return None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows, and the folder that their paths start from."""

    rows: tuple[Row, ...]
    folder: pathlib.Path


def read_dataset(path: pathlib.Path, limit: int | None = None) -> Dataset:
    """The rows of the file `path`, or the first `limit` of them, all of which have images that are there.

    Raises DatasetError: the file cannot be read, has no rows, or a row is not as `Row` says.
    """
    try:
        with path.open(encoding="utf-8") as file:
            numbered = [(number, line) for number, line in enumerate(file, 1) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
    if not numbered:
        raise DatasetError(f"{path}: has no rows")
    return Dataset(_rows(numbered[:limit], path), path.parent)


def _rows(numbered: list[tuple[int, str]], path: pathlib.Path) -> tuple[Row, ...]:
    rows: dict[str, Row] = {}
    lines: dict[str, int] = {}
    problems: list[str] = []
    for number, line in numbered:
        try:
            row = Row.model_validate_json(line)
        except ValidationError as error:
            problems += [f"{path}:{number}: {_told(detail)}" for detail in error.errors()]
            continue
        if row.id in rows:
            problems.append(f"{path}:{number}: id: is in line {lines[row.id]} too, got {shortened(repr(row.id))}")
        problems += [f"{path}:{number}: {problem}" for problem in _wrong_pictures(row, path.parent)]
        rows[row.id], lines[row.id] = row, number
    if problems:
        more = f"\n... and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
        raise DatasetError("\n".join(problems[:_MAX_PROBLEMS]) + more)
    return tuple(rows.values())


def _wrong_pictures(row: Row, folder: pathlib.Path) -> Iterator[str]:
    field = "image" if row.image else "images"
    for picture in row.pictures:
        if picture.startswith(_DATA):
            if not picture.startswith("data:image/") or ";base64," not in picture[:100]:
                yield f"{field}: a data: URL must begin with data:image/...;base64, got {shortened(repr(picture))}"
        elif "://" in picture:
            yield f"{field}: must be a path or a data: URL, got {shortened(repr(picture))}"
        elif not _is_file(folder / picture):
            yield f"{field}: there is no file {folder / shortened(picture)}"


def _is_file(path: pathlib.Path) -> bool:
    """Also of what is no path at all: base64 without `data:` before it is longer than any."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _told(detail: ErrorDetails) -> str:
    place = ".".join(map(str, detail["loc"]))
    match detail["type"]:
        case "json_invalid":
            return f"is not JSON: {detail['ctx']['error']}"
        case "extra_forbidden":
            return f"{place}: unknown field; there are {', '.join(Row.model_fields)}"
        case "missing":
            return f"{place}: is required"
        case "value_error":
            return str(detail["ctx"]["error"])
        case _:
            return f"{place or 'row'}: {detail['msg'][:1].lower()}{detail['msg'][1:]}, got {shortened(repr(detail['input']))}"
