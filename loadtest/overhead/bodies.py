"""What is asked: text, images of 100 KB and 1 MB, photos, streams."""

import base64
import io
import json
import pathlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from loadtest.pictures import photo

MODEL = "bench"
PHOTO = (4000, 3000)

NUMBER = "@" * 8
"""What numbered.lua puts a number for; base64 has no such character."""

_QUESTION = (
    "Is there a defect on this part? Answer with its type, where on the part it is, how severe it is, and how sure you are of "
    "it. Say so where you cannot tell."
)


_Content = str | Sequence[dict[str, Any]]


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


@dataclass(frozen=True, slots=True)
class Numbered:
    """A request's body that has a place for a number: as it is never cached, and as it is."""

    forwarded: Body
    cached: Body


def whole_bodies(folder: pathlib.Path) -> tuple[Body, ...]:
    """The bodies whose answer comes in one piece, written into `folder`."""
    text = _text(_QUESTION)
    return (
        _written(folder, "text", _QUESTION),
        _written(folder, "100 KB image", [text, _noise(158)]),
        _written(folder, "1 MB image", [text, _noise(500)]),
    )


def stream_body(folder: pathlib.Path) -> Body:
    """The body that asks for a stream, written into `folder`."""
    return replace(_written(folder, "stream", _QUESTION, stream=True), connections=48, stream=True)


def numbered_bodies(folder: pathlib.Path) -> tuple[Numbered, ...]:
    """Bodies of which each number makes another question, written into `folder`."""
    question = f"Part {NUMBER}. {_QUESTION}"
    text = _text(question)
    return (
        _numbered(folder, "text", question, connections=32),
        _numbered(folder, "100 KB image", [text, _noise(158)], connections=32),
        _numbered(folder, "1 MB image", [text, _noise(500)], connections=32),
        _numbered(folder, "photo of 12 megapixels", [text, _image("jpeg", photo(PHOTO, "JPEG"))], connections=8),
    )


def numbered_text(folder: pathlib.Path, name: str, connections: int) -> Body:
    """A question in words that is cached, written into `folder`; each number makes another one."""
    return _numbered(folder, name, f"Part {NUMBER}. {_QUESTION}", connections).cached


def _numbered(folder: pathlib.Path, name: str, content: _Content, connections: int) -> Numbered:
    forwarded = replace(_written(folder, name, content), connections=connections)
    cached = _written(folder, f"{name} cached", content, temperature=0)
    return Numbered(forwarded, replace(forwarded, file=cached.file))


def _written(folder: pathlib.Path, name: str, content: _Content, **asked: bool | float) -> Body:
    """Without a temperature each answer is drawn anew: the gateway neither looks it up nor lets two callers share it."""
    document = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 64, **asked}
    file = folder / f"{name.replace(' ', '-')}.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return Body(name, file, connections=32)


def _text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def _noise(side: int) -> dict[str, Any]:
    """A picture of `side` times `side` pixels of noise, which no compression makes smaller: four characters for a pixel."""
    pixels = random.Random(side).randbytes(side * side * 3)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (side, side), pixels).save(buffer, "PNG")
    return _image("png", base64.b64encode(buffer.getvalue()))


def _image(form: str, payload: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/{form};base64,{payload.decode()}"}}
