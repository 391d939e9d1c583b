r"""A JSON text as it comes: the first character that no JSON could have is known with the piece that brought it.

Not ijson 3.6 (yajl): it takes `"\ud800"`, tells a wrong number a token late, and bounds neither depth nor blanks. Not jiter
0.19 in its partial mode: it reads all anew with every piece.
"""

import json
import re
from typing import Final, Literal

from gateway.structured.fault import DEEPEST, Fault, Reason, pointer_to

MOST_BLANKS: Final = 64
"""In a row and outside of strings: more is a model that goes round in circles."""

# Quantifiers are possessive throughout (Python 3.11): nothing that has matched is tried in another way, so that all is linear.
_BLANK = r"[ \t\n\r]"
_HEX = "[0-9a-fA-F]"
_ESCAPE = (
    rf'\\(?:["\\/bfnrt]|u(?:[0-9a-cA-CefEF]{_HEX}{{3}}|[dD][0-7]{_HEX}{{2}}'
    rf"|[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}))"
)
"""RFC 8259 §7, and both halves of a pair: no reader has a character for one (orjson, jiter, pydantic)."""
_ESCAPE_BEGUN = (
    rf"\\(?:u(?:[0-9a-cA-CefEF]{_HEX}{{0,3}}|[dD](?:[0-7]{_HEX}{{0,2}}"
    rf"|[89abAB](?:{_HEX}(?:{_HEX}(?:\\(?:u(?:[dD](?:[c-fC-F]{_HEX}{{0,2}})?)?)?)?)?)?)?)?)?"
)
_PLAIN = r'[^"\\\x00-\x1f\ud800-\udfff]++'
_CHARACTERS = rf"(?:{_PLAIN}|{_ESCAPE})*+"
_STRING = rf'"{_CHARACTERS}"'
_NUMBER = r"-?+(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?+[0-9]++)?+"
_NUMBER_BEGUN = r"-?(?:(?:0|[1-9][0-9]*)(?:(?:\.[0-9]+)?[eE][+-]?[0-9]*|\.[0-9]*)?)?"
_SCALAR = rf"(?:{_STRING}|{_NUMBER}|true|false|null)"
_B = rf"{_BLANK}{{0,{MOST_BLANKS}}}+"


def _holding(value: str) -> str:
    """Such a value, or a whole array or object of them."""
    member = rf"{_STRING}{_B}:{_B}{value}{_B}"
    in_object = rf"\{{{_B}(?:{member}(?:,{_B}{member})*+)?+\}}"
    in_array = rf"\[{_B}(?:{value}{_B}(?:,{_B}{value}{_B})*+)?+\]"
    return rf"(?:{value}|{in_object}|{in_array})"


_AHEAD_LEVELS: Final = 2
_SHALLOW = _holding(_holding(_SCALAR))

_blanks = re.compile(rf"{_BLANK}*+").match
_characters = re.compile(_CHARACTERS).match
_escape = re.compile(_ESCAPE).match
_escape_begun = re.compile(_ESCAPE_BEGUN).match
_number_run = re.compile(r"[-+.eE0-9]*+").match
_number = re.compile(_NUMBER).fullmatch
_number_begun = re.compile(_NUMBER_BEGUN).match
_more_digits = re.compile(r"(?<=[0-9])[0-9]+")
_whole_members = re.compile(rf"(?>{_STRING}{_B}:{_B}{_SHALLOW}{_B},{_B})*+").match
_whole_items = re.compile(rf"(?>{_SHALLOW}{_B},{_B})*+").match
_tokens = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{},:]').finditer

_WORTH_A_LOOK_AHEAD: Final = 32
_LONGEST_ESCAPE: Final = 12

_Expected = Literal["value", "item", "name", "first_name", "colon", "comma", "nothing", "string", "escape", "number", "word"]
_BELONGS: Final[dict[_Expected, str]] = {
    "value": "where a value belongs",
    "item": "where a value or the end of an array belongs",
    "name": "where a property's name belongs",
    "first_name": "where a property's name or the end of an object belongs",
    "colon": "where a colon belongs",
    "comma": "where a comma or the end of an array or object belongs",
    "nothing": "after the end of the JSON",
    "string": "in a string",
    "escape": "in an escape",
    "number": "in a number",
    "word": "in true, false or null",
}
_WORDS: Final = {"t": "rue", "f": "alse", "n": "ull"}


