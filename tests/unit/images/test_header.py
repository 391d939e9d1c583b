import base64
import io
import warnings
from dataclasses import dataclass

import pytest
from PIL import Image, ImageOps

from gateway.images.encoded import Base64Image, RawImage
from gateway.images.header import ImageFormat, ImageHeader, UnreadableHeader, read_header
from tests.hostile_images import (
    MEDIA_TYPES,
    PNG_SIGNATURE,
    Hostile,
    corpus,
    encoded,
    gif,
    gif_extension,
    gif_frame,
    jpeg,
    jpeg_segment,
    png,
    png_chunk,
    png_header,
    riff_chunk,
    vp8l,
    vp8x,
    webp,
)

FORMATS = tuple(MEDIA_TYPES)
READ_AT_MOST_BYTES = 1_100_000
"""Over the corpus; the largest is a PNG whose 1,001 chunks are a kilobyte each."""
DECODED_AT_MOST_PIXELS = 4_000_000

REFUSED_THOUGH_SHOWN = {
    "metadata: PNG text 'transparency'": "vLLM fails on it with an error of its own, where the PNG is grey or has a palette",
    "metadata: PNG text 'bbox'": "vLLM fails on it with an error of its own, where it stands before the pixels",
    "metadata: PNG text 'interlace'": "vLLM fails on it with an error of its own, where it stands before the pixels",
    "broken: PNG, IHDR behind the pixels": "nobody writes that, and other decoders refuse it",
    "broken: PNG, text before IHDR": "PNG §5.6: IHDR is first; finding it elsewhere is work",
    "broken: PNG, 100000 chunks": "bounded work",
    "broken: JPEG with a megabyte of FF00": "bounded work",
    "broken: JPEG with 100000": "bounded work",
    "broken: WebP, 100000 chunks": "bounded work",
    "broken: GIF with a megabyte": "bounded work",
    "broken: GIF with 3 MB": "bounded work",
    "broken: GIF with 100000": "bounded work",
}
"""Names in the corpus, or how they begin, and why the header is refused though Pillow decodes the picture."""


class CountingImage(RawImage):
    """Counts what is read."""

    __slots__ = ("bytes_read", "reads")

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reads = self.bytes_read = 0

    def read(self, start: int, size: int) -> bytes:
        found = super().read(start, size)
        self.reads += 1
        self.bytes_read += len(found)
        return found


@dataclass(frozen=True)
class Shown:
    """What Pillow makes of a file, on the path that vLLM takes: `upright` and `has_alpha` are None where it is not decoded."""

    form: str
    stored: tuple[int, int]
    upright: tuple[int, int] | None = None
    has_alpha: bool | None = None
    frames: int | None = None
    is_whole: bool = False


def shown(data: bytes) -> Shown | None:
    with warnings.catch_warnings(action="ignore"):
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except Exception:  # noqa: BLE001 - Pillow raises what it likes
            return None
        form = {"MPO": "jpeg"}.get(image.format or "", (image.format or "").lower())
        stored = Shown(form, image.size)
        return _decoded(image, stored) if image.width * image.height <= DECODED_AT_MOST_PIXELS else stored


def _decoded(image: Image.Image, stored: Shown) -> Shown:
    is_whole = True
    turned = image
    try:
        turned = ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - vLLM too goes on with the image as it is
        is_whole = False
    try:
        turned.load()
    except Exception:  # noqa: BLE001
        return stored
    has_alpha = turned.mode in {"RGBA", "LA", "PA"} or "transparency" in turned.info
    return Shown(stored.form, stored.stored, turned.size, has_alpha, getattr(image, "n_frames", 1), is_whole)


def header_of(data: bytes) -> ImageHeader:
    header = read_header(RawImage(data))
    assert header == read_header(Base64Image(base64.b64encode(data)))
    return header


def refusal_of(data: bytes) -> str:
    with pytest.raises(UnreadableHeader) as refusal:
        read_header(RawImage(data))
    return str(refusal.value)


def _check(hostile: Hostile) -> str:
    image = CountingImage(hostile.data)
    try:
        header = read_header(image)
    except UnreadableHeader as refusal:
        header, said = None, str(refusal)
    else:
        said = ""
    assert image.bytes_read <= READ_AT_MOST_BYTES, hostile.name
    seen = shown(hostile.data)
    if header is None:
        assert 10 < len(said) < 150, hostile.name
        if seen is not None and seen.is_whole:
            assert hostile.name.startswith(tuple(REFUSED_THOUGH_SHOWN))
            return "refused though shown"
        return "refused"
    if seen is None:
        return "read, not opened"
    assert (header.format, (header.width, header.height)) == (seen.form, seen.stored), hostile.name
    if seen.upright is None:
        return "read, not decoded"
    assert (header.upright_size, header.has_alpha) == (seen.upright, seen.has_alpha), hostile.name
    assert header.frames in {None, seen.frames}, hostile.name
    return "read"


