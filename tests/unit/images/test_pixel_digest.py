"""Two files have one pixel digest only where an engine sees the same of both, and always where they differ in packing alone."""

import base64
import contextlib
import functools
import io
import itertools
import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from gateway.images.encoded import RawImage
from gateway.images.header import UnreadableHeader, read_header
from gateway.images.normalise import Undecodable, decoding
from gateway.images.pixels import identify
from tests.hostile_images import PNG_SIGNATURE, SETS, png_chunk
from tests.scenes import encoded, scene

SIZE = (96, 60)
ORIENTATION = 0x0112


def digest(file: bytes) -> bytes:
    return identify(base64.b64encode(file), decoding(read_header(RawImage(file))))


def turned(picture: Image.Image, orientation: int, form: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(picture, form, exif=exif)


@functools.cache
def _picture() -> Image.Image:
    return scene(2, SIZE)


def _one_level_off(picture: Image.Image, band: int = 0) -> Image.Image:
    """One sample of the last pixel."""
    samples = bytearray(picture.tobytes())
    samples[band - len(picture.getbands())] ^= 1
    return Image.frombytes(picture.mode, picture.size, bytes(samples))


def _gif(*seeds: int) -> bytes:
    frames = [scene(seed, SIZE).quantize(32) for seed in seeds]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)


def _bare_png(size: tuple[int, int], depth: int, colour: int, rows: bytes, *chunks: bytes, level: int = 6) -> bytes:
    """`rows` as they are filtered; interlaced, where that is done too."""
    header = png_chunk(b"IHDR", struct.pack(">LLBBBBB", *size, depth, colour, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(rows, level))
    return PNG_SIGNATURE + header + b"".join(chunks) + data + png_chunk(b"IEND", b"")


def _grey16(low: int) -> bytes:
    return _bare_png((2, 1), 16, 0, b"\0" + bytes([7, low, 9, low]))


def _with_alpha(alpha: int) -> bytes:
    picture = _picture().convert("RGBA")
    picture.putalpha(alpha)
    return encoded(picture, "PNG")


PALETTE = png_chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255]))
TWINS_OF_A_PALETTE = {
    "as it is": _bare_png((2, 1), 8, 3, b"\0\0\1", PALETTE),
    "in another order": _bare_png((2, 1), 8, 3, b"\0\1\0", png_chunk(b"PLTE", bytes([0, 0, 255, 255, 0, 0]))),
    "in one bit": _bare_png((2, 1), 1, 3, b"\0\x40", PALETTE),
    "in true colours": _bare_png((2, 1), 8, 2, b"\0" + bytes([255, 0, 0, 0, 0, 255])),
}

