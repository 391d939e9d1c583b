"""The orientation is what Pillow finds, wherever it is and however broken it is: engines turn by that one."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from gateway.images.encoded import RawImage
from gateway.images.header import read_header
from tests.hostile_images import (
    encoded,
    frame_at,
    gif,
    gif_extension,
    gif_frame,
    jpeg,
    jpeg_segment,
    png,
    png_chunk,
    riff_chunk,
    vp8l,
    vp8x,
    webp,
)

TAG = 0x0112
XMP_NAME = b"http://ns.adobe.com/xap/1.0/\0"


def pillows(data: bytes) -> int | None:
    """None where it does not open the file. What it raises later vLLM passes over, and leaves the image as it is."""
    with warnings.catch_warnings(action="ignore"):
        try:
            image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "GIF"))
        except Exception:  # noqa: BLE001 - Pillow raises what it likes
            return None
        try:
            image.load()
            value = image.getexif().get(TAG, 1)
        except Exception:  # noqa: BLE001
            return 1
    return int(value) if value in range(1, 9) else 1


def ours(data: bytes) -> int:
    return read_header(RawImage(data)).orientation


def exif(value: int, *, order: str = "<", kind: int = 3) -> bytes:
    """TIFF with a make, the orientation and a thumbnail's worth of more."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    inline = struct.pack(f"{order}HH" if kind == 3 else f"{order}L", *((value, 0) if kind == 3 else (value,)))
    make = struct.pack(f"{order}HHLL", 0x010F, 2, 9, 38)
    entries = make + struct.pack(f"{order}HHL", TAG, kind, 1) + inline
    return head + struct.pack(f"{order}LH", 8, 2) + entries + bytes(4) + b"Somebody\0" + bytes(50)


