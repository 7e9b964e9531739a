"""SVG → whether it is whole and harmless, and its size: read as a stream of XML, nothing is drawn or loaded.

An SVG is a program as much as a picture: opened in a browser it may run scripts and fetch what it names. Refused are
scripts and handlers, whatever lies outside the file, and DOCTYPE with its entities (which can also blow up memory).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.parsers import expat

from pipeline.errors import BrokenImage

_ELEMENTS = frozenset({"script", "foreignobject", "iframe", "object", "embed", "handler", "listener"})
_LINKS = frozenset({"href", "src"})
_SAFE_LINK = re.compile(r"#|data:image/(?:png|jpeg|webp|gif)[;,]", re.IGNORECASE)
_OUTSIDE = re.compile(r"url\(\s*[\"']?\s*(?!\s*[\"']?(?:#|data:image/(?!svg)))|@import", re.IGNORECASE)
_UNSEEN = re.compile(r"[\x00-\x20]+")
_LENGTH = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)(px|in|cm|mm|pt|pc)?\s*")
_PIXELS = {None: 1, "px": 1, "in": 96, "cm": 96 / 2.54, "mm": 96 / 25.4, "pt": 96 / 72, "pc": 16}  # CSS: 96 to the inch


def svg_size(content: bytes) -> tuple[int, int]:
    """Give width and height in pixels, from the attributes, else from the viewBox. Raises BrokenPicture."""
    reading = _Reading()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = reading.element
    parser.CharacterDataHandler = reading.text
    parser.StartDoctypeDeclHandler = reading.doctype
    parser.ProcessingInstructionHandler = reading.instruction
    try:
        parser.Parse(content, True)
    except expat.ExpatError as reason:
        raise BrokenImage(f"is no whole SVG: {reason}") from None
    return _size(reading.root)


@dataclass(slots=True)
class _Reading:
    """What the parser has met; refuses by raising out of it."""

    root: dict[str, str] = field(default_factory=dict)
    started: bool = False

    def element(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition(" ")[2].lower()
        if not self.started:
            if local != "svg":
                raise BrokenImage(f"is no SVG: its outermost element is <{local}>")
            self.started, self.root = True, attributes
        if local in _ELEMENTS:
            raise BrokenImage(f"is an SVG with <{local}>, which is refused")
        for key, value in attributes.items():
            _refuse_attribute(key.rpartition(" ")[2].lower(), value)

    def text(self, text: str) -> None:
        if _OUTSIDE.search(text):
            raise BrokenImage("is an SVG whose style names something outside the file, which is refused")

    def doctype(self, *_: object) -> None:
        raise BrokenImage("is an SVG with a DOCTYPE, which is refused (entities)")

    def instruction(self, target: str, _: str) -> None:
        raise BrokenImage(f"is an SVG with a <?{target}?> instruction, which is refused")


def _refuse_attribute(name: str, value: str) -> None:
    seen = _UNSEEN.sub("", value).lower()
    if name.startswith("on"):
        raise BrokenImage(f"is an SVG with the handler {name}=…, which is refused")
    if "javascript:" in seen or "vbscript:" in seen:
        raise BrokenImage(f"is an SVG with a script in {name}=…, which is refused")
    if (name in _LINKS and seen and not _SAFE_LINK.match(seen)) or _OUTSIDE.search(value):
        raise BrokenImage(f"is an SVG whose {name}=… names something outside the file, which is refused")


def _size(root: dict[str, str]) -> tuple[int, int]:
    width, height = (_length(root.get(side)) for side in ("width", "height"))
    box = [_length(part) for part in re.split(r"[\s,]+", root.get("viewBox", "").strip())[2:4]]
    if width is None and height is None and len(box) == 2:
        width, height = box
    elif None in {width, height} and len(box) == 2 and box[0] and box[1]:
        width = width or (height or 0) * box[0] / box[1]
        height = height or (width or 0) * box[1] / box[0]
    if not width or not height:
        raise BrokenImage("is an SVG without a size: neither width and height nor a viewBox")
    return max(1, round(width)), max(1, round(height))


def _length(text: str | None) -> float | None:
    """Pixels of a CSS length, or None where it is absent or relative (a percentage, em)."""
    match = _LENGTH.fullmatch(text or "")
    return float(match[1]) * _PIXELS[match[2]] if match else None