DIFFERENT: dict[str, Callable[[], tuple[bytes, bytes]]] = {
    "one pixel by one level": lambda: (encoded(_picture(), "PNG"), encoded(_one_level_off(_picture()), "PNG")),
    "one pixel by one level of blue": lambda: (encoded(_picture(), "PNG"), encoded(_one_level_off(_picture(), 2), "PNG")),
    "one pixel of grey": lambda: (
        encoded(_picture().convert("L"), "PNG"),
        encoded(_one_level_off(_picture().convert("L")), "PNG"),
    ),
    "the lower byte of 16 bits": lambda: (_grey16(1), _grey16(2)),
    "an opacity of 254 and of 255": lambda: (_with_alpha(254), _with_alpha(255)),
    "an opacity of 255 and none": lambda: (_with_alpha(255), encoded(_picture(), "PNG")),
    "white that is half see-through and white that is not": lambda: (
        encoded(Image.new("RGBA", SIZE, (255, 255, 255, 128)), "PNG"),
        encoded(Image.new("RGBA", SIZE, (255, 255, 255, 255)), "PNG"),
    ),
    "colours that nothing is seen of": lambda: (
        encoded(Image.new("RGBA", SIZE, (1, 2, 3, 0)), "PNG"),
        encoded(Image.new("RGBA", SIZE, (3, 2, 1, 0)), "PNG"),
    ),
    "16 bits and 8 bits of grey": lambda: (
        _bare_png((2, 1), 16, 0, b"\0" + bytes([7, 7, 9, 9])),
        _bare_png((2, 1), 8, 0, b"\0" + bytes([7, 9])),
    ),
    "16 bits and 8 bits of a colour": lambda: (
        _bare_png((1, 1), 16, 2, b"\0" + bytes([7, 7, 8, 8, 9, 9])),
        _bare_png((1, 1), 8, 2, b"\0" + bytes([7, 8, 9])),
    ),
    "grey in one sample and in three": lambda: (
        encoded(_picture().convert("L"), "PNG"),
        encoded(_picture().convert("L").convert("RGB"), "PNG"),
    ),
    "black and white in one bit and in eight": lambda: (
        encoded(_picture().convert("1"), "PNG"),
        encoded(_picture().convert("1").convert("L"), "PNG"),
    ),
    "30x100 and 100x30 of the same bytes": lambda: (
        encoded(Image.frombytes("L", (30, 100), bytes(range(250)) * 12), "PNG"),
        encoded(Image.frombytes("L", (100, 30), bytes(range(250)) * 12), "PNG"),
    ),
    "30x100 and 100x30 of one colour": lambda: (
        encoded(Image.new("RGB", (30, 100), "red"), "PNG"),
        encoded(Image.new("RGB", (100, 30), "red"), "PNG"),
    ),
    "CMYK and RGB": lambda: (encoded(_picture().convert("CMYK"), "JPEG"), encoded(_picture(), "JPEG")),
    "CMYK by one level": lambda: (
        encoded(Image.new("CMYK", SIZE, (10, 20, 30, 40)), "JPEG", quality=100),
        encoded(Image.new("CMYK", SIZE, (10, 20, 30, 44)), "JPEG", quality=100),
    ),
    "two qualities of JPEG": lambda: (encoded(_picture(), "JPEG", quality=90), encoded(_picture(), "JPEG", quality=91)),
    "another first frame": lambda: (_gif(2, 5), _gif(5, 2)),
    "one level that is see-through and none": lambda: (
        encoded(_picture().convert("L"), "PNG", transparency=40),
        encoded(_picture().convert("L"), "PNG"),
    ),
    "one colour that is see-through and none, of which vLLM makes the same": lambda: (
        encoded(_picture(), "PNG", transparency=(1, 2, 3)),
        encoded(_picture(), "PNG"),
    ),
    "one colour that is see-through, and another": lambda: (
        encoded(_picture(), "PNG", transparency=(1, 2, 3)),
        encoded(_picture(), "PNG", transparency=(3, 2, 1)),
    ),
    "a colour of a palette that is see-through and one that is not": lambda: (
        encoded(_picture().quantize(32), "PNG", transparency=3),
        encoded(_picture().quantize(32), "PNG"),
    ),
    "numbers that are the same under another palette": lambda: (
        TWINS_OF_A_PALETTE["as it is"],
        _bare_png((2, 1), 8, 3, b"\0\0\1", png_chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 254]))),
    ),
    **{
        f"orientation {one} and {other}": functools.partial(
            lambda one, other: (turned(_picture(), one), turned(_picture(), other)), one, other
        )
        for one, other in itertools.combinations(range(1, 9), 2)
    },
}