@st.composite
def broken_exif(draw: st.DrawFn) -> bytes:
    """Mostly sound: any tag and type and count, values within and beyond the end, in any order of bytes."""
    head = draw(st.sampled_from([b"II*\0", b"MM\0*", b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+", b"Exif"]))
    order = "<" if head.startswith(b"I") else ">"
    start = draw(st.sampled_from([8, 8, 8, 8, 10, 0, 4000]))
    count = draw(st.integers(0, 5))
    entries = b""
    for _ in range(count):
        tag = draw(st.sampled_from([0x010F, TAG, TAG, 0x0131, 0x8769, 0x9000]))
        kind = draw(st.sampled_from([3, 3, 3, 4, *range(19)]))
        values = draw(st.sampled_from([1, 1, 1, 0, 2, 3, 9, 200, 2**32 - 1]))
        small = st.integers(0, 10)
        inline = draw(
            st.one_of(
                small.map(lambda value: struct.pack(f"{order}HH", value, 0)),
                small.map(lambda value: struct.pack(f"{order}L", value)),
                small.map(lambda value: struct.pack(f"{order}f", value)),
                st.integers(0, 150).map(lambda value: struct.pack(f"{order}L", value)),
                st.binary(min_size=4, max_size=4),
            )
        )
        entries += struct.pack(f"{order}HHL", tag, kind, values) + inline
    said = count + draw(st.sampled_from([0, 0, 0, 1, -1, 500]))
    pad = bytes(max(0, start - 8)) if start < 100 else b""
    pool = b"".join(
        draw(
            st.sampled_from(
                [struct.pack(f"{order}LL", 6, 1), struct.pack(f"{order}LL", 3, 0), struct.pack(f"{order}d", 5.0), bytes(8)]
            )
        )
        for _ in range(draw(st.integers(0, 6)))
    )
    data = head + struct.pack(f"{order}L", start) + pad + struct.pack(f"{order}H", max(0, said)) + entries + bytes(4) + pool
    data = data[: draw(st.sampled_from([len(data), len(data), len(data), 30, 8, 7, 3, 0]))]
    return b"Exif\0\0" * draw(st.sampled_from([0, 0, 0, 1, 2])) + data


@st.composite
def xmp(draw: st.DrawFn) -> bytes:
    form = draw(
        st.sampled_from([b'tiff:Orientation="%d"', b"<tiff:Orientation>%d</tiff:Orientation>", b"tiff:Orientation='%d'"])
    )
    text = form % draw(st.integers(0, 12))
    again = form % draw(st.integers(1, 8)) if draw(st.booleans()) else b""
    return b"<x:xmpmeta " + bytes(draw(st.sampled_from([0, 2000]))).replace(b"\0", b" ") + text + again + b"/>"


EXIFS = st.one_of(
    st.none(),
    st.builds(exif, st.integers(0, 9), order=st.sampled_from("<>"), kind=st.sampled_from([3, 4])),
    broken_exif(),
)
XMPS = st.one_of(st.none(), xmp())


def _jpeg(draw: st.DrawFn) -> bytes:
    segments = []
    found = draw(EXIFS)
    if found is not None:
        cut = draw(st.integers(0, len(found))) if draw(st.booleans()) else len(found)
        segments.append(jpeg_segment(0xE1, b"Exif\0\0" + found[:cut]))
        segments += [jpeg_segment(0xE1, b"Exif\0\0" + found[cut:])] if cut < len(found) else []
    for packet in draw(st.lists(xmp(), max_size=2)):
        segments.insert(draw(st.integers(0, len(segments))), jpeg_segment(0xE1, XMP_NAME + packet))
    between = draw(st.sampled_from([b"", b"\xff\xff", b"\0\0junk", b"\xff\xfe\0\2", jpeg_segment(0xE2, bytes(3000))]))
    bare = jpeg()
    at = draw(st.sampled_from([2, 2, frame_at(bare), bare.index(b"\xff\xda")]))
    return bare[:at] + between.join(segments) + between + bare[at:]


def _text(draw: st.DrawFn, keyword: bytes, text: bytes) -> bytes:
    form = draw(st.sampled_from(["tEXt", "zTXt", "iTXt", "iTXt packed", "zTXt broken"]))
    if form == "tEXt":
        return png_chunk(b"tEXt", keyword + b"\0" + text)
    if form == "zTXt":
        return png_chunk(b"zTXt", keyword + b"\0\0" + zlib.compress(text))
    if form == "zTXt broken":
        return png_chunk(b"zTXt", keyword + b"\0\0" + zlib.compress(text)[:-6] + b"......")
    packed = form == "iTXt packed"
    return png_chunk(
        b"iTXt", keyword + (b"\0\1\0" if packed else b"\0\0\0") + b"\0\0" + (zlib.compress(text) if packed else text)
    )


def _png(draw: st.DrawFn) -> bytes:
    chunks = []
    found = draw(EXIFS)
    if found is not None:
        # Pillow puts the name before it, and then passes over two: of two more one is too many.
        chunks.append(png_chunk(b"eXIf", found.removeprefix(b"Exif\0\0")))
    profile = draw(EXIFS)
    if profile is not None:
        digits = profile.hex().encode() + draw(st.sampled_from([b"", b"", b"\n", b"0", b"zz"]))
        chunks.append(_text(draw, b"Raw profile type exif", b"\nexif\n%8d\n" % len(profile) + digits))
    packet = draw(XMPS)
    if packet is not None:
        chunks.append(_text(draw, b"XML:com.adobe.xmp", packet))
    chunks = draw(st.permutations(chunks))
    split = draw(st.integers(0, len(chunks)))
    more_pixels = png_chunk(b"IDAT", b"") * draw(st.integers(0, 9))
    return png(before=b"".join(chunks[:split]), after=more_pixels + b"".join(chunks[split:]))


def _webp(draw: st.DrawFn) -> bytes:
    chunks = [vp8l(3, 2)]
    found, packet = draw(EXIFS), draw(XMPS)
    if found is not None:
        chunks.insert(draw(st.integers(0, 1)), riff_chunk(b"EXIF", found))
    if packet is not None:
        chunks.insert(draw(st.integers(0, len(chunks))), riff_chunk(b"XMP ", packet))
    flags = draw(st.sampled_from([0x1C, 0x1C, 0x1C, 0x18, 0x14, 0x10]))
    return webp(vp8x(3, 2, flags), *chunks)


def _gif(draw: st.DrawFn) -> bytes:
    texts = [text for text in (draw(EXIFS), draw(XMPS)) if text is not None]
    extensions = [gif_extension(draw(st.sampled_from([0xFE, 0xFF])), b"XMP DataXMP" + text) for text in texts]
    return gif(3, 2, *extensions, gif_frame(1, 1))


@pytest.mark.parametrize("form", [_jpeg, _png, _webp, _gif], ids=["JPEG", "PNG", "WebP", "GIF"])
def test_the_orientation_is_pillows(form: Callable[[st.DrawFn], bytes]) -> None:
    @settings(max_examples=250)
    @given(st.composite(form)())
    def check(data: bytes) -> None:
        expected = pillows(data)
        if expected is not None:
            assert ours(data) == expected

    check()


@pytest.mark.parametrize("value", range(10))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4], ids=["short", "long"])
def test_every_orientation_is_found_where_cameras_and_tools_put_it(value: int, order: str, kind: int) -> None:
    found = exif(value, order=order, kind=kind)
    hexadecimal = b"Raw profile type exif\0\nexif\n%8d\n" % len(found) + found.hex().encode()
    files = {
        "JPEG": jpeg(jpeg_segment(0xE1, b"Exif\0\0" + found)),
        "JPEG, twice named": jpeg(jpeg_segment(0xE1, b"Exif\0\0Exif\0\0" + found)),
        "JPEG, behind JFIF and a profile": jpeg(
            jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(5000)), jpeg_segment(0xE1, b"Exif\0\0" + found)
        ),
        "PNG": png(before=png_chunk(b"eXIf", found)),
        "PNG, behind the pixels": png(after=png_chunk(b"eXIf", found)),
        "PNG, by ImageMagick": png(after=png_chunk(b"tEXt", hexadecimal)),
        "WebP": webp(vp8x(3, 2, 0x18), vp8l(3, 2), riff_chunk(b"EXIF", found)),
        "WebP, named": webp(vp8x(3, 2, 0x18), vp8l(3, 2), riff_chunk(b"EXIF", b"Exif\0\0" + found)),
    }
    expected = value if 1 <= value <= 8 else 1
    assert {name: ours(data) for name, data in files.items()} == dict.fromkeys(files, expected)
    assert {name: pillows(data) for name, data in files.items()} == dict.fromkeys(files, expected)


