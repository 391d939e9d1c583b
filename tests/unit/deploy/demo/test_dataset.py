import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deploy.demo.dataset import VARIATIONS, main, write_garments, write_scenes
from deploy.demo.inspection import SIDE, draw_scene
from deploy.evaluation.dataset import read_dataset

COUNT = 12


@pytest.mark.parametrize("variation", VARIATIONS)
def test_scenes_are_rows_that_can_be_evaluated_with_boxes_in_pixels_of_their_pictures(
    variation: str, tmp_path: pathlib.Path
) -> None:
    dataset = read_dataset(write_scenes(tmp_path, COUNT, 2, variation))

    assert len(dataset.rows) == COUNT
    for seed, row in enumerate(dataset.rows):
        scene = draw_scene(seed, 2)
        assert isinstance(row.answer, dict)
        assert row.answer["bbox"] == (None if scene.bbox is None else list(scene.bbox))
        assert row.answer["defect_type"] == scene.result.defect_type
        with Image.open(tmp_path / row.pictures[0]) as picture:
            assert picture.size == (2 * SIDE, 2 * SIDE)


def test_a_variation_changes_the_pictures(tmp_path: pathlib.Path) -> None:
    for variation in VARIATIONS:
        write_scenes(tmp_path / variation, COUNT, 1, variation)
    light = {variation: np.mean([_light(path) for path in _images(tmp_path / variation)]) for variation in VARIATIONS}

    assert light["darker"] < 0.9 * light["as-trained"] < 0.9 * light["brighter"]
    assert all(path.suffix == ".jpeg" for path in _images(tmp_path / "jpeg"))
    trained, other = (_images(tmp_path / variation) for variation in ("as-trained", "new-backgrounds"))
    assert all(one.read_bytes() != two.read_bytes() for one, two in zip(trained, other, strict=True))


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted((folder / "images").iterdir())


def _light(path: pathlib.Path) -> float:
    with Image.open(path) as picture:
        return float(np.asarray(picture).mean())


def test_defects_are_told_apart_by_their_length(tmp_path: pathlib.Path) -> None:
    rows = read_dataset(write_scenes(tmp_path, 100, 1, "as-trained")).rows

    assert {row.tags["longest_px"] for row in rows} == {"none", "under 20", "20 and more"}
    for seed, row in enumerate(rows):
        worst = draw_scene(seed).worst
        assert (row.tags["longest_px"] == "under 20") is (worst is not None and worst.length < 20)


def test_garments_are_rows_too(tmp_path: pathlib.Path) -> None:
    rows = read_dataset(write_garments(tmp_path, COUNT)).rows

    assert len(rows) == COUNT
    assert all(isinstance(row.answer, dict) and row.answer["product_type"] for row in rows)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scenes", "0"], "argument --scenes: must be 1 to 500000, got 0"),
        (["--scenes", "500001"], "argument --scenes: must be 1 to 500000, got 500001"),
        (["--scale", "0"], "argument --scale: must be 0.125 to 32, got 0.0"),
        (["--scale", "nan"], "argument --scale: must be 0.125 to 32, got nan"),
        (["--garments", "--scale", "2"], "argument --garments: garments have neither --scale nor --variation"),
        (["--garments", "--variation", "jpeg"], "argument --garments: garments have neither --scale nor --variation"),
    ],
)
def test_what_cannot_be_drawn_is_said_before_anything_is_written(
    tmp_path: pathlib.Path, options: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dataset", str(tmp_path / "new"), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_command_says_how_to_evaluate_what_it_wrote(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "deploy.demo.dataset", str(tmp_path), "--scenes", "2"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert said.startswith(f"fovea evaluate {tmp_path / 'scenes.jsonl'} --model large")