@pytest.mark.parametrize("pair", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_what_a_model_could_tell_apart_has_two_digests(pair: Callable[[], tuple[bytes, bytes]]) -> None:
    one, other = pair()
    assert digest(one) == digest(one)
    assert digest(one) != digest(other)


def _texts() -> PngImagePlugin.PngInfo:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Software", "another one")
    texts.add_itxt("Title", "ein Bild", lang="de")
    texts.add_text("Comment", "c" * 9000, zip=True)
    return texts


def _twins() -> dict[str, bytes]:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    chunks = png_chunk(b"gAMA", struct.pack(">L", 45455)) + png_chunk(b"pHYs", struct.pack(">LLB", 3000, 3000, 1))
    plain = encoded(_picture(), "PNG")
    return {
        "PNG": plain,
        "PNG, not compressed": encoded(_picture(), "PNG", compress_level=0),
        "PNG, compressed by other means": encoded(_picture(), "PNG", compress_level=9, compress_type=2),
        "PNG, with a profile": encoded(_picture(), "PNG", icc_profile=profile),
        "PNG, with texts": encoded(_picture(), "PNG", pnginfo=_texts(), dpi=(300, 300)),
        "PNG, with EXIF": turned(_picture(), 1),
        "PNG, with gamma": plain[:33] + chunks + plain[33:],
        "PNG, with more behind its end": plain + bytes(100),
        "PNG, interlaced": _interlaced(_picture()),
        "PNG, turned and turned back": turned(_picture().transpose(Image.Transpose.ROTATE_90), 6),
        "PNG, animated": encoded(_picture(), "PNG", save_all=True, append_images=[scene(5, SIZE)]),
        "WebP, lossless": encoded(_picture(), "WEBP", lossless=True),
    }


def _interlaced(picture: Image.Image) -> bytes:
    """By Adam7 (PNG §8.2), every row unfiltered. Pillow writes none."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = bytearray()
    pixels = picture.load()
    assert pixels is not None
    for left, top, across, down in passes:
        for y in range(top, picture.height, down):
            columns = range(left, picture.width, across)
            if columns:
                rows += b"\0" + b"".join(bytes(pixels[x, y]) for x in columns)  # type: ignore[arg-type]
    header = png_chunk(b"IHDR", struct.pack(">LLBBBBB", *picture.size, 8, 2, 0, 0, 1))
    return PNG_SIGNATURE + header + png_chunk(b"IDAT", zlib.compress(bytes(rows))) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("name", _twins())
def test_the_same_pixels_in_another_packing_have_one_digest(name: str) -> None:
    files = _twins()
    assert name == "PNG" or files[name] != files["PNG"]
    assert digest(files[name]) == digest(files["PNG"])


@pytest.mark.parametrize("name", TWINS_OF_A_PALETTE)
def test_how_colours_are_numbered_does_not_count(name: str) -> None:
    assert digest(TWINS_OF_A_PALETTE[name]) == digest(TWINS_OF_A_PALETTE["as it is"])


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_the_same_coefficients_of_a_jpeg_in_another_order_have_one_digest(mode: str) -> None:
    picture = _picture().convert(mode)
    baseline = encoded(picture, "JPEG", quality=90)
    for options in ({"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}, {"comment": b"another"}):
        twin = encoded(picture, "JPEG", quality=90, **options)
        assert twin != baseline
        assert digest(twin) == digest(baseline)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_an_image_that_lies_on_its_side_is_the_one_that_was_put_upright(orientation: int, form: str) -> None:
    lying = turned(_picture(), orientation, form)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(lying)))
    assert digest(lying) == digest(encoded(upright, "PNG"))


def test_frames_that_no_engine_looks_at_do_not_count() -> None:
    assert digest(_gif(2, 5)) == digest(_gif(2, 8))


def test_a_digest_is_the_same_in_every_version() -> None:
    """Stores outlive a gateway: where this fails, either undo it or raise the version in pixel_digest.py."""
    picture = Image.frombytes("RGB", (3, 2), bytes(range(18)))
    assert digest(encoded(picture, "PNG")).hex() == "20c24fe6043fa7ce78a441f640f3510680fe59a1c0a88f41b82067b001d786d6"


def test_strips_make_no_difference_to_one_another() -> None:
    """Rows at the borders of what is digested at once: 1 MiB are 273 rows of this width."""
    picture = Image.linear_gradient("L").resize((960, 600)).convert("RGB")
    digests = {digest(encoded(picture, "PNG"))}
    for row in (0, 271, 272, 273, 274, 545, 546, 547, 599):
        changed = picture.copy()
        changed.putpixel((959, row), (1, 2, 3))
        digests.add(digest(encoded(changed, "PNG")))
    assert len(digests) == 10


def as_vllm_loads(file: bytes) -> tuple[tuple[int, int], bytes] | None:
    """vLLM 0.32, multimodal/media/image.py, ImageMediaIO.load_bytes; None where it fails."""
    try:
        image: Image.Image = Image.open(io.BytesIO(file))
        with contextlib.suppress(Exception):
            image = ImageOps.exif_transpose(image)
        image.load()
        if image.mode != "RGB" and (image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info):
            image = image.convert("RGBA")
            on_white = Image.new("RGB", image.size, (255, 255, 255))
            on_white.paste(image, mask=image.getchannel("A"))
            image = on_white
        image = image.convert("RGB")
    except Exception:  # noqa: BLE001 - as decoders fail
        return None
    return image.size, image.tobytes()


@pytest.mark.parametrize("name", ["colours", "metadata", "animations", "polyglots", "mislabelled", "shapes"])
def test_hostile_files_of_one_digest_are_the_same_to_an_engine(name: str) -> None:
    seen: dict[bytes, tuple[str, object]] = {}
    for hostile in SETS[name](0):
        with contextlib.suppress(UnreadableHeader, Undecodable, Image.DecompressionBombWarning):
            loaded = as_vllm_loads(hostile.data)
            other, as_loaded = seen.setdefault(digest(hostile.data), (hostile.name, loaded))
            assert loaded == as_loaded, f"{hostile.name} and {other}"
    assert seen
