r"""Regular expressions: what a caller's `pattern` means, and how xgrammar is told so that it makes no other strings.

xgrammar 0.2.8 takes a pattern for the text between the quotes, whole and raw: it knows no search (`a` makes "a" only), writes
quotes, backslashes and control characters as they are, ignores anchors in the middle and lookaheads, and `\W` makes bytes that
are no UTF-8. So a pattern is read here as ECMA-262 has it, and written anew: whole, with explicit sets, with JSON's escapes.

Where ECMA-262, Python and Rust differ on a class (`\w` and letters beyond ASCII), it is what all of them take.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Code points, as inclusive ranges in order that neither touch nor overlap."""

_LAST = 0x10FFFF
_DEEPEST = 24
_MOST_BRANCHES = 64
_MOST_SPLITS = 256
_FEW_SPLITS = 40
_MOST_STATES = 20_000
_LARGEST_COUNT = 1_000_000
_LEAST_SHARE = 24


class PatternRefused(Exception):
    """A pattern that is not regular, or that cannot be promised; `rewrite` says what works, where that is known."""

    def __init__(self, reason: str, rewrite: str | None = None, *, invalid: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.rewrite = rewrite
        self.invalid = invalid


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of a set."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Row:
    """One after the other."""

    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of them."""

    options: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Repeat:
    """The same part again and again, `least` to `most` times; None is without end."""

    part: "Node"
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Edge:
    """`^` or `$`."""

    at_start: bool


Node: TypeAlias = Chars | Row | Choice | Repeat | Edge

EMPTY: Final = Row(())


# Sets of characters.


def _merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _complement(ranges: Ranges) -> Ranges:
    gaps: list[tuple[int, int]] = []
    following = 0
    for low, high in ranges:
        if low > following:
            gaps.append((following, low - 1))
        following = high + 1
    if following <= _LAST:
        gaps.append((following, _LAST))
    return tuple(gaps)


def _overlap(one: Ranges, other: Ranges) -> Ranges:
    found: list[tuple[int, int]] = []
    here = there = 0
    while here < len(one) and there < len(other):
        low, high = max(one[here][0], other[there][0]), min(one[here][1], other[there][1])
        if low <= high:
            found.append((low, high))
        if one[here][1] < other[there][1]:
            here += 1
        else:
            there += 1
    return tuple(found)


def _contains(ranges: Ranges, point: int) -> bool:
    return any(low <= point <= high for low, high in ranges)


def _of(text: str) -> Ranges:
    return _merged((ord(character), ord(character)) for character in text)


# No text holds half of a surrogate pair.
_SURROGATES: Final[Ranges] = ((0xD800, 0xDFFF),)
ANY: Final[Ranges] = _complement(_SURROGATES)
_DIGITS: Final[Ranges] = ((0x30, 0x39),)
_WORD: Final[Ranges] = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACES: Final[Ranges] = ((0x09, 0x0D), (0x20, 0x20))
_LINE_ENDS: Final = _of("\n\r\u2028\u2029")
# The same, with all that anybody takes for it: Unicode's spaces and Python's, the digits of all scripts and more beyond U+FFFF.
_ALL_SPACES: Final = _merged([
    (0x09, 0x0D), (0x1C, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x180E, 0x180E), (0x2000, 0x200B),
    (0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x2060), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
])  # fmt: skip
_ZEROS = (
    0x30, 0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xDE6, 0xE50, 0xED0, 0xF20,
    0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900,
    0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10,
)  # fmt: skip
_ALL_DIGITS: Final = _merged([*((zero, zero + 9) for zero in _ZEROS), (0x10000, 0x1F2FF), (0x1FBF0, _LAST)])
# What nobody takes for a letter, a digit or a mark: ASCII's, Latin-1's, punctuation, currencies, arrows and signs, pictures.
_NO_WORD: Final = _merged([
    (0x00, 0x2F), (0x3A, 0x40), (0x5B, 0x5E), (0x60, 0x60), (0x7B, 0xA9), (0xAB, 0xB1), (0xB4, 0xB4), (0xB6, 0xB8),
    (0xBB, 0xBB), (0xBF, 0xBF), (0xD7, 0xD7), (0xF7, 0xF7), (0x2010, 0x2027), (0x2030, 0x203E), (0x2041, 0x2053),
    (0x20A0, 0x20C0), (0x2190, 0x2426), (0x3001, 0x3003), (0x3008, 0x3011), (0x1F300, 0x1F5FF),
])  # fmt: skip

# A class by its escape: what all take for it, and what anybody does.
_CLASSES: Final = {
    "d": (_DIGITS, _ALL_DIGITS),
    "w": (_WORD, _complement(_NO_WORD)),
    "s": (_SPACES, _ALL_SPACES),
    "D": (_complement(_ALL_DIGITS), _complement(_DIGITS)),
    "W": (_NO_WORD, _complement(_WORD)),
    "S": (_complement(_ALL_SPACES), _complement(_SPACES)),
}
_CONTROLS: Final = {"n": 0x0A, "r": 0x0D, "t": 0x09, "f": 0x0C, "v": 0x0B, "0": 0x00}

_NOT_REGULAR = "No finite automaton can follow it."


# Reading.


@dataclass(slots=True)
class _Group:
    """A parenthesis that is open: its finished options, and the parts of the one that is being read."""

    options: list[Node]
    parts: list[Node]


def parse(pattern: str) -> Node:
    """What `pattern` says, as ECMA-262 reads it with the flag `u` or without, where both agree.

    Raises PatternRefused: it is no regular expression, or one that is not regular.
    """
    return _Reader(pattern).read()


def without_lookaheads(pattern: str) -> tuple[str, list[tuple[bool, str]]]:
    """`pattern` without the lookaheads at its start, and these: whether each has to be there or must not, and of what."""
    found: list[tuple[bool, str]] = []
    rest = pattern.removeprefix("^")
    while pattern.startswith("^") and rest.startswith(("(?!", "(?=")):
        end = _end_of_group(rest)
        found.append((rest[2] == "=", rest[3 : end - 1]))
        rest = rest[end:]
    if not found or "|" in re.sub(r"\\.|\([^()]*\)", "", rest):
        return pattern, []
    return f"^{rest}", found


def _end_of_group(text: str) -> int:
    depth, at, is_set = 0, 0, False
    while at < len(text):
        character = text[at]
        at += 2 if character == "\\" else 1
        if character == "[" or (character == "]" and is_set):
            is_set = character == "["
        elif character in "()" and not is_set:
            depth += 1 if character == "(" else -1
            if depth == 0:
                return at
    raise PatternRefused("A parenthesis is not closed.", invalid=True)


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._open: list[_Group] = [_Group([], [])]

    def read(self) -> Node:
        while self._at < len(self._text):
            self._step(self._text[self._at])
        if len(self._open) > 1:
            raise PatternRefused("A parenthesis is not closed.", invalid=True)
        return _choice(self._closed())

    def _step(self, character: str) -> None:
        parts = self._open[-1].parts
        if character in "*+?{":
            self._quantify(character)
        elif character == "(":
            self._open_group()
        elif character == ")":
            if len(self._open) == 1:
                raise PatternRefused("A parenthesis is closed that was never opened.", invalid=True)
            group = _choice(self._closed())
            self._at += 1
            self._open[-1].parts.append(group)
        elif character == "|":
            self._open[-1].options.append(Row(tuple(parts)))
            self._open[-1].parts = []
            self._at += 1
        elif character in "^$":
            parts.append(Edge(character == "^"))
            self._at += 1
        elif character == "[":
            parts.append(Chars(self._set()))
        elif character == ".":
            parts.append(Chars(_overlap(_complement(_LINE_ENDS), ANY)))
            self._at += 1
        elif character == "\\":
            small, _ = self._escape(in_set=False)
            parts.append(Chars(_overlap(small, ANY)))
        else:
            parts.append(Chars(_overlap(_of(character), ANY)))
            self._at += 1

    def _closed(self) -> list[Node]:
        group = self._open.pop()
        return [*group.options, Row(tuple(group.parts))]

    def _open_group(self) -> None:
        rest = self._text[self._at + 1 : self._at + 4]
        if rest.startswith(("?=", "?!", "?<=", "?<!")):
            raise PatternRefused(
                "It looks ahead or back: xgrammar 0.2.8 ignores that.", "a pattern without (?=, (?!, (?<= and (?<!"
            )
        named = re.compile(r"\(\?P?<[A-Za-z_$][\w$]*>", re.ASCII).match(self._text, self._at)
        if named:
            self._at = named.end()
        elif rest.startswith("?:"):
            self._at += 3
        elif rest.startswith("?"):
            raise PatternRefused("It changes flags or is no group that ECMA-262 knows.", "spell the letters out: [Aa]")
        else:
            self._at += 1
        if len(self._open) > _DEEPEST:
            raise PatternRefused(f"Its parentheses are nested more than {_DEEPEST} deep.")
        self._open.append(_Group([], []))

    def _quantify(self, character: str) -> None:
        parts = self._open[-1].parts
        least, most = self._count(character)
        if not parts or isinstance(parts[-1], Edge):
            raise PatternRefused(f"There is nothing that '{character}' could repeat.", f"\\{character}", invalid=True)
        if self._text[self._at : self._at + 1] == "?":
            self._at += 1  # how greedy it is decides what a search finds, not whether it does
        elif self._text[self._at : self._at + 1] in {"+", "*", "{"}:
            raise PatternRefused("It repeats a repetition.", "(?:...) around the inner one", invalid=True)
        parts[-1] = _repeat(parts[-1], least, most)

    def _count(self, character: str) -> tuple[int, int | None]:
        if character != "{":
            self._at += 1
            return (1 if character == "+" else 0), (1 if character == "?" else None)
        counted = re.compile(r"\{([0-9]{1,9})(,([0-9]{1,9})?)?\}").match(self._text, self._at)
        if counted is None:
            raise PatternRefused("A brace that counts nothing.", "\\{", invalid=True)
        self._at = counted.end()
        least = int(counted[1])
        most = least if counted[2] is None else int(counted[3]) if counted[3] else None
        if most is not None and most < least:
            raise PatternRefused("It counts from more to less.", invalid=True)
        if max(least, most or 0) > _LARGEST_COUNT:
            raise PatternRefused(f"It counts further than {_LARGEST_COUNT}.")
        return least, most

    def _escape(self, *, in_set: bool) -> tuple[Ranges, Ranges]:
        """What the escape at hand stands for: what all take for it, and what anybody does."""
        letter = self._text[self._at + 1 : self._at + 2]
        self._at += 2
        if letter in _CLASSES and letter:
            return _CLASSES[letter]
        if letter and letter in "pP":
            raise PatternRefused(
                "xgrammar 0.2.8 knows no \\p{...}.", "the ranges, as [A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u00ff]"
            )
        if letter == "b" and in_set:
            return _of("\b"), _of("\b")
        if letter and letter in "bB":
            raise PatternRefused("xgrammar 0.2.8 knows no word boundary.", "the characters around it, as (?:^|[^A-Za-z0-9_])")
        point = self._code_point(letter)
        return ((point, point),), ((point, point),)

    def _code_point(self, letter: str) -> int:
        if letter in {"x", "u"}:
            return self._hexadecimal(letter)
        if letter == "c":
            control = self._text[self._at : self._at + 1]
            if control.isascii() and control.isalpha():
                self._at += 1
                return ord(control) % 32
        if letter == "0" and self._text[self._at : self._at + 1].isdigit():
            raise PatternRefused("It has an octal escape.", "\\xHH", invalid=True)
        if letter in _CONTROLS and letter:
            return _CONTROLS[letter]
        if (letter.isascii() and letter.isdigit()) or letter == "k":
            raise PatternRefused(f"It refers back to a group. {_NOT_REGULAR}")
        if not letter or letter.isalpha():
            raise PatternRefused(
                f"'\\{letter}' is no escape of ECMA-262.", "^ and $ for \\A and \\Z" if letter in {"A", "Z", "z"} else None
            )
        return ord(letter)

    def _hexadecimal(self, letter: str) -> int:
        digits = re.compile(r"[0-9A-Fa-f]{2}" if letter == "x" else r"[0-9A-Fa-f]{4}|\{[0-9A-Fa-f]{1,6}\}").match(
            self._text, self._at
        )
        if digits is None:
            raise PatternRefused(f"'\\{letter}' has not its hexadecimal digits.", invalid=True)
        self._at = digits.end()
        point = int(digits[0].strip("{}"), 16)
        if 0xD800 <= point < 0xDC00:
            second = re.compile(r"\\u([dD][c-fC-F][0-9A-Fa-f]{2})").match(self._text, self._at)
            if second is not None:
                self._at = second.end()
                return 0x10000 + ((point - 0xD800) << 10) + (int(second[1], 16) - 0xDC00)
        if point > _LAST:
            raise PatternRefused("There is no such character.", invalid=True)
        return point

    def _set(self) -> Ranges:
        self._at += 1
        negated = self._text[self._at : self._at + 1] == "^"
        self._at += negated
        if self._text[self._at : self._at + 1] == "]":
            raise PatternRefused(
                "It has an empty set, or one that begins with ']'.", "\\] for the bracket, [\\s\\S] for any character"
            )
        small: list[tuple[int, int]] = []
        big: list[tuple[int, int]] = []
        while True:
            if self._at >= len(self._text):
                raise PatternRefused("A set of characters is not closed.", "\\[", invalid=True)
            if self._text[self._at] == "]":
                self._at += 1
                break
            for into, found in zip((small, big), self._range(), strict=True):
                into.extend(found)
        taken = _complement(_merged(big)) if negated else _merged(small)
        return _overlap(taken, ANY)

    def _range(self) -> tuple[Ranges, Ranges]:
        one = self._member()
        if self._text[self._at : self._at + 1] != "-" or self._text[self._at + 1 : self._at + 2] in {"]", ""}:
            return one
        self._at += 1
        other = self._member()
        if any(len(side[0]) != 1 or side[0][0][0] != side[0][0][1] for side in (one, other)):
            raise PatternRefused("A range of a set begins or ends with a class.", "\\- for the dash", invalid=True)
        low, high = one[0][0][0], other[0][0][0]
        if low > high:
            raise PatternRefused("A range of a set goes from more to less.", invalid=True)
        return ((low, high),), ((low, high),)

    def _member(self) -> tuple[Ranges, Ranges]:
        character = self._text[self._at]
        if character == "\\":
            return self._escape(in_set=True)
        self._at += 1
        return _of(character), _of(character)


def _choice(options: Sequence[Node]) -> Node:
    return options[0] if len(options) == 1 else Choice(tuple(options))


def _repeat(part: Node, least: int, most: int | None) -> Node:
    if (least, most) == (1, 1):
        return part
    return Repeat(part, least, most)


# From a search to the whole text.


def whole(node: Node) -> Node:
    """The texts in which a search for `node` finds something, without `^` and `$`.

    Raises PatternRefused: they stand where they are neither first nor last.
    """
    found: list[Node] = []
    for at_start, parts, at_end in _branches(node):
        before = () if at_start else (Repeat(Chars(ANY), 0, None),)
        after = () if at_end else (Repeat(Chars(ANY), 0, None),)
        found.append(Row((*before, *parts, *after)))
    return _choice(found)


def _branches(node: Node) -> list[tuple[bool, tuple[Node, ...], bool]]:
    """The ways through `node`: whether each begins at the start, what it is made of, and whether it ends at the end."""
    if isinstance(node, Edge):
        return [(node.at_start, (), not node.at_start)]
    if not _has_edge(node):
        return [(False, node.parts if isinstance(node, Row) else (node,), False)]
    if isinstance(node, Choice):
        ways = [way for option in node.options for way in _branches(option)]
    elif isinstance(node, Row):
        ways = [(False, (), False)]
        for part in node.parts:
            ways = [_joined(one, other) for one in ways for other in _branches(part)]
            if len(ways) > _MOST_BRANCHES:
                raise PatternRefused("Its '^' and '$' are in too many places.", "^(?:...)$")
    else:
        raise PatternRefused("It repeats a '^' or '$'.", "^(?:...)$")
    return ways


def _joined(
    one: tuple[bool, tuple[Node, ...], bool], other: tuple[bool, tuple[Node, ...], bool]
) -> tuple[bool, tuple[Node, ...], bool]:
    if (one[2] and other[1]) or (other[0] and one[1]):
        raise PatternRefused("It has a '^' or '$' in the middle, where nothing can match.", "^(?:...)$")
    return one[0] or other[0], one[1] + other[1], one[2] or other[2]


def _has_edge(node: Node) -> bool:
    match node:
        case Edge():
            return True
        case Chars():
            return False
        case Repeat():
            return _has_edge(node.part)
        case Row():
            return any(map(_has_edge, node.parts))
        case Choice():
            return any(map(_has_edge, node.options))


# Lengths.


def lengths(node: Node) -> tuple[int, int | None]:
    """How many characters its texts have, at least and at most; None is without end."""
    match node:
        case Chars():
            return 1, 1
        case Row():
            least = 0
            most: int | None = 0
            for part in node.parts:
                low, high = lengths(part)
                least += low
                most = _sum(most, high)
            return least, most
        case Choice():
            all_lengths = [lengths(option) for option in node.options] or [(0, 0)]
            highest = [high for _, high in all_lengths]
            return min(low for low, _ in all_lengths), None if None in highest else max(high or 0 for high in highest)
        case Repeat():
            low, high = lengths(node.part)
            if node.most is None or high is None:
                return low * node.least, 0 if high == 0 or node.most == 0 else None
            return low * node.least, high * node.most
        case Edge():
            return 0, 0


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def bounded(node: Node, least: int, most: int | None) -> Node:
    """The texts of `node` with `least` to `most` characters, or, where `most` allows many, most of them.

    Raises PatternRefused: that cannot be said by counting its parts.
    """
    low, high = lengths(node)
    if low >= least and (most is None or (high is not None and high <= most)):
        return node
    if (most is not None and low > most) or (high is not None and high < least):
        return Choice(())
    if isinstance(node, Row) and len(node.parts) == 1:
        return bounded(node.parts[0], least, most)
    if isinstance(node, Choice):
        return _choice_of([bounded(option, least, most) for option in node.options])
    if isinstance(node, Row):
        return _bounded_row(node, least, most)
    return _bounded_row(Row((node,)), least, most)


def _choice_of(options: Iterable[Node]) -> Node:
    kept = [option for option in options if option != Choice(())]
    return kept[0] if len(kept) == 1 else Choice(tuple(kept))


_COUNT_IT = "say it in the pattern: ^[a-z]{2,10}$"


def _bounded_row(row: Row, least: int, most: int | None) -> Node:
    loose = [place for place, part in enumerate(row.parts) if len(set(lengths(part))) > 1]
    low, _ = lengths(row)
    found: list[Node] = [row]
    if low < least:
        if not all(_counts_characters(row.parts[place]) for place in loose):
            raise PatternRefused("Its length and minLength cannot be promised together.", _COUNT_IT)
        found = [_raised(row, dict(zip(loose, split, strict=True))) for split in _splits(least - low, len(loose))]
    if most is not None:
        found = [shorter for option in found for shorter in _lowered(option, loose, most)]
    if len(found) > _MOST_SPLITS:
        raise PatternRefused("Its length and minLength or maxLength are possible in too many ways.", _COUNT_IT)
    return _choice_of(found)


def _counts_characters(part: Node) -> bool:
    return isinstance(part, Repeat) and isinstance(part.part, Chars)


def _raised(row: Row, by: dict[int, int]) -> Node:
    parts: list[Node] = list(row.parts)
    for place, more in by.items():
        part = parts[place]
        assert isinstance(part, Repeat)
        if part.most is not None and part.least + more > part.most:
            return Choice(())
        parts[place] = Repeat(part.part, part.least + more, part.most)
    return Row(tuple(parts))


def _lowered(node: Node, loose: list[int], most: int) -> Iterator[Node]:
    if not isinstance(node, Row):
        return
    low, high = lengths(node)
    room = most - low
    if room < 0:
        return
    if high is not None and high <= most:
        yield node
        return
    parts = node.parts
    endless = [place for place in loose if _room_of(parts[place]) is None or (_room_of(parts[place]) or 0) > _LEAST_SHARE * 4]
    left = room - sum(_room_of(parts[place]) or 0 for place in loose if place not in endless)
    share = left // len(endless) if endless else 0
    few = _FEW_SPLITS if share >= _LEAST_SHARE else _MOST_SPLITS
    if all(_counts_characters(parts[place]) for place in loose) and _ways(room, len(loose)) <= few:
        for split in _splits(room, len(loose)):
            yield Row(
                tuple(_capped(part, split[loose.index(place)]) if place in loose else part for place, part in enumerate(parts))
            )
        return
    # Exactly would be too many ways: every part that can be long gets the same share.
    if share < _LEAST_SHARE:
        raise PatternRefused("Its length and maxLength cannot be promised together.", _COUNT_IT)
    yield Row(tuple(_within(part, share) if place in endless else part for place, part in enumerate(parts)))


def _room_of(part: Node) -> int | None:
    low, high = lengths(part)
    return None if high is None else high - low


def _capped(part: Node, room: int) -> Node:
    assert isinstance(part, Repeat)
    most = part.least + room
    return Repeat(part.part, part.least, most if part.most is None else min(part.most, most))


def _within(part: Node, room: int) -> Node:
    """`part` in no more than `room` characters above its least."""
    low, high = lengths(part)
    if high is not None and high - low <= room:
        return part
    match part:
        case Repeat():
            _, each = lengths(part.part)
            if each:
                times = part.least + room // each
                return Repeat(part.part, part.least, times if part.most is None else min(part.most, times))
            if part.most == 1:
                return Repeat(_within(part.part, room - lengths(part.part)[0]), part.least, 1)
        case Choice():
            return Choice(tuple(_within(option, room + low - lengths(option)[0]) for option in part.options))
        case Row():
            return _choice_of(
                _lowered(part, [at for at, one in enumerate(part.parts) if len(set(lengths(one))) > 1], low + room)
            )
    raise PatternRefused("Its length and maxLength cannot be promised together.", _COUNT_IT)


def _ways(total: int, among: int) -> int:
    ways = 1
    for step in range(1, among):
        ways = ways * (total + step) // step
        if ways > _MOST_SPLITS:
            break
    return ways if among else 0


def _splits(total: int, among: int) -> Iterator[tuple[int, ...]]:
    """The ways to share `total` among so many."""
    if _ways(total, among) > _MOST_SPLITS:
        raise PatternRefused("Its length and minLength are possible in too many ways.", _COUNT_IT)
    if among == 1:
        yield (total,)
    elif among > 1:
        for first in range(total + 1):
            yield from ((first, *rest) for rest in _splits(total - first, among - 1))


# Automata.


@dataclass(frozen=True, slots=True)
class Automaton:
    """The characters that lead from state to state, and the states that may be last; it begins in 0."""

    steps: tuple[tuple[tuple[Ranges, int], ...], ...]
    last: frozenset[int]


@functools.lru_cache(maxsize=64)
def automaton(node: Node) -> Automaton:
    """The automaton of a `whole` node.

    Raises PatternRefused: it has too many states.
    """
    made = _Positions()
    first, last, nullable = made.of(node)
    steps: list[list[tuple[Ranges, int]]] = [[(made.chars[place], place + 1) for place in first]]
    steps.extend([(made.chars[there], there + 1) for there in sorted(follow)] for follow in made.follows)
    ends = frozenset(place + 1 for place in last) | (frozenset([0]) if nullable else frozenset())
    return Automaton(tuple(map(tuple, steps)), ends)


class _Positions:
    """Glushkov's construction: a state for every set of characters in the pattern, its repetitions written out."""

    def __init__(self) -> None:
        self.chars: list[Ranges] = []
        self.follows: list[set[int]] = []
        self._links = 0

    def of(self, node: Node) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
        match node:
            case Chars():
                self.chars.append(node.ranges)
                self.follows.append(set())
                self._spend(1)
                return (len(self.chars) - 1,), (len(self.chars) - 1,), False
            case Row():
                return self._row(node.parts)
            case Choice():
                found = [self.of(option) for option in node.options]
                return (
                    tuple(place for one in found for place in one[0]),
                    tuple(place for one in found for place in one[1]),
                    any(one[2] for one in found),
                )
            case Repeat():
                return self._repeat(node)
            case Edge():
                return (), (), True

    def _row(self, parts: Sequence[Node]) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
        self._spend(len(parts))
        first: tuple[int, ...] = ()
        last: tuple[int, ...] = ()
        nullable = True
        for part in parts:
            begins, ends, may_lack = self.of(part)
            self._link(last, begins)
            first = first + begins if nullable else first
            last = last + ends if may_lack else ends
            nullable = nullable and may_lack
        return first, last, nullable

    def _repeat(self, node: Repeat) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
        if node.most is not None:
            return self._row([node.part] * node.least + [Choice((EMPTY, node.part))] * (node.most - node.least))
        if node.least > 1:
            return self._row([*[node.part] * (node.least - 1), Repeat(node.part, 1, None)])
        first, last, nullable = self.of(node.part)
        self._link(last, first)
        return first, last, nullable or node.least == 0

    def _link(self, ends: tuple[int, ...], begins: tuple[int, ...]) -> None:
        self._spend(len(ends) * len(begins))
        for end in ends:
            self.follows[end].update(begins)

    def _spend(self, steps: int) -> None:
        self._links += steps
        if self._links > _MOST_STATES:
            raise PatternRefused("It is too large to be compared with another.")


def matches(machine: Automaton, text: str) -> bool:
    """Whether `text` is one of its texts."""
    return Matcher(machine).matches(text)


class Matcher:
    """An automaton that is asked about many texts: it remembers its steps."""

    def __init__(self, machine: Automaton) -> None:
        self._machine = machine
        self._onward: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def matches(self, text: str) -> bool:
        """Whether `text` is one of its texts."""
        states = frozenset([0])
        for character in text:
            onward = self._onward.get((states, character))
            if onward is None:
                onward = self._step(states, ord(character))
                self._onward[states, character] = onward
            if not onward:
                return False
            states = onward
        return not states.isdisjoint(self._machine.last)

    def _step(self, states: frozenset[int], point: int) -> frozenset[int]:
        steps = self._machine.steps
        return frozenset(there for state in states for ranges, there in steps[state] if _contains(ranges, point))


def disjoint(one: Automaton, other: Automaton) -> bool:
    """Whether no text is in both. Raises PatternRefused: that takes too many steps to say."""
    waiting, seen = [(0, 0)], {(0, 0)}
    looked_at = 0
    while waiting:
        here, there = waiting.pop()
        if here in one.last and there in other.last:
            return False
        looked_at += len(one.steps[here]) * len(other.steps[there])
        _check_steps(looked_at // 4)
        for ranges, after_here in one.steps[here]:
            for others, after_there in other.steps[there]:
                pair = (after_here, after_there)
                if pair not in seen and _overlap(ranges, others):
                    seen.add(pair)
                    waiting.append(pair)
        _check_steps(len(seen))
    return True


def included(one: Automaton, other: Automaton) -> bool:
    """Whether all texts of `one` are texts of `other`. Raises PatternRefused: that takes too many steps to say."""
    begin = (0, frozenset([0]))
    waiting, seen = [begin], {begin}
    known: dict[tuple[frozenset[int], Ranges], frozenset[frozenset[int]]] = {}
    while waiting:
        here, there = waiting.pop()
        if here in one.last and there.isdisjoint(other.last):
            return False
        for ranges, after in one.steps[here]:
            if (there, ranges) not in known:
                known[there, ranges] = _onward(other, there, ranges)
                _check_steps(len(seen) + len(known))
            for onward in known[there, ranges]:
                if (after, onward) not in seen:
                    seen.add((after, onward))
                    waiting.append((after, onward))
        _check_steps(len(seen))
    return True


def _onward(machine: Automaton, states: frozenset[int], ranges: Ranges) -> frozenset[frozenset[int]]:
    """The sets of states to which the characters of `ranges` lead from `states`."""
    onward = [step for state in states for step in machine.steps[state]]
    return frozenset(
        frozenset(state for others, state in onward if _overlap(piece, others)) for piece in _pieces(ranges, onward)
    )


def _pieces(ranges: Ranges, onward: Sequence[tuple[Ranges, int]]) -> Iterator[Ranges]:
    """`ranges` in pieces of which each is wholly in or out of every set of `onward`."""
    cuts = sorted({point for others, _ in onward for low, high in others for point in (low, high + 1)})
    for low, high in ranges:
        inner = [cut for cut in cuts if low < cut <= high]
        for begin, end in zip([low, *inner], [*inner, high + 1], strict=True):
            yield ((begin, end - 1),)


def _check_steps(steps: int) -> None:
    if steps > _MOST_STATES // 4:
        raise PatternRefused("It takes too long to compare it with another.")


def but_not(names: Iterable[str], most_nodes: int = 400) -> Node:
    """All texts but `names`. Of names that are long or many, all that begin as they do are left out as well."""
    kept = list(names)
    for depth in (24, 12, 6, 3, 1):
        tree, nodes = _tree(kept, depth)
        if nodes <= most_nodes:
            break
    return _outside(tree)


@dataclass(slots=True)
class _Letter:
    onward: "dict[int, _Letter]"
    is_name: bool = False
    is_cut: bool = False


def _tree(names: Iterable[str], depth: int) -> tuple[_Letter, int]:
    root, nodes = _Letter({}), 1
    for name in names:
        here = root
        for character in name[:depth]:
            if ord(character) not in here.onward:
                here.onward[ord(character)] = _Letter({})
                nodes += 1
            here = here.onward[ord(character)]
        here.is_name = here.is_name or len(name) <= depth
        here.is_cut = here.is_cut or len(name) > depth
    return root, nodes


def _outside(letter: _Letter) -> Node:
    if letter.is_cut:
        return Choice(())
    others = _overlap(_complement(_merged((point, point) for point in letter.onward)), ANY)
    options: list[Node] = [] if letter.is_name else [EMPTY]
    options.append(Row((Chars(others), Repeat(Chars(ANY), 0, None))))
    for point, onward in letter.onward.items():
        rest = _outside(onward)
        if rest != Choice(()):
            options.append(Row((Chars(((point, point),)), rest)))
    return Choice(tuple(options))


def is_impossible(node: Node) -> bool:
    """Whether there is no text of it."""
    match node:
        case Chars():
            return not node.ranges
        case Row():
            return any(map(is_impossible, node.parts))
        case Choice():
            return all(map(is_impossible, node.options))
        case Repeat():
            return node.least > 0 and is_impossible(node.part)
        case Edge():
            return False


# Writing.

_SHORT = {0x22: '"', 0x5C: "\\", 0x08: "b", 0x0C: "f", 0x0A: "n", 0x0D: "r", 0x09: "t"}
_PLAIN: Final = _complement(_merged([(0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C), *_SURROGATES]))
# The automata of xgrammar 0.2.8 make bytes that are no UTF-8 of a range in which characters get longer by a byte.
_PLAIN_IN_AUTOMATA: Final = _overlap(_PLAIN, _complement(_merged([(0x80, 0x80), (0x800, 0x800), (0x10000, 0x10000)])))
_FEW = 64
_MOST_WRITTEN = 32 * 1024
# Of characters of which any will do, every escape but those of surrogates; their other half is not looked for.
_HEX = "[0-9a-fA-F]"
_ANY_ESCAPE = f'\\\\["\\\\/bfnrt]|\\\\u[0-9a-cefA-CEF]{_HEX}{_HEX}{_HEX}|\\\\u[dD][0-7]{_HEX}{_HEX}'
# xgrammar 0.2.8 makes an automaton of a pattern in ASCII, without any quote or backslash, and rules of one that has something
# beyond ASCII in it. With 32,000 tokens a mask of an automaton takes 25 us up to some 1,000 states, and 10 ms beyond; of rules
# 0.1 ms, 2 ms in a repetition of less than 100 characters, and 26 ms where these are characters or escapes. But the automaton
# is wrong where a group is optional that ends in a repetition: (-[0-9]+)? takes digits without the dash.
_AS_RULES = "é{0}"
_MOST_AUTOMATON = 600
_STATES_BEYOND_ASCII = 7
_MOST_ESCAPED = 3
_MOST_COPIES = 32


def written(node: Node, *, one_spelling: bool = False) -> str:
    """The pattern that makes xgrammar 0.2.8 write the texts of a `whole` node as JSON has them, between the quotes.

    With `one_spelling` every character is written in one way only, so that two texts are one if they look the same. What may be
    repeated up to a number is written without escapes: quotes, backslashes and line ends are left out where others will do.
    """
    is_automaton = _is_flat(node) and not _needs_escapes(node) and _states(node) <= _MOST_AUTOMATON
    text = _Writing(one_spelling, is_automaton).of(node)
    return f"^(?:{text}){_AS_RULES}$" if text.isascii() and not is_automaton else f"^(?:{text})$"


def _is_flat(node: Node) -> bool:
    """Whether it is characters in a row, some of them repeated."""
    match node:
        case Chars():
            return not node.ranges or bool(_overlap(node.ranges, _PLAIN_IN_AUTOMATA))
        case Row():
            return all(map(_is_flat, node.parts))
        case Repeat():
            return isinstance(node.part, Chars) and _is_flat(node.part)
        case _:
            return False


def _needs_escapes(node: Node) -> bool:
    match node:
        case Chars():
            return _has_escapes(node.ranges)
        case Row():
            return any(_needs_escapes(part) for part in node.parts if not _is_nothing(part))
        case Choice():
            return any(_needs_escapes(option) for option in node.options if not is_impossible(option))
        case Repeat():
            return not _is_counted(node) and _needs_escapes(node.part)
        case Edge():
            return False


def _has_escapes(ranges: Ranges) -> bool:
    return any(True for _ in _written_escapes(ranges, few=_size(ranges) <= _FEW))


def _is_counted(node: Repeat) -> bool:
    """Whether it repeats characters, often and up to a number, of which enough need no escape."""
    if not isinstance(node.part, Chars) or not _overlap(node.part.ranges, _PLAIN):
        return False
    return node.most is not None and node.most > _MOST_ESCAPED


def _states(node: Node) -> int:
    """About how many states the automaton of `node` has."""
    match node:
        case Chars():
            return 1 if not node.ranges or node.ranges[-1][1] < 0x80 else _STATES_BEYOND_ASCII
        case Row():
            return sum(map(_states, node.parts))
        case Choice():
            return sum(map(_states, node.options))
        case Repeat():
            return _states(node.part) * max(node.least, node.most or 1)
        case Edge():
            return 0


def _is_nothing(node: Node) -> bool:
    return node == EMPTY or (
        isinstance(node, Repeat) and (node.most == 0 or is_impossible(node.part) or _is_nothing(node.part))
    )


@dataclass(frozen=True, slots=True)
class _Writing:
    one_spelling: bool
    is_automaton: bool

    def of(self, node: Node) -> str:
        text = self._of(node)
        if len(text) > _MOST_WRITTEN:
            raise PatternRefused("It takes too long to write it out.", "fewer repetitions within repetitions")
        return text

    def _of(self, node: Node) -> str:
        match node:
            case Chars():
                return _written_set(node.ranges, self.one_spelling, self.is_automaton)
            case Row():
                return "".join(self.of(part) for part in node.parts if not _is_nothing(part))
            case Choice():
                return f"(?:{'|'.join(self.of(option) for option in node.options if not is_impossible(option))})"
            case Repeat():
                return "" if _is_nothing(node) else self._repeated(node)
            case Edge():
                return ""

    def _repeated(self, node: Repeat) -> str:
        one = self.of(node.part)
        one = one if isinstance(node.part, Chars | Choice) else f"(?:{one})"
        plain = one
        if isinstance(node.part, Chars) and _overlap(node.part.ranges, _PLAIN):
            plain = _written_set(_overlap(node.part.ranges, _PLAIN), self.one_spelling, self.is_automaton)
        if node.most is None:
            first = one * node.least if node.least <= _MOST_ESCAPED else f"{plain}{{{node.least}}}"
            return f"{first}{one}*"
        if (node.least, node.most) == (0, 1):
            return f"{one}?"
        if not self.is_automaton and not _is_counted(node) and node.most <= _MOST_COPIES:
            # Counted rules cost 100 times what the same costs when it is written out.
            return one * node.least + f"(?:{one}" * (node.most - node.least) + ")?" * (node.most - node.least)
        counted = plain if _is_counted(node) else one
        return f"{counted}{{{node.least},{node.most}}}"


@functools.lru_cache(maxsize=256)
def _written_set(ranges: Ranges, one_spelling: bool, is_automaton: bool) -> str:  # noqa: FBT001
    options = []
    plain = _overlap(ranges, _PLAIN_IN_AUTOMATA if is_automaton else _PLAIN)
    if plain:
        options.append(f"[{''.join(_written_range(bounds, is_automaton) for bounds in plain)}]")
    if ranges == ANY and not one_spelling:
        options.append(_ANY_ESCAPE)
    else:
        options.extend(_written_escapes(ranges, few=_size(ranges) <= _FEW))
    return options[0] if len(options) == 1 and plain else f"(?:{'|'.join(options)})"


def _size(ranges: Ranges) -> int:
    return sum(high - low + 1 for low, high in ranges)


def _written_escapes(ranges: Ranges, *, few: bool) -> Iterator[str]:
    short = "".join("\\\\" if letter == "\\" else letter for point, letter in _SHORT.items() if _contains(ranges, point))
    if short:
        yield f"\\\\[{short}]"
    if few:
        yield from (f"\\\\u{point:04x}" for point in range(0x20) if point not in _SHORT and _contains(ranges, point))


def _written_range(bounds: tuple[int, int], is_automaton: bool) -> str:  # noqa: FBT001
    low, high = (_written_member(point, is_automaton) for point in bounds)
    return low if bounds[0] == bounds[1] else f"{low}-{high}"


def _written_member(point: int, is_automaton: bool) -> str:  # noqa: FBT001
    if is_automaton and point > 0x7E:
        return f"\\u{point:04x}" if point <= 0xFFFF else f"\\u{{{point:x}}}"
    return f"\\{chr(point)}" if chr(point) in "\\]^[-" else chr(point)
