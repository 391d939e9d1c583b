"""File or document to `Catalog`; every mistake is named with its key, and of a file with the line."""

import difflib
import pathlib
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeAlias

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.catalog.entry import Cache
from gateway.catalog.models import Adapter, Autoscaling, Catalog, Hardware, KvCache, Limits, Model
from gateway.catalog.providers import Provider
from gateway.catalog.routes import Routing, Rule

KeyPath: TypeAlias = tuple[str | int, ...]

_ENTRIES: tuple[type[BaseModel], ...] = (
    *(Catalog, Hardware, Limits, Model, KvCache, Cache, Adapter, Autoscaling),
    *(Provider, Routing, Rule),
)


class CatalogError(Exception):
    """The catalog cannot be used; `problems` holds one sentence for each mistake, and where it is."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load_catalog(path: pathlib.Path) -> Catalog:
    """The catalog in the YAML file `path`.

    Raises CatalogError: the file cannot be read, is not YAML, or says what the types refuse.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError([f"{path}: cannot be read: {error}"]) from error
    return parse_catalog(text, name=str(path))


def parse_catalog(text: str, name: str = "catalog") -> Catalog:
    """The catalog in the YAML `text`; `name` stands for the file in messages.

    Raises CatalogError, as `load_catalog` does.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            raise CatalogError([f"{name}: is empty"])
        lines = _lines(root, ())
        duplicates = [f"{name}:{line}: {_dotted(path)}: is there twice" for path, line in _duplicate_keys(root, ())]
        if duplicates:
            raise CatalogError(duplicates)
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CatalogError([f"{name}:{line}: is not YAML: {error.problem or error.context}"]) from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise CatalogError([f"{name}: is not YAML that a catalog can be: {error}"]) from error
    return _checked(document, lambda path: f"{name}:{_nearest_line(path, lines)}")


def check_catalog(document: Any, name: str = "catalog") -> Catalog:
    """The catalog that a YAML or JSON document holds, once it is read; `name` stands for it in messages.

    Raises CatalogError, as `load_catalog` does, but no line is known.
    """
    return _checked(document, lambda _: name)


def _checked(document: Any, place: Callable[[KeyPath], str]) -> Catalog:
    try:
        return Catalog.model_validate(document)
    except ValidationError as error:
        problems = [
            f"{place(detail['loc'])}: {_dotted(detail['loc']) or 'catalog'}: {_reason(detail)}" for detail in error.errors()
        ]
        raise CatalogError(problems) from error


def _lines(node: yaml.Node, path: KeyPath) -> dict[KeyPath, int]:
    """The line, counted from 1, on which each key of the document stands."""
    lines = {path: node.start_mark.line + 1}
    for key, child, key_node in _children(node):
        lines |= _lines(child, (*path, key)) | {(*path, key): key_node.start_mark.line + 1}
    return lines


def _duplicate_keys(node: yaml.Node, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    seen: set[Hashable] = set()
    for key, child, key_node in _children(node):
        if key in seen:
            yield (*path, key), key_node.start_mark.line + 1
        seen.add(key)
        yield from _duplicate_keys(child, (*path, key))


def _children(node: yaml.Node) -> Iterator[tuple[str | int, yaml.Node, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        yield from ((key.value, child, key) for key, child in node.value)
    elif isinstance(node, yaml.SequenceNode):
        yield from ((index, child, child) for index, child in enumerate(node.value))


def _nearest_line(path: KeyPath, lines: dict[KeyPath, int]) -> int:
    while path not in lines:
        path = path[:-1]
    return lines[path]


def _reason(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "extra_forbidden":
            return "unknown key" + _suggestion(str(detail["loc"][-1]))
        case "missing":
            return "is required"
        case "value_error":
            return str(detail["ctx"]["error"])
        case _:
            return f"{_lower_first(detail['msg'])}, got {_shortened(detail['input'])}"


def _suggestion(key: str) -> str:
    known = [field.alias or name for entry in _ENTRIES for name, field in entry.model_fields.items()]
    near = difflib.get_close_matches(key, known, n=1)
    return f", did you mean {near[0]}?" if near else ""


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _dotted(path: KeyPath) -> str:
    return ".".join(str(step) for step in path if step != "[key]")
