"""Response forms: the images in the body of a success response, in each of the places in which servers put them.

OpenAI's is {"data": [{"b64_json"}]}. Only places that hold results are read, never those that repeat a request
(`input`, `request`, `parameters`), so that no input image and no link to an error's documentation counts as a result.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urljoin

import pybase64

from pipeline.client.classify import error_class_of_words
from pipeline.client.error_body import encodable, error_of_items, plain
from pipeline.client.limits import IMAGES, PROMPT_CHARACTERS, URL_CHARACTERS
from pipeline.errors import Moderated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_CONTAINERS = (
    *("data", "images", "artifacts", "output", "outputs", "result", "results", "predictions", "generated_images"),
    *("generatedImages", "candidates", "choices", "message", "delta", "content", "parts", "inlineData", "inline_data"),
    *("image_urls", "imageUrls", "output_images", "urls", "response"),
)
_BASE64 = (
    *("b64_json", "b64", "base64", "image_base64", "base64_image", "image_b64", "imageBytes", "image_bytes"),
    *("bytesBase64Encoded",),
)
_LINKS = ("url", "image_url", "imageUrl", "image_uri", "uri", "src", "file_url", "output_url", "result_url")
_EITHER = ("image", "sample")
_SINGLE = (*_BASE64, *_LINKS, *_EITHER)
_BESIDE_AN_ERROR = ("data", "artifacts")  # the images of a call that failed in part: they are paid
_NOT_TEXT = frozenset({"message", "delta", "candidates", "choices", "parts"})  # whose text is for people
_EMPTY_FORMS = frozenset({*_CONTAINERS, *_SINGLE})
_BESIDE = frozenset({"created", "created_at", "id", "object", "model", "usage", "request_id", "code", "message", "msg"})

_IMAGE = re.compile(
    rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|II\*\0|MM\0\*|BM.{4}\0{4}|....ftyp(?:avi[fs]|hei[cfmsx]|mif1|msf1)"
    rb"|\xff\x0a|\0\0\0\x0cJXL |\s*(?:<\?xml[^>]*>\s*)?<svg\b",
    re.DOTALL,
)
_DATA_URL = re.compile(r"data:(?:image/[\w.+-]+|application/octet-stream|(?=[;,]))[^,]{0,100},", re.IGNORECASE)
_WEB = re.compile(r"https?://\S{3,}", re.IGNORECASE)
_IN_TEXT = re.compile(r"!\[[^\]]{0,200}\]\(\s*((?:https?://|data:image/)[^\s)]+)", re.IGNORECASE)  # Markdown
_MIXED = re.compile(r"(?=.*[A-Z])(?=.*[a-z])")
_LONG = 1000  # characters of base64 that are no token, hash or id
_WITHHELD = frozenset(
    {
        *("content_filtered", "content_filter", "safety", "image_safety", "prohibited_content", "blocklist", "spii"),
        *("image_prohibited_content", "recitation", "image_recitation", "nsfw"),
    }
)
_DETAILS: tuple[Any, ...] = (
    None,
    "",
    [],
    {},
    "auto",
    "low",
    "high",
)  # the last three beside an image of a chat: its resolution
_NOTHING = frozenset({"none", "null", "undefined"})  # as some languages write it into a text
_FAILED = frozenset({"error", "failed", "failure", "fail", "rejected", "cancelled", "canceled"})
_FINE = frozenset({"", "ok", "success", "succeed", "succeeded", "successful", "completed", "done", "0", "200"})
_DEEPEST = 12


@dataclass(frozen=True, slots=True)
class LinkedImage:
    """An image that is to be downloaded."""

    url: str
    revised_prompt: str | None


@dataclass(frozen=True, slots=True)
class InlineImage:
    """An image inside the response, in base64. `others` are the other forms in which the response holds it."""

    base64: str
    revised_prompt: str | None
    others: tuple[InlineImage | LinkedImage, ...] = ()


@dataclass(slots=True)
class FoundImages:
    """The images of a body, and the number of those that the service withheld.

    `beyond` counts images, or items of a list of images, beyond those that are kept.
    """

    images: list[LinkedImage | InlineImage] = field(default_factory=list)
    withheld: int = 0
    beyond: int = 0
    has_long_url: bool = False  # one that is too long to be an image's

    def __bool__(self) -> bool:
        return bool(self.images or self.withheld)

    @property
    def returned(self) -> int:
        """Number of all images."""
        return len(self.images) + self.beyond

    def add(self, image: LinkedImage | InlineImage) -> None:
        """Keep an image, or count it."""
        if len(self.images) < IMAGES:
            self.images.append(image)
        else:
            self.beyond += 1


def is_image(content: bytes) -> bool:
    """Return whether bytes begin as an image does."""
    return _IMAGE.match(content[:400]) is not None


def find_images(body: Any, base: str) -> FoundImages:
    """Return the images of a parsed body; relative URLs are resolved against `base`."""
    found = FoundImages()
    _collect(body, "data", None, base, found, _DEEPEST)
    return found


def _collect(value: Any, name: str, revised: str | None, base: str, found: FoundImages, depth: int) -> None:
    """Add the images of a value to `found`; `name` is the key under which it is."""
    if isinstance(value, str):
        image = _image_in(value, name, revised, base)
        if isinstance(image, LinkedImage) and len(image.url) > URL_CHARACTERS:
            found.has_long_url = True
        elif image:
            found.add(image)
    elif (
        isinstance(value, dict) and value and depth and all(str(key).isdecimal() for key in value)
    ):  # a list, by number
        _collect(list(value.values()), name, revised, base, found, depth)
    elif isinstance(value, list) and depth:
        before = found.returned
        for inner in value[:IMAGES]:
            _collect(inner, name, revised, base, found, depth - 1)
        if found.returned > before:
            found.beyond += len(value[IMAGES:])
            found.withheld += sum(map(_is_refused, value[:IMAGES]))
    elif isinstance(value, dict) and depth:
        _collect_of_object(value, revised, base, found, depth - 1)


def _collect_of_object(
    value: Mapping[str, Any], revised: str | None, base: str, found: FoundImages, depth: int
) -> None:
    """Add the images under the first key that has any: containers before single images."""
    if value.get("thought") is True or str(value.get("type")).startswith("input"):
        return
    if is_withheld(value):
        found.withheld += 1
        return
    prompt = value.get("revised_prompt")
    revised = encodable(prompt[:PROMPT_CHARACTERS]) if isinstance(prompt, str) else revised
    before, count = (found.withheld, found.returned), len(found.images)
    places = _places(value)
    for name in places:  # the names of single images are asked for only if no container has any
        _collect(value[name], name, revised, base, found, depth)
        if len(found.images) > count:
            if isinstance(value[name], str) and isinstance(found.images[-1], InlineImage):
                found.images[-1] = _with_others(found.images[-1], value, places, base)
            return
        if (found.withheld, found.returned) != before:
            return
    if value.get("respect_moderation") is False:  # HTTP 200, yet neither URL nor base64 (xAI's documentation)
        found.withheld += 1


def _with_others(image: InlineImage, value: Mapping[str, Any], places: Iterator[str], base: str) -> InlineImage:
    """Return an image with the other forms of it that its object holds at these keys: the first may be broken."""
    others = FoundImages()
    for name in places:
        if isinstance(value[name], str):
            _collect(value[name], name, image.revised_prompt, base, others, 0)
    return replace(image, others=tuple(others.images)) if others.images else image


def _places(value: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of an object that may hold images."""
    if value.get("error") or value.get("detail") not in _DETAILS:
        yield from (name for name in _BESIDE_AN_ERROR if name in value)
        return
    yield from (name for name in _CONTAINERS if name in value)
    if any(name in value for name in _SINGLE) and not says_failure(value):
        yield from (name for name in _SINGLE if name in value)


