"""The formats that are known and not taken, by how their files begin."""

_BEGINNINGS = (
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "PSD"),
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\2\0", "CUR"),
    (b"icns", "ICNS"),
    (b"%PDF-", "PDF"),
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"SIMPLE  =", "FITS"),
    (b"DanM", "MSP"),
    (b"LinS", "MSP"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    (b"gimp xcf", "XCF"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"\x1a\x45\xdf\xa3", "WebM or Matroska video"),
    (b"PK\3\4", "ZIP"),
    (b"\x1f\x8b", "gzip"),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "HEIF"
)
_RIFF = {b"AVI ": "AVI video", b"WAVE": "WAVE audio"}
_PNM = frozenset({b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"P7"})


def is_picture(head: bytes) -> bool:
    """Whether what begins as an MP4 file does is an image."""
    return head[8:12] in _BRANDS


def name_of(head: bytes) -> str | None:
    """The name of a format that is known and not taken, from the first bytes of a file, of which 256 are enough."""
    for beginning, name in _BEGINNINGS:
        if head.startswith(beginning):
            return name
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "MP4 or QuickTime video")
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[:2] in _PNM and head[2:3].isspace():
        return "PNM"
    return _name_of_text(head.removeprefix(b"\xef\xbb\xbf").lstrip().lower())


def _name_of_text(head: bytes) -> str | None:
    if head.startswith(b"<svg") or (head.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in head):
        return "SVG"
    if head.startswith((b"<!doctype html", b"<html")):
        return "HTML"
    return "XML" if head.startswith(b"<?xml") else None
