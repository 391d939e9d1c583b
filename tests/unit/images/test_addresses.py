import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.images.addresses import AllowedHosts, Place, UnfitUrl, is_public

BOTH = frozenset({"http", "https"})


def place(url: str) -> Place:
    return Place.of(url, BOTH)


READ = {
    "the plainest": ("https://example.com/a.png", Place("https", "example.com", 443, "/a.png")),
    "no path": ("https://example.com", Place("https", "example.com", 443, "/")),
    "a query without a path": ("https://example.com?a=b", Place("https", "example.com", 443, "/?a=b")),
    "a fragment, which is not sent": ("https://example.com/a#b?c", Place("https", "example.com", 443, "/a")),
    "capitals": ("HTTPS://EXAMPLE.com/A", Place("https", "example.com", 443, "/A")),
    "a port": ("http://example.com:8080/", Place("http", "example.com", 8080, "/")),
    "the usual port": ("http://example.com:80/", Place("http", "example.com", 80, "/")),
    "an address": ("http://192.0.2.1/", Place("http", "192.0.2.1", 80, "/")),
    "IPv6": ("http://[2001:DB8:0::1]:81/", Place("http", "2001:db8::1", 81, "/")),
    "a name in punycode": ("https://xn--bcher-kva.example/", Place("https", "xn--bcher-kva.example", 443, "/")),
    "underscores": ("https://my_bucket.example.com/", Place("https", "my_bucket.example.com", 443, "/")),
    "beyond ASCII in the path": ("https://example.com/ü?ü=日", Place("https", "example.com", 443, "/%C3%BC?%C3%BC=%E6%97%A5")),
    "escapes stay as they are": ("https://example.com/%2e%2E/a%00", Place("https", "example.com", 443, "/%2e%2E/a%00")),
    "an @ behind the host": ("https://example.com/@127.0.0.1", Place("https", "example.com", 443, "/@127.0.0.1")),
    "a number within a name": ("https://0x7f.1.example/", Place("https", "0x7f.1.example", 443, "/")),
}


@pytest.mark.parametrize(("url", "read"), READ.values(), ids=READ.keys())
def test_a_url_in_its_plain_form_is_read(url: str, read: Place) -> None:
    assert place(url) == read


