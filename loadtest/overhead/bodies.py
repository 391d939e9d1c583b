"""What is asked: text, images of 100 KB and 1 MB, streams."""

import base64
import io
import json
import pathlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

MODEL = "bench"

_QUESTION = (
    "Is there a defect on this part? Answer with its type, where on the part it is, how severe it is, and how sure you are of "
    "it. Say so where you cannot tell."
)


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body, in a file; `connections` ask with it at once."""

    name: str
    file: pathlib.Path
    connections: int
    stream: bool = False

    @property
    def unit(self) -> str:
        """What the CPU is counted by."""
        return "delta" if self.stream else "request"


def whole_bodies(folder: pathlib.Path) -> tuple[Body, ...]:
    """The bodies whose answer comes in one piece, written into `folder`."""
    text = {"type": "text", "text": _QUESTION}
    return (
        _written(folder, "text", _QUESTION),
        _written(folder, "100 KB image", [text, _image(158)]),
        _written(folder, "1 MB image", [text, _image(500)]),
    )


def stream_body(folder: pathlib.Path) -> Body:
    """The body that asks for a stream, written into `folder`."""
    return _written(folder, "stream", _QUESTION, stream=True)


def _written(folder: pathlib.Path, name: str, content: str | Sequence[dict[str, Any]], *, stream: bool = False) -> Body:
    document = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 64, "temperature": 0}
    if stream:
        document["stream"] = True
    file = folder / f"{name.replace(' ', '-')}.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return Body(name, file, connections=48 if stream else 32, stream=stream)


def _image(side: int) -> dict[str, Any]:
    """A picture of `side` times `side` pixels of noise, which no compression makes smaller: four characters for a pixel."""
    pixels = random.Random(side).randbytes(side * side * 3)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (side, side), pixels).save(buffer, "PNG")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"}}
