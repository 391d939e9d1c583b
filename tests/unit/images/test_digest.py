import base64

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from gateway.images.digest import PixelDigests, source_digest
from gateway.images.encoded import Base64Image


@given(st.binary(max_size=100))
def test_an_image_is_known_by_its_own_bytes_not_by_how_they_came(data: bytes) -> None:
    assert source_digest(base64.b64encode(data)) == blake3(data).digest()


@pytest.mark.parametrize("size", [3 * 16 * 1024 - 1, 3 * 16 * 1024, 3 * 16 * 1024 + 1, 1_000_003])
def test_an_image_of_several_blocks_is_known_as_a_whole(size: int) -> None:
    data = bytes(index % 251 for index in range(size))
    assert source_digest(memoryview(base64.b64encode(data))) == blake3(data).digest()


def test_an_image_is_digested_once() -> None:
    payload = bytearray(base64.b64encode(b"an image"))
    image = Base64Image(payload)
    assert image.digest == blake3(b"an image").digest()
    payload[:4] = b"AAAA"
    assert image.digest == blake3(b"an image").digest()


def test_a_pixel_digest_is_found_by_image_and_recipe() -> None:
    digests = PixelDigests(2)
    digests.put((b"a", "as it came"), b"1")
    assert digests.get((b"a", "as it came")) == b"1"
    assert digests.get((b"a", "v1-jpeg-28x28-o1")) is None
    assert digests.get((b"b", "as it came")) is None


def test_the_pixel_digest_that_was_not_asked_for_the_longest_makes_room() -> None:
    digests = PixelDigests(2)
    for name in (b"a", b"b"):
        digests.put((name, ""), name)
    digests.get((b"a", ""))
    digests.put((b"a", ""), b"a")
    digests.put((b"c", ""), b"c")
    assert [digests.get((name, "")) for name in (b"a", b"b", b"c")] == [b"a", None, b"c"]


def test_no_pixel_digests_are_kept_where_there_is_no_room() -> None:
    digests = PixelDigests(0)
    digests.put((b"a", ""), b"1")
    assert digests.get((b"a", "")) is None