@given(st.integers(1, 8), st.integers(1, 8))
@example(1, 6)
def test_exif_is_asked_before_xmp(first: int, second: int) -> None:
    packet = b'<rdf:Description tiff:Orientation="%d"/>' % second
    files = [
        jpeg(jpeg_segment(0xE1, XMP_NAME + packet), jpeg_segment(0xE1, b"Exif\0\0" + exif(first))),
        png(before=png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet), after=png_chunk(b"eXIf", exif(first))),
        webp(vp8x(3, 2, 0x1C), vp8l(3, 2), riff_chunk(b"XMP ", packet), riff_chunk(b"EXIF", exif(first))),
    ]
    assert [ours(data) for data in files] == [first] * 3
    assert [pillows(data) for data in files] == [first] * 3


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_what_pillow_writes_is_turned_as_it_says(form: str) -> None:
    for orientation in range(1, 9):
        written = Image.Exif()
        written[TAG] = orientation
        written[0x010F] = "Somebody who makes cameras"
        data = encoded(Image.new("RGB", (40, 30)), form, exif=written)
        assert ours(data) == orientation


def test_entries_beyond_the_first_thousand_are_not_looked_at() -> None:
    others = b"".join(struct.pack("<HHLL", 0x9000 + at, 3, 1, 0) for at in range(1024))
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", 1025) + others + struct.pack("<HHLL", TAG, 3, 1, 6) + bytes(4)
    assert ours(png(before=png_chunk(b"eXIf", data))) == 1
