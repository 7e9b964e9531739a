"""Name content that is not an image of a supported format: other formats by their magic bytes, and error pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pipeline.images.container_check import SAVE_AS_IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEIC_BRANDS = rb"(?:hei[cxms]|hev[cxms]|mif[12]|msf1)"
_OTHER_FORMATS = tuple(
    (re.compile(mark, re.DOTALL), description)
    for mark, description in (
        (rb"....ftyp" + _HEIC_BRANDS, f"is HEIC, as iPhones take them: {SAVE_AS_IMAGE}"),
        (rb"....ftypcrx ", f"is a raw photograph (Canon CR3): {SAVE_AS_IMAGE}"),
        (rb"....ftyp(?:qt  |M4V|mp4|isom|iso\d|avc1|3g|dash|MSNV)|....moov", "is a video (MP4), not an image"),
        (rb"\x1aE\xdf\xa3", "is a video (WebM or Matroska), not an image"),
        (rb"RIFF....AVI ", "is a video (AVI), not an image"),
        (rb"RIFF....WAVE|ID3|OggS|fLaC", "is a sound, not an image"),
        (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", f"is JPEG XL: {SAVE_AS_IMAGE}"),
        (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", f"is JPEG 2000: {SAVE_AS_IMAGE}"),
        (rb"II\xbc\x01", f"is JPEG XR: {SAVE_AS_IMAGE}"),
        (rb"8BPS", f"is a Photoshop file (PSD): {SAVE_AS_IMAGE}"),
        (rb"gimp xcf", f"is a GIMP file (XCF): {SAVE_AS_IMAGE}"),
        (rb"FUJIFILMCCD-RAW", f"is a raw photograph (Fujifilm RAF): {SAVE_AS_IMAGE}"),
        (rb"IIRO|IIRS|MMOR", f"is a raw photograph (Olympus ORF): {SAVE_AS_IMAGE}"),
        (rb"IIU\0", f"is a raw photograph (Panasonic RW2): {SAVE_AS_IMAGE}"),
        (rb"FOVb", f"is a raw photograph (Sigma X3F): {SAVE_AS_IMAGE}"),
        (rb"\0\0\x01\0[^\0]", f"is an icon (ICO): {SAVE_AS_IMAGE}"),
        (rb"\0\0\x02\0[^\0]\0", f"is a cursor (CUR): {SAVE_AS_IMAGE}"),
        (rb"icns", f"is an icon (ICNS): {SAVE_AS_IMAGE}"),
        (rb"%!PS|\xc5\xd0\xd3\xc6", f"is PostScript (EPS): {SAVE_AS_IMAGE}"),
        (rb"%PDF", "is a PDF, not an image: save the page as JPEG or PNG"),
        (rb"v/1\x01", f"is OpenEXR: {SAVE_AS_IMAGE}"),
        (rb"#\?(?:RADIANCE|RGBE)", f"is Radiance HDR: {SAVE_AS_IMAGE}"),
        (rb"qoif", f"is QOI: {SAVE_AS_IMAGE}"),
        (rb"DDS ", f"is DDS: {SAVE_AS_IMAGE}"),
        (rb"II\+\0|MM\0\+", f"is a BigTIFF: {SAVE_AS_IMAGE}"),
        (rb"P[1-7]\s", f"is a Netpbm file (PPM): {SAVE_AS_IMAGE}"),
        (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", f"is a Windows metafile: {SAVE_AS_IMAGE}"),
        (rb"PK\x03\x04", "is a ZIP archive, not an image: unpack it"),
        (rb"\x1f\x8b", "is compressed with gzip, not an image: unpack it"),
        (rb"version https://git-lfs", "is a pointer of Git LFS, not the image itself: run `git lfs pull`"),
    )
)
_TEXT = {
    b"<!doctype html": "is an HTML page, not an image",
    b"<html": "is an HTML page, not an image",
    b"<svg": "is SVG, not a bitmap image",
    b"<": "is XML or HTML, not an image",
    b"{": "is JSON, not an image",
    b"[": "is JSON, not an image",
    b"data:": "is a data URL, not an image",
}


def describe_other_content(content: bytes | memoryview, supported: Iterable[str]) -> str:
    """Describe bytes that are not an image of a supported format; most often they are a server's error page."""
    if not len(content):
        return "is empty (0 bytes)"
    start = bytes(content[:512])
    for mark, description in _OTHER_FORMATS:
        if mark.match(start):
            return description
    head = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for text, description in _TEXT.items():
        if head.startswith(text):
            return description
    begins = f"it begins with {start[:8].hex(' ')}"
    return f"is not an image of a supported format ({', '.join(supported)}); {begins}"
