import base64

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from gateway.images.digest import source_digest


@given(st.binary(max_size=100))
def test_an_image_is_known_by_its_own_bytes_not_by_how_they_came(data: bytes) -> None:
    assert source_digest(base64.b64encode(data)) == blake3(data).digest()


@pytest.mark.parametrize("size", [3 * 16 * 1024 - 1, 3 * 16 * 1024, 3 * 16 * 1024 + 1, 1_000_003])
def test_an_image_of_several_blocks_is_known_as_a_whole(size: int) -> None:
    data = bytes(index % 251 for index in range(size))
    assert source_digest(memoryview(base64.b64encode(data))) == blake3(data).digest()