class JsonFlow:
    """One JSON text (RFC 8259), checked piece by piece in linear time; it keeps the pieces to say where a fault is."""

    __slots__ = ("_begun", "_blank_run", "_expected", "_fault", "_is_name", "_open", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._open: list[str] = []
        """The closers that are due, the innermost last."""
        self._expected: _Expected = "value"
        self._begun = ""
        """Of a number, what was read with no more than a digit of each run; of an escape the same; of a word what is due."""
        self._is_name = False
        self._blank_run = 0
        self._fault: Fault | None = None

    @property
    def is_whole(self) -> bool:
        """One whole value and nothing after it but blanks."""
        if self._fault is not None:
            return False
        return self._expected == "nothing" or (
            self._expected == "number" and not self._open and _number(self._begun) is not None
        )

    @property
    def pointer(self) -> str:
        """Where in the answer its last piece ended, as far as names and places are known."""
        return self._pointer_at(0)

    def add(self, text: str) -> Fault | None:
        """The first violation so far: no JSON begins like this, it is too deep, or its blanks have no end."""
        if self._fault is None:
            self._pieces.append(text)
            self._read_all(text)
        return self._fault

    def _read_all(self, text: str) -> None:
        at, end = 0, len(text)
        while at < end and self._fault is None:
            at = self._read(text, at)

    def _read(self, text: str, at: int) -> int:
        """Reads on from `at`; where it has come, or a fault is set."""
        expected = self._expected
        if expected == "string":
            return self._read_string(text, at)
        if expected == "number":
            return self._read_number(text, at)
        if expected == "escape":
            return self._read_escape(text, at)
        if expected == "word":
            return self._read_word(text, at)
        return self._read_between(text, at)

    def _read_between(self, text: str, at: int) -> int:
        """Blanks, and the character after them."""
        if text[at] in " \t\n\r":
            found = _blanks(text, at)
            assert found is not None
            self._blank_run += found.end() - at
            if self._blank_run > MOST_BLANKS:
                message = f"More than {MOST_BLANKS} blanks in a row outside of strings."
                return self._fail("whitespace", message, text, found.end())
            return found.end()
        self._blank_run = 0
        if len(text) - at >= _WORTH_A_LOOK_AHEAD and 0 < len(self._open) <= DEEPEST - _AHEAD_LEVELS:
            ahead = self._read_ahead(text, at)
            if ahead > at:
                return ahead
        return self._read_token(text, at)

    def _read_ahead(self, text: str, at: int) -> int:
        """Past items or members that are there whole, each with its comma, and that hold two levels of others at most.

        What is tried in vain is tried again from within, as deep as two levels: no character is read more than four times.
        """
        if self._expected in {"name", "first_name"}:
            found = _whole_members(text, at)
        elif self._expected in {"value", "item"} and self._open[-1] == "]":
            found = _whole_items(text, at)
        else:
            return at
        assert found is not None
        end = found.end()
        if end > at:
            self._expected = "name" if self._open[-1] == "}" else "value"
            # The blanks after the last comma may go on.
            self._blank_run = end - len(text[at:end].rstrip(" \t\n\r")) - at
        return end

    def _read_token(self, text: str, at: int) -> int:
        char, expected = text[at], self._expected
        if expected in {"value", "item"}:
            return self._begin_value(text, at)
        if expected == "comma" and char == ",":
            self._expected = "name" if self._open[-1] == "}" else "value"
        elif expected in {"comma", "first_name"} and char == self._open[-1]:
            self._close()
        elif expected == "colon" and char == ":":
            self._expected = "value"
        elif expected in {"name", "first_name"} and char == '"':
            self._is_name = True
            self._expected = "string"
        else:
            return self._unexpected(text, at)
        return at + 1

    def _begin_value(self, text: str, at: int) -> int:
        char = text[at]
        if char == '"':
            self._is_name = False
            self._expected = "string"
        elif char in "{[":
            return self._begin_nested(text, at)
        elif char in _WORDS:
            self._begun = _WORDS[char]
            self._expected = "word"
        elif char in "-0123456789":
            self._begun = ""
            self._expected = "number"
            return at
        elif char == "]" and self._expected == "item":
            self._close()
        else:
            return self._unexpected(text, at)
        return at + 1

    def _begin_nested(self, text: str, at: int) -> int:
        if len(self._open) == DEEPEST:
            return self._fail("too_deep", f"More than {DEEPEST} arrays and objects are within each other.", text, at)
        is_object = text[at] == "{"
        self._open.append("}" if is_object else "]")
        self._expected = "first_name" if is_object else "item"
        return at + 1

    def _close(self) -> None:
        self._open.pop()
        self._end_value()

    def _end_value(self) -> None:
        self._expected = "comma" if self._open else "nothing"

    def _read_string(self, text: str, at: int) -> int:
        found = _characters(text, at)
        assert found is not None
        at = found.end()
        if at == len(text):
            return at
        if text[at] == '"':
            if self._is_name:
                self._expected = "colon"
            else:
                self._end_value()
            return at + 1
        if text[at] == "\\":
            self._begun = ""
            self._expected = "escape"
            return at
        return self._unexpected(text, at)

    def _read_escape(self, text: str, at: int) -> int:
        known = len(self._begun)
        candidate = self._begun + text[at : at + _LONGEST_ESCAPE - known]
        found = _escape(candidate)
        if found is not None:
            self._expected = "string"
            return at + found.end() - known
        begun = _escape_begun(candidate)
        assert begun is not None
        if begun.end() < len(candidate):
            return self._unexpected(text, at + begun.end() - known)
        # No begun escape has as many characters as were looked at: these are all there are.
        self._begun = candidate
        return len(text)

    def _read_number(self, text: str, at: int) -> int:
        found = _number_run(text, at)
        assert found is not None
        candidate = self._begun + found.group()
        if found.end() < len(text) and _number(candidate) is not None:
            self._end_value()
            return found.end()
        begun = _number_begun(candidate)
        assert begun is not None
        if begun.end() < len(candidate) or found.end() < len(text):
            return self._unexpected(text, at + begun.end() - len(self._begun))
        self._begun = _more_digits.sub("", candidate)
        return found.end()

    def _read_word(self, text: str, at: int) -> int:
        due = self._begun
        came = text[at : at + len(due)]
        if not due.startswith(came):
            return self._unexpected(text, at + _alike(due, came))
        self._begun = due[len(came) :]
        if not self._begun:
            self._end_value()
        return at + len(came)

    def _unexpected(self, text: str, at: int) -> int:
        message = f"Unexpected {json.dumps(text[at])} {_BELONGS[self._expected]}."
        return self._fail("not_json", message, text, at)

    def _fail(self, reason: Reason, message: str, text: str, at: int) -> int:
        self._fault = Fault(reason, self._pointer_at(len(text) - at), message)
        return at

    def _pointer_at(self, before_end: int) -> str:
        """The pointer so many characters before the end of what came."""
        text = "".join(self._pieces)
        return _pointer(text[: len(text) - before_end])


def _alike(due: str, came: str) -> int:
    """How many characters are the same before the first that is not; there is one."""
    return next(at for at, (one, other) in enumerate(zip(due, came, strict=False)) if one != other)


def _pointer(text: str) -> str:
    """Where a prefix of JSON ends: of the value that it is in, or the object whose next name is not known."""
    path: list[str | int | None] = []
    string = ""
    for token in _tokens(text):
        char = token.group()
        if char == "{":
            path.append(None)
        elif char == "[":
            path.append(0)
        elif char in "]}":
            path.pop()
        elif char == ",":
            place = path[-1]
            path[-1] = place + 1 if isinstance(place, int) else None
        elif char == ":":
            path[-1] = str(json.loads(string))
        else:
            string = char
    return pointer_to(tuple(part for part in path if part is not None))
