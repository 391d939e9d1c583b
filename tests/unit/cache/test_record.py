import math
import random
import tracemalloc
import zlib

import pytest
from blake3 import blake3

from gateway.cache.record import Unreadable, pack, unpack
from gateway.cache.results import Address, Stored
from tests.stores import ADDRESS, ANSWER, MIB


@pytest.mark.parametrize("size_bytes", [0, 1, 1024, 1025, 100_000])
@pytest.mark.parametrize("is_random", [False, True])
def test_an_answer_comes_back_as_it_was(*, size_bytes: int, is_random: bool) -> None:
    answer = random.Random(1).randbytes(size_bytes) if is_random else b"{" * size_bytes
    stored = Stored(answer, 1_700_000_000.25, 1_700_000_100.5)
    found = unpack(ADDRESS, pack(ADDRESS, stored), MIB)
    assert (found, found.expires_at_s) == (stored, 1_700_000_100.5)


def test_an_answer_that_never_expires_does_not() -> None:
    assert unpack(ADDRESS, pack(ADDRESS, ANSWER), MIB).expires_at_s == math.inf


def test_only_a_long_answer_is_compressed_and_only_if_that_helps() -> None:
    around = len(pack(ADDRESS, Stored(b"", 0)))
    assert len(pack(ADDRESS, Stored(b"a" * 1024, 0))) == 1024 + around
    assert len(pack(ADDRESS, Stored(b"a" * 1025, 0))) < 100
    noise = random.Random(1).randbytes(5000)
    assert len(pack(ADDRESS, Stored(noise, 0))) == 5000 + around


@pytest.mark.parametrize("answer", [b"short", b"long " * 1000])
def test_a_bit_that_has_turned_anywhere_makes_it_unreadable(answer: bytes) -> None:
    record = pack(ADDRESS, Stored(answer, 5.0))
    for at in range(len(record)):
        turned = bytearray(record)
        turned[at] ^= 1 << at % 8
        with pytest.raises(Unreadable):
            unpack(ADDRESS, bytes(turned), MIB)


def test_what_was_cut_or_grew_is_unreadable() -> None:
    record = pack(ADDRESS, ANSWER)
    for other in (*(record[:end] for end in range(len(record))), record + b"\0", record * 2):
        with pytest.raises(Unreadable):
            unpack(ADDRESS, other, MIB)


@pytest.mark.parametrize(
    "other",
    [
        Address("acm", "etiny", ADDRESS.key),
        Address("acmetiny", "", ADDRESS.key),
        Address("", "acmetiny", ADDRESS.key),
        Address("acme", "tiny", bytes(32)),
        Address("acme", "tiny" + chr(0), ADDRESS.key[1:]),
    ],
)
def test_another_address_s_answer_is_unreadable(other: Address) -> None:
    with pytest.raises(Unreadable):
        unpack(ADDRESS, pack(other, ANSWER), MIB)


def forged(body: bytes) -> bytes:
    """What somebody who can write into Redis, and has read how, can put there."""
    digest = blake3()
    for part in (ADDRESS.tenant.encode(), ADDRESS.model.encode(), ADDRESS.key):
        digest.update(len(part).to_bytes(4, "little") + part)
    return body + digest.update(body).digest(16)


def test_a_forged_record_is_read_as_such() -> None:
    record = pack(ADDRESS, ANSWER)
    assert forged(record[:-16]) == record


def test_a_value_never_becomes_more_than_the_largest_answer() -> None:
    head = pack(ADDRESS, Stored(b"a" * 2000, 0))[:21]
    bomb = forged(head + zlib.compress(bytes(200 * MIB), 9))
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match="longer"):
            unpack(ADDRESS, bomb, MIB)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 10 * MIB


def test_an_answer_that_is_too_long_as_it_lies_there_is_unreadable() -> None:
    record = pack(ADDRESS, Stored(b"a" * 1000, 0))
    assert unpack(ADDRESS, record, 1000).answer == b"a" * 1000
    with pytest.raises(Unreadable, match="longer"):
        unpack(ADDRESS, record, 999)


def test_what_cannot_be_decompressed_is_unreadable() -> None:
    head = pack(ADDRESS, Stored(b"a" * 2000, 0))[:21]
    for payload in (b"", b"not deflated", zlib.compress(b"a" * 2000)[:-3]):
        with pytest.raises(Unreadable):
            unpack(ADDRESS, forged(head + payload), MIB)


def test_another_version_s_record_is_unreadable() -> None:
    body = pack(ADDRESS, ANSWER)[:-16]
    for other in (b"fov\x02" + body[4:], body[:4] + b"\x02" + body[5:]):
        with pytest.raises(Unreadable, match="version"):
            unpack(ADDRESS, forged(other), MIB)
