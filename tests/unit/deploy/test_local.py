import pathlib

import pytest

from deploy.local import LocalStack
from tests.conftest import CATALOG


def test_the_catalog_alone_says_how_much_memory_caches_have(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "40")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    environment = LocalStack(tmp_path / "catalog.yaml", 1, print)._for_engines()
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment
    assert environment["VLLM_LOGGING_LEVEL"] == "DEBUG", "as all else is handed on"
