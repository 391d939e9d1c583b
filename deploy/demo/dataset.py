"""`python -m deploy.demo.dataset FOLDER --scenes 1000`: scenes with their truths, as `fovea evaluate` reads them.

Their seeds are none that anything is trained on. A variation is what training does not have: other backgrounds, JPEG, light.
"""

import argparse
import io
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image, ImageEnhance

from deploy.demo import seeds
from deploy.demo.defects import LARGE_ENOUGH
from deploy.demo.garments import QUESTIONS, draw_garment
from deploy.demo.inspection import NEW_BACKGROUNDS, QUESTION, SIDE, Scene, draw_scene

LARGE, SMALL = f"{LARGE_ENOUGH} and more", f"under {LARGE_ENOUGH}"
"""What `longest_px` is told as, in pixels of a scene of scale 1."""

SCALES = (0.125, 32)
"""From, to: pictures of 28 to 7,168 pixels a side."""

_JPEG_QUALITY = 40
_AS_TRAINED = "as-trained"

Drawer = Callable[[int, float], tuple[Scene, bytes]]
"""Seed and scale -> the scene, and its picture as a file."""


def _as_trained(seed: int, scale: float) -> tuple[Scene, bytes]:
    scene = draw_scene(seed, scale)
    return scene, _png(scene.picture)


def _new_backgrounds(seed: int, scale: float) -> tuple[Scene, bytes]:
    scene = draw_scene(seed, scale, NEW_BACKGROUNDS)
    return scene, _png(scene.picture)


def _jpeg(seed: int, scale: float) -> tuple[Scene, bytes]:
    scene = draw_scene(seed, scale)
    file = io.BytesIO()
    scene.picture.save(file, "JPEG", quality=_JPEG_QUALITY)
    return scene, file.getvalue()


def _lit(factor: float) -> Drawer:
    def draw(seed: int, scale: float) -> tuple[Scene, bytes]:
        scene = draw_scene(seed, scale)
        return scene, _png(ImageEnhance.Brightness(scene.picture).enhance(factor))

    return draw


VARIATIONS: Mapping[str, Drawer] = {
    _AS_TRAINED: _as_trained,
    "new-backgrounds": _new_backgrounds,
    "jpeg": _jpeg,
    "brighter": _lit(1.2),
    "darker": _lit(0.8),
}


def scene_row(scene: Scene, image: str) -> dict[str, Any]:
    """A row about a scene; free texts are left out of its truth, and its box is in pixels of the picture."""
    result = scene.result
    truth = result.model_dump(include={"defect_detected", "defect_type", "defect_location", "severity"})
    return {
        "id": f"scene-{scene.seed}",
        "image": image,
        "question": QUESTION,
        "answer": truth | {"bbox": scene.bbox},
        "tags": {"defect": result.defect_type, "longest_px": _length(scene)},
    }


def _length(scene: Scene) -> str:
    if scene.worst is None:
        return "none"
    longest = scene.worst.length * SIDE / scene.picture.width
    return SMALL if longest < LARGE_ENOUGH else LARGE


def write_scenes(folder: pathlib.Path, count: int, scale: float, variation: str) -> pathlib.Path:
    """Writes scenes of the seeds from 0 on, `seeds.CARD`, and tells the file to evaluate."""

    def draw(seed: int) -> tuple[dict[str, Any], bytes]:
        scene, picture = VARIATIONS[variation](seed, scale)
        return scene_row(scene, f"images/{seed}.{'jpeg' if variation == 'jpeg' else 'png'}"), picture

    return _write(folder, "scenes.jsonl", count, draw)


def write_garments(folder: pathlib.Path, count: int) -> pathlib.Path:
    """Writes garments of the seeds from 0 on, `seeds.CARD`, and tells the file to evaluate."""

    def draw(seed: int) -> tuple[dict[str, Any], bytes]:
        garment = draw_garment(seed)
        row = {"id": f"garment-{seed}", "image": f"images/{seed}.png", "question": QUESTIONS[0]}
        return row | {"answer": garment.attributes.model_dump()}, _png(garment.picture)

    return _write(folder, "garments.jsonl", count, draw)


def _write(folder: pathlib.Path, name: str, count: int, draw: Callable[[int], tuple[dict[str, Any], bytes]]) -> pathlib.Path:
    """A row and its picture of each seed; the picture where the row says."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    dataset = folder / name
    with dataset.open("w", encoding="utf-8") as rows:
        for seed in range(count):
            row, picture = draw(seed)
            (folder / row["image"]).write_bytes(picture)
            rows.write(json.dumps(row) + "\n")
    return dataset


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def main() -> None:
    """Parses the command line, writes the dataset and says how to evaluate it."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.demo.dataset", description="Write drawn pictures with their truths."
    )
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--scenes", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--scale", type=float, default=1, help="times 224 pixels a side (default: 1)")
    parser.add_argument("--variation", choices=list(VARIATIONS), default=_AS_TRAINED, help="what training does not have")
    parser.add_argument("--garments", action="store_true", help="garments instead, for the catalogue adapter")
    arguments = parser.parse_args()
    if not 1 <= arguments.scenes <= len(seeds.CARD):
        parser.error(f"argument --scenes: must be 1 to {len(seeds.CARD)}, got {arguments.scenes}")
    if not SCALES[0] <= arguments.scale <= SCALES[1]:
        parser.error(f"argument --scale: must be {SCALES[0]} to {SCALES[1]}, got {arguments.scale}")
    if arguments.garments and (arguments.scale, arguments.variation) != (1, _AS_TRAINED):
        parser.error("argument --garments: garments have neither --scale nor --variation")
    if arguments.garments:
        dataset = write_garments(arguments.folder, arguments.scenes)
        print(f"fovea evaluate {dataset} --model small:catalogue --schema deploy.demo.garments:ProductAttributes")
    else:
        dataset = write_scenes(arguments.folder, arguments.scenes, arguments.scale, arguments.variation)
        schema = "deploy.demo.inspection:LocatedInspectionResult"
        print(f"fovea evaluate {dataset} --model large --boxes thousandths --schema {schema}")


if __name__ == "__main__":
    main()
