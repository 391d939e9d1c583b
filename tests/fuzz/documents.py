"""Bytes that steer how a chat request is written: each is a choice, and where they end, so does the document.

What is written is text from the start: keys may be repeated, and strings may have escapes that no serialiser writes.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from gateway.wire.chat import LEFT_OUT, REFUSED, ChatCompletionRequest

T = TypeVar("T")
Pairs: TypeAlias = Sequence[tuple[str, str]]
"""An object as it is written: keys with the text of their values."""

STEERED = b"\x00"
"""Begins an input that steers. No JSON begins with it."""


class Steering:
    """Choices, taken from bytes. When they are used up every choice is the first."""

    def __init__(self, data: bytes) -> None:
        self._bytes = iter(data)

    def below(self, limit: int) -> int:
        return next(self._bytes, 0) % limit

    def one_of(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def some(self, limit: int, write: Callable[["Steering"], T]) -> list[T]:
        """Up to `limit` things, without the last."""
        return [write(self) for _ in range(self.below(limit))]


def steered(data: bytes) -> bytes:
    """The body that `data` steers to."""
    steer = Steering(data)
    damage = steer.one_of(_DAMAGES)
    place = steer.below(256) * 256 + steer.below(256)
    whole = _request(steer).encode()
    return damage(whole, place % (len(whole) + 1))


def _inserted(piece: bytes) -> Callable[[bytes, int], bytes]:
    return lambda whole, at: whole[:at] + piece + whole[at:]


_DAMAGES: tuple[Callable[[bytes, int], bytes], ...] = (
    *[lambda whole, _: whole] * 5,
    lambda whole, at: whole[:at],
    lambda whole, at: whole[at:],
    lambda whole, at: whole[:at] + whole[at + 1 :],
    lambda whole, at: whole + whole[:at],
    lambda whole, _: b"\xef\xbb\xbf" + whole,
    *(_inserted(piece) for piece in (b'"', b"\\", b"\x00", b"\xff", b",", b"}", b'"url":"data:;base64,AAAA"')),
)


def _request(steer: Steering) -> str:
    fields = [("model", steer.one_of(_MODELS)), ("messages", _list(steer.some(4, _message) or [_message(steer)]))]
    return _object(steer, [*fields, *steer.some(5, _field)])


_MODELS = ('"tiny"', '"mute"', '"nobody"', '"t\\u0069ny"', '{"url":"data:image/png;base64,iVBORw0KGgoA"}', "null", '"fovea:0"')


def _message(steer: Steering) -> str:
    content = steer.one_of((_parts, _parts, _parts, _text, _url, _value))(steer)
    role = steer.one_of(("user", "user", "user", "user", "assistant", "system", "developer", "tool", "narrator"))
    more = steer.some(3, _message_field)
    return _object(steer, [("role", json.dumps(role)), ("content", content), *more])


def _message_field(steer: Steering) -> tuple[str, str]:
    name, write = steer.one_of(
        (("name", _text), ("tool_call_id", _text), ("tool_calls", _calls), ("url", _url), ("content", _value))
    )
    return name, write(steer)


def _calls(steer: Steering) -> str:
    return _list(
        [_object(steer, [("id", _text(steer)), ("type", '"function"'), ("function", '{"name":"a","arguments":"{}"}')])]
    )


def _parts(steer: Steering) -> str:
    return _list(steer.some(5, _part) or [_part(steer)])


def _part(steer: Steering) -> str:
    return steer.one_of((_image, _image, _image, _image, _words, _other_part, _value))(steer)


def _image(steer: Steering) -> str:
    image = steer.one_of((_image_url, _image_url, _image_url, _image_url, _url))(steer)
    return _object(steer, [("type", '"image_url"'), ("image_url", image), *steer.some(2, _part_field)])


def _image_url(steer: Steering) -> str:
    return _object(steer, [("url", _url(steer)), *steer.some(3, _image_field)])


def _image_field(steer: Steering) -> tuple[str, str]:
    name, write = steer.one_of((("detail", _detail), ("url", _url), ('a"url', _url), ("detail", _value)))
    return name, write(steer)


def _detail(steer: Steering) -> str:
    return steer.one_of(('"low"', '"high"', "null"))


def _part_field(steer: Steering) -> tuple[str, str]:
    kind = steer.one_of(("uuid", "cache_control", "prompt_cache_breakpoint", "url", "image_url", "type", "wibble"))
    return kind, steer.one_of((_text, _url, _value))(steer)


def _words(steer: Steering) -> str:
    return _object(steer, [("type", '"text"'), ("text", steer.one_of((_text, _url))(steer))])


def _other_part(steer: Steering) -> str:
    kind = steer.one_of(("input_audio", "video_url", "image_embeds", "refusal", "smell", "image"))
    return _object(steer, [("type", json.dumps(kind)), (kind, _value(steer))])


def _field(steer: Steering) -> tuple[str, str]:
    return steer.one_of((_fitting_field, _field_with_schema, _any_field))(steer)


_FITTING = (
    ("stream", "true"),
    ("stream_options", '{"include_usage":true}'),
    ("n", "2"),
    ("n", "8"),
    ("stop", '["a"]'),
    ("temperature", "0.5"),
    ("max_tokens", "18446744073709551615"),
    ("length_penalty", "-1e-7"),
    ("logit_bias", '{"1":-1}'),
    ("tool_choice", '"required"'),
    ("tool_choice", '{"type":"function","function":{"name":"a"}}'),
    ("chat_template_kwargs", '{"enable_thinking":false,"a":1}'),
    ("best_of", "1"),
    ("function_call", '"none"'),
    ("modalities", '["text"]'),
    ("user", '"somebody"'),
)


def _fitting_field(steer: Steering) -> tuple[str, str]:
    return steer.one_of(_FITTING)


def _field_with_schema(steer: Steering) -> tuple[str, str]:
    """Where a URL may be and is no image."""
    schema = _object(steer, [(steer.one_of(_KEYS), _value(steer)), ("url", _url(steer))])
    name, before, after = steer.one_of(_SCHEMAS)
    return name, f"{before}{schema}{after}"


_SCHEMAS = (
    ("structured_outputs", '{"json":', "}"),
    ("response_format", '{"type":"json_schema","json_schema":{"name":"a","schema":', "}}"),
    ("tools", '[{"type":"function","function":{"name":"a","parameters":', "}}]"),
)
_FIELDS = ("wibble", "url", "image_url", "messages", *ChatCompletionRequest.model_fields, *LEFT_OUT, *REFUSED)


def _any_field(steer: Steering) -> tuple[str, str]:
    return steer.one_of(_FIELDS), _value(steer)


_KEYS = ("url", "image_url", "type", "text", "role", "content", 'a"url', "url ", "URL", "", "\u00e4", "fovea:0")
_SCALARS = ("null", "true", "false", "0", "1", "-1", "0.5", "-0.0", "1e400", "18446744073709551616", "NaN", '""', "[]", "{}")


def _value(steer: Steering, levels: int = 4) -> str:
    kinds = (_scalar, _text, _url, _deep)
    kind = steer.below(len(kinds) + 2 * bool(levels))
    if kind < len(kinds):
        return kinds[kind](steer)
    inner = steer.some(4, lambda steer: _value(steer, levels - 1))
    return _list(inner) if kind == len(kinds) else _object(steer, [(steer.one_of(_KEYS), value) for value in inner])


def _scalar(steer: Steering) -> str:
    return steer.one_of(_SCALARS)


def _deep(steer: Steering) -> str:
    """As deep as orjson writes (254) and reads (1024), and a little more or less."""
    depth = steer.one_of((2, 243, 254, 1011, 1024)) + steer.below(16)
    before, after = steer.one_of((("[", "]"), ('{"url":', "}"), ('{"a":[', "]}")))
    return before * depth + _url(steer) + after * depth


_HEADERS = (
    "data:image/png;base64,",
    "data:image/jpeg;base64,",
    "data:;base64,",
    "data:image/WEBP;name=a:b;base64,",
    "data:image/gif;base64;base64,",
    "data:image/tiff;base64,",
    "data:image/png,",
    "data:image/png;base64",
    "data:image/ png;base64,",
    "data:image/\u00e4;base64,",
    "data:image/png;BASE64,",
    "DATA:image/png;base64,",
    "see data:image/png;base64,",
    '"url": "data:image/png;base64,',
    "https://a/",
    "fovea:00000000000000000000000000000000:0",
    f"data:{'x' * 101};base64,",
    f"data:image/png;{'x' * 233};base64,",
    f"data:image/png;{'x' * 234};base64,",
    "data:\x7f;base64,",
    "data:,",
    "",
)
# The headers of 8x8 pixels as PNG, JPEG, GIF and WebP, and two that are none.
_SIGNATURES = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAADElEQVR4",
    "/9j/wAALCAAIAAgBAREA/9oACAEBAAA/AAAA",
    "R0lGODdhCAAIAIEAAAAAAAAAAAAAAAAAACwAAAAACAAIAAAI",
    "UklGRiQAAABXRUJQVlA4IBgAAAAwAQCdASoIAAgAAUAmJaQAA3AA/v02aAAA",
    "AAAAAAAAAAAA",
    "",
)
_FILLS = ("", "AAAA", "////", "AAA", "A=", "\u00e4", "\\", " ", "\n")
_TAILS = ("", "AA==", "AB==", "AAA=", "A===", "====", "=", "A", "AA==AAAA", "\n", "-_", "\u0000", "\u2028", '"')


def _url(steer: Steering) -> str:
    payload = steer.one_of(_SIGNATURES) + steer.one_of(_FILLS) * steer.one_of((0, 1, 2, 3, 4, 5, 300)) + steer.one_of(_TAILS)
    return _string(steer, steer.one_of(_HEADERS) + payload)


_TEXTS = ("hi", "", "\u00e4\u20ac\U0001f98a", "/", "\\u0022", '"', "\\", "data:", "fovea::0", "\u0000\x7f", "<user>", "x" * 101)


def _text(steer: Steering) -> str:
    return steer.one_of((*[_whole_text] * 15, _odd_text))(steer)


def _whole_text(steer: Steering) -> str:
    return _string(steer, steer.one_of(_TEXTS))


def _odd_text(steer: Steering) -> str:
    return steer.one_of(('"\\ud83e\\udd8a"', '"\\ud83e"', '"\\x"', '"\t"', "'a'", '"\\"url\\":"'))


def _string(steer: Steering, text: str) -> str:
    return steer.one_of(_SPELLINGS)(json.dumps(text, ensure_ascii=False))


def _plain(plain: str) -> str:
    return plain


def _ascii(plain: str) -> str:
    return json.dumps(json.loads(plain))


def _slashed(plain: str) -> str:
    return plain.replace("/", "\\/")


def _slashed_in_hex(plain: str) -> str:
    return plain.replace("/", "\\u002f")


def _first_in_hex(plain: str) -> str:
    return f'"\\u{ord(plain[1]):04x}{plain[2:]}' if plain[1:2].isalpha() else plain


def _letters_in_hex(plain: str) -> str:
    return plain if "\\" in plain else _LETTERS.sub(_in_hex, plain, count=1)


_LETTERS = re.compile("[a-z]{1,8}")


def _in_hex(letters: re.Match[str]) -> str:
    return "".join(f"\\u{ord(letter):04X}" for letter in letters[0])


_SPELLINGS = (*[_plain] * 4, _ascii, _slashed, _slashed_in_hex, _first_in_hex, _letters_in_hex)
_SPACES = (*[""] * 50, *[" ", "\n", "\t\r", " " * 55, " " * 64] * 5, "\u00a0", "\x0c", "/**/")


def _object(steer: Steering, pairs: Pairs) -> str:
    return f"{{{','.join(_pair(steer, key, value) for key, value in steer.one_of(_ORDERS)(pairs))}}}"


_ORDERS: tuple[Callable[[Pairs], Pairs], ...] = (
    *[lambda pairs: pairs] * 4,
    lambda pairs: pairs[::-1],
    lambda pairs: [*pairs[1:], *pairs[:1]],
    lambda pairs: [*pairs, *pairs[:1]],
    lambda pairs: [*pairs, *pairs],
    lambda pairs: pairs[1:],
    lambda pairs: pairs[:-1],
)


def _pair(steer: Steering, key: str, value: str) -> str:
    return f"{_string(steer, key)}{steer.one_of(_SPACES)}:{steer.one_of(_SPACES)}{value}"


def _list(items: Sequence[str]) -> str:
    return f"[{','.join(items)}]"
