"""What a model sees of a shrunk image is what it would have seen of the image itself."""

import base64
import contextlib
import dataclasses
import io
import itertools

import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from gateway.images.header import ImageFormat, ImageHeader
from gateway.images.normalise import Recipe, Undecodable, recipe
from gateway.images.pixels import apply
from tests.scenes import Difference, decoded, drawn, encoded, scene

SIZE = (96, 60)
ORIENTATION = 0x0112


def as_vllm_opens(file: bytes) -> Image.Image:
    """The first frame, upright, in RGB, what is see-through on white: vLLM 0.32, multimodal/media/image.py."""
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    if upright.mode == "RGB":
        return upright
    if "A" in upright.mode or "transparency" in upright.info:
        white = Image.new("RGBA", upright.size, "white")
        return Image.alpha_composite(white, upright.convert("RGBA")).convert("RGB")
    return upright.convert("RGB")


def as_model_sees(file: bytes, size: tuple[int, int]) -> Image.Image:
    return as_vllm_opens(file).resize(size, Image.Resampling.BICUBIC)


def prepared(file: bytes, size: tuple[int, int], form: ImageFormat = ImageFormat.PNG) -> Recipe:
    """What the gateway would do, but to a PNG, so that nothing is lost in saving. The header is told by Pillow here."""
    image = Image.open(io.BytesIO(file))
    has_alpha = "A" in image.mode or "transparency" in image.info
    header = ImageHeader(form, *image.size, orientation=image.getexif().get(ORIENTATION, 1), frames=1, has_alpha=has_alpha)
    made = recipe(header, size)
    assert made is not None
    return dataclasses.replace(made, format=form)


def shrunk(file: bytes, made: Recipe) -> Image.Image:
    return decoded(base64.b64decode(apply(base64.b64encode(file), made)))


def largest_difference(one: Image.Image, other: Image.Image) -> int:
    assert (one.mode, one.size) == (other.mode, other.size) == ("RGB", one.size)
    return max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True))


def _see_through() -> Image.Image:
    picture = scene(2, SIZE).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(SIZE))
    return picture


def _animated(form: str) -> bytes:
    frames = [scene(seed, SIZE) for seed in (2, 5, 8)]
    return encoded(frames[0], form, save_all=True, append_images=frames[1:], lossless=True)


def _deep(mode: str) -> bytes:
    """16 bits for each sample."""
    return encoded(Image.linear_gradient("L").resize(SIZE).convert("I").point(lambda level: level * 257).convert(mode), "PNG")


def _files() -> dict[str, bytes]:
    picture, see_through = scene(2, SIZE), _see_through()
    palette = picture.quantize(32)
    return {
        "JPEG": encoded(picture, "JPEG", quality=95),
        "JPEG, progressive": encoded(picture, "JPEG", progressive=True),
        "JPEG, grey": encoded(picture.convert("L"), "JPEG"),
        "JPEG, CMYK": encoded(picture.convert("CMYK"), "JPEG"),
        "PNG": encoded(picture, "PNG"),
        "PNG, one bit": encoded(picture.convert("1"), "PNG"),
        "PNG, grey": encoded(picture.convert("L"), "PNG"),
        "PNG, grey, 16 bits": _deep("I;16"),
        "PNG, palette": encoded(palette, "PNG"),
        "PNG, palette, one colour see-through": encoded(palette, "PNG", transparency=3),
        "PNG, palette, colours half see-through": encoded(palette, "PNG", transparency=bytes(range(0, 256, 8))),
        "PNG, grey, one level see-through": encoded(picture.convert("L"), "PNG", transparency=40),
        "PNG, one colour see-through": encoded(picture, "PNG", transparency=picture.getpixel((5, 5))),
        "PNG, grey and alpha": encoded(see_through.convert("LA"), "PNG"),
        "PNG, alpha": encoded(see_through, "PNG"),
        "PNG, animated": _animated("PNG"),
        "WebP": encoded(picture, "WEBP"),
        "WebP, lossless": encoded(picture, "WEBP", lossless=True),
        "WebP, alpha": encoded(see_through, "WEBP", lossless=True),
        "WebP, animated": _animated("WEBP"),
        "GIF": encoded(palette, "GIF"),
        "GIF, see-through": encoded(palette, "GIF", transparency=3),
        "GIF, animated": _animated("GIF"),
    }


