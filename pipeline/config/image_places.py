"""Reads where result images go: a local folder or an object store, and where people see them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import unquote, urlsplit

from pipeline.config.dialect import SECRET_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.config.validation import Section

DEFAULT_SPOOL_BYTES = 2_000_000_000
"""Paid images that may wait on the local disk until an object store has them."""

_LIKE_A_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a slash is missing; C:/ is a drive
_SECRET_OPTIONS = frozenset({"key", "secret", "token", "password", "username", "account_key", "sas_token"})


class ImagePlaces(TypedDict):
    """The keys about the places of images."""

    images: Path | str | None
    images_url: str | None
    images_options: Mapping[str, Any]
    spool_bytes: int


def read_image_places(top: Section, folder: Path) -> ImagePlaces:
    """Read the keys about images; a path is relative to `folder`."""
    images = _read_images(top, folder)
    url = top.text("images_url", None)
    if url is not None and not (url.startswith(("https://", "http://")) and urlsplit(url).netloc):
        top.add_problem("images_url", f"must be a URL like https://cdn.example/nights, not {url!r:.60}")
        url = None
    options = top.mapping("images_options")
    for name in options:
        if name.lower() in _SECRET_OPTIONS or SECRET_NAME.search(name):
            top.add_problem(
                "images_options",
                f"`{name}` is never written in files; the store's library reads it from the environment",
            )
    if not isinstance(images, str):
        for name in ("images_options", "spool_bytes"):
            if top.value.get(name) is not None:
                top.add_problem(name, "is of use only if `images` is the URL of an object store")
    return {
        "images": images,
        "images_url": url and url.rstrip("/"),
        "images_options": options,
        "spool_bytes": top.integer("spool_bytes", DEFAULT_SPOOL_BYTES, least=1),
    }


def _read_images(top: Section, folder: Path) -> Path | str | None:
    text: str | None = top.text("images", None)
    if text is None:
        return None
    scheme, separator, rest = text.partition("://")
    if not separator and not _LIKE_A_URL.match(text):
        return (folder / text).absolute()
    if scheme == "file" and rest.startswith("/"):
        return Path(unquote(rest))
    if scheme == "memory":
        top.add_problem("images", "would lose every image when the run ends: a process's memory is no place for them")
    elif scheme == "file" or not rest.strip("/") or urlsplit(text).username is not None:
        what = "a folder, or a URL like s3://bucket/nights without a key, or file:///data/nights"
        top.add_problem("images", f"must be {what}, not {text!r:.60}")
    return f"{scheme}://{rest.strip('/')}"