UNREAD = {
    "file": ("file:///etc/passwd", "scheme 'file'"),
    "gopher": ("gopher://127.0.0.1:6379/_FLUSHALL", "scheme 'gopher'"),
    "ftp": ("ftp://example.com/a", "scheme 'ftp'"),
    "data": ("data:text/html,<script>", "scheme 'data'"),
    "javascript": ("javascript:alert(1)", "scheme 'javascript'"),
    "unix": ("http+unix://%2Fvar%2Frun%2Fdocker.sock/", "scheme 'http+unix'"),
    "no scheme": ("//example.com/a", "must have the form"),
    "a path": ("/etc/passwd", "must have the form"),
    "nothing": ("", "must have the form"),
    "no slashes": ("https:example.com", "must have the form"),
    "one slash": ("https:/example.com", "must have the form"),
    "three slashes": ("https:///example.com", "must have the form"),
    "no host": ("https://", "must have the form"),
    "no host but a query": ("https://?a", "must have the form"),
    "only a port": ("https://:443/", "must name its host"),
    "a user": ("http://example.com@127.0.0.1/", "user name or password"),
    "a user and a password": ("http://a:b@example.com/", "user name or password"),
    "an empty user": ("http://@127.0.0.1/", "user name or password"),
    "a user with a fragment's sign": ("http://a%23@127.0.0.1/", "user name or password"),
    "a backslash before the host": ("http://127.0.0.1\\@example.com/", "U+005C"),
    "a backslash for a slash": ("http:\\\\127.0.0.1/", "U+005C"),
    "a backslash in the path": ("http://example.com/\\127.0.0.1", "U+005C"),
    "a line break": ("http://example.com/a\r\nHost: b", "U+000D"),
    "a line break at the end": ("http://example.com/\n", "U+000A"),
    "a tab in the scheme": ("ht\ttp://example.com/", "U+0009"),
    "a space before": (" http://example.com/", "U+0020"),
    "a NUL": ("http://example.com\x00.evil.example/", "U+0000"),
    "a space of another script": ("http://example.com/\u3000", "U+3000"),
    "half a character": ("http://example.com/\ud800", "U+D800"),
    "hexadecimal": ("http://0x7f.1/", "must name its host"),
    "hexadecimal in one": ("http://0x7f000001/", "must name its host"),
    "hexadecimal without digits": ("http://127.0.0.0x/", "must name its host"),
    "decimal in one": ("http://2130706433/", "must name its host"),
    "octal": ("http://0177.0.0.1/", "must name its host"),
    "octal in the last": ("http://127.0.0.01/", "must name its host"),
    "short": ("http://127.1/", "must name its host"),
    "zero": ("http://0/", "must name its host"),
    "five numbers": ("http://127.0.0.1.1/", "must name its host"),
    "more than a byte": ("http://127.0.0.256/", "must name its host"),
    "a dot behind an address": ("http://127.0.0.1./", "must name its host"),
    "a dot behind a name": ("http://localhost./", "must name its host"),
    "two dots": ("http://example..com/", "must name its host"),
    "full-width digits": ("http://\uff11\uff12\uff17.0.0.1/", "must name its host"),
    "an ideographic full stop": ("http://127。0。0。1/", "must name its host"),
    "circled digits": ("http://①②⑦.0.0.1/", "must name its host"),
    "a soft hyphen": ("http://local\u00adhost/", "must name its host"),
    "the Kelvin sign, a k in lower case": ("http://\u212aubernetes.default/", "must name its host"),
    "another script": ("http://bücher.example/", "must name its host"),
    "percent-encoded": ("http://127%2e0.0.1/", "must name its host"),
    "percent-encoded letters": ("http://%6cocalhost/", "must name its host"),
    "an IPv6 zone": ("http://[fe80::1%25eth0]/", "must name its host"),
    "an IPv6 zone, raw": ("http://[fe80::1%eth0]/", "must name its host"),
    "IPv6 without brackets": ("http://::1/", "must name its host"),
    "IPv6 that is not": ("http://[::g]/", "must name its host"),
    "IPvFuture": ("http://[v1.x]/", "must name its host"),
    "an IPv4 in brackets": ("http://[127.0.0.1]/", "must name its host"),
    "words behind brackets": ("http://[::1]example.com/", "must name its host"),
    "a name in brackets": ("http://[localhost]/", "must name its host"),
    "port 0": ("http://example.com:0/", "must name its host"),
    "no port behind a colon": ("http://example.com:/", "must name its host"),
    "a port that is too high": ("http://example.com:65536/", "must name its host"),
    "a port with a sign": ("http://example.com:+80/", "must name its host"),
    "a port with a zero before": ("http://example.com:080/", "must name its host"),
    "two ports": ("http://example.com:80:81/", "must name its host"),
    "a label that is too long": (f"http://{'a' * 64}.com/", "must name its host"),
    "a name that is too long": (f"http://{'a.' * 126}com/", "must name its host"),
    "a URL that is too long": (f"http://example.com/{'a' * 8192}", "8192 are the most"),
}


@pytest.mark.parametrize(("url", "said"), UNREAD.values(), ids=UNREAD.keys())
def test_any_other_url_is_refused_with_the_reason(url: str, said: str) -> None:
    with pytest.raises(UnfitUrl, match=said.replace("+", r"\+")):
        place(url)


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(UnfitUrl) as error:
        place("https://me:hunter2@example.com/")
    assert "hunter2" not in str(error.value)


def test_http_is_read_only_where_it_is_allowed() -> None:
    with pytest.raises(UnfitUrl, match=r"scheme 'http'; FOVEA_IMAGE_URL_SCHEMES allows https\."):
        Place.of("http://example.com/", frozenset({"https"}))


@given(st.text(alphabet="htps:/.0x127@\\[]%#? \tabc\uff11。-_", max_size=40))
def test_whatever_is_read_reads_the_same_when_it_is_written_again(tail: str) -> None:
    try:
        once = place(f"http://{tail}")
    except UnfitUrl:
        return
    assert place(f"{once.scheme}://{once.authority}{once.target}") == once