def test_over_the_hostile_corpus_the_header_is_refused_or_what_engines_see() -> None:
    names = set()
    outcomes: dict[str, int] = {}
    for hostile in corpus():
        names.add(hostile.name)
        outcome = _check(hostile)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert len(names) == outcomes.pop("refused though shown") + sum(outcomes.values()), "a name is there twice"
    assert min(outcomes[outcome] for outcome in ("read", "refused")) > 4000


def test_the_corpus_is_the_same_from_the_same_seed_and_another_from_another() -> None:
    first, again, other = (list(corpus(seed)) for seed in (0, 0, 1))
    assert first == again
    assert [hostile.name for hostile in first if hostile.name.startswith("flipped")] == [
        hostile.name for hostile in other if hostile.name.startswith("flipped")
    ]
    assert first != other


@pytest.mark.parametrize("form", FORMATS)
def test_a_sound_picture_is_read_from_a_few_kilobytes(form: str) -> None:
    data = encoded(Image.effect_noise((900, 700), 90).convert("L"), form)
    image = CountingImage(data)
    header = read_header(image)
    assert (header.format, header.width, header.height, header.orientation) == (ImageFormat(form.lower()), 900, 700, 1)
    assert len(data) > 50_000
    assert image.bytes_read <= 20_000


def test_a_photo_with_all_that_phones_put_before_the_pixels_is_read() -> None:
    profile = jpeg_segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(65_500)) * 255
    further = jpeg_segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_400)) * 255
    index = jpeg_segment(0xE2, b"MPF\0" + bytes(80))
    exif = Image.Exif()
    exif[0x0112] = 8
    image = CountingImage(jpeg(jpeg_segment(0xE1, exif.tobytes()), index, profile, further))
    header = read_header(image)
    assert (header.orientation, header.upright_size) == (8, (2, 3))
    assert image.size > 33_000_000
    assert image.bytes_read < 600_000


def test_exif_behind_a_long_run_of_pixels_is_found_in_few_reads() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    run = png_chunk(b"IDAT", bytes(8192)) * 2500 + png_chunk(b"IDAT", bytes(17))
    for chunks in (b"", png_chunk(b"IDAT", b""), png_chunk(b"IDAT", b"") * 2, png_chunk(b"IDAT", bytes(9)) * 3):
        image = CountingImage(png(after=chunks + run + png_chunk(b"eXIf", exif.tobytes()[6:])))
        assert read_header(image).orientation == 6
        assert image.reads < 50


