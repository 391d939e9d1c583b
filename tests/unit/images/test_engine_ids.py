import itertools
import string

from hypothesis import given
from hypothesis import strategies as st

from gateway.images.engine_ids import EngineIds

IDS = EngineIds(b"a secret")
NAMED = st.tuples(st.text(max_size=4), st.binary(max_size=4), st.text(max_size=4))


def test_a_name_is_the_same_in_every_process_and_version() -> None:
    """Engines outlive a gateway; gateways before the same engine are to agree."""
    assert EngineIds(b"a secret").uuid("ada", bytes(32), "as it came") == "45410f34bce50d5e7a907ffe9ffe0463"
    assert EngineIds(b"a secret").salt("ada") == "a7b1561e5ba38f56af55276c3c0722d3"


@given(NAMED, NAMED)
def test_only_the_same_has_the_same_name(one: tuple[str, bytes, str], other: tuple[str, bytes, str]) -> None:
    assert (IDS.uuid(*one) == IDS.uuid(*other)) == (one == other)


def test_where_one_part_ends_and_the_next_begins_counts() -> None:
    parts = [("ab", b"c", "d"), ("a", b"bc", "d"), ("a", b"b", "cd"), ("abcd", b"", ""), ("", b"abcd", ""), ("", b"", "abcd")]
    assert len({IDS.uuid(*each) for each in parts}) == len(parts)


def test_tenants_and_secrets_and_kinds_of_names_are_kept_apart() -> None:
    names = [
        *(IDS.uuid(tenant, bytes(32), "as it came") for tenant in ("", "ada", "bob")),
        *(IDS.salt(tenant) for tenant in ("", "ada", "bob")),
        IDS.uuid("ada", bytes(31) + b"\1", "as it came"),
        IDS.uuid("ada", bytes(32), "v1-jpeg-504x364-o1"),
        EngineIds(b"").uuid("ada", bytes(32), "as it came"),
        EngineIds(b"").salt("ada"),
    ]
    assert all(one != other for one, other in itertools.combinations(names, 2))


@given(st.text())
def test_vllm_takes_every_salt(tenant: str) -> None:
    """At most 128 characters, none of @, / and backslash, not NUL (0.32, validate_cache_salt)."""
    for name in (IDS.salt(tenant), IDS.uuid(tenant, b"", "")):
        assert len(name) == 32
        assert set(name) <= set(string.hexdigits.lower())
