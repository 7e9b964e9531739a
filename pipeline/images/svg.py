"""Check that an SVG is complete and inert, and return its size: a streaming XML parse that draws and loads nothing.

An SVG that is opened in a browser can run scripts and load other files. Accepted is what is on the lists of
`svg_allowed`; a reference may only lead to a `#fragment` of the same file or, for an image, to a bitmap in a data: URL.
Rejected as well is a DOCTYPE with its entities, which can also exhaust memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.parsers import expat

from pipeline.errors import BrokenImage
from pipeline.images import svg_allowed as allowed

_MAX_TAGS, _MAX_ATTRIBUTES = 1_000_000, 2_000_000  # start and end tags: about two seconds
_FRAGMENT = re.compile(r"\s*(?:#[^\s\"'()\\]*\s*)?")
_BITMAP = re.compile(r"\s*data:image/(?:png|jpeg|jpg|webp|gif|avif)[;,][^\"'()\\]*", re.IGNORECASE)
_ENCODINGS = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "windows-1252"})
_IMAGES = frozenset({"image", "feImage"})
_CONTROL = re.compile(r"[\x00-\x20]+")
_ESCAPE = re.compile(r"\\(?:([0-9a-fA-F]{1,6})(?:\r\n|[ \t\r\n\f])?|(\r\n|[\n\r\f])|(.))", re.DOTALL)
_SPECIAL = frozenset("\"'()\\\n\r\f\t ")  # an escaped one is part of the URL
_NAME = 40  # letters: no function of CSS has a longer name
_FUNCTION = re.compile(rf"(?<![-\w])([-\w]{{1,{_NAME}}})\(")
_LONG_FUNCTION = re.compile(rf"(?<![-\w])[-\w]{{{_NAME + 1}}}[-\w]*+\(")
_RULE = re.compile(r"@([-\w]*)")
_URL = re.compile(r"url\(\s*+(?:\"([^\"]*+)\"\s*+|'([^']*+)'\s*+|([^\"'()]*+))\)", re.IGNORECASE)
_LENGTH = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)(px|in|cm|mm|pt|pc)?\s*")
_PIXELS = {None: 1, "px": 1, "in": 96, "cm": 96 / 2.54, "mm": 96 / 25.4, "pt": 96 / 72, "pc": 16}  # CSS: 96 per inch
_MAX_QUOTED = 100  # letters of the file in a message
_MAX_EDGE = 1_000_000_000  # pixels


def svg_size(content: bytes) -> tuple[int, int]:
    """Return (width, height) in pixels, from the attributes, else from the viewBox. Raises BrokenImage."""
    if content.count(b"<") > _MAX_TAGS or content.count(b"=") > _MAX_ATTRIBUTES:
        raise BrokenImage(f"is an SVG that takes too long to check: more than {_MAX_TAGS:,} tags or as many attributes")
    handler = _Handler()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = handler.element
    parser.EndElementHandler = handler.end
    parser.CharacterDataHandler = handler.text
    parser.XmlDeclHandler = handler.declaration
    parser.StartDoctypeDeclHandler = handler.doctype
    parser.ProcessingInstructionHandler = handler.instruction
    try:
        parser.Parse(content, True)
    except expat.ExpatError as reason:
        raise BrokenImage(f"is not a complete SVG: {reason}") from None
    return _size(handler.root)


def _not_allowed(what: str) -> BrokenImage:
    visible = "".join(letter if letter.isprintable() else "?" for letter in what[:_MAX_QUOTED])
    return BrokenImage(f"is an SVG with {visible}{'…' if len(what) > _MAX_QUOTED else ''}, which is not allowed")


def _outside(what: str) -> BrokenImage:
    return BrokenImage(f"is an SVG whose {what} refers to something outside the file, which is not allowed")


def _split(name: str) -> tuple[str, str]:
    """Return the namespace and the local name that expat joins by a space; "" for none."""
    namespace, _, local = name.rpartition(" ")
    return namespace, local


@dataclass(slots=True)
class _Handler:
    """Handles the parser's events; raises BrokenImage for what is not allowed."""

    root: dict[str, str] = field(default_factory=dict)
    started: bool = False
    style: list[str] | None = None  # the text of the style sheet that is being read, in the parser's pieces

    def element(self, name: str, attributes: dict[str, str]) -> None:
        namespace, local = _split(name)
        if not self.started:
            if local != "svg" or namespace not in {"", allowed.SVG}:
                raise BrokenImage(f"is not SVG: its outermost element is <{local[:_MAX_QUOTED]}>")
            self.started, self.root = True, attributes
        if self.style is not None:
            raise _not_allowed(f"<{local}> inside <style>")
        if namespace.startswith(allowed.EDITORS):
            _check_metadata(local, attributes)
            return
        if namespace not in {"", allowed.SVG} or local not in allowed.ELEMENTS:
            raise _not_allowed(f"<{local}>" if namespace in {"", allowed.SVG} else f"<{local}> of {namespace}")
        for key, value in attributes.items():
            _check_attribute(local, key, value)
        if local in allowed.ANIMATIONS:
            _check_animation(local, attributes)
        if local == "style":
            self.style = []

    def end(self, _: str) -> None:
        if self.style is not None:
            _check_css("".join(self.style), "style")
            self.style = None

    def text(self, text: str) -> None:
        if self.style is not None:
            self.style.append(text)

    def declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if (encoding or "utf-8").lower() not in _ENCODINGS:  # others may read differently in a browser
            raise _not_allowed(f"the encoding {encoding}")

    def doctype(self, *_: object) -> None:
        raise _not_allowed("a DOCTYPE (entities)")

    def instruction(self, target: str, _: str) -> None:
        raise _not_allowed(f"a <?{target}?> instruction")


