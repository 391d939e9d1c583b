import pytest

from gateway.errors import InvalidImage
from gateway.images.encoded import Base64Image
from gateway.images.source import RemoteImage, image_of_url
from tests.conftest import picture

PNG = picture()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_the_formats_that_openai_takes_are_taken(form: str) -> None:
    assert isinstance(image_of_url(picture(form), "p"), Base64Image)


@pytest.mark.parametrize(
    "url",
    [
        PNG.replace("image/png", "IMAGE/PNG"),
        PNG.replace("data:", "DATA:"),
        PNG.replace(";base64", ";charset=utf-8;base64"),
        PNG.replace("image/png", "image/jpg"),
        PNG.replace("image/png", ""),
        PNG.replace("image/png", "application/octet-stream"),
    ],
    ids=["capitals", "a scheme in capitals", "a parameter", "a name that is not the format's", "no type", "just bytes"],
)
def test_a_data_url_may_be_written_in_many_ways(url: str) -> None:
    assert isinstance(image_of_url(url, "p"), Base64Image)


REFUSED = {
    "file": ("file:///etc/passwd", "scheme 'file'"),
    "no scheme": ("a.png", "scheme 'none'"),
    "empty": ("", "scheme 'none'"),
    "a header without end": ("data:" + ";" * 1_000_000, "must have the form"),
    "no comma": ("data:image/png;base64", "must have the form"),
    "not base64": ("data:image/png,abc", "must have the form"),
    "base64 in capitals, which vLLM does not take": (PNG.replace(";base64", ";BASE64"), "must have the form"),
    "SVG": ("data:image/svg+xml;base64,AAAA", "Media type 'image/svg+xml' is not supported"),
    "words for a type": ("data:text/html;base64,AAAA", "Media type 'text/html' is not supported"),
    "whitespace in base64": (PNG[:40] + "\n" + PNG[40:], "does not hold valid base64"),
    "url-safe base64": ("data:image/png;base64,_-_-", "does not hold valid base64"),
    "characters beyond ASCII": (PNG[:40] + "é" + PNG[41:], "does not hold valid base64"),
    "no padding": ("data:image/png;base64,iVBORw0", "does not hold valid base64"),
}


@pytest.mark.parametrize(("url", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_anything_else_is_refused_with_its_place_and_the_reason(url: str, said: str) -> None:
    with pytest.raises(InvalidImage) as error:
        image_of_url(url, "messages[0].content[0].image_url.url")
    assert said in error.value.message
    assert error.value.param == "messages[0].content[0].image_url.url"


def test_an_address_is_kept_for_later() -> None:
    assert image_of_url("https://example.com/a.png", "p") == RemoteImage("https://example.com/a.png")