REDIRECTED = {
    "a path": (b"/b", "https://example.com/b"),
    "a name beside": (b"b?c", "https://example.com/x/b?c"),
    "a step up": (b"../b", "https://example.com/b"),
    "a query": (b"?c", "https://example.com/x/a?c"),
    "another host": (b"//other.example/b", "https://other.example/b"),
    "a whole URL": (b"http://other.example:81/b#c", "http://other.example:81/b"),
    "nothing": (b"", "https://example.com/x/a?q"),
    "beyond ASCII": ("/ü".encode(), "https://example.com/%C3%BC"),
}


@pytest.mark.parametrize(("location", "target"), REDIRECTED.values(), ids=REDIRECTED.keys())
def test_a_redirect_is_relative_to_where_it_came_from(location: bytes, target: str) -> None:
    assert place("https://example.com/x/a?q").redirected(location, BOTH) == place(target)


@pytest.mark.parametrize(
    "location",
    [
        b"\xff",
        b"file:///etc/passwd",
        b"//a@127.0.0.1/",
        b"//[::1/",
        b"/\\127.0.0.1",
        b"\\\\127.0.0.1",
        b"http://127.1",
        b"//0x7f.1",
    ],
)
def test_a_redirect_is_read_as_strictly(location: bytes) -> None:
    with pytest.raises(UnfitUrl):
        place("https://example.com/").redirected(location, BOTH)


PUBLIC = ["1.1.1.1", "93.184.216.34", "172.15.255.255", "172.32.0.0", "100.63.255.255", "100.128.0.0", "223.255.255.255"]
PUBLIC_V6 = ["2606:4700:4700::1111", "2a00:1450:4001:80b::200e", "2001:200::1"]


@pytest.mark.parametrize("address", PUBLIC + PUBLIC_V6)
def test_global_unicast_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