@pytest.mark.parametrize("name", _files())
@pytest.mark.parametrize("size", [(64, 40), (33, 17), (95, 60), (1, 1), (160, 100)])
def test_a_file_of_any_kind_is_shrunk_to_what_the_model_would_have_made_of_it(name: str, size: tuple[int, int]) -> None:
    file = _files()[name]
    assert largest_difference(shrunk(file, prepared(file, size)), as_model_sees(file, size)) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_every_orientation_is_put_upright(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = encoded(scene(2, SIZE), form, exif=exif)
    size = (20, 32) if orientation >= 5 else (32, 20)
    made = shrunk(file, prepared(file, size))
    if orientation < 5:
        assert largest_difference(made, as_model_sees(file, size)) <= 1
    else:
        # The resize runs along rows first, then along columns, and cuts off between the two what is beyond black and white.
        assert Difference.of(made, as_model_sees(file, size)).mean < 0.5
    assert made.getexif().get(ORIENTATION) is None


@pytest.mark.parametrize("sides", list(itertools.product((1600, 1601, 1607), (1200, 1203, 1205))))
@pytest.mark.parametrize("ratio", [3.5, 8.1, 16.5])
def test_shrinking_while_decoding_moves_nothing(sides: tuple[int, int], ratio: float) -> None:
    """Half a pixel of shift would show at the edges of a gradient by more than this."""
    ramp = Image.linear_gradient("L").rotate(90).resize(sides)
    file = encoded(Image.merge("RGB", [ramp] * 3), "JPEG", quality=98)
    size = (int(sides[0] / ratio), int(sides[1] / ratio))
    assert largest_difference(shrunk(file, prepared(file, size)), as_model_sees(file, size)) <= 2


def test_what_the_model_sees_differs_by_less_than_jpeg_noise() -> None:
    for result in drawn(20, (500, 1500)):
        assert result.shrunk.mean < result.jpeg.mean
        assert result.shrunk.psnr_db > result.jpeg.psnr_db


@pytest.mark.parametrize("form", [ImageFormat.JPEG, ImageFormat.PNG])
def test_no_metadata_is_passed_on(form: ImageFormat) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("where", "a secret place")
    files = [
        encoded(scene(2, SIZE), "JPEG", exif=exif, icc_profile=profile, comment=b"a secret place", xmp=b"<a secret place/>"),
        encoded(scene(2, SIZE), "PNG", exif=exif, icc_profile=profile, pnginfo=text),
        encoded(scene(2, SIZE), "WEBP", exif=exif, icc_profile=profile, xmp=b"<a secret place/>"),
        encoded(scene(2, SIZE).quantize(8), "GIF", comment=b"a secret place"),
    ]
    for file in files:
        made = base64.b64decode(apply(base64.b64encode(file), prepared(file, (32, 20), form)))
        assert b"secret" not in made
        assert profile[36:40] not in made
        assert set(decoded(made).info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def refused(payload: bytes, made: Recipe) -> None:
    with pytest.raises(Undecodable) as refusal:
        apply(payload, made)
    assert not refusal.value.args, "what Pillow says is not for callers"


@pytest.mark.parametrize("name", _files())
def test_a_truncated_file_is_refused(name: str) -> None:
    file = _files()[name]
    made = prepared(file, (32, 20))
    refused(base64.b64encode(file[: len(file) // 5]), made)
    for end in range(0, len(file), 64):
        with contextlib.suppress(Undecodable):  # what is missing may be another frame
            apply(base64.b64encode(file[:end]), made)


def test_what_is_not_base64_or_not_an_image_is_refused() -> None:
    made = prepared(encoded(scene(2, SIZE), "PNG"), (32, 20))
    for payload in (b"", b"=", b"iVBORw0KGgo", b"not base64 at all!", base64.b64encode(b"nor an image")):
        refused(payload, made)


@pytest.mark.parametrize("form", ["BMP", "TIFF", "PPM", "TGA", "ICO", "PCX", "JPEG2000", "AVIF", "DDS"])
def test_a_file_of_another_format_is_not_even_tried(form: str) -> None:
    refused(base64.b64encode(encoded(scene(2, SIZE), form)), prepared(encoded(scene(2, SIZE), "PNG"), (32, 20)))


def test_a_file_of_another_size_than_its_header_promised_is_refused() -> None:
    file = encoded(scene(2, SIZE), "PNG")
    refused(base64.b64encode(file), dataclasses.replace(prepared(file, (32, 20)), stored_width=SIZE[0] + 1))


def test_a_file_that_is_see_through_against_the_word_of_its_header_is_refused() -> None:
    file = encoded(_see_through(), "PNG")
    refused(base64.b64encode(file), dataclasses.replace(prepared(file, (32, 20)), flatten=False))
