"""Which values a template reads by name, as far as its text says it.

`.Values.a.b` from anywhere, `$x.b` after `$x := .Values.a`, and `.b` within `with .Values.a`. What a helper is handed under
another name is not followed: that a value is read at all, a change of it shows.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

Path = tuple[str, ...]

_ACTION = re.compile(r"\{\{-?\s*(?!/\*)(.*?)\s*-?\}\}", re.DOTALL)
_VALUES = re.compile(r"(?:\$|\$?\w*)\.Values((?:\.\w+)+)")
_VARIABLE = re.compile(r"\$(\w+)((?:\.\w+)+)")
_DOT = re.compile(r"(?<![\w$.)\]\"])((?:\.\w+)+)")
_ASSIGNED = re.compile(r"^\$(\w+)\s*:?=\s*(\S+)$")
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`')


@dataclass
class _Scope:
    """What names mean at a place: None where that is not a part of the values."""

    dot: Path | None
    variables: dict[str, Path | None] = field(default_factory=dict)


def reads(template: str) -> set[Path]:
    """Every path of the values that the template's text names."""
    found: set[Path] = set()
    scopes = [_Scope(None)]
    for match in _ACTION.finditer(template):
        action = _TEXT.sub('""', match.group(1))
        found |= set(_named(action, scopes[-1]))
        _step(action, scopes)
    return found


def _named(action: str, scope: _Scope) -> Iterator[Path]:
    for match in _VALUES.finditer(action):
        yield _steps(match.group(1))
    rest = _VALUES.sub("", action)
    for match in _VARIABLE.finditer(rest):
        base = scope.variables.get(match.group(1))
        if base is not None:
            yield base + _steps(match.group(2))
    if scope.dot is not None:
        for match in _DOT.finditer(_VARIABLE.sub("", rest)):
            yield scope.dot + _steps(match.group(1))


def _step(action: str, scopes: list[_Scope]) -> None:
    """Changes `scopes` by what the action opens, closes or assigns."""
    scope = scopes[-1]
    word, _, rest = action.partition(" ")
    if word == "end":
        scopes.pop()
    elif word == "else" and len(scopes) > 1:
        scope.dot = scopes[-2].dot
    elif word == "with":
        scopes.append(_Scope(_meant(rest, scope), dict(scope.variables)))
    elif word == "if":
        scopes.append(_Scope(scope.dot, dict(scope.variables)))
    elif word in {"range", "define", "block"}:
        scopes.append(_Scope(None, dict(scope.variables)))
    elif assigned := _ASSIGNED.match(action):
        scope.variables[assigned.group(1)] = _meant(assigned.group(2), scope)


def _meant(expression: str, scope: _Scope) -> Path | None:
    """The path that the expression is, if it is one and nothing more."""
    if match := _VALUES.fullmatch(expression):
        return _steps(match.group(1))
    if (match := _VARIABLE.fullmatch(expression)) and (base := scope.variables.get(match.group(1))) is not None:
        return base + _steps(match.group(2))
    if (match := _DOT.fullmatch(expression)) and scope.dot is not None:
        return scope.dot + _steps(match.group(1))
    return None


def _steps(text: str) -> Path:
    return tuple(text.strip(".").split("."))
