"""Check that an SVG is complete and safe, and return its size: a streaming XML parse that draws and loads nothing.

An SVG that is opened in a browser can run scripts and load other files. Rejected are scripts and event handlers,
references outside the file, and DOCTYPE with its entities (which can also exhaust memory).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.parsers import expat

from pipeline.errors import BrokenImage

_ELEMENTS = frozenset({"script", "foreignobject", "iframe", "object", "embed", "handler", "listener"})
_LINKS = frozenset({"href", "src"})
_SAFE_LINK = re.compile(r"#|data:image/(?:png|jpeg|webp|gif)[;,]", re.IGNORECASE)
_EXTERNAL = re.compile(r"url\(\s*[\"']?\s*(?!\s*[\"']?(?:#|data:image/(?!svg)))|@import", re.IGNORECASE)
_INVISIBLE = re.compile(r"[\x00-\x20]+")
_LENGTH = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)(px|in|cm|mm|pt|pc)?\s*")
_PIXELS = {None: 1, "px": 1, "in": 96, "cm": 96 / 2.54, "mm": 96 / 25.4, "pt": 96 / 72, "pc": 16}  # CSS: 96 per inch


def svg_size(content: bytes) -> tuple[int, int]:
    """Return (width, height) in pixels, from the attributes, else from the viewBox. Raises BrokenImage."""
    handler = _Handler()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = handler.element
    parser.CharacterDataHandler = handler.text
    parser.StartDoctypeDeclHandler = handler.doctype
    parser.ProcessingInstructionHandler = handler.instruction
    try:
        parser.Parse(content, True)
    except expat.ExpatError as reason:
        raise BrokenImage(f"is not a complete SVG: {reason}") from None
    return _size(handler.root)


@dataclass(slots=True)
class _Handler:
    """Handles the parser's events; raises BrokenImage for what is not allowed."""

    root: dict[str, str] = field(default_factory=dict)
    started: bool = False

    def element(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition(" ")[2].lower()
        if not self.started:
            if local != "svg":
                raise BrokenImage(f"is not SVG: its outermost element is <{local}>")
            self.started, self.root = True, attributes
        if local in _ELEMENTS:
            raise BrokenImage(f"is an SVG with <{local}>, which is not allowed")
        for key, value in attributes.items():
            _check_attribute(key.rpartition(" ")[2].lower(), value)

    def text(self, text: str) -> None:
        if _EXTERNAL.search(text):
            raise BrokenImage("is an SVG whose style refers to something outside the file, which is not allowed")

    def doctype(self, *_: object) -> None:
        raise BrokenImage("is an SVG with a DOCTYPE, which is not allowed (entities)")

    def instruction(self, target: str, _: str) -> None:
        raise BrokenImage(f"is an SVG with a <?{target}?> instruction, which is not allowed")


def _check_attribute(name: str, value: str) -> None:
    visible = _INVISIBLE.sub("", value).lower()
    if name.startswith("on"):
        raise BrokenImage(f"is an SVG with the handler {name}=…, which is not allowed")
    if "javascript:" in visible or "vbscript:" in visible:
        raise BrokenImage(f"is an SVG with a script in {name}=…, which is not allowed")
    if (name in _LINKS and visible and not _SAFE_LINK.match(visible)) or _EXTERNAL.search(value):
        raise BrokenImage(f"is an SVG whose {name}=… refers to something outside the file, which is not allowed")


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
    """Return the pixels of a CSS length, or None if it is missing or relative (a percentage, em)."""
    match = _LENGTH.fullmatch(text or "")
    return float(match[1]) * _PIXELS[match[2]] if match else None
