"""The demo's models say what is true of pictures that they have never seen: of gateway, Ray, vLLM and grammar, all are real."""

import pathlib
import statistics

import pytest
from PIL import Image

from deploy.demo.conversation import IN_WORDS, SCENE, hold_conversation
from deploy.demo.dataset import LARGE, write_garments, write_scenes
from deploy.demo.inspection import draw_scene
from tests.e2e.conftest import OwnStack
from tests.truth import GARMENT_SCHEMA, Asked, Asker

SCENES = 300
GARMENTS = 100
FIELDS = ("product_type", "color", "gender", "season", "usage", "product_name")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), SCENES, 1, "as-trained")


@pytest.fixture(scope="module")
def garments(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_garments(tmp_path_factory.mktemp("garments"), GARMENTS)


@pytest.fixture(scope="module")
def of_large(demo: OwnStack, scenes: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    return Asker(demo.url, scenes).ask("large", tmp_path_factory.mktemp("large"))


def test_the_demo_shows_a_part_and_what_is_said_of_it_is_true(
    demo: OwnStack, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "new" / "inspection.png"
    hold_conversation(demo.url, picture)
    said = capsys.readouterr().out
    assert "small, small:catalogue, large" in said
    assert said.count(draw_scene(SCENE).questions[IN_WORDS]) == 2, "once as the truth, once as the answer"
    assert said.count("(it fits the schema, and is true)") == 2, "of either model"
    assert "x-fovea-cache: hit" in said
    with Image.open(picture) as shown:
        assert (224, 27, 36) in {colour for _, colour in shown.convert("RGB").getcolors(2**24) or ()}, "a box is drawn in"


def test_large_is_as_right_as_its_card_says(of_large: Asked) -> None:
    assert of_large.share("defect_detected") >= 0.95
    assert of_large.share("defect_type") >= 0.9
    assert of_large.share("severity") >= 0.85
    assert of_large.share("bbox IoU ≥ 0.5", "longest_px", LARGE) >= 0.8


def test_small_is_weaker_and_cheaper(demo: OwnStack, scenes: pathlib.Path, of_large: Asked, tmp_path: pathlib.Path) -> None:
    of_small = Asker(demo.url, scenes).ask("small", tmp_path)
    assert of_small.share("defect_type") <= of_large.share("defect_type") - 0.08
    tokens = {
        model: sum(answer["prompt_tokens"] for answer in asked.answers.values())
        for model, asked in (("small", of_small), ("large", of_large))
    }
    assert tokens["small"] < tokens["large"]


def test_the_adapter_knows_what_its_model_does_not(demo: OwnStack, garments: pathlib.Path, tmp_path: pathlib.Path) -> None:
    asker = Asker(demo.url, garments, GARMENT_SCHEMA)
    adapted, base = (asker.ask(model, tmp_path / model.replace(":", "-")) for model in ("small:catalogue", "small"))
    for field in FIELDS:
        assert adapted.share(field) >= base.share(field) + 0.2, field
    assert statistics.mean(adapted.share(field) - base.share(field) for field in FIELDS) >= 0.4
