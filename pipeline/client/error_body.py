"""Error bodies: the vendor's error object, or what other servers send instead, as one `ErrorBody`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.client.limits import MESSAGE_CHARACTERS, WORD_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BEGINNING = 4000  # characters of a body that is not JSON which are examined
_NAMED = re.compile(
    r'"(?P<name>message|detail|error|msg|type|code|param)"\s*:\s*'
    r'(?:"(?P<text>(?:[^"\\]|\\.)*)(?P<end>"?)|(?P<number>\d{1,9})(?=\s*[,}]))'
)


_ENVELOPES = ("error", "detail", "errors", "base_resp", "output")
_MESSAGES = (
    *("message", "detail", "msg", "error_message", "errorMessage", "error_msg", "status_msg", "errors", "description"),
    *("title", "reason"),
)
_NAMES = ("name", "errorKey", "error_code", "errorCode", "blockReason", "finishReason", "error_type", "status_code")
_WAITS = ("retry_after", "retryAfter", "retry_after_seconds", "retryDelay", "retry_delay")
_ITEMS = ("data", "images", "choices", "output", "content", "message")
_NESTED = (
    *("inner_error", "innererror", "inner_errors", "metadata", "errors", "detail", "details", "base_resp", "cause"),
    *("promptFeedback", "output", "candidates", "choices"),
)


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """The fields of an error, cleaned. `inner` are the codes, names and reasons of what is nested in it; `wait` is how
    long it asks to wait, as it says it.
    """

    message: str
    type: str | None
    code: str | None
    param: str | None
    inner: frozenset[str] = frozenset()
    wait: str | None = None

    @property
    def words(self) -> set[str]:
        """Type and codes, the stable discriminators, in lower case."""
        return {name.lower() for name in (self.type, self.code, *self.inner) if name}


def text_of(body: bytes) -> str:
    """Decode a body by its byte order mark, or as JSON's first bytes show: UTF-8, 16 or 32. Invalid bytes are replaced:
    a paid image is not lost because of one wrong character beside it.
    """
    return body.decode(json.detect_encoding(body), "replace")


def read_error_body(body: bytes, scrub: Callable[[Any], Any]) -> ErrorBody:
    """Parse a body of any kind: JSON, complete or truncated, or HTML. `scrub` removes secrets from what it holds."""
    text = text_of(body)
    try:
        return error_body_of(scrub(json.loads(text)))
    except (ValueError, RecursionError):
        text = scrub(text)[:_BEGINNING]
    return (text.lstrip().startswith(("{", "[")) and _rest_of(text)) or ErrorBody(_page(text), None, None, None)


def error_body_of(value: Any) -> ErrorBody:
    """Find the error in the vendor's object, FastAPI's {"detail"}, or what other servers send instead."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) and "error" in value[0]:
        value = value[0]  # Google's: [{"error": …}]
    outer = value if isinstance(value, dict) else {}
    error = next((outer[name] for name in _ENVELOPES if outer.get(name)), value)
    if outer.get("message") and error in (outer.get("base_resp"), outer.get("output")):
        error = value
    if isinstance(error, dict) and isinstance(error.get("error"), dict):  # {"detail": {"error": …}}
        error = error["error"]
    if not isinstance(error, dict):
        names = word(outer.get("type")), word(outer.get("code"))
        return ErrorBody(_message(error), *names, None, _nested(outer), _wait_of(outer))
    stated = next((error[name] for name in _MESSAGES if error.get(name)), None)
    kind = word(error.get("type")) or word(error.get("status"))  # Google's: RESOURCE_EXHAUSTED
    upstream = _upstream(error)
    message = _message(stated or error)
    if upstream and upstream.message and upstream.message not in message:
        message = plain(f"{message}: {upstream.message}", MESSAGE_CHARACTERS)
    inner = _nested(error) | (_nested(outer) if outer is not error else frozenset())
    inner |= frozenset(upstream.words if upstream else ())
    wait = _wait_of(error) or _wait_of(outer)
    return ErrorBody(message, kind, word(error.get("code")), word(error.get("param")), inner, wait)


def error_of_items(value: Any, depth: int = 9) -> ErrorBody | None:
    """Return the error, or the model's refusal, that stands in place of an image in a list of results."""
    if isinstance(value, list) and depth:
        return next(filter(None, (error_of_items(item, depth - 1) for item in value[:9])), None)
    if not isinstance(value, dict) or not depth:
        return None
    if isinstance(refusal := value.get("refusal"), str) and refusal.strip():
        return ErrorBody(_message(refusal), None, "refusal", None)
    error = value.get("error")
    if isinstance(error, dict | str) and error:
        return error_body_of({"error": error})
    return next(filter(None, (error_of_items(value.get(name), depth - 1) for name in _ITEMS)), None)


