"""Images that nobody should have to meet, made in memory from a seed.

    for hostile in corpus(): post(hostile.data, hostile.media_type)

16,180 files, 61 MB in all, made in a second; `SETS` names the sets, `python -m tests.hostile_images` counts them.
Some are sound and only strange; what is right for each is an answer or a refusal, never a fallen process.
"""

import collections
import io
import itertools
import random
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

_Media = Mapping[str, str]
MEDIA_TYPES: _Media = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ZEROS_PER_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Hostile:
    """A file, under a name that says what is wrong with it, as `media_type` in its data: URL."""

    name: str
    data: bytes
    media_type: str


def corpus(seed: int = 0) -> Iterator[Hostile]:
    """Every file of every set, in an order and with bytes that `seed` fixes. Names are unique."""
    for make in SETS.values():
        yield from make(seed)


# How the formats are put together.


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))


def png_header(width: int, height: int, *, depth: int = 8, colour: int = 2) -> bytes:
    return png_chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, depth, colour, 0, 0, 0))


def png(*, before: bytes = b"", after: bytes = b"", size: tuple[int, int] = (3, 2)) -> bytes:
    """RGB and black, with chunks before and after its pixels."""
    width, height = size
    pixels = png_chunk(b"IDAT", zlib.compress(bytes((1 + 3 * width) * height)))
    return PNG_SIGNATURE + png_header(width, height) + before + pixels + after + png_chunk(b"IEND", b"")


def jpeg_segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg(*segments: bytes, size: tuple[int, int] = (3, 2), **options: Any) -> bytes:
    """Segments, and behind them a JPEG as Pillow writes it, grey."""
    return b"\xff\xd8" + b"".join(segments) + encoded(Image.new("L", size, 99), "JPEG", **options)[2:]


def riff_chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<L", len(data)) + data + bytes(len(data) % 2)


def webp(*chunks: bytes) -> bytes:
    return riff_chunk(b"RIFF", b"WEBP" + b"".join(chunks))


def vp8x(width: int, height: int, flags: int) -> bytes:
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    return riff_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides)


def vp8l(width: int, height: int, *, has_alpha: bool = True) -> bytes:
    """One colour, see-through, in five codes of no bits: any size takes eight bytes (RFC 9649 §3)."""
    no_transform_no_cache_no_groups, one_symbol_zero = 0, 0b0001
    codes = sum(one_symbol_zero << 4 * number for number in range(5)) << 3 | no_transform_no_cache_no_groups
    bits = (width - 1) | (height - 1) << 14 | has_alpha << 28
    return riff_chunk(b"VP8L", b"\x2f" + struct.pack("<L", bits) + codes.to_bytes(8, "little"))


def gif(width: int, height: int, *blocks: bytes) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + b"".join(blocks) + b";"


def gif_frame(width: int, height: int, left: int = 0, top: int = 0) -> bytes:
    """One pixel's worth of data: sound for 1x1, and short for more."""
    return b"," + struct.pack("<HHHHB", left, top, width, height, 0) + b"\x02\x02\x44\x01\x00"