@pytest.mark.parametrize("count", [*range(1, 20), 63, 64, 65])
def test_a_run_of_pixels_of_any_length_is_leapt_over_to_its_end(count: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 5
    behind = png_chunk(b"eXIf", exif.tobytes()[6:])
    assert header_of(png(after=png_chunk(b"IDAT", bytes(300)) * count + behind)).orientation == 5


@pytest.mark.parametrize("marker", [0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA])
def test_the_jpegs_that_libjpeg_turbo_decodes_are_taken(marker: int) -> None:
    frame = jpeg_segment(marker, b"\x08\x00\x08\x00\x09\x01\x01\x11\x00")
    scan = jpeg_segment(0xDA, b"\x01\x01\x00" + (b"\x01\x00\x00" if marker == 0xC3 else b"\x00\x00\x00"))
    tables = jpeg_segment(0xDB, b"\0" + b"\1" * 64)
    tables += b"".join(jpeg_segment(0xC4, bytes([kind, 1]) + bytes(16)) for kind in (0, 0x10))
    data = b"\xff\xd8" + tables + frame + scan + bytes(64) + b"\xff\xd9"
    assert header_of(data).upright_size == (9, 8)
    seen = shown(data)
    assert seen is not None
    assert (seen.is_whole, seen.upright) == (True, (9, 8))


GREY = jpeg()
REFUSED = {
    "nothing": (b"", "The image is empty; PNG, JPEG, WebP and GIF are taken."),
    "BMP": (b"BM" + bytes(50), "The image is BMP; PNG, JPEG, WebP and GIF are taken."),
    "AVIF": (b"\0\0\0\x1cftypavif" + bytes(20), "The image is AVIF;"),
    "HEIF": (b"\0\0\0\x1cftypheic" + bytes(20), "The image is HEIF;"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20), "The image is JPEG 2000;"),
    "SVG with a byte order mark": (b"\xef\xbb\xbf\n <?xml version='1.0'?><svg>", "The image is SVG;"),
    "PDF": (b"%PDF-1.7", "The image is PDF;"),
    "AVI": (b"RIFF\0\0\0\0AVI ", "The image is AVI video;"),
    "words": (b"words", "The bytes are no image that is known; PNG, JPEG, WebP and GIF are taken."),
    "a PNG of no width": (PNG_SIGNATURE + png_header(0, 5) + bytes(9), "The PNG says it is 0x5 pixels."),
    "a PNG of too large a side": (PNG_SIGNATURE + png_header(2**31, 1), "The PNG says it is 2147483648x1 pixels."),
    "a PNG cut off": (png()[:20], "The image is cut off within its header."),
    "a PNG with a wrong checksum": (png()[:29] + b"0000" + png()[33:], "does not match its checksum"),
    "a PNG of two headers": (png(before=png_header(9, 9)), "The PNG has two headers (IHDR)."),
    "a PNG without pixels": (PNG_SIGNATURE + png_header(3, 2) + png_chunk(b"IEND", b""), "has no pixels (IDAT)"),
    "a PNG of 3 bits": (PNG_SIGNATURE + png_header(3, 2, depth=3), "colour type 2 with 3 bits"),
    "a text that trips": (png(before=png_chunk(b"zTXt", b"bbox\0\0x")), "a text by the name of 'bbox'"),
    "a JPEG without a frame": (b"\xff\xd8" + jpeg_segment(0xDA, bytes(8)), "no frame header (SOF)"),
    "a JPEG of 12 bits": (b"\xff\xd8" + jpeg_segment(0xC1, b"\x0c\0\1\0\1\1" + bytes(3)), "12 bits per sample; 8 are taken"),
    "a JPEG of no height": (b"\xff\xd8" + jpeg_segment(0xC0, b"\x08\0\0\0\1\1" + bytes(3)), "The JPEG says it is 1x0 pixels."),
    "a JPEG of differences": (b"\xff\xd8" + jpeg_segment(0xC5, b"\x08\0\1\0\1\1" + bytes(3)), "differential sequential"),
    "a JPEG of two pictures": (b"\xff\xd8" + GREY, "does not belong there (FFD8)"),
    "a JPEG beyond decoders": (
        b"\xff\xd8" + jpeg_segment(0xC0, b"\x08\xff\xff\0\1\1" + bytes(3)),
        "The JPEG says it is 1x65535 pixels; decoders take 65500 a side.",
    ),
    "a JPEG cut off": (GREY[:100], "The JPEG is cut off before its pixels."),
    "a WebP cut off": (webp(vp8l(9, 9))[:-1], "shorter than it says"),
    "a WebP beyond its format": (webp(vp8x(2**24, 2**24, 0)), "16777216x16777216 pixels"),
    "a WebP of audio": (webp(riff_chunk(b"fmt ", bytes(16))), "no picture in its first chunk"),
    "a GIF without a picture": (gif(9, 9), "The GIF ends before its first picture."),
    "a GIF of no size": (gif(0, 0, gif_frame(0, 0)), "The GIF says it is 0x0 pixels."),
    "a GIF of blocks": (gif(9, 9, gif_extension(0xFE, bytes(600_000))), "more than 2048 blocks"),
}


@pytest.mark.parametrize(("data", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_is_told_what_is_wrong(data: bytes, said: str) -> None:
    assert said in refusal_of(data)


def test_the_screen_of_a_gif_grows_with_its_first_picture() -> None:
    assert header_of(gif(9, 9, gif_frame(1, 1, 30, 2))).upright_size == (31, 9)


def test_frames_are_told_where_the_header_tells_them() -> None:
    pages = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    frames = {
        form: header_of(encoded(pages[0], form, save_all=True, append_images=pages[1:])).frames
        for form in ("PNG", "WEBP", "GIF")
    }
    assert frames == {"PNG": 3, "WEBP": None, "GIF": None}
    assert [header_of(encoded(pages[0], form)).frames for form in FORMATS] == [1, 1, 1, None]


def test_of_an_mpo_the_first_picture_counts() -> None:
    pages = [Image.new("RGB", size) for size in ((30, 20), (8, 8))]
    header = header_of(encoded(pages[0], "MPO", save_all=True, append_images=pages[1:]))
    assert (header.format, header.upright_size, header.frames) == (ImageFormat.JPEG, (30, 20), 1)
