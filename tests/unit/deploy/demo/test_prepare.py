import pathlib
import subprocess
import sys

import pytest

from deploy.demo.folders import appearing_whole
from deploy.demo.prepare import missing_demos
from gateway.catalog.read import parse_catalog
from tests.conftest import CATALOG

DEMO = CATALOG.replace("source: nowhere", "source: demo:random-small").replace(
    "tool_parser: hermes", "adapters: {noise: {source: demo:random-adapter}}"
)
EMBEDDER = """
  clip:
    source: demo:clip
    family: clip
    kind: embedding
    tier: edge
    parameters_b: 0.1
    kv_cache: {layers: 2, attention_heads: 2, kv_heads: 2, head_dim: 32, memory_gib: 1}
    context_tokens: 77
    concurrency: 4
    queue_depth: 8
    longest_answer_s: 60
"""


@pytest.fixture
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_everything_of_the_demo_is_missing_once_until_its_folder_is_there(cache: pathlib.Path) -> None:
    models = parse_catalog(DEMO + EMBEDDER).models
    missing = missing_demos(models.values())
    assert [(demo.kind, demo.name) for demo in missing] == [
        ("model", "random-small"),
        ("adapter", "random-adapter"),
        ("embedder", "clip"),
    ]
    assert all(demo.folder.is_relative_to(cache) for demo in missing)
    missing[0].folder.mkdir(parents=True)
    assert [demo.name for demo in missing_demos(models.values())] == ["random-adapter", "clip"]
    assert missing_demos([models["mute"]]) == []


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("demo:catalogue", ["there is no demo model catalogue"]),
        ("demo:nothing", ["there is no demo model nothing"]),
        ("demo:..", ["there is no demo model .."]),
        ("demo:", ["there is no demo model "]),
        ("demo:small", []),
    ],
)
def test_a_model_is_one_that_there_is(cache: pathlib.Path, source: str, told: list[str]) -> None:
    models = parse_catalog(CATALOG.replace("source: nowhere", f'source: "{source}"', 1)).models
    missing = missing_demos(models.values())
    assert [f"there is no demo {demo.kind} {demo.name}" for demo in missing] == told


def test_a_catalog_without_a_demo_misses_nothing(cache: pathlib.Path) -> None:
    assert missing_demos(parse_catalog(CATALOG).models.values()) == []


def test_a_model_that_the_catalog_does_not_have_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    command = [sys.executable, "-m", "deploy.demo.prepare", "--catalog", str(tmp_path / "catalog.yaml"), "--model", "other"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the catalog has no model other; it has tiny, mute" in done.stderr


def half_of_it(folder: pathlib.Path) -> None:
    (folder / "half").write_text("")
    (folder / "nowhere").read_text()


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "models" / "small"
    with pytest.raises(FileNotFoundError), appearing_whole(folder) as unfinished:
        half_of_it(unfinished)
    assert list(folder.parent.iterdir()) == []
    with appearing_whole(folder) as unfinished:
        (unfinished / "weights").write_text("of the first")
        assert not folder.exists()
    assert [path.name for path in folder.iterdir()] == ["weights"]


def test_of_two_who_make_a_folder_at_once_the_first_one_s_stays(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "small"
    with appearing_whole(folder) as late:
        (late / "weights").write_text("of the second")
        with appearing_whole(folder) as early:
            (early / "weights").write_text("of the first")
    assert (folder / "weights").read_text() == "of the first"
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
