"""Verdicts about constraints, in the store of answers."""

import asyncio
import hashlib
import pathlib

import pytest

from gateway.cache.memory import MemoryResults
from gateway.catalog.read import load_catalog
from gateway.pipeline.verdicts import TENANT, StoredVerdicts
from gateway.tenants.keys import KeysError, read_keys
from tests.conftest import CATALOG

DIGEST = bytes(32)


def stored(folder: pathlib.Path, results: MemoryResults, catalog: str = CATALOG) -> StoredVerdicts:
    path = folder / "catalog.yaml"
    path.write_text(catalog)
    return StoredVerdicts(results, load_catalog(path), clock=lambda: 1000.0)


def results(now_s: float = 1000.0) -> MemoryResults:
    return MemoryResults(1_000_000, lambda: now_s)


def test_what_is_put_is_found_by_its_model_and_digest(tmp_path: pathlib.Path) -> None:
    async def ask() -> None:
        verdicts = stored(tmp_path, results())
        await verdicts.put("tiny", DIGEST, b"refused")
        assert await verdicts.get("tiny", DIGEST) == b"refused"
        assert await verdicts.get("mute", DIGEST) is None
        assert await verdicts.get("tiny", bytes([1] * 32)) is None

    asyncio.run(ask())


def test_a_model_that_has_become_another_is_asked_about_anew(tmp_path: pathlib.Path) -> None:
    async def ask() -> None:
        store = results()
        await stored(tmp_path, store).put("tiny", DIGEST, b"refused")
        another = stored(tmp_path, store, CATALOG.replace("source: nowhere", "source: elsewhere"))
        assert await another.get("tiny", DIGEST) is None

    asyncio.run(ask())


def test_more_replicas_of_a_model_are_no_other_model(tmp_path: pathlib.Path) -> None:
    async def ask() -> None:
        store = results()
        await stored(tmp_path, store).put("tiny", DIGEST, b"refused")
        larger = stored(tmp_path, store, CATALOG.replace("concurrency: 4", "concurrency: 8"))
        assert await larger.get("tiny", DIGEST) == b"refused"

    asyncio.run(ask())


def test_a_store_that_forgets_is_as_good_as_one_that_never_knew(tmp_path: pathlib.Path) -> None:
    async def ask() -> None:
        verdicts = stored(tmp_path, MemoryResults(0, lambda: 1000.0))
        await verdicts.put("tiny", DIGEST, b"refused")
        assert await verdicts.get("tiny", DIGEST) is None

    asyncio.run(ask())


def test_a_flush_of_a_model_forgets_what_was_said_for_it(tmp_path: pathlib.Path) -> None:
    async def ask() -> None:
        store = results()
        verdicts = stored(tmp_path, store)
        await verdicts.put("tiny", DIGEST, b"refused")
        await verdicts.put("mute", DIGEST, b"refused")
        await store.flush(None, "tiny")
        assert await verdicts.get("tiny", DIGEST) is None
        assert await verdicts.get("mute", DIGEST) == b"refused"

    asyncio.run(ask())


def test_no_api_key_can_have_the_name_that_they_are_kept_under(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{TENANT} {hashlib.sha256(b'key').hexdigest()}\n")
    with pytest.raises(KeysError, match="is not a name"):
        read_keys(path)
    assert ":" not in TENANT
