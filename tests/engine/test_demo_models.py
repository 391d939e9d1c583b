import hashlib
import json
import pathlib

import pytest

from deploy.demo import demo_model_path, embedders
from deploy.demo.models import SIZES, make
from gateway.catalog.read import load_catalog

CATALOG = pathlib.Path(__file__).parents[2] / "deploy" / "catalogs" / "cpu-demo.yaml"


def digest(folder: pathlib.Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("models")
    for name in SIZES:
        make(name, folder / name)
    return folder


def test_a_demo_model_is_the_same_every_time(models: pathlib.Path, tmp_path: pathlib.Path) -> None:
    make("small", tmp_path / "again")
    assert digest(tmp_path / "again") == digest(models / "small")


def test_a_demo_model_of_embeddings_is_the_same_every_time(tmp_path: pathlib.Path) -> None:
    for name in ("one", "other"):
        embedders.make("clip", tmp_path / name)
    assert digest(tmp_path / "one") == digest(tmp_path / "other")
    assert json.loads((tmp_path / "one" / "config.json").read_text())["projection_dim"] == embedders.DIMENSIONS


@pytest.mark.parametrize("name", SIZES)
def test_the_catalog_says_what_the_demo_models_are(models: pathlib.Path, name: str) -> None:
    config = json.loads((models / name / "config.json").read_text())
    text = config["text_config"]
    cache = load_catalog(CATALOG).models[name].kv_cache
    assert (cache.layers, cache.kv_heads) == (text["num_hidden_layers"], text["num_key_value_heads"])
    assert cache.attention_heads == text["num_attention_heads"]
    assert cache.head_dim == text["hidden_size"] // text["num_attention_heads"]
    assert config["model_type"] == "qwen2_vl"


@pytest.mark.parametrize("name", SIZES)
def test_the_catalog_says_how_large_the_demo_models_are(models: pathlib.Path, name: str) -> None:
    parameters_b = (models / name / "model.safetensors").stat().st_size / 2 / 1e9
    assert load_catalog(CATALOG).models[name].parameters_b == pytest.approx(parameters_b, rel=0.2)


def test_a_model_of_other_code_has_another_place() -> None:
    assert demo_model_path("demo:small") != demo_model_path("demo:large")
    assert demo_model_path("demo:small").name.startswith("small-")
