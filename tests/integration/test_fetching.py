"""Images fetched over real sockets, and what is refused without a packet to where it points."""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import itertools
import pathlib
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import psutil
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.images.fetch import CannotFetch, ImageFetcher, NoTurn, SystemResolver
from tests.conftest import free_port
from tests.network import Names, Wires, uncounted
from tests.watching import SOON_S

BOTH = frozenset({"http", "https"})
IMAGE = random.Random(5).randbytes(300_000)
PUBLIC = "93.184.216.34"

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def head(status: str, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def ok(body: bytes, **headers: str) -> bytes:
    return head("200 OK", content_length=str(len(body)), **headers) + body


def to(location: str, status: str = "302 Found") -> bytes:
    return head(status, location=location, content_length="0", set_cookie="seen=1")


@dataclass
class Site:
    """A server, what it was asked, and how many connections it has and has had."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    met: int = 0
    open: int = 0

    @property
    def paths(self) -> list[str]:
        return [question.split(" ")[1] for question in self.asked]


@contextlib.asynccontextmanager
async def site(
    answers: Mapping[str, bytes | Answer], tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Site]:
    """Answers each path as it says, and then ends the connection."""
    here = Site()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here.met += 1
        here.open += 1
        try:
            here.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            said = answers[here.paths[-1]]
            if isinstance(said, bytes):
                writer.write(said)
                await writer.drain()
            else:
                await said(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            here.open -= 1
            writer.close()

    server = await asyncio.start_server(answer, host, 0, ssl=tls)
    here.port = server.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        server.close()


def fetcher(*listed: str, **options: Any) -> ImageFetcher:
    given: dict[str, Any] = {"schemes": BOTH, "max_bytes": 1_000_000, "at_once": 8, "total_s": 20.0} | options
    return ImageFetcher(allowed_hosts=frozenset(listed), **given)


async def refusal(fetching: ImageFetcher, url: str) -> str:
    with pytest.raises(CannotFetch) as error:
        await fetching.fetch(url, uncounted)
    return str(error.value)


async def soon(is_so: Callable[[], bool]) -> bool:
    for _ in range(200):
        if is_so():
            return True
        await asyncio.sleep(0.01)
    return False


def on_each_loop(promise: Callable[[], Any]) -> None:
    """uvloop serves where the gateway runs, asyncio where there is no uvloop."""
    for loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(promise())


# ---------------------------------------------------------------------------------------------------------------------
# What stays silent


REFUSED = [
    "http://127.0.0.1/",
    "https://127.0.0.1/",
    "http://127.0.0.1:{port}/",
    "http://127.8.8.8/",
    "http://localhost/",
    "http://localhost:{port}/",
    "http://[::1]/",
    "http://[::1]:{port}/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://0.0.0.0/",
    "http://[::]/",
    "http://0/",
    "http://0x7f.1/",
    "http://0x7f.1:{port}/",
    "http://0x7f000001/",
    "http://2130706433/",
    "http://2130706433:{port}/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://0177.0.0.1:{port}/",
    "http://127.1/",
    "http://127.0.0.1./",
    "http://example.com@127.0.0.1/",
    "http://example.com:80@127.0.0.1:{port}/",
    "http://127.0.0.1@example.com/",
    "http://example.com%40127.0.0.1/",
    "http://127.0.0.1\\@example.com/",
    "http://example.com\\@127.0.0.1/",
    "http:\\\\127.0.0.1\\",
    "http://127.0.0.1#@example.com/",
    "http://127.0.0.1?@example.com/",
    "http://\uff11\uff12\uff17.0.0.1/",
    "http://127。0。0。1/",
    "http://127.0.0.1\t/",
    "\nhttp://127.0.0.1/",
    "http://within.test/",
    "http://within.test:{port}/",
    "http://mixed.test/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_GET%20/",
    "data:text/html,<p>",
    "data:text/html;base64,PHA+",
]


def silent(host: str, port: int) -> socket.socket:
    """A listener into whose queue the kernel puts who connects: none is taken from it, so nothing is missed."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.bind((host, port))
    listener.listen(100)
    listener.setblocking(False)
    return listener


def has_been_called(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.fixture
def listeners() -> Any:
    """On 127.0.0.1, and at the same port of ::1 where there is IPv6."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(silent("127.0.0.1", 0))]
        with contextlib.suppress(OSError):
            found.append(stack.enter_context(silent("::1", found[0].getsockname()[1])))
        yield found


def into(listeners: list[socket.socket]) -> Wires:
    """Whoever connects to the usual ports of this machine, by any of its addresses, would get to the listeners."""
    port = listeners[0].getsockname()[1]
    hosts = ["127.0.0.1", "127.8.8.8", "::1", "::ffff:7f00:1", "::ffff:127.0.0.1", "0.0.0.0", "::", "169.254.169.254"]
    return Wires(dict.fromkeys(itertools.product(hosts, (80, 443)), port))


NAMES = {"localhost": [["127.0.0.1"]], "within.test": [["127.0.0.1"]], "mixed.test": [[PUBLIC, "127.0.0.1"]]}


@pytest.mark.parametrize("url", REFUSED, ids=ascii)
def test_what_points_within_is_refused_and_nobody_hears_of_it(url: str, listeners: list[socket.socket]) -> None:
    wires = into(listeners)
    url = url.replace("{port}", str(listeners[0].getsockname()[1]))
    asyncio.run(refusal(fetcher(resolver=Names(NAMES), backend=wires), url))
    assert wires.connected == []
    assert not any(map(has_been_called, listeners))


def test_the_listeners_would_have_heard(listeners: list[socket.socket]) -> None:
    hosts = ["127.0.0.1", "localhost", "[::1]"][: len(listeners) + 1]
    allowing = fetcher("127.0.0.0/8", "::1", total_s=0.2, resolver=Names(NAMES), backend=into(listeners))
    for host in hosts:
        said = asyncio.run(refusal(allowing, f"http://{host}/"))
        assert "was not answered in full: 0.2 s" in said
        assert sum(map(has_been_called, listeners)) == 1


LEADS_WITHIN = [
    "http://169.254.169.254/latest/meta-data/",
    "//169.254.169.254/latest/meta-data/",
    "http://127.0.0.1/",
    "//localhost/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://a@127.0.0.1/",
    "/\\127.0.0.1/",
    "file:///etc/passwd",
    "gopher://127.0.0.1/",
    "data:text/html,a",
    "http://{public}@127.0.0.1/",
]


@pytest.mark.parametrize("location", LEADS_WITHIN)
def test_a_redirect_within_is_refused_and_nobody_hears_of_it(location: str, listeners: list[socket.socket]) -> None:
    async def promise() -> None:
        async with site({"/": to(location)}) as outside:
            wires = into(listeners)
            wires.led[PUBLIC, 80] = outside.port
            said = await refusal(fetcher(resolver=Names(NAMES), backend=wires), f"http://{PUBLIC}/")
            assert said.startswith("A redirect of the image URL ")
            assert "169.254" not in said
            assert "127.0.0" not in said
            assert wires.connected == [(PUBLIC, 80)]

    asyncio.run(promise())
    assert not any(map(has_been_called, listeners))


def test_a_name_that_changes_its_address_is_asked_where_it_was_checked(listeners: list[socket.socket]) -> None:
    async def promise() -> None:
        async with site({"/": ok(IMAGE), "/again": to("/")}) as outside:
            wires = into(listeners)
            wires.led[PUBLIC, 80] = outside.port
            names = Names({"turns.test": [[PUBLIC], ["127.0.0.1"]], "turns-later.test": [[PUBLIC], ["127.0.0.1"]]})
            fetching = fetcher(resolver=names, backend=wires)
            # Looked up once, and asked at the address that was found then.
            assert await fetching.fetch("http://turns.test/", uncounted) == IMAGE
            assert (names.asked, wires.connected) == (["turns.test"], [(PUBLIC, 80)])
            # Looked up again for a fetch of its own, and for a redirect to itself.
            await refusal(fetching, "http://turns.test/")
            await refusal(fetching, "http://turns-later.test/again")
            assert wires.connected == [(PUBLIC, 80), (PUBLIC, 80)]
            assert "host: turns.test\r\n" in outside.asked[0].lower()

    asyncio.run(promise())
    assert not any(map(has_been_called, listeners))


def test_the_machines_own_resolver_finds_what_it_must_refuse(listeners: list[socket.socket]) -> None:
    wires = into(listeners)
    assert "FOVEA_IMAGE_URL_HOSTS" in asyncio.run(refusal(fetcher(backend=wires), "http://localhost/"))
    assert ipaddress.ip_address("127.0.0.1") in asyncio.run(SystemResolver().resolve("localhost", 80))
    assert wires.connected == []


# ---------------------------------------------------------------------------------------------------------------------
# What is fetched


def test_the_bytes_are_those_that_were_sent() -> None:
    async def chunked(writer: asyncio.StreamWriter) -> None:
        pieces = [IMAGE[at : at + 10_000] for at in range(0, len(IMAGE), 10_000)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        writer.write(head("200 OK", transfer_encoding="chunked") + body + b"0\r\n\r\n")

    async def to_the_end(writer: asyncio.StreamWriter) -> None:
        writer.write(head("200 OK") + IMAGE)

    async def promise() -> None:
        answers: dict[str, bytes | Answer] = {"/a?b=c": ok(IMAGE), "/chunked": chunked, "/end": to_the_end, "/none": ok(b"")}
        async with site(answers) as store:
            fetching = fetcher(f"127.0.0.1:{store.port}")
            for path in ("/a?b=c", "/chunked", "/end"):
                assert await fetching.fetch(f"http://127.0.0.1:{store.port}{path}#fragment", uncounted) == IMAGE
            assert await fetching.fetch(f"http://127.0.0.1:{store.port}/none", uncounted) == b""
            assert store.paths == ["/a?b=c", "/chunked", "/end", "/none"]
            assert await soon(lambda: store.open == 0)

    on_each_loop(promise)


def test_ipv6_is_spoken() -> None:
    async def promise() -> None:
        async with site({"/": ok(IMAGE)}, host="::1") as store:
            assert await fetcher("::1").fetch(f"http://[::1]:{store.port}/", uncounted) == IMAGE
            assert f"host: [::1]:{store.port}\r\n" in store.asked[0].lower()

    try:
        silent("::1", 0).close()
    except OSError:
        pytest.skip("there is no IPv6 here")
    on_each_loop(promise)


def test_where_one_address_is_dead_the_next_is_taken() -> None:
    async def promise() -> None:
        async with site({"/": ok(IMAGE)}) as store:
            wires = Wires({(PUBLIC, 80): store.port})
            names = Names({"two.test": [["2606:2800:220:1::1", "1.1.1.1", PUBLIC]]})
            assert await fetcher(resolver=names, backend=wires).fetch("http://two.test/", uncounted) == IMAGE
            assert [address for address, _ in wires.connected] == ["2606:2800:220:1::1", "1.1.1.1", PUBLIC]

    on_each_loop(promise)


def test_three_redirects_are_followed_and_a_fourth_is_not() -> None:
    async def promise() -> None:
        statuses = {"/4": "301 Moved", "/3": "303 See Other", "/2": "307 Temporary", "/1": "308 Permanent"}
        answers = {path: to(f"/{int(path[1:]) - 1}", status) for path, status in statuses.items()} | {"/0": ok(IMAGE)}
        async with site(answers) as store:
            fetching = fetcher(f"127.0.0.1:{store.port}")
            assert await fetching.fetch(f"http://127.0.0.1:{store.port}/3", uncounted) == IMAGE
            assert store.paths == ["/3", "/2", "/1", "/0"]
            said = await refusal(fetching, f"http://127.0.0.1:{store.port}/4")
            assert said == "A redirect of the image URL leads to another: 3 are followed."
            assert store.paths[4:] == ["/4", "/3", "/2", "/1"]

    asyncio.run(promise())


def test_a_redirect_to_a_listed_host_is_followed_and_to_its_neighbour_not() -> None:
    async def promise() -> None:
        async with site({"/": ok(IMAGE)}) as store, site({"/": ok(IMAGE)}) as other:
            answers = {"/": to(f"http://127.0.0.1:{store.port}/"), "/other": to(f"http://127.0.0.1:{other.port}/")}
            async with site(answers) as front:
                fetching = fetcher(f"127.0.0.1:{front.port}", f"127.0.0.1:{store.port}")
                assert await fetching.fetch(f"http://127.0.0.1:{front.port}/", uncounted) == IMAGE
                said = await refusal(fetching, f"http://127.0.0.1:{front.port}/other")
                assert f"asks for port {other.port}" in said
                assert other.met == 0

    asyncio.run(promise())


def test_nothing_of_ours_is_sent_along(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    async def promise() -> None:
        async with site({"/": to("/b"), "/b": ok(IMAGE, set_cookie="a=b")}) as store, site({}) as proxy:
            for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            fetching = fetcher(f"images.test:{store.port}", resolver=Names({"images.test": [["127.0.0.1"]]}))
            for _ in range(2):
                assert await fetching.fetch(f"http://images.test:{store.port}/", uncounted) == IMAGE
            assert proxy.met == 0
            for path, question in zip(["/", "/b", "/", "/b"], store.asked, strict=True):
                assert question.splitlines() == [
                    f"GET {path} HTTP/1.1",
                    f"host: images.test:{store.port}",
                    "user-agent: Fovea/0.1.0",
                    "accept: image/png, image/jpeg, image/webp, image/gif",
                    "accept-encoding: identity",
                    "connection: close",
                    "",
                ]

    (tmp_path / ".netrc").write_text("machine images.test login me password secret\ndefault login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    asyncio.run(promise())


# ---------------------------------------------------------------------------------------------------------------------
# TLS


@dataclass(frozen=True)
class Authority:
    """A certificate authority, which has made one certificate, for `images.test` and 127.0.0.1."""

    trusting: ssl.SSLContext
    serving: ssl.SSLContext


def signed(name: str, issuer: str, key: Any, by: Any, *extensions: x509.ExtensionType) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(by, hashes.SHA256())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = signed("root", "root", root_key, root_key, x509.BasicConstraints(ca=True, path_length=0))
    named = x509.SubjectAlternativeName([x509.DNSName("images.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = signed("leaf", "root", key, root_key, named)
    file = tmp_path_factory.mktemp("tls") / "leaf.pem"
    plain = serialization.NoEncryption()
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + leaf.public_bytes(serialization.Encoding.PEM)
    )
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(file)
    return Authority(ssl.create_default_context(cadata=root.public_bytes(serialization.Encoding.PEM).decode()), serving)


def test_https_names_its_host_and_checks_the_certificate(authority: Authority) -> None:
    named: list[str | None] = []
    authority.serving.sni_callback = lambda _socket, name, _context: named.append(name)

    async def promise() -> None:
        names = Names({"images.test": [["127.0.0.1"]], "other.test": [["127.0.0.1"]]})
        async with site({"/": ok(IMAGE)}, authority.serving) as store:
            fetching = fetcher("127.0.0.1", ssl_context=authority.trusting, resolver=names)
            assert await fetching.fetch(f"https://images.test:{store.port}/", uncounted) == IMAGE
            assert await fetching.fetch(f"https://127.0.0.1:{store.port}/", uncounted) == IMAGE
            assert f"host: images.test:{store.port}\r\n" in store.asked[0].lower()
            assert "no valid certificate" in await refusal(fetching, f"https://other.test:{store.port}/")
            stranger = fetcher("127.0.0.1", resolver=names)
            assert "no valid certificate" in await refusal(stranger, f"https://images.test:{store.port}/")
            assert len(store.asked) == 2

    on_each_loop(promise)
    assert named == ["images.test", None, "other.test", "images.test"] * 2


def test_https_leads_to_http_only_where_http_is_allowed(authority: Authority) -> None:
    async def promise() -> None:
        answers: dict[str, bytes | Answer] = {}
        async with site({"/": ok(IMAGE)}) as plain, site(answers, authority.serving) as store:
            answers["/"] = to(f"http://127.0.0.1:{plain.port}/")
            url = f"https://127.0.0.1:{store.port}/"
            strict = fetcher("127.0.0.1", ssl_context=authority.trusting, schemes=frozenset({"https"}))
            assert await refusal(strict, url) == (
                "A redirect of the image URL has the scheme 'http'; FOVEA_IMAGE_URL_SCHEMES allows https."
            )
            assert plain.met == 0
            assert await fetcher("127.0.0.1", ssl_context=authority.trusting).fetch(url, uncounted) == IMAGE

    asyncio.run(promise())


# ---------------------------------------------------------------------------------------------------------------------
# What a host may not do


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(head("200 OK", content_length="1000"))
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def silence(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


def without_end(start: bytes, piece: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()

    return answer


CHUNKED = head("200 OK", transfer_encoding="chunked")
MISDEEDS: dict[str, tuple[bytes | Answer, str]] = {
    "silence": (silence, "was not answered in full: 1 s are given"),
    "a byte now and then": (drip, "was not answered in full: 1 s are given"),
    "a length over the limit": (head("200 OK", content_length="1000001"), "1000001 bytes or more; FOVEA_IMAGE_MIB allows"),
    "a length beyond all": (head("200 OK", content_length="9" * 20), "FOVEA_IMAGE_MIB"),
    "a body without end": (without_end(head("200 OK"), b"x" * 65536), "FOVEA_IMAGE_MIB"),
    "chunks without end": (without_end(CHUNKED, b"8000\r\n" + b"x" * 32768 + b"\r\n"), "FOVEA_IMAGE_MIB"),
    "chunks of one byte": (without_end(CHUNKED, b"1\r\nx\r\n" * 10_000), "pieces of less than 256 bytes"),
    "1xx without end": (without_end(b"", b"HTTP/1.1 103 Early\r\n\r\n" * 1000), "gave no answer"),
    "headers without end": (without_end(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 1000), "gave no answer"),
    "one header without end": (without_end(b"HTTP/1.1 200 OK\r\na: ", b"b" * 65536), "gave no answer"),
    "gzip": (ok(b"\x1f\x8b", content_encoding="gzip"), "Content-Encoding"),
    "brotli after identity": (ok(b"", content_encoding="identity, br"), "Content-Encoding"),
    "gzip in transfer": (head("200 OK", transfer_encoding="gzip, chunked") + b"0\r\n\r\n", "gave no answer"),
    "two lengths": (head("200 OK", content_length="5, 6") + b"x" * 5, "gave no answer"),
    "a length that is none": (head("200 OK", content_length="-5"), "gave no answer"),
    "less than it said": (head("200 OK", content_length="10") + b"x", "gave no answer"),
    "nothing": (b"", "gave no answer"),
    "another protocol": (b"220 smtp.internal.example ESMTP\r\n", "gave no answer"),
    "an upgrade": (head("101 Switching", upgrade="h2c", connection="upgrade"), "gave no answer"),
    "not found": (head("404 Secret", content_length="6", x_secret="secret") + b"secret", "was answered with status 404; 200"),
    "a part": (head("206 Partial", content_length="1", content_range="bytes 0-0/9") + b"x", "status 206"),
    "no content": (head("204 No Content"), "status 204"),
    "a fault": (head("503 Secret", content_length="0"), "status 503"),
    "a redirect to nowhere": (head("302 Found", content_length="0"), "status 302"),
    "a choice": (head("300 Multiple", location="/", content_length="0"), "status 300"),
}  # fmt: skip


@pytest.mark.parametrize(("misdeed", "said"), MISDEEDS.values(), ids=MISDEEDS.keys())
def test_a_host_that_misbehaves_costs_one_refusal(misdeed: bytes | Answer, said: str) -> None:
    async def promise() -> None:
        async with site({"/": misdeed}) as store:
            total_s = 1.0 if misdeed in {silence, drip} else 20.0
            started_s = time.monotonic()
            message = await refusal(fetcher("127.0.0.1", total_s=total_s), f"http://127.0.0.1:{store.port}/")
            assert time.monotonic() - started_s < SOON_S
            assert said in message
            assert "secret" not in message.lower()
            assert "smtp" not in message
            assert await soon(lambda: store.open == 0 or misdeed is silence)
            assert our_sockets() == []

    asyncio.run(promise())


def test_a_closed_port_and_one_that_speaks_otherwise_are_refused_in_the_same_words() -> None:
    async def promise() -> None:
        async with site({"/": b"220 ftp\r\n"}) as other, site({"/": ok(b"")}) as plain:
            fetching = fetcher("127.0.0.1", connect_s=0.3)
            urls = [f"http://127.0.0.1:{other.port}/", f"https://127.0.0.1:{plain.port}/", f"http://127.0.0.1:{free_port()}/"]
            assert len({await refusal(fetching, url) for url in urls}) == 1

    asyncio.run(promise())


def test_a_name_that_is_not_found_in_time_is_given_up() -> None:
    class Slow(Names):
        async def resolve(self, host: str, port: int) -> Any:
            await asyncio.sleep(30)

    started_s = time.monotonic()
    said = asyncio.run(refusal(fetcher(connect_s=0.2, resolver=Slow({})), "http://a.test/"))
    assert "no connection within 0.2 s" in said
    assert time.monotonic() - started_s < SOON_S


def test_a_handshake_that_does_not_end_is_given_up(listeners: list[socket.socket]) -> None:
    async def promise() -> None:
        said = await refusal(fetcher("127.0.0.1", connect_s=0.2), f"https://127.0.0.1:{listeners[0].getsockname()[1]}/")
        assert "no connection within 0.2 s" in said
        assert our_sockets() == []

    on_each_loop(promise)


class Skipping(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward: what takes long takes no time, and no machine stands still for as long."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


def skip(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Skipping)
    loop.ahead_s += seconds


def on_a_clock_that_skips(promise: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=Skipping) as runner:
        runner.run(promise())


def test_redirects_share_one_deadline() -> None:
    async def late(writer: asyncio.StreamWriter) -> None:
        skip(400)
        writer.write(to("/"))

    async def promise() -> None:
        async with site({"/": late}) as store:
            said = await refusal(fetcher("127.0.0.1", total_s=900, connect_s=5000), f"http://127.0.0.1:{store.port}/")
            assert "900 s are given to all of it" in said
            assert len(store.asked) == 3

    on_a_clock_that_skips(promise)


def our_sockets() -> list[Any]:
    """Connections of this process that somebody here opened to a server, as far as they are not closed."""
    everything = psutil.Process().net_connections("tcp")
    listening = {each.laddr for each in everything if each.status == psutil.CONN_LISTEN}
    return [each for each in everything if each.raddr in listening and each.fd != -1]


# ---------------------------------------------------------------------------------------------------------------------
# Who hangs up, and how many there are


async def cancelled_by_its_task(fetching: ImageFetcher, url: str, after_s: float) -> None:
    task = asyncio.ensure_future(fetching.fetch(url, uncounted))
    await asyncio.sleep(after_s)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancelled_by_a_scope(fetching: ImageFetcher, url: str, after_s: float) -> None:
    with anyio.move_on_after(after_s) as scope:
        await fetching.fetch(url, uncounted)
    assert scope.cancelled_caught


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("cancelled", [cancelled_by_its_task, cancelled_by_a_scope])
@pytest.mark.parametrize("path", ["/silence", "/drip", "/flood"])
def test_a_caller_that_hangs_up_leaves_no_connection(
    cancelled: Callable[[ImageFetcher, str, float], Awaitable[None]], path: str, scheme: str, authority: Authority
) -> None:
    async def promise() -> None:
        answers = {"/silence": silence, "/drip": drip, "/flood": without_end(head("200 OK"), b"x" * 1024)}
        async with site(answers, authority.serving if scheme == "https" else None) as store:
            fetching = fetcher("127.0.0.1", max_bytes=10**12, at_once=1, ssl_context=authority.trusting)
            for after_s in (0.0, 0.001, 0.004, 0.05, 0.1):
                await cancelled(fetching, f"{scheme}://127.0.0.1:{store.port}{path}", after_s)
                assert await soon(lambda: our_sockets() == [])

    on_each_loop(promise)


def test_a_caller_that_hangs_up_during_the_handshake_leaves_no_connection(listeners: list[socket.socket]) -> None:
    async def promise() -> None:
        url = f"https://127.0.0.1:{listeners[0].getsockname()[1]}/"
        for cancelled in (cancelled_by_its_task, cancelled_by_a_scope):
            await cancelled(fetcher("127.0.0.1"), url, 0.1)
            assert await soon(lambda: our_sockets() == [])

    on_each_loop(promise)


def test_no_more_are_fetched_at_once_than_may_be_and_whoever_waits_comes_next() -> None:
    most = 0

    async def slowly(writer: asyncio.StreamWriter) -> None:
        nonlocal most
        most = max(most, len(our_sockets()))
        await asyncio.sleep(0.05)
        writer.write(ok(IMAGE))

    async def promise() -> None:
        async with site({"/": slowly}) as store:
            fetching = fetcher("127.0.0.1", at_once=3)
            url = f"http://127.0.0.1:{store.port}/"
            left = [asyncio.ensure_future(fetching.fetch(url, uncounted)) for _ in range(6)]
            stay = [asyncio.ensure_future(fetching.fetch(url, uncounted)) for _ in range(9)]
            await asyncio.sleep(0.02)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            assert await asyncio.gather(*stay) == [IMAGE] * 9
            assert 1 < most <= 3
            assert our_sockets() == []

    asyncio.run(promise())


def test_the_wait_for_a_turn_is_not_counted_against_the_image() -> None:
    async def late(writer: asyncio.StreamWriter) -> None:
        skip(300)
        writer.write(ok(IMAGE))

    async def promise() -> None:
        async with site({"/": late}) as store:
            fetching = fetcher("127.0.0.1", at_once=1, total_s=500)
            each = [fetching.fetch(f"http://127.0.0.1:{store.port}/", uncounted) for _ in range(2)]
            assert await asyncio.gather(*each) == [IMAGE] * 2

    on_a_clock_that_skips(promise)


def test_a_turn_is_waited_for_as_long_as_a_fetch_may_take() -> None:
    async def never(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    async def promise() -> None:
        async with site({"/": never}) as store:
            fetching = fetcher("127.0.0.1", at_once=1, total_s=0.5)
            each = [fetching.fetch(f"http://127.0.0.1:{store.port}/", uncounted) for _ in range(3)]
            first, _, third = await asyncio.gather(*each, return_exceptions=True)
            assert (type(first), type(third)) == (CannotFetch, NoTurn)

    asyncio.run(promise())


def test_bytes_are_counted_as_they_come_and_whoever_counts_may_end_it() -> None:
    counted: list[int] = []

    def count(size: int) -> None:
        counted.append(size)
        if len(counted) > 1:
            raise MemoryError

    async def twice(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n" + bytes(1000))
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.write(bytes(1000))

    async def promise() -> None:
        async with site({"/": twice}) as store:
            with pytest.raises(MemoryError):
                await fetcher("127.0.0.1").fetch(f"http://127.0.0.1:{store.port}/", count)
        assert counted == [1000, 1000]

    asyncio.run(promise())
