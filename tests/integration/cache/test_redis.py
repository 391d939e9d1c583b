"""RedisResults on a real Redis that is well."""

import asyncio
import datetime as dt
import ipaddress
import itertools
import logging
import pathlib
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis import Redis

from gateway.cache.breaker import Budget
from gateway.cache.redis import RedisResults
from gateway.cache.results import Claim, Stored, StoreUnavailable
from tests.conftest import free_port
from tests.redis_server import RedisServer, running_redis
from tests.stores import ADDRESS, ANSWER, LEASE_S, MIB, TTL_S, Failures, address, answer, redis_results

Run = Callable[[Coroutine[Any, Any, None]], None]


def test_answers_are_spread_over_the_last_tenth_of_their_time(redis: RedisServer) -> None:
    async def promise() -> None:
        for chance, ttl_ms in ((0.0, 90_000), (0.5, 95_000), (0.999, 99_990)):
            chances = itertools.repeat(chance)
            store = RedisResults(redis.url, 3.0, MIB, Failures(), clock=lambda: 1000.0, chance=chances.__next__)
            async with store:
                await store.put(ADDRESS, ANSWER, 100)
                await store.settle(address(1), "token", ANSWER, 100)
                found = await store.get(ADDRESS)
            assert found is not None
            assert found.expires_at_s == pytest.approx(1000 + ttl_ms / 1000)
            with Redis.from_url(redis.url) as client:
                for key in client.keys("fovea:answer:*"):
                    assert ttl_ms - 5000 < client.pttl(key) <= ttl_ms

    asyncio.run(promise())


def test_keys_are_named_by_whose_answer_it_is(redis: RedisServer) -> None:
    async def promise() -> None:
        async with redis_results(redis.url) as store:
            await store.claim(ADDRESS, "token", LEASE_S)
            await store.put(ADDRESS, ANSWER, TTL_S)

    asyncio.run(promise())
    with Redis.from_url(redis.url) as client:
        name = f"acme:tiny:{bytes(range(32)).hex()}".encode()
        assert sorted(client.keys()) == [b"fovea:answer:" + name, b"fovea:flight:" + name]


def test_a_flush_touches_answers_only_and_many_of_them(redis: RedisServer) -> None:
    async def promise() -> None:
        async with redis_results(redis.url) as store:
            with Redis.from_url(redis.url) as client:
                client.mset({f"fovea:answer:acme:tiny:{number:064x}": b"" for number in range(5000)})
                client.mset({"fovea:other": b"", "answer:acme:tiny:1": b""})
                await store.claim(ADDRESS, "token", LEASE_S)
                assert await store.flush(None, None) == 5000
                assert client.dbsize() == 3

    asyncio.run(promise())


@pytest.mark.parametrize("value", [b"", b"garbage", bytes(100), b"fov\x01" + bytes(100), random.Random(1).randbytes(3000)])
def test_a_value_that_is_not_ours_is_none_and_is_computed_anew(redis: RedisServer, value: bytes) -> None:
    async def promise() -> None:
        failures = Failures()
        async with redis_results(redis.url, failures) as store:
            await store.put(ADDRESS, ANSWER, TTL_S)
            with Redis.from_url(redis.url) as client:
                (key,) = client.keys()
                client.set(key, value)
            for _ in range(4):
                assert await store.get(ADDRESS) is None
            assert await store.claim(ADDRESS, "token", LEASE_S) is Claim.LEADING
            assert await store.claim(ADDRESS, "other", LEASE_S) is Claim.FOLLOWING
            await store.settle(ADDRESS, "token", ANSWER, TTL_S)
            assert await store.get(ADDRESS) == ANSWER
            # It is that value's fault, and not Redis's.
            assert not store.is_open
        assert failures.told == [("get", "garbage")] * 4 + [("claim", "garbage")] * 2

    asyncio.run(promise())


def test_another_key_s_value_is_none(redis: RedisServer) -> None:
    async def promise() -> None:
        async with redis_results(redis.url) as store:
            await store.put(ADDRESS, ANSWER, TTL_S)
            await store.put(address(1), answer(1), TTL_S)
            with Redis.from_url(redis.url) as client:
                one, other = client.keys()
                client.rename(one, "aside")
                client.rename(other, one)
                client.rename("aside", other)
            assert await store.get(ADDRESS) is None
            assert await store.get(address(1)) is None

    asyncio.run(promise())


def test_a_value_of_another_type_is_refused_and_the_breaker_stays_closed(redis: RedisServer) -> None:
    async def promise() -> None:
        failures = Failures()
        async with redis_results(redis.url, failures) as store:
            await store.put(ADDRESS, ANSWER, TTL_S)
            with Redis.from_url(redis.url) as client:
                (key,) = client.keys()
                client.delete(key)
                client.lpush(key, "what")
            for _ in range(4):
                assert await store.get(ADDRESS) is None
                assert await store.claim(ADDRESS, "token", LEASE_S) is Claim.ALONE
            assert not store.is_open
        assert set(failures.told) == {("get", "refused"), ("claim", "refused")}

    asyncio.run(promise())


def test_hundreds_at_once_share_64_connections(redis: RedisServer) -> None:
    async def promise() -> None:
        failures = Failures()
        async with redis_results(redis.url, failures, budget_s=10) as store:
            await asyncio.gather(*(store.put(address(number), answer(number), TTL_S) for number in range(500)))
            found = await asyncio.gather(*(store.get(address(number)) for number in range(500)))
            assert found == [answer(number) for number in range(500)]
            with Redis.from_url(redis.url) as client:
                ours = [one for one in client.client_list() if one["cmd"] != "client|list"]
                assert 1 < len(ours) <= 64
        assert failures.told == []

    asyncio.run(promise())