NOT_PUBLIC = {
    "this host": ["0.0.0.0", "0.1.2.3", "::"],
    "loopback": ["127.0.0.1", "127.255.255.255", "::1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1"],
    "carriers' NAT": ["100.64.0.1", "100.127.255.255"],
    "link-local": ["169.254.0.1", "fe80::1", "febf::1"],
    "metadata": [
        "169.254.169.254",
        "169.254.170.2",
        "fd00:ec2::254",
        "fd20:ce::254",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
    ],
    "unique local": ["fc00::1", "fdff::1"],
    "site-local": ["fec0::1"],
    "multicast": ["224.0.0.1", "232.1.1.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "4000::1", "5f00::1", "e000::1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "benchmarks": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "protocols": ["192.0.0.1", "192.0.0.9", "192.88.99.1", "2001:20::1", "2001:10::1", "100::1"],
    "IPv4-mapped": ["::ffff:127.0.0.1", "::ffff:1.1.1.1", "::ffff:0:127.0.0.1"],
    "IPv4-compatible": ["::127.0.0.1", "::1.1.1.1"],
    "6to4": ["2002:7f00:1::", "2002:0a00:0001::1"],
    "NAT64": ["64:ff9b::7f00:1", "64:ff9b::101:101", "64:ff9b:1::a00:1"],
    "Teredo": ["2001::1", "2001:0:7f00:1::"],
}


@pytest.mark.parametrize("address", [a for group in NOT_PUBLIC.values() for a in group])
def test_nothing_else_is_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@given(st.ip_addresses())
def test_the_standard_library_is_never_stricter(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert address.is_global or not is_public(address)


def permits(entries: list[str], url: str, address: str) -> bool:
    allowed = AllowedHosts.of(entries)
    permitted = allowed.permit(place(url), ipaddress.ip_address(address))
    assert allowed.may_permit(place(url)) or not permitted
    return permitted


PERMITTED = {
    "a public address": ([], "https://a.example/", "1.1.1.1"),
    "a name": (["minio"], "http://minio/", "10.0.0.5"),
    "a name at any port": (["minio"], "http://minio:9000/", "10.0.0.5"),
    "a name in capitals": (["MinIO"], "http://minio/", "10.0.0.5"),
    "a name with its port": (["minio:9000"], "http://minio:9000/", "10.0.0.5"),
    "a listed name that is public, at another port": (["cdn.example:8443"], "https://cdn.example:8443/", "1.1.1.1"),
    "a listed name that is public, at the usual port": (["cdn.example:8443"], "https://cdn.example/", "1.1.1.1"),
    "a domain": ([".svc.cluster.local"], "http://minio.data.svc.cluster.local/", "fd00::5"),
    "loopback by name": (["localhost:9000"], "http://localhost:9000/", "::1"),
    "an address": (["10.0.0.5"], "http://10.0.0.5:9000/", "10.0.0.5"),
    "an address and its port": (["10.0.0.5:9000"], "http://10.0.0.5:9000/", "10.0.0.5"),
    "IPv6": (["fd00::5"], "http://[fd00::5]/", "fd00::5"),
    "IPv6 and its port": (["[fd00::5]:9000"], "http://[fd00::5]:9000/", "fd00::5"),
    "a network": (["10.8.0.0/16"], "http://10.8.1.1/", "10.8.1.1"),
    "a name within a network": (["10.8.0.0/16"], "http://minio:9000/", "10.8.1.1"),
    "metadata by its address": (["169.254.169.254"], "http://169.254.169.254/", "169.254.169.254"),
}


@pytest.mark.parametrize(("entries", "url", "address"), PERMITTED.values(), ids=PERMITTED.keys())
def test_what_is_listed_is_permitted(entries: list[str], url: str, address: str) -> None:
    assert permits(entries, url, address)


NOT_PERMITTED = {
    "nothing is listed": ([], "http://minio/", "10.0.0.5"),
    "another port": ([], "https://a.example:8443/", "1.1.1.1"),
    "the port of the other scheme": ([], "https://a.example:80/", "1.1.1.1"),
    "a name that ends so": (["minio"], "http://evilminio/", "10.0.0.5"),
    "a name below": (["minio.example"], "http://a.minio.example/", "10.0.0.5"),
    "a name above": (["minio.example"], "http://minio.example.evil/", "10.0.0.5"),
    "a domain itself": ([".example.com"], "http://example.com/", "10.0.0.5"),
    "a domain without its dot": ([".example.com"], "http://evilexample.com/", "10.0.0.5"),
    "a listed port's neighbour": (["minio:9000"], "http://minio:9001/", "10.0.0.5"),
    "a listed port, and the usual one": (["minio:9000"], "http://minio/", "10.0.0.5"),
    "an address by a neighbour": (["10.0.0.5"], "http://10.0.0.6/", "10.0.0.6"),
    "an address at another port": (["10.0.0.5:9000"], "http://10.0.0.5/", "10.0.0.5"),
    "a mapped address": (["127.0.0.1"], "http://[::ffff:127.0.0.1]/", "::ffff:127.0.0.1"),
    "metadata by a name": ([".example.com"], "http://a.example.com/", "169.254.169.254"),
    "Alibaba's metadata by a name": ([".example.com"], "http://a.example.com/", "100.100.100.200"),
    "Amazon's metadata by a name": ([".example.com"], "http://a.example.com/", "fd00:ec2::254"),
    "this host by a name": (["a.example"], "http://a.example/", "0.0.0.0"),
    "mapped by a name": (["a.example"], "http://a.example/", "::ffff:10.0.0.5"),
    "outside of a network": (["10.8.0.0/16"], "http://10.9.0.1/", "10.9.0.1"),
}


@pytest.mark.parametrize(("entries", "url", "address"), NOT_PERMITTED.values(), ids=NOT_PERMITTED.keys())
def test_what_is_not_listed_is_not_permitted(entries: list[str], url: str, address: str) -> None:
    assert not permits(entries, url, address)


@pytest.mark.parametrize(
    "entry",
    ["", ".", "*", "*.example.com", "http://minio", "minio/", "minio:", "a@b", "10.0.0.1/8", "127.1", "bücher.example", "a b"],
)
def test_an_entry_that_means_nothing_is_refused_by_name(entry: str) -> None:
    with pytest.raises(ValueError, match="FOVEA_IMAGE_URL_HOSTS") as error:
        AllowedHosts.of([entry])
    assert f"'{entry}'" in str(error.value)
