"""Where a URL points, and whether images may come from there.

A URL is read once, by the one grammar below, and what was read is what is connected to: nothing after it parses again.
"""

import ipaddress
import re
import string
import urllib.parse
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Self

from gateway.errors import shortened

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_USUAL_PORTS = {"http": 80, "https": 443}
_LONGEST_URL_CHARACTERS = 8192
"""What servers take as a request line, nginx's and Apache's defaults; a signed URL of an object store has 2,000."""

_NO_URL_HOLDS = re.compile(r"[\x00-\x20\x7f-\x9f\s\\\ud800-\udfff]")
"""Control characters, whitespace and lone surrogates; and the backslash, a slash to browsers and a character to others."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_AFTER_SCHEME = re.compile(r"//(?P<authority>[^/?#]+)(?P<target>[^#]*)(?:#.*)?")
_HOST_AND_PORT = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[1-9][0-9]{0,4}))?")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_HIGHEST_PORT = 65535


class UnfitUrl(Exception):
    """A URL that no image comes from; the message says so of the URL, as in "has the scheme 'ftp'"."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL points: `host` is a name in lower case or an address as `ipaddress` writes it, `target` path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def address(self) -> IPAddress | None:
        """The address that the URL itself names, if it names one."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def has_usual_port(self) -> bool:
        return self.port == _USUAL_PORTS[self.scheme]

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.has_usual_port else f"{host}:{self.port}"

    def redirected(self, location: bytes, schemes: Collection[str]) -> Self:
        """Where a Location header points that came from here.

        Raises UnfitUrl.
        """
        try:
            reference = location.decode()
            _check_characters(reference)
            url = urllib.parse.urljoin(f"{self.scheme}://{self.authority}{self.target}", reference)
        except ValueError as error:
            raise _not_a_url() from error
        return self.of(url, schemes)

    @classmethod
    def of(cls, url: str, schemes: Collection[str]) -> Self:
        """Where `url` points, whose scheme must be among `schemes`, of which there are `http` and `https`.

        Raises UnfitUrl: it is not written in the plainest way, by RFC 3986 and no reader's leniency.
        """
        _check_characters(url)
        scheme, rest = _scheme(url, schemes)
        parts = _AFTER_SCHEME.fullmatch(rest)
        if parts is None:
            raise _not_a_url()
        host, port = _host_and_port(parts["authority"])
        # Beyond ASCII a URL holds UTF-8, percent-encoded (RFC 3987 §3.1); everything else is asked for as it was written.
        target = urllib.parse.quote(parts["target"], safe=string.punctuation)
        return cls(scheme, host, port or _USUAL_PORTS[scheme], target if target.startswith("/") else f"/{target}")


def _check_characters(url: str) -> None:
    if len(url) > _LONGEST_URL_CHARACTERS:
        raise UnfitUrl(f"has {len(url)} characters; {_LONGEST_URL_CHARACTERS} are the most.")
    unfit = _NO_URL_HOLDS.search(url)
    if unfit is not None:
        raise UnfitUrl(f"holds the character U+{ord(unfit[0]):04X}, which no URL does: percent-encode it.")


def _scheme(url: str, schemes: Collection[str]) -> tuple[str, str]:
    parts = _SCHEME.match(url)
    if parts is None:
        raise _not_a_url()
    scheme = parts[1].lower()
    if scheme not in schemes:
        allowed = ", ".join(sorted(schemes)) or "none"
        raise UnfitUrl(f"has the scheme '{shortened(scheme)}'; FOVEA_IMAGE_URL_SCHEMES allows {allowed}.")
    return scheme, url[parts.end() :]


def _not_a_url() -> UnfitUrl:
    return UnfitUrl("must have the form https://host/path.")


def _host_and_port(authority: str) -> tuple[str, int | None]:
    """The host as `Place` has it, and the port if there is one."""
    if "@" in authority:
        raise UnfitUrl("holds a user name or password before its host (@); none is sent.")
    # Beyond ASCII there are letters whose small form is in it, such as the Kelvin sign's.
    parts = _HOST_AND_PORT.fullmatch(authority.lower()) if authority.isascii() else None
    host = parts and _host(parts["address"], parts["name"])
    port = int(parts["port"] or 0) if parts else 0
    if host is None or port > _HIGHEST_PORT:
        raise UnfitUrl(
            "must name its host in ASCII (other scripts as xn--...) or by an address such as 192.0.2.1 or [2001:db8::1],"
            f" and its port, if any, by a number up to {_HIGHEST_PORT}."
        )
    return host, port or None


def _host(address: str | None, name: str | None) -> str | None:
    """The host as `Place` has it; None where it is written in a way that one reader takes for this and another for that."""
    try:
        if name is None:
            return str(ipaddress.IPv6Address(address or ""))
        if _NUMBER.fullmatch(name.rsplit(".", 1)[-1]):
            # Resolvers take 0x7f.1, 0177.0.0.1, 127.1 and 2130706433 for addresses, as inet_aton does; the WHATWG's URL
            # standard calls such a host one that ends in a number. Four plain decimals are the one form all agree on.
            return str(ipaddress.IPv4Address(name))
    except ValueError:
        return None
    return name if _NAME.fullmatch(name) else None


_GLOBAL_UNICAST_V6 = ipaddress.ip_network("2000::/3")
_SPECIAL = tuple(
    ipaddress.ip_network(network)
    for network in (
        # IANA's registry of special-purpose IPv4 addresses, and multicast.
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        # Azure's host, which tells a virtual machine its secrets under an address like anybody's.
        "168.63.129.16/32",
        # What of 2000::/3 is not plain: protocol assignments with Teredo, ORCHID and benchmarks; documentation; 6to4, which
        # holds any IPv4 address; documentation again (RFC 9637).
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    )
)


def is_public(address: IPAddress) -> bool:
    """Whether `address` is plain global unicast, of one host that anybody may reach.

    `is_global` of the standard library alone does not say so: it holds for multicast, for 6to4, for NAT64 and IPv4-compatible
    addresses with 127.0.0.1 within, for site-local ones and for what nobody has been given; and some of it is another answer
    in another release of Python. So IPv6 is taken from the one block that is handed out, which leaves those that embed IPv4
    outside, and the rest is named; what a release knows besides counts too.
    """
    if address.version == 6 and address not in _GLOBAL_UNICAST_V6:
        return False
    return address.is_global and not any(address in network for network in _SPECIAL)


_STORES_HAVE = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)
_METADATA = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "fd00:ec2::254", "fd20:ce::254")))
"""Where Alibaba's, Amazon's and Google's machines learn who they are, among addresses that stores could have."""


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """Hosts that images may come from although they are internal, each with the one port it is meant for, or any."""

    names: frozenset[tuple[str, int | None]]
    networks: tuple[tuple[_IPNetwork, int | None], ...]

    @classmethod
    def of(cls, entries: Iterable[str]) -> Self:
        """From `minio`, `minio:9000`, `.example.com`, `10.0.0.5`, `[fd00::5]:9000`, `10.8.0.0/16`.

        `.example.com` stands for all names below it, not for itself. Raises ValueError, naming the entry that is none of these.
        """
        names: set[tuple[str, int | None]] = set()
        networks: list[tuple[_IPNetwork, int | None]] = []
        for entry in entries:
            host, port = _allowed(entry)
            if isinstance(host, str):
                names.add((host, port))
            else:
                networks.append((host, port))
        return cls(frozenset(names), tuple(networks))

    def may_permit(self, place: Place) -> bool:
        """Whether `permit` may say yes, as long as the address is not known."""
        return place.has_usual_port or self._lists_name(place) or any(port in {None, place.port} for _, port in self.networks)

    def permit(self, place: Place, address: IPAddress) -> bool:
        """Whether images may come from `place`, the address of whose host is `address`.

        A listed name may have an address as stores have them. Who can change what it resolves to does not get to the metadata
        of the machine, to neighbours of the link or to multicast: those must be listed by their addresses.
        """
        if any(address in network and port in {None, place.port} for network, port in self.networks):
            return True
        if self._lists_name(place):
            return is_public(address) or (address not in _METADATA and any(address in network for network in _STORES_HAVE))
        return place.has_usual_port and is_public(address)

    def _lists_name(self, place: Place) -> bool:
        parents = (place.host[at:] for at, character in enumerate(place.host) if character == ".")
        return any((name, port) in self.names for name in (place.host, *parents) for port in (None, place.port))


def _allowed(entry: str) -> tuple[str | _IPNetwork, int | None]:
    try:
        return ipaddress.ip_network(entry), None
    except ValueError:
        pass
    dot = "." if entry.startswith(".") else ""
    try:
        host, port = _host_and_port(entry.removeprefix("."))
    except UnfitUrl:
        raise ValueError(
            f"FOVEA_IMAGE_URL_HOSTS: '{entry}' is none of a name, a domain after a dot or an address, with a port or without,"
            " and a network."
        ) from None
    try:
        return ipaddress.ip_network(dot + host), port
    except ValueError:
        return dot + host, port
