"""What is refused before anything is connected to. With real sockets: tests/integration/test_fetching.py."""

import asyncio

import pytest

from gateway.images.fetch import CannotFetch, ImageFetcher
from tests.network import Names, Wires, uncounted

HTTPS = frozenset({"https"})
BOTH = frozenset({"http", "https"})


def fetcher(names: Names, wires: Wires, schemes: frozenset[str] = BOTH, *listed: str) -> ImageFetcher:
    return ImageFetcher(
        schemes=schemes, allowed_hosts=frozenset(listed), max_bytes=1000, at_once=4, resolver=names, backend=wires
    )


def refusal(url: str, names: Names, wires: Wires, schemes: frozenset[str] = BOTH, *listed: str) -> str:
    with pytest.raises(CannotFetch) as error:
        asyncio.run(fetcher(names, wires, schemes, *listed).fetch(url, uncounted))
    return str(error.value)


INTERNAL = {
    "loopback": ["127.0.0.1"],
    "loopback, IPv6": ["::1"],
    "private": ["10.0.0.1"],
    "metadata": ["169.254.169.254"],
    "mapped": ["::ffff:127.0.0.1"],
    "public and then private": ["1.1.1.1", "10.0.0.1"],
    "private and then public": ["10.0.0.1", "1.1.1.1"],
    "public of one family, loopback of the other": ["1.1.1.1", "::1"],
    "no address": [],
}


@pytest.mark.parametrize("addresses", INTERNAL.values(), ids=INTERNAL.keys())
def test_a_name_with_one_internal_address_is_not_connected_to(addresses: list[str]) -> None:
    names, wires = Names({"a.example": [addresses]}), Wires()
    assert "FOVEA_IMAGE_URL_HOSTS" in refusal("https://a.example/", names, wires)
    assert (names.asked, wires.connected) == (["a.example"], [])


def test_a_caller_does_not_learn_which_names_exist_within_nor_where() -> None:
    names = Names({"redis.prod": [["10.1.2.3"]], "db.prod": [["10.9.9.9", "fd00::7"]]})
    said = [refusal(f"http://{name}/", names, Wires()) for name in ("redis.prod", "db.prod", "nobody.prod")]
    assert len({message.replace(name, "") for message, name in zip(said, names.asked, strict=True)}) == 1


def test_a_port_is_refused_before_its_host_is_looked_up() -> None:
    names, wires = Names({}), Wires()
    assert refusal("https://a.example:8443/", names, wires) == (
        "The image URL with host 'a.example' asks for port 8443: "
        "FOVEA_IMAGE_URL_HOSTS must list the host for any but 443 and 80."
    )
    assert (names.asked, wires.connected) == ([], [])


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "https://169.254.169.254/"]
)
def test_an_internal_address_is_neither_looked_up_nor_connected_to(url: str) -> None:
    names, wires = Names({}), Wires()
    assert "FOVEA_IMAGE_URL_HOSTS" in refusal(url, names, wires)
    assert (names.asked, wires.connected) == ([], [])


def test_a_scheme_is_refused_by_the_name_of_its_setting() -> None:
    names, wires = Names({}), Wires()
    assert refusal("http://a.example/", names, wires, HTTPS) == (
        "The image URL has the scheme 'http'; FOVEA_IMAGE_URL_SCHEMES allows https."
    )
    assert (names.asked, wires.connected) == ([], [])


def test_the_address_that_was_checked_is_connected_to_and_the_name_looked_up_once() -> None:
    names, wires = Names({"a.example": [["1.1.1.1"], ["127.0.0.1"]]}), Wires()
    assert "gave no answer" in refusal("https://a.example/", names, wires)
    assert (names.asked, wires.connected) == (["a.example"], [("1.1.1.1", 443)])


def test_at_most_four_addresses_of_a_name_are_tried() -> None:
    names, wires = Names({"a.example": [[f"1.1.1.{last}" for last in range(1, 10)]]}), Wires()
    assert "gave no answer" in refusal("https://a.example/", names, wires)
    assert [address for address, _ in wires.connected] == ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]


def test_a_long_host_is_repeated_in_part() -> None:
    host = ".".join(["a" * 60] * 4)
    assert f"'{host[:97]}...'" in refusal(f"https://{host}/", Names({}), Wires())


def test_an_allow_list_that_means_nothing_stops_the_gateway_at_its_start() -> None:
    with pytest.raises(ValueError, match=r"FOVEA_IMAGE_URL_HOSTS: '\*\.example\.com'"):
        fetcher(Names({}), Wires(), BOTH, "*.example.com")
