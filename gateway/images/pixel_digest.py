"""What an image is to an engine, as 32 bytes: like pixels.py for the processes that decode, and for nothing else."""

import struct

from blake3 import blake3
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile

_CONTEXT = "fovea pixels of an image, version 1"
"""Sets these digests apart from those of files. The version is raised with whatever changes one: stores outlive a gateway."""

_SHAPE = struct.Struct("!II?II")
"""Width and height, upright; whether samples were stored in 16 bits; sizes, in bytes, of the two texts that follow."""

_STRIP_BYTES = 1024**2
_SAMPLES_AT_MOST = 4


def pixel_digest(image: ImageFile) -> bytes:
    """BLAKE3, 32 bytes, of all that vLLM 0.32 makes its RGB of (multimodal/media/image.py): equal ones are seen as equal.

    That is the first frame, upright. On the side of caution it has more in it than is seen: the samples as they are before
    they become RGB, their kind and depth, and what is see-through, though white would be put behind it. It has nothing of
    metadata, colour profiles, compression, and of how a palette is ordered. `image` is not loaded yet. Raises what Pillow does.
    """
    is_deep = any(";16" in str(tile.args) for tile in image.tile)  # 16 bits of a colour become 8 in Pillow, of grey they stay
    image.load()
    seen = _resolved(_upright(image))
    # A level, or three of them: one for each colour of a palette is resolved by now.
    see_through = repr(seen.info.get("transparency")).encode()
    mode = seen.mode.encode()
    digest = blake3(derive_key_context=_CONTEXT)
    digest.update(_SHAPE.pack(seen.width, seen.height, is_deep, len(mode), len(see_through)) + mode + see_through)
    rows = max(1, _STRIP_BYTES // (seen.width * _SAMPLES_AT_MOST))
    for top in range(0, seen.height, rows):
        # In strips: as a whole, the samples would take as much memory again, twice over for a moment.
        digest.update(seen.crop((0, top, seen.width, min(top + rows, seen.height))).tobytes())
    return digest.digest()


def _upright(image: ImageFile) -> Image.Image:
    """As vLLM does it, to the letter: what fails on strange metadata leaves the image as it lies."""
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - see above
        return image


def _resolved(image: Image.Image) -> Image.Image:
    """With colours in place of a palette's numbers."""
    if image.mode not in {"P", "PA"}:
        return image
    return image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