def gif_extension(label: int, data: bytes) -> bytes:
    parts = (data[at : at + 255] for at in range(0, len(data), 255))
    return bytes([0x21, label]) + b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def packed_zeros(size: int) -> bytes:
    """A zlib stream of `size` zeros, whole MiB, a thousandth as long and made at once."""
    packer = zlib.compressobj(9)
    first = packer.compress(bytes(ZEROS_PER_BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(ZEROS_PER_BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = (size % 65_521) << 16 | 1
    return first + block * (size // ZEROS_PER_BLOCK - 1) + b"\x03\x00" + struct.pack(">L", checksum)


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def frame_at(data: bytes) -> int:
    """Where a JPEG's first frame header (SOF0 or SOF2) begins, with Pillow's tables before it."""
    return min(at for marker in (b"\xff\xc0\x00", b"\xff\xc2\x00") if (at := data.find(marker)) > 0)


def _noise(size: tuple[int, int], seed: int, mode: str = "RGB") -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, size, random.Random(seed).randbytes(size[0] * size[1] * channels))


def _bombs(_: int) -> Iterator[Hostile]:
    grey_row = 50_000 // 8 + 1
    whole = packed_zeros(-(-grey_row * 50_000 // ZEROS_PER_BLOCK) * ZEROS_PER_BLOCK)
    head = PNG_SIGNATURE + png_header(50_000, 50_000, depth=1, colour=0)
    end = png_chunk(b"IEND", b"")
    yield Hostile("bomb: PNG 50000x50000, all of it", head + png_chunk(b"IDAT", whole) + end, "image/png")
    yield Hostile("bomb: PNG 50000x50000, its start", head + png_chunk(b"IDAT", whole[:2000]) + end, "image/png")
    rgba = PNG_SIGNATURE + png_header(2**31 - 1, 2**31 - 1, depth=16, colour=6)
    yield Hostile("bomb: PNG of the largest sides there are", rgba + png_chunk(b"IDAT", whole[:100]) + end, "image/png")
    yield Hostile("bomb: WebP 16384x16384, all of it", webp(vp8l(16_384, 16_384)), "image/webp")
    moving = riff_chunk(b"ANIM", bytes(6)) + riff_chunk(b"ANMF", bytes(16) + vp8l(1, 1))
    yield Hostile("bomb: WebP canvas 50000x50000", webp(vp8x(50_000, 50_000, 0x12), moving), "image/webp")
    yield Hostile("bomb: WebP canvas 2^24 a side", webp(vp8x(2**24, 2**24, 0x12), moving), "image/webp")
    yield Hostile("bomb: GIF 50000x50000", gif(50_000, 50_000, gif_frame(50_000, 50_000)), "image/gif")
    yield Hostile("bomb: GIF screen 65535x65535", gif(65_535, 65_535, gif_frame(1, 1)), "image/gif")
    yield Hostile("bomb: GIF frame beyond its screen", gif(1, 1, gif_frame(65_535, 65_535, 65_535, 65_535)), "image/gif")
    for kind in (False, True):
        small = encoded(Image.new("RGB", (16, 16)), "JPEG", progressive=kind)
        big = patched(small, frame_at(small) + 5, struct.pack(">HH", 65_500, 65_500))
        yield Hostile(f"bomb: JPEG 65500x65500, progressive {kind}", big, "image/jpeg")
        over = patched(small, frame_at(small) + 5, struct.pack(">HH", 65_535, 65_535))
        yield Hostile(f"bomb: JPEG 65535x65535, progressive {kind}", over, "image/jpeg")
    many_scans = encoded(Image.new("RGB", (2048, 2048)), "JPEG", progressive=True)
    scan = many_scans.rfind(b"\xff\xda")
    yield Hostile("bomb: JPEG of 2000 scans", many_scans[:-2] + many_scans[scan:-2] * 2000 + b"\xff\xd9", "image/jpeg")


def _unpackers(_: int) -> Iterator[Hostile]:
    hundred = packed_zeros(100 << 20)
    texts = {
        "iCCP": png_chunk(b"iCCP", b"icc\0\0" + hundred),
        "zTXt": png_chunk(b"zTXt", b"Comment\0\0" + hundred),
        "zTXt, as EXIF": png_chunk(b"zTXt", b"Raw profile type exif\0\0" + hundred),
        "iTXt, as XMP": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + hundred),
        "zTXt, a thousand": png_chunk(b"zTXt", b"Comment\0\0" + packed_zeros(1 << 20)) * 1000,
    }
    for name, chunks in texts.items():
        yield Hostile(f"unpacker: PNG {name} before the pixels", png(before=chunks), "image/png")
        yield Hostile(f"unpacker: PNG {name} after the pixels", png(after=chunks), "image/png")


def _shapes(_: int) -> Iterator[Hostile]:
    shapes = ((1, 1), (1, 2), (2, 1), (1, 16_000), (16_000, 1), (4, 4_000), (4_000, 4), (7, 7), (27, 29), (1, 200), (201, 1))
    for form, media_type in MEDIA_TYPES.items():
        for size in shapes:
            yield Hostile(f"shape: {form} {size[0]}x{size[1]}", encoded(Image.new("RGB", size), form), media_type)
    for size in ((1, 65_500), (65_500, 1)):
        yield Hostile(f"shape: JPEG {size[0]}x{size[1]}", encoded(Image.new("L", size), "JPEG"), "image/jpeg")
    for size in ((1, 1_000_000), (1_000_000, 1)):
        yield Hostile(f"shape: PNG {size[0]}x{size[1]}", encoded(Image.new("L", size), "PNG"), "image/png")


def _truncated(seed: int) -> Iterator[Hostile]:
    """Some 600: one file of each format, of 9 to 12 KB, at every 64th byte."""
    options: dict[str, dict[str, Any]] = {"PNG": {}, "JPEG": {"quality": 95}, "WEBP": {"lossless": True}, "GIF": {}}
    for form, media_type in MEDIA_TYPES.items():
        mode, side = ("L", 96) if form == "GIF" else ("RGB", 60)
        exif = {} if form == "GIF" else {"exif": _turned(6)}
        data = encoded(_noise((side, side), seed, mode), form, **options[form], **exif)
        for end in range(0, len(data), 64):
            yield Hostile(f"truncated: {form} at {end}", data[:end], media_type)


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _mislabelled(_: int) -> Iterator[Hostile]:
    for form in MEDIA_TYPES:
        data = encoded(Image.new("RGB", (30, 20), "red"), form)
        for other in (*MEDIA_TYPES.values(), "image/jpg", "", "application/octet-stream", "text/html", "image/svg+xml"):
            if other != MEDIA_TYPES[form]:
                yield Hostile(f"mislabelled: {form} as '{other}'", data, other)


def _polyglots(_: int) -> Iterator[Hostile]:
    picture = {form: encoded(Image.new("RGB", (30, 20), "red"), form) for form in MEDIA_TYPES}
    script = b"=1;alert(1)/*"
    yield Hostile("polyglot: GIF and JavaScript", b"GIF89a/*" + picture["GIF"][8:] + b"*/" + script, "image/gif")
    yield Hostile("polyglot: GIF with script behind", picture["GIF"] + script, "image/gif")
    archive = b"PK\x03\x04" + bytes(26) + b"PK\x05\x06" + bytes(18)
    yield Hostile("polyglot: JPEG and ZIP", picture["JPEG"] + archive, "image/jpeg")
    yield Hostile("polyglot: ZIP and JPEG", archive + picture["JPEG"], "image/jpeg")
    html = b"<html><script>alert(1)</script></html>"
    yield Hostile("polyglot: PNG and HTML", png(before=png_chunk(b"tEXt", b"Comment\0" + html)) + html, "image/png")
    yield Hostile("polyglot: PDF before a JPEG", b"%PDF-1.7\n" + picture["JPEG"], "image/jpeg")
    yield Hostile("polyglot: PDF within a JPEG", jpeg(jpeg_segment(0xFE, b"%PDF-1.7\n")), "image/jpeg")
    yield Hostile("polyglot: WebP and AVI", patched(picture["WEBP"], 8, b"AVI "), "image/webp")
    for first, second in itertools.permutations(picture, 2):
        signature = picture[second][:12]
        masked = signature + picture[first][len(signature) :]
        yield Hostile(f"polyglot: {first} and {second}", picture[first] + picture[second], MEDIA_TYPES[first])
        yield Hostile(f"polyglot: {first} under the signature of {second}", masked, MEDIA_TYPES[first])


def _animations(_: int) -> Iterator[Hostile]:
    control = gif_extension(0xF9, b"\x05\x01\x00\x00")
    looped = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
    for frames in (2, 10_000):
        yield Hostile(f"animation: GIF of {frames}", gif(8, 8, looped, (control + gif_frame(1, 1)) * frames), "image/gif")
        yield Hostile(f"animation: APNG of {frames}", _apng(frames), "image/png")
        yield Hostile(f"animation: APNG of {frames}, and a still", _apng(frames, has_still=True), "image/png")
        frame = riff_chunk(b"ANMF", bytes(16) + vp8l(1, 1))
        data = webp(vp8x(8, 8, 0x1A), riff_chunk(b"ANIM", bytes(6)), frame * frames, riff_chunk(b"EXIF", _turned(6).tobytes()))
        yield Hostile(f"animation: WebP of {frames}", data, "image/webp")
    for count in (0, 2**31, 2**32 - 1):
        data = png(before=png_chunk(b"acTL", struct.pack(">LL", count, 0)))
        yield Hostile(f"animation: APNG that says it has {count} frames", data, "image/png")
    yield Hostile("animation: APNG of two counts", png(before=png_chunk(b"acTL", struct.pack(">LL", 3, 0)) * 2), "image/png")
    yield Hostile("animation: GIF without a frame", gif(8, 8, looped), "image/gif")
    yield Hostile("animation: WebP without a frame", webp(vp8x(8, 8, 0x02), riff_chunk(b"ANIM", bytes(6))), "image/webp")


def _apng(frames: int, *, has_still: bool = False) -> bytes:
    pixels = zlib.compress(bytes(4))
    still = png_chunk(b"IDAT", pixels) if has_still else b""
    chunks = [png_chunk(b"acTL", struct.pack(">LL", frames, 0)), still]
    sequence = 0
    for number in range(frames):
        chunks.append(png_chunk(b"fcTL", struct.pack(">LLLLLHHBB", sequence, 1, 1, 0, 0, 1, 10, 0, 0)))
        sequence += 1
        if number or has_still:
            chunks.append(png_chunk(b"fdAT", struct.pack(">L", sequence) + pixels))
            sequence += 1
        else:
            chunks.append(png_chunk(b"IDAT", pixels))
    return PNG_SIGNATURE + png_header(1, 1) + b"".join(chunks) + png_chunk(b"IEND", b"")


def _colours(seed: int) -> Iterator[Hostile]:
    size = (33, 21)
    for mode in ("1", "L", "RGB", "CMYK"):
        image = _noise(size, seed).convert(mode)
        for options in ({}, {"progressive": True}, {"optimize": True}):
            yield Hostile(f"colours: JPEG {mode} {options}", encoded(image, "JPEG", **options), "image/jpeg")
    cmyk = encoded(_noise(size, seed).convert("CMYK"), "JPEG")
    adobe = cmyk.index(b"Adobe")
    for transform in (0, 1, 2, 255):
        yield Hostile(f"colours: JPEG CMYK, Adobe {transform}", patched(cmyk, adobe + 11, bytes([transform])), "image/jpeg")
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = _noise(size, seed, mode) if mode in ("RGB", "RGBA", "L", "LA") else _noise(size, seed, "L").convert(mode)
        yield Hostile(f"colours: PNG {mode}", encoded(image, "PNG"), "image/png")
        if mode in ("L", "P", "RGB"):
            key = (1, 2, 3) if mode == "RGB" else 3
            yield Hostile(f"colours: PNG {mode} with tRNS", encoded(image, "PNG", transparency=key), "image/png")
    for mode in ("RGB", "RGBA"):
        for lossless in (False, True):
            data = encoded(_noise(size, seed, mode), "WEBP", lossless=lossless)
            yield Hostile(f"colours: WebP {mode}, lossless {lossless}", data, "image/webp")
    yield Hostile("colours: GIF with transparency", encoded(Image.new("P", size), "GIF", transparency=0), "image/gif")
    yield from _bare_pngs()


def _bare_pngs() -> Iterator[Hostile]:
    """All 15 combinations of colour and depth, plain and interlaced, and those that there are none of."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
    for colour in range(8):
        for depth in (0, 1, 2, 4, 8, 16, 32):
            row = 1 + -(-5 * channels.get(colour, 1) * depth // 8)
            palette = png_chunk(b"PLTE", bytes(3 * 2 ** min(depth, 8))) if colour == 3 else b""
            for interlace in (0, 1, 7):
                header = png_chunk(b"IHDR", struct.pack(">LLBBBBB", 5, 5, depth, colour, 0, 0, interlace))
                data = PNG_SIGNATURE + header + palette + png_chunk(b"IDAT", zlib.compress(bytes(row * 20)))
                name = f"colours: PNG type {colour}, {depth} bits, interlace {interlace}"
                yield Hostile(name, data + png_chunk(b"IEND", b""), "image/png")


def _metadata(seed: int) -> Iterator[Hostile]:
    image = Image.new("RGB", (30, 20), "red")
    profile = random.Random(seed).randbytes(2_000_000)
    for form in ("PNG", "JPEG", "WEBP"):
        yield Hostile(f"metadata: {form}, 2 MB of ICC", encoded(image, form, icc_profile=profile), MEDIA_TYPES[form])
    segment = jpeg_segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(65_500))
    yield Hostile("metadata: JPEG, 255 segments of ICC", jpeg(segment * 255), "image/jpeg")
    exif = _turned(6).tobytes()
    # Parts of 64 KB each, of which the first has the directory.
    parts = [jpeg_segment(0xE1, exif + bytes(65_000))] + [jpeg_segment(0xE1, b"Exif\0\0" + bytes(65_000))] * 60
    yield Hostile("metadata: JPEG, 4 MB of EXIF", jpeg(*parts), "image/jpeg")
    yield Hostile("metadata: PNG, 4 MB of EXIF", png(after=png_chunk(b"eXIf", exif[6:] + bytes(4_000_000))), "image/png")
    still = vp8l(3, 2)
    yield Hostile(
        "metadata: WebP, 4 MB of EXIF",
        webp(vp8x(3, 2, 0x18), still, riff_chunk(b"EXIF", exif + bytes(4_000_000))),
        "image/webp",
    )
    for count in (2000, 60_000):
        entries = b"".join(struct.pack("<HHLL", 0x8000 + at % 0x7000, 3, 1, at) for at in range(count))
        long = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries + bytes(4)
        yield Hostile(f"metadata: PNG, EXIF of {count} entries", png(before=png_chunk(b"eXIf", long)), "image/png")
    looped = b"II*\0\x08\0\0\0" + struct.pack("<HHHLLL", 1, 0x8769, 4, 1, 8, 8)
    huge = b"II*\0\x08\0\0\0" + struct.pack("<HHHLLL", 1, 0x0112, 3, 2**32 - 1, 8, 8)
    beyond = b"MM\0*\xff\xff\xff\xff"
    for name, broken in {
        "that holds itself": looped,
        "of 2^32 values": huge,
        "beyond its end": beyond,
        "cut off": b"II*",
    }.items():
        yield Hostile(f"metadata: JPEG, EXIF {name}", jpeg(jpeg_segment(0xE1, b"Exif\0\0" + broken)), "image/jpeg")
        yield Hostile(f"metadata: PNG, EXIF {name}", png(after=png_chunk(b"eXIf", broken)), "image/png")
        data = webp(vp8x(3, 2, 0x18), still, riff_chunk(b"EXIF", broken))
        yield Hostile(f"metadata: WebP, EXIF {name}", data, "image/webp")
    for keyword in (b"transparency", b"bbox", b"interlace", b"exif", b"xmp", b"default_image", b"icc_profile", b""):
        text = png_chunk(b"tEXt", keyword + b"\0abc")
        yield Hostile(f"metadata: PNG text '{keyword.decode()}'", png(before=text), "image/png")
        yield Hostile(f"metadata: PNG text '{keyword.decode()}' after the pixels", png(after=text), "image/png")
    for orientation in range(10):
        for form in ("PNG", "JPEG", "WEBP"):
            data = encoded(image, form, exif=_turned(orientation))
            yield Hostile(f"metadata: {form}, orientation {orientation}", data, MEDIA_TYPES[form])


def _broken(_: int) -> Iterator[Hostile]:
    """Structures that do not hold together."""
    sound = png()
    yield Hostile("broken: PNG, checksum of IHDR", patched(sound, 29, b"\0\0\0\0"), "image/png")
    yield Hostile("broken: PNG, checksum of IDAT", patched(sound, len(sound) - 16, b"\0\0\0\0"), "image/png")
    yield Hostile("broken: PNG, IHDR twice", png(before=png_header(4000, 4000)), "image/png")
    yield Hostile("broken: PNG, IHDR behind the pixels", png(after=png_header(4000, 4000)), "image/png")
    yield Hostile("broken: PNG, no IHDR", PNG_SIGNATURE + sound[33:], "image/png")
    yield Hostile("broken: PNG, text before IHDR", PNG_SIGNATURE + png_chunk(b"tEXt", b"a\0b") + sound[8:], "image/png")
    yield Hostile("broken: PNG, no pixels", PNG_SIGNATURE + png_header(3, 2) + png_chunk(b"IEND", b""), "image/png")
    yield Hostile("broken: PNG, 100000 chunks", png(before=png_chunk(b"abCd", b"") * 100_000), "image/png")
    yield Hostile("broken: PNG, 100000 chunks behind", png(after=png_chunk(b"abCd", b"") * 100_000), "image/png")
    pair = png_chunk(b"IDAT", b"") * 2 + png_chunk(b"abCd", b"")
    yield Hostile("broken: PNG, 50000 runs of IDAT", png(after=pair * 50_000), "image/png")
    yield Hostile("broken: PNG, a chunk of 4 GB", png(before=b"\xff\xff\xff\xffabCd"), "image/png")
    yield Hostile("broken: PNG, a chunk without a name", png(before=png_chunk(b"\0\1\2\3", b"")), "image/png")
    for size in ((0, 5), (5, 0), (0, 0), (2**31, 5), (2**32 - 1, 2**32 - 1)):
        yield Hostile(f"broken: PNG {size[0]}x{size[1]}", PNG_SIGNATURE + png_header(*size) + sound[33:], "image/png")
    yield from _broken_jpegs()
    yield from _broken_others()


def _broken_jpegs() -> Iterator[Hostile]:
    sound = jpeg(size=(24, 16))
    at = frame_at(sound)
    frame_size = 2 + int.from_bytes(sound[at + 2 : at + 4])
    for kind in range(0xC0, 0xD0):
        yield Hostile(f"broken: JPEG as SOF{kind - 0xC0}", patched(sound, at + 1, bytes([kind])), "image/jpeg")
    for size in ((0, 5), (5, 0), (0, 0)):
        data = patched(sound, at + 5, struct.pack(">HH", size[1], size[0]))
        yield Hostile(f"broken: JPEG {size[0]}x{size[1]}", data, "image/jpeg")
    for bits in (0, 1, 12, 16):
        yield Hostile(f"broken: JPEG of {bits} bits", patched(sound, at + 4, bytes([bits])), "image/jpeg")
    for components in (0, 2, 3, 4, 255):
        yield Hostile(f"broken: JPEG of {components} components", patched(sound, at + 9, bytes([components])), "image/jpeg")
    other = patched(sound[at : at + frame_size], 5, struct.pack(">HH", 160, 240))
    yield Hostile("broken: JPEG, SOF twice", sound[:at] + other + sound[at:], "image/jpeg")
    yield Hostile("broken: JPEG, no SOF", sound[:at] + sound[at + frame_size :], "image/jpeg")
    yield Hostile("broken: JPEG, no scan", sound[: sound.index(b"\xff\xda")] + b"\xff\xd9", "image/jpeg")
    for marker in (0x01, 0xC8, 0xD0, 0xD8, 0xD9, 0xDC, 0xDE, 0xDF, 0xF0, 0xFD):
        yield Hostile(f"broken: JPEG, FF{marker:02X} first", sound[:2] + bytes([0xFF, marker]) + sound[2:], "image/jpeg")
    fillings = {
        "junk": b"junk\xff\0junk",
        "a fill of FF": b"\xff" * 50_000,
        "200 KB of nought": bytes(200_000),
        "a megabyte of FF00": b"\xff\0" * 500_000,
        "100000 restarts": b"\xff\xd0" * 100_000,
        "100000 comments": jpeg_segment(0xFE, b"") * 100_000,
        "500 comments": jpeg_segment(0xFE, b"") * 500,
        "a segment of no length": b"\xff\xfe\0\0",
        "a segment beyond the end": b"\xff\xfe\xff\xff",
    }
    for name, filling in fillings.items():
        yield Hostile(f"broken: JPEG with {name}", sound[:2] + filling + sound[2:], "image/jpeg")


def _broken_others() -> Iterator[Hostile]:
    for size in ((0, 5), (5, 0), (0, 0)):
        lossy = encoded(Image.new("RGB", (24, 16)), "WEBP")
        yield Hostile(f"broken: WebP {size[0]}x{size[1]}", patched(lossy, 26, struct.pack("<HH", *size)), "image/webp")
        yield Hostile(f"broken: GIF {size[0]}x{size[1]}", gif(*size, gif_frame(*size)), "image/gif")
    still = vp8l(24, 16)
    yield Hostile("broken: WebP, canvas larger than its picture", webp(vp8x(4000, 3000, 0), still), "image/webp")
    yield Hostile("broken: WebP, canvas smaller than its picture", webp(vp8x(2, 2, 0), still), "image/webp")
    yield Hostile("broken: WebP, canvas and no picture", webp(vp8x(24, 16, 0)), "image/webp")
    yield Hostile("broken: WebP, 100000 chunks", webp(vp8x(24, 16, 8), riff_chunk(b"abcd", b"") * 100_000, still), "image/webp")
    yield Hostile("broken: WebP, longer than it says", webp(still) + bytes(1000), "image/webp")
    yield Hostile("broken: WebP, shorter than it says", patched(webp(still), 4, b"\xff\xff\0\0"), "image/webp")
    yield Hostile("broken: WebP, of nothing", webp(), "image/webp")
    yield Hostile("broken: WebP, of sound", webp(riff_chunk(b"fmt ", bytes(16))), "image/webp")
    small = gif_frame(1, 1)
    extensions = {
        "a megabyte of comment": gif_extension(0xFE, bytes(1 << 20)),
        "3 MB of comment": gif_extension(0xFE, bytes(3 << 20)),
        "a megabyte of blocks of one byte": b"!\xfe" + b"\1x" * 500_000 + b"\0",
        "100000 empty comments": b"!\xfe\0" * 100_000,
        "an extension of nothing": b"!\x42\0",
        "junk": b"junk" * 1000,
        "a comment without an end": b"!\xfe\xff",
        "a loop without a count": gif_extension(0xFF, b"NETSCAPE2.0") + gif_extension(0xF9, b"\1\0\0\0"),
        "a control that is too short": b"!\xf9\x02\x01\x00\x00",
    }
    for name, blocks in extensions.items():
        yield Hostile(f"broken: GIF with {name}", gif(8, 8, blocks, small), "image/gif")


FLIPPED_BYTES = {"PNG": 48, "JPEG": 180, "WEBP": 40, "GIF": 32}
"""As far as a header goes, in bytes."""
FLIPPED_HEADERS_EACH = 50


def _flipped(seed: int) -> Iterator[Hostile]:
    """15,000: each byte of 200 headers, of all formats and of sizes to 64, with some of its bits turned over."""
    dice = random.Random(seed)
    for form, header_bytes in FLIPPED_BYTES.items():
        for number in range(FLIPPED_HEADERS_EACH):
            mode = dice.choice({"JPEG": ("L", "RGB", "CMYK"), "GIF": ("L", "P")}.get(form, ("L", "RGB", "RGBA")))
            image = Image.new(mode, (dice.randint(1, 64), dice.randint(1, 64)), 0 if mode in ("L", "P") else "#4080c0")
            data = encoded(image, form, **({"lossless": dice.random() < 0.5} if form == "WEBP" else {}))
            for at in range(header_bytes):
                mask = dice.randint(1, 255)
                # A file may be shorter than a header is at most.
                bits = bytes([data[at] ^ mask]) if at < len(data) else bytes([mask])
                yield Hostile(f"flipped: {form} {number}, byte {at}", data[:at] + bits + data[at + 1 :], MEDIA_TYPES[form])


def _not_taken(_: int) -> Iterator[Hostile]:
    image = Image.new("RGB", (64, 48), "teal")
    for form in ("BMP", "TIFF", "ICO", "JPEG2000", "AVIF", "EPS", "PPM", "PCX", "TGA", "QOI", "ICNS", "SGI", "DDS"):
        yield Hostile(f"not taken: {form}", encoded(image, form), "image/png")
    for form in ("MSP", "XBM"):
        yield Hostile(f"not taken: {form}", encoded(image.convert("1"), form), "image/png")
    made = {
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><image href='file:///etc/passwd'/></svg>",
        "SVG after a declaration": b"<?xml version='1.0'?><!DOCTYPE s [<!ENTITY a 'b'>]><svg/>",
        "PDF": b"%PDF-1.7\n1 0 obj <<>> endobj\ntrailer <</Root 1 0 R>>\n%%EOF",
        "PSD": b"8BPS\0\1" + bytes(6) + struct.pack(">HLLHH", 3, 48, 64, 8, 3) + bytes(100),
        "FITS": b"SIMPLE  =                    T".ljust(80) + b"BITPIX  =                    8".ljust(80) + b"END".ljust(2720),
        "HEIF": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50),
        "MP4": b"\0\0\0\x18ftypisom\0\0\0\0mp42isom" + bytes(50),
        "JPEG XL": b"\xff\x0a" + bytes(40),
        "HTML": b"<!DOCTYPE html><img src=x>",
        "gzip": b"\x1f\x8b\x08" + bytes(40),
        "text": b"a text about a picture",
        "nothing": b"",
        "a byte": b"\x89",
        "nought": bytes(1000),
    }
    for name, data in made.items():
        yield Hostile(f"not taken: {name}", data, "image/png")
    for form, media_type in MEDIA_TYPES.items():
        data = encoded(image, form)
        yield Hostile(f"not taken: {form} behind a line break", b"\n" + data, media_type)
        yield Hostile(f"not taken: {form}, its signature only", data[:12], media_type)


SETS: Mapping[str, Callable[[int], Iterator[Hostile]]] = {
    "bombs": _bombs,
    "unpackers": _unpackers,
    "shapes": _shapes,
    "truncated": _truncated,
    "mislabelled": _mislabelled,
    "polyglots": _polyglots,
    "animations": _animations,
    "colours": _colours,
    "metadata": _metadata,
    "broken": _broken,
    "flipped": _flipped,
    "not taken": _not_taken,
}


def main() -> None:
    begun = time.perf_counter()
    counts: collections.Counter[str] = collections.Counter()
    sizes: collections.Counter[str] = collections.Counter()
    for name, make in SETS.items():
        for hostile in make(0):
            counts[name] += 1
            sizes[name] += len(hostile.data)
    for name, count in counts.items():
        print(f"{name:12} {count:6} files {sizes[name] / 1e6:7.2f} MB")
    print(f"{'in all':12} {counts.total():6} files {sizes.total() / 1e6:7.2f} MB, {time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    main()
