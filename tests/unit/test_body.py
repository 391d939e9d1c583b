"""`cut` against the full parser: whatever the body, its rest with the URLs put back means the same."""

import base64
import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.body import Cut, cut, parse_document, splice
from gateway.errors import BodyTooLarge

PAYLOAD = base64.b64encode(bytes(range(256)) * 5).decode()
URL = f"data:image/png;base64,{PAYLOAD}"


def restored(found: Cut) -> Any:
    """The rest as the full parser reads it, with each URL in the place of its stand-in."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item) for item in value]
        return bytes(found.urls[value].text).decode() if isinstance(value, str) and value in found.urls else value

    return walk(orjson.loads(found.rest))


def texts(found: Cut) -> dict[str, list[memoryview]]:
    return {name: [url.text] for name, url in found.urls.items()}


def means_the_same(body: bytes) -> None:
    found = cut(body)
    try:
        expected = orjson.loads(body)
    except orjson.JSONDecodeError:
        with pytest.raises(orjson.JSONDecodeError):
            orjson.loads(found.rest)
        return
    assert restored(found) == expected


LOOKALIKES = [
    URL,
    URL.replace("image/png", ""),
    URL.replace(";base64", ";name=a;base64"),
    URL.replace("data:", "DATA:"),
    URL.replace(";base64", ";BASE64"),
    URL.replace("base64,", "base64,="),
    URL.replace("base64,", "base64, "),
    URL[:-3] + "\u0000",
    URL[:-3] + "ä",
    URL[:60],
    f"see {URL}",
    f'"url": "{URL}"',
    "data:",
    "data:,",
]
KEYS = ["url", "image_url", "type", "text", "x", 'a"url', "URL", "", "url "]


class Pairs(list[tuple[str, Any]]):
    """An object as it is written: keys may be repeated."""


strings = st.sampled_from(LOOKALIKES) | st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | strings,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(st.sampled_from(KEYS), inner), max_size=4).map(Pairs),
    max_leaves=8,
)


def written(value: Any, choose: st.DataObject) -> str:
    """`value` as JSON, with the whitespace and the escapes that `choose` likes."""
    space = choose.draw(st.sampled_from(["", " ", "\n\t", " " * 70]))
    if isinstance(value, Pairs):
        items = [f"{text(key, choose)}{space}:{space}{written(item, choose)}" for key, item in value]
        return f"{{{space}{','.join(items)}{space}}}"
    if isinstance(value, list):
        return f"[{space}{f'{space},'.join(written(item, choose) for item in value)}]"
    return text(value, choose) if isinstance(value, str) else json.dumps(value)


def text(value: str, choose: st.DataObject) -> str:
    plain = json.dumps(value, ensure_ascii=choose.draw(st.booleans()))
    match choose.draw(st.sampled_from(["plain", "plain", "plain", "slashes", "unicode slashes", "first letter"])):
        case "slashes":
            return plain.replace("/", "\\/")
        case "unicode slashes":
            return plain.replace("/", "\\u002f")
        case "first letter" if value[:1].isalpha() and value[:1].isascii():
            return f'"\\u{ord(value[0]):04x}{plain[2:]}'
    return plain


@given(values, st.data())
def test_any_document_means_the_same(value: Any, choose: st.DataObject) -> None:
    means_the_same(written(value, choose).encode())


@given(
    values, st.data(), st.integers(0), st.sampled_from([b'"', b"\\", b"{", b":", b",", b" ", b"\x00", b"\xff", b"", b"data:"])
)
def test_a_document_that_is_damaged_is_as_broken_as_before(value: Any, choose: st.DataObject, place: int, by: bytes) -> None:
    whole = written(value, choose).encode()
    at = place % (len(whole) + 1)
    means_the_same(whole[:at] + by + whole[at + (not by) :])


@given(st.binary(max_size=40), st.binary(max_size=40))
@example(b'{"url":"', b'"}')
@example(b'{"a":"b"url":"', b'"}')
@example(b'"\\"url":"', b'"')
@example(b'["x","url":"', b'"]')
def test_whatever_is_around_a_url_means_the_same(before: bytes, after: bytes) -> None:
    means_the_same(before + URL.encode() + after)


def test_images_are_cut_wherever_they_are() -> None:
    turn = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": URL}}, {"type": "text", "text": URL}]}
    found = cut(json.dumps({"messages": [turn, turn], "model": "x"}).encode())
    assert [bytes(url.text).decode() for url in found.urls.values()] == [URL, URL]
    assert {url.media_type for url in found.urls.values()} == {"image/png"}
    assert {bytes(url.payload).decode() for url in found.urls.values()} == {PAYLOAD}
    assert found.rest.count(URL.encode()) == 2, "the words that look like an image stay"


@pytest.mark.parametrize(
    "url",
    [*(url for url in LOOKALIKES[3:] if '"' not in url), URL.replace("/", "\\/"), URL.replace("/", "\\u002f")],
)
def test_what_is_not_plainly_an_image_is_left_to_the_full_parser(url: str) -> None:
    body = b'{"url":"' + url.encode() + b'"}'
    assert cut(body) == Cut(body, {})


def test_a_url_is_put_back_as_it_came() -> None:
    body = json.dumps({"a": {"url": URL}, "b": {"url": URL.replace("png", "jpeg")}}).encode()
    found = cut(body)
    assert b"".join(splice(bytes(found.rest), texts(found))) == body


def test_an_image_of_megabytes_is_never_copied() -> None:
    body = json.dumps({"url": f"data:image/png;base64,{'A' * 4_000_000}"}).encode()
    found = cut(body)
    (url,) = found.urls.values()
    assert url.text.obj is body
    assert [len(part) for part in splice(bytes(found.rest), texts(found))] == [len(b'{"url": "'), len(url.text), 2]


def test_padding_is_known_at_the_end_only_also_between_blocks() -> None:
    block = "A" * (64 * 1024 - 4) + "AA=="
    assert len(cut(f'{{"url":"data:;base64,{block}"}}'.encode()).urls) == 1
    assert len(cut(f'{{"url":"data:;base64,{block}AAAA"}}'.encode()).urls) == 0


def test_of_very_many_strings_that_begin_like_images_the_first_are_looked_at() -> None:
    body = json.dumps({"a": ["data:"] * 2000, "b": {"url": URL}}).encode()
    assert cut(body) == Cut(body, {}), "what comes later is left to the full parser"


@pytest.mark.parametrize(
    "unit", ["{},", "[],", "1,", '"ab",', '{"a":1},'], ids=["objects", "arrays", "numbers", "strings", "pairs"]
)
def test_a_document_of_very_many_values_is_refused_before_it_is_parsed(unit: str) -> None:
    body = b'{"x":[' + unit.encode() * (200_000 // sum(unit.count(mark) for mark in "{}[],:")) + b"1]}"
    with pytest.raises(BodyTooLarge, match="more than 200000"):
        parse_document(body)


def test_words_and_escaped_images_are_no_values() -> None:
    for text in ("A defect of the surface, 3 mm wide. " * 100_000, PAYLOAD.replace("/", "\\/") * 4_000):
        assert len(parse_document(f'{{"text":"{text}"}}'.encode())["text"]) > 3_000_000
