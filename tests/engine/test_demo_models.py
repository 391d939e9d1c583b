import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping

import pytest
from transformers import Qwen2VLImageProcessor

from deploy.demo import demo_model_path, embedders
from deploy.demo.models import SIZES, make
from gateway.catalog.models import Model
from gateway.catalog.read import load_catalog

ROOT = pathlib.Path(__file__).parents[2]
SHIPPED = load_catalog(ROOT / "deploy" / "catalogs" / "cpu-demo.yaml").models
RANDOM = load_catalog(ROOT / "tests" / "e2e" / "catalog.yaml").models
SERVED = [("large", SHIPPED), ("small", SHIPPED), ("large", RANDOM), ("small", RANDOM)]
SERVED_IDS = ["large", "small", "random large", "random small"]


def digest(folder: pathlib.Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The models with random weights, where a catalog's sources name them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for name in SIZES:
            make(name, demo_model_path(f"demo:{name}"))
        yield


@pytest.mark.usefixtures("made")
def test_a_demo_model_of_random_weights_is_the_same_every_time(tmp_path: pathlib.Path) -> None:
    make("random-small", tmp_path / "again")
    assert digest(tmp_path / "again") == digest(demo_model_path("demo:random-small"))


def test_a_demo_model_of_embeddings_is_the_same_every_time(tmp_path: pathlib.Path) -> None:
    for name in ("one", "other"):
        embedders.make("clip", tmp_path / name)
    assert digest(tmp_path / "one") == digest(tmp_path / "other")
    assert json.loads((tmp_path / "one" / "config.json").read_text())["projection_dim"] == embedders.DIMENSIONS


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(("name", "models"), SERVED, ids=SERVED_IDS)
def test_a_catalog_says_what_the_demo_models_are(name: str, models: Mapping[str, Model]) -> None:
    folder = demo_model_path(models[name].source)
    config = json.loads((folder / "config.json").read_text())
    text, cache = config["text_config"], models[name].kv_cache
    assert (cache.layers, cache.kv_heads) == (text["num_hidden_layers"], text["num_key_value_heads"])
    assert cache.attention_heads == text["num_attention_heads"]
    assert cache.head_dim == text["hidden_size"] // text["num_attention_heads"]
    assert config["model_type"] == models[name].family
    processor = Qwen2VLImageProcessor.from_pretrained(folder)
    assert models[name].image_processor == {"size": dict(processor.size)}


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(("name", "models"), SERVED, ids=SERVED_IDS)
def test_a_catalog_says_how_large_the_demo_models_are(name: str, models: Mapping[str, Model]) -> None:
    parameters_b = (demo_model_path(models[name].source) / "model.safetensors").stat().st_size / 2 / 1e9
    assert models[name].parameters_b == pytest.approx(parameters_b, rel=0.2)


def test_a_model_that_is_made_of_other_code_has_another_place() -> None:
    assert demo_model_path("demo:random-small") != demo_model_path("demo:random-large")
    assert demo_model_path("demo:random-small").name.startswith("random-small-")


def test_a_model_that_sees_is_where_the_package_is() -> None:
    assert demo_model_path("demo:small") == ROOT / "deploy" / "demo" / "weights" / "small"
