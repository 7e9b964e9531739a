"""What came is a whole picture, or it is refused."""

from __future__ import annotations

import base64
import hashlib
import io

import pytest
from PIL import Image

from pipeline.engine.image_writer import check, decode
from pipeline.errors import BrokenImage


def picture(kind: str) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (12, 7), (10, 120, 200)).save(made, kind)
    return made.getvalue()


SVG = b'\xef\xbb\xbf <svg xmlns="http://www.w3.org/2000/svg" width="4" height="3"><path d="M0 0"/></svg>'


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif"])
def test_a_whole_picture_is_known_by_its_bytes(kind: str) -> None:
    content = picture(kind)
    for asked in ({}, {"output_format": "png"}, {"output_format": "svg"}):
        found = check(content, asked)
        assert (found.format, found.width, found.height) == (kind, 12, 7)
        assert found.sha256 == hashlib.sha256(content).hexdigest()
        assert found.content is content


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_picture_that_is_cut_is_refused(kind: str) -> None:
    content = picture(kind)
    for end in (0, 1, 10, len(content) // 2, len(content) - 1):
        with pytest.raises(BrokenImage):
            check(content[:end], {})


@pytest.mark.parametrize("content", [b"", b"<html>no</html>", b'{"error": 1}', b"\0" * 100])
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    for asked in ({}, {"output_format": "svg"}):
        with pytest.raises(BrokenImage):
            check(content, asked)


def test_svg_counts_only_where_it_was_asked_for_and_without_scripts() -> None:
    assert check(SVG, {"output_format": "svg"}).format == "svg"
    with pytest.raises(BrokenImage):
        check(SVG, {})
    with pytest.raises(BrokenImage):
        check(SVG.replace(b'<path d="M0 0"/>', b"<script>1</script>"), {"output_format": "svg"})


def test_base64_may_be_wrapped_or_lack_its_padding() -> None:
    for content in (b"", b"a", b"ab", b"abc", picture("png")):
        text = base64.b64encode(content).decode()
        wrapped = "\r\n".join(text[start : start + 76] for start in range(0, len(text), 76))
        assert decode(text) == decode(wrapped) == decode(text.rstrip("=")) == content


@pytest.mark.parametrize("text", ["a", "ab!d", "QUJ=QUJD", "caf\u00e9", "QUJD-_", "\ud800aaa", "data:image/png"])
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(BrokenImage):
        decode(text)