def _check_metadata(local: str, attributes: dict[str, str]) -> None:
    """Refuse what a browser might read in an element that it does not know."""
    for key in attributes:
        namespace, name = _split(key)
        if (not namespace and (name.lower().startswith("on") or name == "style")) or namespace == allowed.XLINK:
            raise _not_allowed(f"{name}=… in the metadata <{local}>")


def _check_attribute(element: str, key: str, value: str) -> None:
    namespace, name = _split(key)
    if not namespace and name.lower().startswith("on"):
        raise _not_allowed(f"the handler {name}=…")
    if namespace.startswith(allowed.EDITORS):
        return
    if name == "href" and namespace in {"", allowed.XLINK}:
        _check_link(element, value)
    elif namespace:
        words = {allowed.XLINK: allowed.XLINK_WORDS, allowed.XML: allowed.XML_WORDS}.get(namespace, frozenset())
        if name not in words:
            raise _not_allowed(f"the attribute {name}=… of {namespace}")
    elif name in allowed.STYLED or name in allowed.ANIMATION_VALUES:
        _check_css(value, f"{name}=…")
    elif name not in allowed.PLAIN and not name.startswith(allowed.PREFIXES):
        raise _not_allowed(f"the attribute {name}=…")


def _check_link(element: str, value: str) -> None:
    visible = _CONTROL.sub("", value).lower()
    if visible.startswith(("javascript:", "vbscript:")):
        raise _not_allowed("a script in href=…")
    if not _FRAGMENT.fullmatch(value) and not (element in _IMAGES and _BITMAP.fullmatch(value)):
        raise _outside("href=…")


def _check_animation(element: str, attributes: dict[str, str]) -> None:
    target = attributes.get("attributeName")
    if target is not None and target.strip() not in allowed.ANIMATED:
        raise _not_allowed(f"<{element}> of the attribute {target}")


def _check_css(escaped: str, where: str) -> None:
    """Check a style sheet, a declaration or a value, with its escapes replaced, as a browser reads its names.

    Strings and comments are checked as if they were code, so that nothing hides in them.
    """
    text = _ESCAPE.sub(_unescaped, escaped)
    lower = text.lower()
    for match in _RULE.finditer(lower):
        if match[1] not in allowed.CSS_RULES:
            raise _outside(where) if match[1] == "import" else _not_allowed(f"@{match[1]} in its {where}")
    if _LONG_FUNCTION.search(lower):
        raise _not_allowed(f"a function with a name of more than {_NAME} letters in its {where}")
    for match in _FUNCTION.finditer(lower):
        if match[1] not in allowed.CSS_FUNCTIONS:
            raise _not_allowed(f"{match[1]}(…) in its {where}")
    urls = lower.count("url(")
    has_special = urls and any(_unescaped(match) in _SPECIAL for match in _ESCAPE.finditer(escaped))
    if has_special or urls != sum(_is_safe_url(match) for match in _URL.finditer(text)):
        raise _outside(where)


def _is_safe_url(match: re.Match[str]) -> bool:
    target = match[1] or match[2] or match[3] or ""
    return bool(target.strip() and (_FRAGMENT.fullmatch(target) or _BITMAP.fullmatch(target)))


def _unescaped(match: re.Match[str]) -> str:
    if match[1]:
        number = int(match[1], 16)
        return chr(number) if 0 < number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"
    return match[3] or ""


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
    if not (width <= _MAX_EDGE and height <= _MAX_EDGE):  # also if one is no number
        raise BrokenImage(f"is an SVG with a side of more than {_MAX_EDGE:,} pixels")
    return max(1, round(width)), max(1, round(height))


def _length(text: str | None) -> float | None:
    """Return the pixels of a CSS length, or None if it is missing or relative (a percentage, em)."""
    match = _LENGTH.fullmatch(text or "")
    return float(match[1]) * _PIXELS[match[2]] if match else None