def _image_in(text: str, name: str, revised: str | None, base: str) -> LinkedImage | InlineImage | None:
    text = text.strip()
    if not text or name in _NOT_TEXT or text[:10].lower() in _NOTHING:
        return None
    if name == "content":
        stated = _IN_TEXT.search(text)
        text = stated[1] if stated else text if _DATA_URL.match(text) else ""
    if text[:5].lower() == "data:":
        return _of_data_url(text, revised)
    if _WEB.match(text) and (name in _LINKS or " " not in text):
        return LinkedImage(encodable(text), revised)
    if name in _BASE64 or (text and is_base64_image(text)):
        return InlineImage(text, revised)
    if text and (name in _LINKS or re.fullmatch(r"/[^\s<>{}\"]{1,2000}", text)):
        return LinkedImage(_absolute(encodable(text), base), revised)
    return None


def _of_data_url(text: str, revised: str | None) -> InlineImage | None:
    """Return the image of a data: URL, in base64 or percent-encoded; None if it holds something else."""
    if not _DATA_URL.match(text):
        return None
    head, _, content = text.partition(",")
    if head.lower().endswith("base64"):
        return InlineImage(unquote_to_bytes(content).decode("latin-1") if "%" in content else content, revised)
    return InlineImage(pybase64.b64encode(unquote_to_bytes(content)).decode(), revised)


