import base64

import pybase64
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.images.encoded import Base64Image, BrokenBase64, RawImage

PLACES = st.tuples(st.integers(0, 120), st.integers(0, 120))


@given(st.binary(max_size=100), PLACES)
def test_a_part_of_base64_is_the_part_of_what_it_stands_for(data: bytes, place: tuple[int, int]) -> None:
    start, size = place
    for image in (Base64Image(base64.b64encode(data)), Base64Image(memoryview(base64.b64encode(data))), RawImage(data)):
        assert image.size == len(data)
        assert image.read(start, size) == data[start : start + size]


@given(st.text("AQgw+/=_ \n%", max_size=24), PLACES)
def test_what_is_not_base64_is_refused_or_its_sound_part_is_read(text: str, place: tuple[int, int]) -> None:
    try:
        whole: bytes | None = pybase64.b64decode(text.encode(), validate=True)
    except ValueError:
        whole = None
    try:
        image = Base64Image(text.encode())
        part = image.read(*place)
        everything = image.read(0, image.size)
    except BrokenBase64:
        assert whole is None
    else:
        assert everything == whole
        assert part == everything[place[0] :][: place[1]]


def test_what_is_broken_is_not_noticed_where_it_is_not_read() -> None:
    image = Base64Image(base64.b64encode(b"abc" * 100) + b"****")
    assert image.read(3, 3) == b"abc"
    with pytest.raises(BrokenBase64):
        image.read(290, 20)


@pytest.mark.parametrize("payload", [b"QQ=", b"QQ", b"Q", b"QUJDR"])
def test_a_length_that_base64_cannot_have_is_refused_at_once(payload: bytes) -> None:
    with pytest.raises(BrokenBase64):
        Base64Image(payload)


def test_padding_before_the_end_is_refused() -> None:
    with pytest.raises(BrokenBase64):
        Base64Image(b"QQ==QUJD").read(0, 3)
