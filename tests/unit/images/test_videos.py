"""Which files pass as videos: by their first bytes, and only from the request itself."""

import base64

import pytest

from gateway.body import cut
from gateway.errors import InvalidVideo
from gateway.images.videos import Video, video_of_data_url, video_of_url

MP4 = b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"
FILES = {
    "MP4": (MP4, "video/mp4"),
    "QuickTime": (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "video/quicktime"),
    "WebM": (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm", "video/webm"),
    "Matroska": (b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\x82\x88matroska", "video/x-matroska"),
    "AVI": (b"RIFF\x10\0\0\0AVI LIST", "video/x-msvideo"),
}
PLAYLIST = b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/secret\n"


def url(file: bytes, kind: str = "video/mp4") -> str:
    return f"data:{kind};base64,{base64.b64encode(file).decode()}"


def found(text: str) -> Video:
    """The same, whether it was cut out of a body or parsed with it."""
    urls = cut(f'{{"url": "{text}"}}'.encode()).urls
    parsed = video_of_url(text, "p")
    for data_url in urls.values():
        was_cut = video_of_data_url(data_url, "p")
        assert (was_cut.media_type, was_cut.encoded.digest) == (parsed.media_type, parsed.encoded.digest)
    return parsed


@pytest.mark.parametrize("filling", [0, 2000], ids=["short", "long"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_is_what_its_first_bytes_say_whatever_it_is_called(name: str, filling: int) -> None:
    file, media_type = FILES[name]
    for called in ("video/mp4", "video/webm", "VIDEO/quicktime", "", "application/octet-stream"):
        video = found(url(file + bytes(filling), called))
        assert video.media_type == media_type
        assert base64.b64decode(bytes(video.encoded.payload)) == file + bytes(filling)


REFUSED = {
    "elsewhere": ("https://example.com/a.mp4", "as data: URLs only, got scheme 'https'"),
    "a file of the engine's": ("file:///etc/passwd", "as data: URLs only, got scheme 'file'"),
    "no address": ("a.mp4", "got scheme 'none'"),
    "no base64": ("data:video/mp4,abc", "must have the form data:video/mp4;base64,"),
    "broken base64": (url(MP4)[:-1], "valid base64"),
    "nothing": (url(b""), "do not begin as those of a video"),
    "an image": (url(b"\x89PNG\r\n\x1a\n" + bytes(64)), "do not begin as those of a video"),
    "an image that begins as MP4 does": (url(b"\0\0\0\x20ftypavif\0\0\0\0"), "do not begin as those of a video"),
    "sound": (url(b"RIFF\x10\0\0\0WAVEfmt "), "do not begin as those of a video"),
    "a playlist": (url(PLAYLIST), "do not begin as those of a video"),
    "images in a row": (url(MP4, "video/jpeg"), "Media type 'video/jpeg' is not supported: MP4, QuickTime, WebM"),
    "an image's type": (url(MP4, "image/png"), "Media type 'image/png'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_video_is_refused_by_its_place_and_told_what_is_taken(name: str) -> None:
    text, said = REFUSED[name]
    with pytest.raises(InvalidVideo) as error:
        video_of_url(text, "messages[0].content[0].video_url.url")
    assert said in error.value.message
    assert (error.value.param, error.value.error_code) == ("messages[0].content[0].video_url.url", "invalid_video")
