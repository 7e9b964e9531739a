"""An error's body → what it says: the vendor's envelope, or what other servers send in its place."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

LONGEST_MESSAGE = 1000
"""Characters of what a server says that are kept."""

_BEGINNING = 4000  # characters of a body that is no JSON which are looked at
_NAMED = re.compile(
    r'"(?P<name>message|detail|error|msg|type|code|param)"\s*:\s*'
    r'(?:"(?P<text>(?:[^"\\]|\\.)*)(?P<end>"?)|(?P<number>\d{1,9})(?=\s*[,}]))'
)


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """An error's own words, cleaned. `inner` is the code of the error within, as Azure sends it."""

    message: str
    type: str | None
    code: str | None
    param: str | None
    inner: str | None = None

    @property
    def words(self) -> set[str]:
        """Type and codes, the stable discriminators, in small letters."""
        return {name.lower() for name in (self.type, self.code, self.inner) if name}


def text_of(body: bytes) -> str:
    """Decode a body by its byte order mark, or as JSON shows its encoding: UTF-8, 16 or 32. What is neither is
    replaced, since a paid picture is not lost for one wrong letter beside it.
    """
    return body.decode(json.detect_encoding(body), "replace")


def read_error_body(body: bytes) -> ErrorBody:
    """Read a body of any kind: JSON, whole or cut off, and HTML too."""
    text = text_of(body)
    try:
        return error_body_of(json.loads(text))
    except (ValueError, RecursionError):
        text = text[:_BEGINNING]
    return (text.lstrip().startswith(("{", "[")) and _rest_of(text)) or ErrorBody(_page(text), None, None, None)


def error_body_of(value: Any) -> ErrorBody:
    """Find the error in the vendor's envelope, FastAPI's {"detail"}, or what stands in for them."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) and "error" in value[0]:
        value = value[0]  # Google's: [{"error": …}]
    outer = value if isinstance(value, dict) else {}
    error = outer.get("error") or outer.get("detail") or value
    if isinstance(error, dict) and isinstance(error.get("error"), dict):  # {"detail": {"error": …}}
        error = error["error"]
    if not isinstance(error, dict):
        return ErrorBody(_message(error), word(outer.get("type")), word(outer.get("code")), None)
    said = error.get("message") or error.get("detail") or error.get("msg") or error
    kind = word(error.get("type")) or word(error.get("status"))  # Google's: RESOURCE_EXHAUSTED
    inner = error.get("inner_error") or error.get("innererror")
    inner_code = word(inner.get("code")) if isinstance(inner, dict) else None
    return ErrorBody(_message(said), kind, word(error.get("code")), word(error.get("param")), inner_code)


def _rest_of(text: str) -> ErrorBody | None:
    """Read what came of an envelope that was cut off; None where nothing did. A name that is itself cut is none."""
    said: dict[str, str] = {}
    for found in _NAMED.finditer(text):
        name, value = found["name"], found["number"] or found["text"]
        if value and (found["number"] or found["end"] or name not in {"type", "code", "param"}):
            said.setdefault(name, value if found["number"] else _unescaped(value))
    message = next((said[name] for name in ("message", "detail", "msg", "error") if name in said), None)
    if message is None and not said:
        return None
    named = (word(said.get(name)) for name in ("type", "code", "param"))
    return ErrorBody(plain(message or text, LONGEST_MESSAGE), *named)


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:  # cut in the middle of an escape
        return text


def _page(text: str) -> str:
    """Read the words of an HTML page."""
    return plain(re.sub(r"(?is)<(style|script)\b.*?(?:</\1>|$)|<[^>]*>", " ", text), 300)


def _message(said: Any) -> str:
    """Write what a server says as one line; FastAPI's list of {"loc", "msg"} as "body.image: field required; …"."""
    if said is None:
        return ""
    if isinstance(said, str):
        return plain(said, LONGEST_MESSAGE)
    if isinstance(said, list) and said and all(isinstance(item, dict) and "msg" in item for item in said):
        return plain(
            "; ".join(f"{_place(item.get('loc'))}: {_line(item['msg'])}" for item in said[:9]), LONGEST_MESSAGE
        )
    return _line(said)


def _line(said: Any) -> str:
    if isinstance(said, str):
        return plain(said, LONGEST_MESSAGE)
    try:
        return plain(json.dumps(said), LONGEST_MESSAGE)
    except RecursionError:
        return ""


def _place(steps: Any) -> str:
    steps = steps if isinstance(steps, list) else []
    return ".".join(str(step)[:80] for step in steps[:9] if isinstance(step, str | int))


def plain(text: str, most: int) -> str:
    """Keep what may stand in a terminal, a log and a ledger: no escapes, no lone surrogates, white space in one."""
    text = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * most])
    return " ".join(text.split())[:most]


def word(value: Any) -> str | None:
    """Read a short name or number; None where it is neither, or Python's own word for nothing (LiteLLM's)."""
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "None":
        return None
    return plain(str(value), 200) or None


def encodable(text: str) -> str:
    """Replace lone surrogates, which JSON can write and neither UTF-8 nor the ledger can."""
    return text.encode("utf-8", "replace").decode()
