"""Removes the key and other secrets from what a server says; some repeat what they were sent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from multidict import CIMultiDict

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHORTEST = 8  # characters of a value that cannot be a part of other words by accident
_DEEPEST = 40  # levels of a body; nothing below them is read
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{256}")
_BEGINNING = 64 * 1024  # characters of base64 that are searched: more than is kept of any text


class Secrets:
    """The secret values that a provider is sent, by name: `key`, or the name of a header.

    A secret becomes `***name***` where a server's words come in, so nothing that stores or shows them has to think of
    it. A URL is restored for its download; no other text is.
    """

    def __init__(self, values: Mapping[str, str | None]) -> None:
        marks: dict[str, str] = {}
        for name, value in values.items():
            if value and len(value) >= _SHORTEST:
                quoted = quote(value, safe="")
                lower = re.sub(r"%..", lambda found: found[0].lower(), quoted)
                in_host = value.lower()
                forms = ((value, ""), (quoted, ".quoted"), (lower, ".quoted-lower"), (in_host, ".lower"))
                for form, end in forms:
                    marks.setdefault(form, f"***{name}{end}***")
        self._marks = dict(sorted(marks.items(), key=lambda item: -len(item[0])))  # one may contain another

    def scrub_text(self, text: str) -> str:
        """Return a text without secrets."""
        rest = ""
        if len(text) > _BEGINNING and _BASE64.match(text):  # searching megabytes of an image takes half a millisecond
            rest = text
            text = text[:_BEGINNING]
        scrubbed = text
        for secret, mark in self._marks.items():
            if secret in scrubbed:
                scrubbed = scrubbed.replace(secret, mark)
        if rest:
            return rest if scrubbed is text else scrubbed + rest[_BEGINNING:]
        return scrubbed

    def scrub(self, value: Any, depth: int = _DEEPEST) -> Any:
        """Return a parsed body without secrets in its texts and keys."""
        if not self._marks:
            return value
        if isinstance(value, str):
            return self.scrub_text(value)
        if isinstance(value, dict):
            names = {self.scrub_text(name): inner for name, inner in value.items()} if depth else {}
            return {name: self.scrub(inner, depth - 1) for name, inner in names.items()}
        if isinstance(value, list):
            return [self.scrub(inner, depth - 1) for inner in value] if depth else []
        return value

    def scrub_headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return the headers of a response without secrets."""
        if not any(secret in value for value in headers.values() for secret in self._marks):
            return headers
        return CIMultiDict((name, self.scrub_text(value)) for name, value in headers.items())

    def restore(self, url: str) -> str:
        """Return a URL as the server stated it."""
        for secret, mark in self._marks.items():
            url = url.replace(mark, secret)
        return url


NO_SECRETS = Secrets({})
