"""What the images of a request would cost, model by model: a form of our own, in the manner of OpenAI's objects."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class ImageEstimate(NamedTuple):
    """One image as a model would get it; sizes are in pixels, upright."""

    width: int
    height: int
    tokens: int
    shrunk: bool


class ModelEstimate(NamedTuple):
    """All images with one model; `refused` says why it would not take them, in the words of the error."""

    model: str
    context_tokens: int
    images: Sequence[ImageEstimate]
    refused: str | None


class FileFacts(NamedTuple):
    """What an image's header tells; sizes are in pixels, upright. `frames` is None where only the file's end would tell."""

    param: str
    format: str
    width: int
    height: int
    frames: int | None
    size_bytes: int


def estimate_document(model: str, files: Sequence[FileFacts], models: Sequence[ModelEstimate]) -> dict[str, Any]:
    """The answer; `model` is the one that the request names."""
    return {
        "object": "image.estimate",
        "model": model,
        "images": [
            {"param": one.param, "format": one.format, "width": one.width, "height": one.height}
            | {"frames": one.frames, "bytes": one.size_bytes}
            for one in files
        ],
        "models": [_model_document(one) for one in models],
    }


def _model_document(estimate: ModelEstimate) -> dict[str, Any]:
    return {
        "model": estimate.model,
        "image_tokens": sum(image.tokens for image in estimate.images),
        "context_tokens": estimate.context_tokens,
        "images": [image._asdict() for image in estimate.images],
        "refused": estimate.refused,
    }
