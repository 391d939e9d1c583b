"""What is done to the pixels of an image, in a process that may be killed: the only place where a file is decoded.

`python -m gateway.images.pixels <memory MiB> <pixels> <seconds>` answers requests on stdin until it ends (`pixel_protocol.py`).
"""

import importlib
import io
import resource
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import pybase64
from PIL import Image
from PIL.ImageFile import ImageFile

from gateway.images.header import ImageFormat
from gateway.images.normalise import Recipe, Undecodable
from gateway.images.pixel_digest import pixel_digest
from gateway.images.pixel_protocol import ANSWER, READY, REQUEST, Outcome, Task, read_recipe

_PLUGINS = ("Png", "Jpeg", "Mpo", "WebP", "Gif", "Tiff")
"""Those of the formats, and what Pillow would import for a JPEG of several pictures and for EXIF, once a caller waits."""

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
_WHITE = (255, 255, 255)

_LIBJPEG_SHRINKS = ((8, 16.0), (4, 8.0), (2, 3.4))
"""By how much libjpeg shrinks an image while decoding, and how many times smaller it is to be for that. It saves half the time.

libjpeg shrinks more crudely than the resize after it, which is left enough to do to hide that: on drawn documents, the worst of
all, the error stays below that of JPEG quality 90. Begun at ratios of 12, 6 and 3, it would be up to 1.3 times as large.
"""

_JPEG_QUALITY = 95
_PNG_COMPRESS_LEVEL = 1

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""TIFF 6.0 and EXIF 2.3, tag 0x0112, by what undoes each."""

_KILLED_AFTER_S = 2.0
"""How long after its time the system ends a worker whose gateway is not there to do it."""


def apply(payload: bytes, recipe: Recipe) -> bytes:
    """The base64 of the image that `recipe` makes of the file of which `payload` is the base64.

    Raises Undecodable: the file is damaged, or is not what its header promised. MemoryError.
    """
    with _refusing_what_cannot_be_decoded():
        return pybase64.b64encode(_encoded(_upright(_shrunk(_opened(payload, recipe), recipe), recipe), recipe))


def identify(payload: bytes, recipe: Recipe) -> bytes:
    """The digest of what an engine would see of the file of which `payload` is the base64, as large as `recipe` says it is.

    Raises as `apply` does.
    """
    with _refusing_what_cannot_be_decoded():
        return pixel_digest(_opened(payload, recipe))


@contextmanager
def _refusing_what_cannot_be_decoded() -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        # Decoders fail with whatever comes to mind: OSError, SyntaxError, struct.error, ZeroDivisionError, ...
        raise Undecodable from error


def _opened(payload: bytes, recipe: Recipe) -> ImageFile:
    """The file's first frame, nothing of it decoded yet."""
    image = Image.open(io.BytesIO(pybase64.b64decode(payload, validate=True)), formats=_FORMATS)
    if image.size != (recipe.stored_width, recipe.stored_height):
        raise Undecodable
    return image


def _shrunk(image: Image.Image, recipe: Recipe) -> Image.Image:
    target = recipe.stored_target
    box = _have_libjpeg_shrink(image, target)
    image.load()
    return _opaque(image, flatten=recipe.flatten).resize(target, Image.Resampling.BICUBIC, box)


def _have_libjpeg_shrink(image: Image.Image, target: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """The part of what is decoded that is the image: not all of the last pixels, where no scale divides its sides."""
    ratio = min(image.width / target[0], image.height / target[1])
    for scale, smallest_ratio in _LIBJPEG_SHRINKS:
        if ratio >= smallest_ratio:
            drafted = image.draft(None, (image.width // scale, image.height // scale))
            return None if drafted is None else drafted[1]
    return None


def _opaque(image: Image.Image, *, flatten: bool) -> Image.Image:
    """The image in RGB, what is see-through on white, by vLLM's rule (0.32, multimodal/image.py and media/image.py).

    Which leaves RGB as it is, though PNG may name one colour that is to be see-through.
    """
    if image.mode == "RGB":
        return image
    if image.mode not in {"RGBA", "LA", "PA"} and "transparency" not in image.info:
        return image.convert("RGB")
    if not flatten:
        raise Undecodable
    image = image.convert("RGBA")
    on_white = Image.new("RGB", image.size, _WHITE)
    on_white.paste(image, mask=image.getchannel("A"))
    return on_white


def _upright(image: Image.Image, recipe: Recipe) -> Image.Image:
    # Of the small image, not of the large one as vLLM does it: that differs by at most 0.3 of 255 in the mean.
    method = _UPRIGHT.get(recipe.orientation)
    return image if method is None else image.transpose(method)


def _encoded(image: Image.Image, recipe: Recipe) -> bytes:
    # Comments and colour profiles would be written out again. vLLM ignores them.
    image.info = {}
    file = io.BytesIO()
    if recipe.format is ImageFormat.JPEG:
        image.save(file, "JPEG", quality=_JPEG_QUALITY, subsampling="4:4:4")
    else:
        image.save(file, "PNG", compress_level=_PNG_COMPRESS_LEVEL)
    return file.getvalue()


def serve(requests: BinaryIO, answers: BinaryIO, timeout_s: float) -> None:
    """Answers one request after the other, until there are no more or there is not enough memory for one."""
    answers.write(READY)
    answers.flush()
    outcome = Outcome.DONE
    while outcome is not Outcome.OUT_OF_MEMORY:
        head = requests.read(REQUEST.size)
        if len(head) < REQUEST.size:
            return
        signal.setitimer(signal.ITIMER_REAL, timeout_s + _KILLED_AFTER_S)
        outcome, made = _answered(requests, *REQUEST.unpack(head))
        answers.write(ANSWER.pack(outcome, len(made)))
        answers.write(made)
        answers.flush()
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answered(requests: BinaryIO, task: int, recipe_bytes: int, payload_bytes: int) -> tuple[Outcome, bytes]:
    work = {Task.APPLY: apply, Task.IDENTIFY: identify}[Task(task)]
    try:
        recipe = read_recipe(requests.read(recipe_bytes))
        return Outcome.DONE, work(requests.read(payload_bytes), recipe)
    except Undecodable:
        return Outcome.BROKEN, b""
    except MemoryError:
        return Outcome.OUT_OF_MEMORY, b""


def _limit(memory_mib: int, max_pixels: int) -> None:
    """Bounds what a decoder can do to others, for as long as the process lives."""
    memory_bytes = memory_mib * 1024**2
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    # Pillow warns of more pixels than these; as an error it comes before anything is allocated for them.
    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def main() -> None:
    """The program."""
    memory_mib, max_pixels, timeout_s = sys.argv[1:]
    # Told to end with the gateway's whole group, it still has callers whom the gateway lets finish; it ends when stdin does.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for plugin in _PLUGINS:
        importlib.import_module(f"PIL.{plugin}ImagePlugin")
    _limit(int(memory_mib), int(max_pixels))
    serve(sys.stdin.buffer, sys.stdout.buffer, float(timeout_s))


if __name__ == "__main__":
    main()
