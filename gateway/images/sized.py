"""What an image becomes for a model, known from its first bytes: refused, passed on or shrunk, and its number of tokens."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from gateway.catalog.entry import Answerer
from gateway.catalog.image_rules import UnfitSize
from gateway.catalog.models import MIB
from gateway.errors import ImageOverLimit, InvalidImage
from gateway.images.encoded import Base64Image
from gateway.images.header import ImageHeader, UnreadableHeader, read_header
from gateway.images.normalise import AS_IT_CAME, Recipe, recipe

Detail = Literal["auto", "low", "high", "original"]


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is refused whatever the model; each is the setting `FOVEA_` and its name in capitals."""

    image_mib: float
    images_mib: float
    image_megapixels: float
    image_side_pixels: int
    image_min_side_pixels: int
    image_aspect: float


@dataclass(frozen=True, slots=True)
class Image:
    """An image whose header was read and found within the limits."""

    encoded: Base64Image
    header: ImageHeader


class SizedImage(NamedTuple):
    """An image as one model will get it: upright, of `width` x `height` pixels, which take `tokens` of its prompt.

    `recipe` is what is to be done to it for that; None where it is passed on as it came. `told_detail` is how closely the model
    is told to look; None where it is told nothing.

    A tuple, which is made in a third of the time: each choice of a model makes one of every image.
    """

    image: Image
    width: int
    height: int
    tokens: int
    recipe: Recipe | None
    told_detail: Detail | None = None

    @property
    def recipe_text(self) -> str:
        """What is done to it, as a cache key may hold it: with the image's digest it says what the model gets."""
        made = AS_IT_CAME if self.recipe is None else str(self.recipe)
        return made if self.told_detail is None else f"{made}, detail {self.told_detail}"


def measured(encoded: Base64Image, limits: ImageLimits, param: str) -> Image:
    """The image, with its header.

    Raises InvalidImage, ImageOverLimit, each naming `param`. Takes tens of microseconds, however large the image; some
    milliseconds, where a file is made for that.
    """
    if encoded.size > limits.image_mib * MIB:
        raise _over(f"has {encoded.size} bytes", "image_mib", limits.image_mib, f" ({limits.image_mib * MIB:.0f} bytes)", param)
    try:
        header = read_header(encoded)
    except UnreadableHeader as error:
        raise InvalidImage(str(error), param=param) from error
    _check_pixels(header, limits, param)
    return Image(encoded, header)


def _check_pixels(header: ImageHeader, limits: ImageLimits, param: str) -> None:
    size = f"is {header.width}x{header.height} pixels"
    longer, shorter = max(header.width, header.height), min(header.width, header.height)
    if header.width * header.height > limits.image_megapixels * 1e6:
        raise _over(
            f"{size}, {header.width * header.height / 1e6:.1f} million", "image_megapixels", limits.image_megapixels, "", param
        )
    if longer > limits.image_side_pixels:
        raise _over(size, "image_side_pixels", limits.image_side_pixels, "", param)
    if shorter < limits.image_min_side_pixels:
        raise ImageOverLimit(f"The image {size}; image_min_side_pixels asks for {limits.image_min_side_pixels}.", param=param)
    if longer > shorter * limits.image_aspect:
        raise _over(f"{size}, {longer / shorter:.1f} to 1", "image_aspect", limits.image_aspect, " to 1", param)


def _over(what: str, name: str, limit: float, unit: str, param: str) -> ImageOverLimit:
    return ImageOverLimit(f"The image {what}; {name} allows {limit:g}{unit}.", param=param)


def check_together(images: list[Image], limits: ImageLimits) -> None:
    """Passes images that together have no more bytes than one request may have.

    Raises ImageOverLimit.
    """
    size, limit = sum(image.encoded.size for image in images), limits.images_mib * MIB
    if size > limit:
        message = f"The images have {size} bytes together; images_mib allows {limits.images_mib:g} ({limit:.0f} bytes)."
        raise ImageOverLimit(message, param="messages")


def sized(image: Image, detail: Detail | None, model: Answerer, param: str) -> SizedImage:
    """The image as `model` gets it.

    Raises InvalidImage, naming `param`: the model cannot take an image of that size.
    """
    upright_size = image.header.upright_size
    try:
        size, tokens = model.image_sizes(*upright_size, detail)
    except UnfitSize as error:
        raise InvalidImage(str(error), param=param) from error
    made = None if size == upright_size else recipe(image.header, size)
    return SizedImage(image, *size, tokens, made, detail if model.reads_detail else None)
