"""Pictures that what is measured with is made of."""

import base64
import io
import random

from PIL import Image


def photo(size: tuple[int, int], form: str) -> bytes:
    """A picture with the smoothness and the grain of a photo, as base64 of a file."""
    dice = random.Random(0)
    width, height = size
    coarse = Image.frombytes("RGB", (width // 64, height // 64), dice.randbytes(width // 64 * (height // 64) * 3))
    grain = Image.frombytes("RGB", (width // 4, height // 4), dice.randbytes(width // 4 * (height // 4) * 3))
    picture = Image.blend(coarse.resize(size, Image.Resampling.BICUBIC), grain.resize(size, Image.Resampling.BICUBIC), 0.12)
    buffer = io.BytesIO()
    picture.save(buffer, form, **({"quality": 90} if form in {"JPEG", "WEBP"} else {}))
    return base64.b64encode(buffer.getvalue())