def is_base64_image(text: str) -> bool:
    """Return whether a text is base64 of an image, by its first bytes or its length."""
    head = re.sub(r"\s", "", text[:120])[:64].translate(str.maketrans("-_", "+/"))
    if not re.fullmatch(r"[A-Za-z0-9+/]+=*", head) or len(head) < 16:
        return False
    if len(text) >= _LONG and _MIXED.match(head) and re.fullmatch(r"[\w+/=\s-]+", text, re.ASCII):
        return True
    try:
        return is_image(pybase64.b64decode(head[: len(head) // 4 * 4]))
    except (binascii.Error, ValueError):
        return False


def _absolute(url: str, base: str) -> str:
    """Resolve a relative URL; an absolute one stays byte for byte, as its signature may cover it."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", url):
        return url
    try:
        return urljoin(base, url)
    except ValueError:  # "//[": invalid, which the download reports
        return url


def is_withheld(item: Mapping[str, Any]) -> bool:
    """Return whether the service withheld this image, whatever it sent in its place (Stability: a blurred one)."""
    reasons = (item.get("finishReason"), item.get("finish_reason"), item.get("finish_reason_code"))
    is_unsafe = bool(item.get("raiFilteredReason")) or item.get("is_image_safe") is False  # Google's, Ideogram's
    return is_unsafe or any(str(word).lower() in _WITHHELD for word in reasons if word)


def _is_refused(item: Any) -> bool:
    """Return whether this stands in place of an image that the content policy refused, beside others that came."""
    error = error_of_items(item)
    return error is not None and error_class_of_words(200, error, {}) is Moderated


def says_failure(body: Mapping[str, Any]) -> bool:
    """Return whether an object says that its call failed."""
    if body.get("error") or body.get("errors") or body.get("detail") not in _DETAILS:
        return True
    stated = body.get("base_resp"), body.get("output")
    if isinstance(stated[0], dict) and stated[0].get("status_code"):  # MiniMax's: 0 if all is well
        return True
    if isinstance(stated[1], dict) and str(stated[1].get("task_status")).lower() in _FAILED:  # Alibaba's
        return True
    if body.get("success") is False or body.get("ok") is False or str(body.get("status")).lower() in _FAILED:
        return True
    code, message = body.get("code"), body.get("message") or body.get("msg")
    for number in (code, body.get("status")):
        if isinstance(number, int) and (number >= 400 or number < 0):
            return True
    return isinstance(code, str) and bool(message) and code.strip().lower() not in _FINE


def says_something(body: Mapping[str, Any]) -> bool:
    """Return whether an object has a message that says more than that all is well."""
    messages = [body.get("message"), body.get("msg")]
    return any(message and str(message).strip().lower().rstrip(".!") not in _FINE for message in messages)


def is_unknown_form(body: Any) -> bool:
    """Return whether a body holds something whose form is not known, as opposed to nothing."""
    if isinstance(body, dict):
        return not any(name in body and _is_empty(body[name]) for name in _EMPTY_FORMS) and bool(
            {name for name, value in body.items() if not _is_empty(value)} - _BESIDE
        )
    return not _is_empty(body)


def _is_empty(value: Any, depth: int = 3) -> bool:
    if isinstance(value, list) and depth:
        return all(_is_empty(inner, depth - 1) for inner in value[:9])
    if isinstance(value, dict) and depth:
        return all(_is_empty(inner, depth - 1) for inner in value.values())
    return value is None or value == "" or value is False


def key_names(body: Any) -> str:
    """Return the names of a body's keys, and in brackets those one level below, as text for a message."""
    if isinstance(body, list):
        inner = _names_of(body)
        return f"a list of objects with {', '.join(inner)}" if inner else "a list"
    if not isinstance(body, dict):
        return f"a {type(body).__name__}"
    names = _names_of(body)
    below = [f"{name}: {', '.join(inner[:4])}" for name, inner in ((n, _names_of(body.get(n))) for n in names) if inner]
    return ", ".join(names) + (f" ({'; '.join(below[:4])})" if below else "")


def _names_of(value: Any) -> list[str]:
    first = value[0] if isinstance(value, list) and value else value
    names = list(first)[:10] if isinstance(first, dict) else []
    return [text for name in names if (text := plain(re.sub(r"[^\w.:/ -]", "?", str(name)), 30))]
