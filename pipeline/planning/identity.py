"""What a request asks for → its key, by which it is known for ever, and a name for people and files."""

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
"""Characters of the key in an id that we make, and in one that would collide."""

NAME_RULE = "letters, digits, '.', '_', '-', no dot in front, at most 100 characters"


def canonical(value: Any) -> str:
    """Write JSON in the one way that equal values share. Raises ValueError for what JSON has not."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_of(
    operation: str, provider: str, prompt: str | None, params: Mapping[str, Any], inputs: Sequence[Any]
) -> str:
    """Write what a request asks for: no id, no paths, no n, nothing of where the provider is or how fast.

    `inputs` are the SHA-256 of the source pictures, then their recipe.
    """
    return canonical(
        {"operation": operation, "provider": provider, "prompt": prompt, "params": params, "inputs": inputs}
    )


def digest(content: str) -> bytes:
    """Give 16 bytes that only equal contents share. Raises UnicodeEncodeError for half a character."""
    return hashlib.sha256(content.encode()).digest()[:16]


def key_of(content: str, part: int, occurrence: int) -> str:
    """Give the SHA-256, in hex, of a content, its part and its occurrence among equal ones of the job, from 1.

    Raises UnicodeEncodeError for half a character.
    """
    return hashlib.sha256(f"[{content},{part},{occurrence}]".encode()).hexdigest()


def given_id(given: str, part: int) -> str:
    """Give the id of a request's part: pool, pool.2, pool.3."""
    return given if part == 1 else f"{given}.{part}"


def made_id(prompt: str | None, source: str | None, key: str) -> str:
    """Make an id from the prompt, else from the first picture's file name, else from nothing, and the key."""
    return f"{_slug(prompt, source)}-{key[:SHORT]}"


def lengthen(made: str, key: str) -> str:
    """Give the longer form of an id that we made."""
    return f"{made.rpartition('-')[0]}-{key[:LONG]}"


def is_name(text: str) -> bool:
    """Whether a text may name files."""
    return NAME.fullmatch(text) is not None


@functools.lru_cache(maxsize=1024)
def _slug(prompt: str | None, source: str | None) -> str:
    stem = re.sub(r"\.[^.]*\Z", "", re.split(r"[/\\]", source or "")[-1])
    return _words(prompt or "") or _words(stem) or "image"


def _words(text: str) -> str:
    """Give a-z, 0-9 and single hyphens, at most 40 of them."""
    ascii_text = unicodedata.normalize("NFKD", text[:400]).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")[:40].strip("-")