def test_who_waits_for_a_connection_for_longer_than_the_budget_goes_without(tmp_path: pathlib.Path) -> None:
    async def promise(redis: RedisServer) -> None:
        async with redis_results(redis.url, failures := Failures(), budget_s=0.1) as store:
            await store.get(ADDRESS)
            del failures.told[:]
            redis.pause()
            async with Budget(5):
                assert await asyncio.gather(*(store.get(address(number)) for number in range(200))) == [None] * 200
            assert failures.told == [("get", "timeout")] * 200

    with running_redis(tmp_path) as redis:
        asyncio.run(promise(redis))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_reply_is_never_given_to_somebody_else_when_who_asked_has_gone(tmp_path: pathlib.Path, run: Run) -> None:
    dice = random.Random(1)

    async def promise(redis: RedisServer) -> None:
        async with redis_results(redis.url, failures := Failures(), budget_s=20) as store:
            for number in range(50):
                await store.put(address(number), answer(number), TTL_S)
            for _ in range(20):
                if dice.random() < 0.3:
                    redis.pause()
                asked = [asyncio.ensure_future(store.get(address(number))) for number in range(50)]
                for _ in range(dice.randrange(6)):
                    await asyncio.sleep(0)
                await asyncio.sleep(dice.choice((0, 0, 0.001, 0.003)))
                gone = dice.sample(asked, 25)
                for task in gone:
                    task.cancel()
                redis.resume()
                found = await asyncio.gather(*asked, return_exceptions=True)
                for number, one in enumerate(found):
                    assert one == answer(number) or (isinstance(one, asyncio.CancelledError) and asked[number] in gone)
        # The checksum had nothing to do.
        assert failures.told == []

    with running_redis(tmp_path) as redis:
        run(promise(redis))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_busy_event_loop_is_not_taken_for_a_slow_redis(redis: RedisServer, run: Run) -> None:
    async def promise(witness: Redis) -> None:
        async with redis_results(redis.url) as patient:
            await patient.put(ADDRESS, ANSWER, TTL_S)
        async with redis_results(redis.url, failures := Failures(), budget_s=0.03) as store:
            for busy_s in (0.028, 0.031, 0.036, 0.05, 0.2) * 3:
                asked = [asyncio.ensure_future(store.get(ADDRESS)) for _ in range(5)]
                # Until the commands are sent.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                # Until Redis, which answers in turn, has answered, though it may be what the system does not let run.
                witness.ping()
                time.sleep(busy_s)  # noqa: ASYNC251 - that is the point
                assert await asyncio.gather(*asked) == [ANSWER] * 5
        assert failures.told == []

    with Redis.from_url(redis.url) as witness:
        run(promise(witness))


def test_a_machine_that_stands_still_during_a_handshake_is_not_taken_for_a_slow_redis(redis: RedisServer) -> None:
    async def promise() -> None:
        async with redis_results(redis.url, failures := Failures(), budget_s=10) as store:
            asked = asyncio.ensure_future(store.get(ADDRESS))
            for _ in range(3):
                await asyncio.sleep(0)
            time.sleep(1.1)  # noqa: ASYNC251 - as long as a handshake may take
            assert await asked is None
        assert failures.told == []

    asyncio.run(promise())


def test_a_password_is_used_and_never_told(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    async def promise(port: int) -> str:
        async with redis_results(f"redis://:s3cret@127.0.0.1:{port}/2") as store:
            await store.put(ADDRESS, ANSWER, TTL_S)
            assert await store.get(ADDRESS) == ANSWER
            said = repr(store)
        failures = Failures()
        for url in (
            f"redis://:s4cret@127.0.0.1:{port}",
            f"redis://127.0.0.1:{port}",
            f"redis://:s5cret@127.0.0.1:{free_port()}",
        ):
            async with redis_results(url, failures) as store:
                for _ in range(4):
                    assert await store.get(ADDRESS) is None
                assert store.is_open
                with pytest.raises(StoreUnavailable) as raised:
                    await store.flush(None, None)
                said += repr(store) + repr(raised.value)
        assert failures.told == [("get", "connection")] * 9
        return said

    with caplog.at_level(logging.DEBUG), running_redis(tmp_path, "--requirepass", "s3cret") as redis:
        said = asyncio.run(promise(redis.port))
    records = [str(vars(record)) for record in caplog.records]
    assert any("cache_breaker" in record for record in records)
    assert not [text for text in (said, *records) if "cret" in text]


@pytest.mark.parametrize("url", ["http://127.0.0.1", "", "127.0.0.1:6379", "redis://127.0.0.1:port"])
def test_a_url_that_is_none_of_redis_s_is_said_at_once(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        RedisResults(url, 0.03, MIB, Failures())


def test_certificates_that_are_not_there_are_missed_at_once(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match=r"."):
        RedisResults(f"rediss://127.0.0.1?ssl_ca_certs={tmp_path / 'none'}", 0.03, MIB, Failures())


def certificate(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """One for 127.0.0.1 that has signed itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "redis.crt", folder / "redis.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return files


def test_redis_over_tls_is_used_if_its_certificate_is_good(tmp_path: pathlib.Path) -> None:
    cert, key = certificate(tmp_path)
    port = free_port()

    async def promise() -> None:
        async with redis_results(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={cert}") as store:
            large = Stored(random.Random(1).randbytes(300_000), 1.0)
            await store.put(ADDRESS, large, TTL_S)
            assert await store.get(ADDRESS) == large
        async with redis_results(f"rediss://127.0.0.1:{port}/0", failures := Failures()) as store:
            assert await store.get(ADDRESS) is None
        assert failures.told == [("get", "connection")]

    tls = ("--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key), "--tls-auth-clients", "no")
    with running_redis(tmp_path, *tls):
        asyncio.run(promise())
