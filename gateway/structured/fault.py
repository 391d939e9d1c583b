"""What is wrong with an answer that was to be JSON, or one of a few words."""

from dataclasses import dataclass
from typing import Final, Literal

Reason = Literal["not_json", "cut_short", "too_deep", "whitespace", "duplicate_key", "schema", "choice", "regex"]

DEEPEST: Final = 200
"""Arrays and objects within each other: OpenAI's client reads no more (by jiter 0.19), and jsonschema-rs 0.60 compares 255."""

_SHOWN_CHARACTERS: Final = 80


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an answer does not hold what its caller was promised."""

    reason: Reason
    pointer: str
    """Into the answer (RFC 6901); of an answer that is no JSON, as far as it could be read."""
    message: str
    """For people; it has at most 100 characters of the answer."""


def quoted(text: str) -> str:
    """Words of an answer as a message shows them: at most 80 characters and three dots, on one line."""
    shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
    # A lone surrogate could not be written to a log or a response.
    return shown.encode("utf-8", "replace").decode().replace("\n", " ")


def pointer_to(path: tuple[str | int, ...]) -> str:
    """The JSON pointer of names and places (RFC 6901)."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)
