"""Compute the content key of a request, by which the ledger knows it, and a readable id that names its files."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any

from pipeline.config.provider import NAME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHORT, LONG = 8, 16
"""Characters of the key in a generated id, and in one that would collide with another."""

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

_SPACES = bytes(code if chr(code) in "abcdefghijklmnopqrstuvwxyz0123456789" else ord(" ") for code in range(256))
"""A space for each byte that no generated id has."""

_MAX_OF_TEXT = 90  # characters, so that a suffix has room

NAME_RULE = "letters, digits, '.', '_', '-', not beginning with a dot, at most 100 characters"


def canonical(value: Any) -> str:
    """Serialize a value as canonical JSON, equal for equal values. Raises ValueError for values that JSON lacks."""
    try:
        return _CANONICAL.encode(value)
    except TypeError as reason:
        raise ValueError(str(reason)) from None


def canonical_content(
    operation: str,
    provider: str,
    prompt: str | None,
    params: str,
    inputs: Sequence[Any],
    dynamic: Mapping[str, Any] | None = None,
) -> str:
    """Serialize what a request asks for: without id, paths, n, and without the provider's URL and limits.

    `params` are in their canonical form, which requests share. `inputs` are the SHA-256 of the source images, then
    their image options. `dynamic` are the variables of a request whose `prompt` is one before its expansion, which
    depends on them.
    """
    content = (
        f'"inputs":{canonical(inputs) if inputs else "[]"},"operation":{canonical(operation)},"params":{params},'
        f'"prompt":{canonical(prompt)},"provider":{canonical(provider)}'
    )
    return f"{{{content}}}" if dynamic is None else f'{{"dynamic":{canonical(dynamic)},{content}}}'


def digest(content: str) -> bytes:
    """Return a hash of 16 bytes. Raises UnicodeEncodeError for a lone surrogate."""
    return hashlib.sha256(content.encode()).digest()[:16]


def content_key(content: str, part: int, occurrence: int) -> str:
    """Return the SHA-256, in hex, of a content, its part, and its occurrence among equal ones of the job, from 1.

    Raises UnicodeEncodeError for a lone surrogate.
    """
    return hashlib.sha256(f"[{content},{part},{occurrence}]".encode()).hexdigest()


def part_id(given: str, part: int) -> str:
    """Return the id of a part of a request with the id `given`: pool, pool.2, pool.3."""
    return given if part == 1 else f"{given}.{part}"


def generated_id(prompt: str | None, source: str | None, key: str) -> str:
    """Return an id made from the key and the prompt, else the name of the first image."""
    return f"{_slug(prompt, source)}-{key[:SHORT]}"


def is_generated_id(request_id: str, key: str) -> bool:
    """Return whether an id ends with the beginning of the key, as generated ids do."""
    stem, _, end = request_id.rpartition("-")
    return bool(stem) and len(end) >= SHORT and key.startswith(end)


def longer_id(generated: str, key: str) -> str:
    """Return a generated id with more characters of the key."""
    return f"{generated.rpartition('-')[0]}-{key[:LONG]}"


class UniqueIds:
    """Names of files made of texts that others gave: what no name may hold becomes `-`, and equal names get a hash."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, text: str) -> str:
        """Return the next id for a text; ids are unique without regard to case."""
        plain = name = re.sub(r"[^A-Za-z0-9._-]|\A\.", "-", text)[:_MAX_OF_TEXT]
        hashed = text.encode("utf-8", "surrogatepass")
        while name.lower() in self._taken:
            hashed = hashlib.sha256(hashed).digest()
            name = f"{plain}-{hashed.hex()[:SHORT]}"
        self._taken.add(name.lower())
        return name


def is_name(text: str) -> bool:
    """Whether a text may be used in file names."""
    return NAME.fullmatch(text) is not None


@functools.lru_cache(maxsize=1024)
def _slug(prompt: str | None, source: str | None) -> str:
    return _readable(prompt or "") or _readable(_stem(source or "")) or "image"


def _stem(path: str) -> str:
    return re.sub(r"\.[^.]*\Z", "", re.split(r"[/\\]", path)[-1])


def _readable(text: str) -> str:
    """Return the slug of a text, or of its transliteration if nothing of it is in a-z and 0-9."""
    if slug := _slugify(text):
        return slug
    from anyascii import anyascii

    return _slugify(anyascii(text[:400]))


def _slugify(text: str) -> str:
    """Return a text of a-z, 0-9 and single hyphens, at most 40 characters."""
    ascii_text = unicodedata.normalize("NFKD", text[:400]).encode("ascii", "ignore").lower()
    return b"-".join(ascii_text.translate(_SPACES).split())[:40].strip(b"-").decode()