def chat_answer(body: Any) -> str | None:
    """Return what a model answered in a chat in place of an image; None if it is no such answer."""
    choices = body.get("choices") if isinstance(body, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    text = message.get("content") if isinstance(message, dict) else None
    return f"the text “{plain(text, 300)}”" if isinstance(text, str) and text.strip() else None


def _wait_of(error: Mapping[str, Any]) -> str | None:
    """Return the wait that an error asks for in a field: seconds, or text; Google's is among the details."""
    details = error.get("details")
    for part in (error, *(details[:9] if isinstance(details, list) else ())):
        for name in _WAITS if isinstance(part, dict) else ():
            if isinstance(part.get(name), str | int | float) and (wait := _message(str(part[name]))):
                return wait[:WORD_CHARACTERS]
    return None


def _upstream(error: Mapping[str, Any]) -> ErrorBody | None:
    """Return the error of the server behind a router, which OpenRouter repeats as text in `metadata.raw`."""
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if not isinstance(raw, str | dict) or not raw:
        return None
    try:
        parsed = json.loads(raw) if isinstance(raw, str) else raw
    except (ValueError, RecursionError):
        return ErrorBody(plain(str(raw), 300), None, None, None)
    if isinstance(parsed, dict) and isinstance(parsed.get("error"), dict):
        parsed = parsed["error"]
    if isinstance(parsed, dict) and "metadata" not in parsed:
        return error_body_of(parsed)
    return None


def _nested(error: Mapping[str, Any], depth: int = 5) -> frozenset[str]:
    """Return the names of an error besides its type and code: those nested in it, and one for moderation reasons."""
    found = {word(error.get(name)) for name in _NAMES}
    for name in _NESTED if depth else ():
        value = error.get(name)
        for inner in value[:9] if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                found |= {
                    word(inner.get("code")),
                    word(inner.get("type")),
                    word(inner.get("reason")),
                    *_nested(inner, depth - 1),
                }
    if error.get("reasons") or error.get("flagged_input"):  # OpenRouter's metadata
        found.add("moderation_reasons")
    for name in ("content_filter_result", "content_filter_results"):  # Azure's
        if '"filtered": true' in _line(error.get(name)):
            found.add("content_filter")
    return frozenset(filter(None, found))


def _rest_of(text: str) -> ErrorBody | None:
    """Parse a truncated error object; None if it has no field. A type, code or param that is itself cut is ignored."""
    fields: dict[str, str] = {}
    for found in _NAMED.finditer(text):
        name, value = found["name"], found["number"] or found["text"]
        if value and (found["number"] or found["end"] or name not in {"type", "code", "param"}):
            fields.setdefault(name, value if found["number"] else _unescaped(value))
    message = next((fields[name] for name in ("message", "detail", "msg", "error") if name in fields), None)
    if message is None and not fields:
        return None
    kind, code, param = (word(fields.get(name)) for name in ("type", "code", "param"))
    return ErrorBody(plain(message or text, MESSAGE_CHARACTERS), kind, code, param)


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:  # cut in the middle of an escape
        return text


def _page(text: str) -> str:
    """Return the text of an HTML page."""
    return plain(re.sub(r"(?is)<(style|script)\b.*?(?:</\1>|$)|<[^>]*>", " ", text), 300)


def _message(value: Any) -> str:
    """Return a message as one line; FastAPI's list of {"loc", "msg"} becomes "body.image: field required; …"."""
    if value is None:
        return ""
    if isinstance(value, str):
        return plain(value, MESSAGE_CHARACTERS)
    if isinstance(value, list) and value and all(isinstance(item, dict) and "msg" in item for item in value):
        return plain(
            "; ".join(f"{_place(item.get('loc'))}: {_line(item['msg'])}" for item in value[:9]), MESSAGE_CHARACTERS
        )
    if isinstance(value, list) and value and all(_text(item) for item in value):  # Stability's and Cloudflare's errors
        return plain("; ".join(_text(item) for item in value[:9]), MESSAGE_CHARACTERS)
    return _line(value)


def _text(item: Any) -> str:
    """Return an item of a list of errors as text; empty if it is none."""
    text = item.get("message") if isinstance(item, dict) else item
    return text if isinstance(text, str) else ""


def _line(value: Any) -> str:
    if isinstance(value, str):
        return plain(value, MESSAGE_CHARACTERS)
    try:
        return plain(json.dumps(value), MESSAGE_CHARACTERS)
    except RecursionError:
        return ""


def _place(steps: Any) -> str:
    steps = steps if isinstance(steps, list) else []
    return ".".join(str(step)[:80] for step in steps[:9] if isinstance(step, str | int))


def plain(text: str, length: int) -> str:
    """Return text that is safe in a terminal, log and ledger: printable, single spaces, at most `length` long."""
    text = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * length])
    return " ".join(text.split())[:length]


def word(value: Any) -> str | None:
    """Return a short name or number as text; None if it is neither, or is Python's "None" (LiteLLM)."""
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "None":
        return None
    return plain(str(value), WORD_CHARACTERS) or None


def encodable(text: str) -> str:
    """Replace lone surrogates, which JSON can contain, but neither UTF-8 nor the ledger."""
    return text.encode("utf-8", "replace").decode()
