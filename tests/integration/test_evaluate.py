"""`fovea evaluate` through a gateway, in front of an engine that sees what size of picture it gets."""

import base64
import io
import json
import pathlib

from click.testing import CliRunner
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response

from deploy.cli import main
from tests.conftest import RunningGateway
from tests.fake_engine import FakeEngine, completion

SIZE = (1200, 900)
SCHEMA = {
    "type": "object",
    "properties": {"bbox": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}},
    "required": ["bbox"],
}


async def right_half(request: Request) -> Response:
    """The right half of the picture, in the pixels of the one that came."""
    url = (await request.json())["messages"][0]["content"][0]["image_url"]["url"]
    width, height = Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))).size
    return completion(json.dumps({"bbox": [width / 2, 0, width, height]}))


def test_boxes_of_shrunk_images_are_scored_in_the_original_s_pixels(
    gateway: RunningGateway, engine: FakeEngine, tmp_path: pathlib.Path
) -> None:
    engine.answer = right_half
    Image.new("RGB", SIZE, "#556677").save(tmp_path / "part.jpg")
    row = {"id": "1", "image": "part.jpg", "question": "Where?", "answer": {"bbox": [600, 0, 1200, 900]}}
    (tmp_path / "set.jsonl").write_text(json.dumps(row))
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    for detail, cache in (("low", "miss"), ("high", "miss"), ("low", "hit")):
        out = tmp_path / f"{detail}-{cache}"
        command = ["evaluate", str(tmp_path / "set.jsonl"), "--model", "tiny", "--schema", str(tmp_path / "schema.json")]
        command += ["--url", gateway.url, "--detail", detail, "--out", str(out)]
        done = CliRunner().invoke(main, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        answer = json.loads((out / "answers.jsonl").read_text())
        assert (answer["size"], answer["cache"], answer["model"]) == (list(SIZE), cache, "tiny")
        assert (max(answer.get("sent_size", SIZE)) <= 512) == (detail == "low")
        iou = next(score for score in json.loads((out / "scores.json").read_text())["scores"] if score["metric"] == "bbox IoU")
        assert iou["value"] > 0.99
