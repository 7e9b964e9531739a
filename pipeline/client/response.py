"""An HTTP answer → the pictures in it, or the error whose class is the request's fate.

The facts stand in OpenAI's error-code and rate-limit guides; where servers differ, the widest reading is taken.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from pydantic_core import from_json

from pipeline.client.classify import blames_the_call, error_class, error_class_of_words, stated_status
from pipeline.client.error_body import ErrorBody, encodable, error_body_of, plain, read_error_body, text_of, word
from pipeline.client.rate_limit_hints import LONGEST_PAUSE, image_limit, pause, skew
from pipeline.errors import (
    Deferred,
    Invalid,
    KeyRefused,
    ModelUnknown,
    PausedTooLong,
    QuotaSpent,
    RateLimited,
    RequestError,
    ServerFault,
    Unusable,
    WrongAddress,
    WrongPath,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_SETTINGS = ("size", "quality", "background", "output_format")  # that GPT Image answers name
_LATER = frozenset({"queued", "pending", "submitted", "processing", "in_progress"})
_BEYOND = 1e15


@dataclass(frozen=True, slots=True)
class LinkedImage:
    """A picture that is to be downloaded."""

    url: str
    revised_prompt: str | None


@dataclass(frozen=True, slots=True)
class InlineImage:
    """A picture that came along, in base64."""

    base64: str
    revised_prompt: str | None


@dataclass(frozen=True, slots=True)
class ImagesResponse:
    """What a success answer brought. `settings` are those that the server says it used; `skew` is the server's clock
    minus ours, in seconds.
    """

    http_status: int
    request_id: str | None
    pictures: tuple[LinkedImage | InlineImage, ...]
    moderated: int
    usage: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    skew: float


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An answer as it came over the wire."""

    status: int
    headers: Mapping[str, str]  # without regard to case
    body: bytes
    url: str

    @property
    def request_id(self) -> str | None:
        """The service's name for this call."""
        names = ("x-request-id", "apim-request-id", "x-litellm-call-id")
        return word(next(filter(None, map(self.headers.get, names)), None))


def read_response(http: HttpResponse, now: float | None = None) -> ImagesResponse:
    """Read the pictures out of an answer. Raises the RequestError whose class is the request's fate."""
    now = time.time() if now is None else now
    if not 200 <= http.status < 300:
        raise _refusal(http, read_error_body(http.body), now)
    body = _success(http)
    data = body.get("data")
    items = [item for item in data if isinstance(item, dict)] if isinstance(data, list) else []
    pictures = tuple(picture for item in items if (picture := _picture(item, http.url)))
    moderated = sum(_is_moderated(item) for item in items)
    if pictures or moderated:
        usage = body.get("usage")
        usage = _kept(usage) if isinstance(usage, dict) else None
        settings = {name: _kept(body[name]) for name in _SETTINGS if isinstance(body.get(name), str)}
        return ImagesResponse(
            http.status, http.request_id, pictures, moderated, usage, settings, skew(http.headers, now)
        )
    says_error = any(body.get(name) for name in ("error", "detail"))
    if not says_error and (http.status == 202 or any(_is_a_task(one) for one in (body, data, *items))):
        raise _error(Deferred, http, ErrorBody("the server takes calls for later", None, None, None), None)
    if says_error or body.get("message") or body.get("msg"):
        raise _hidden_error(http, error_body_of(body), now)
    raise _unusable(http, f"answered {http.status} without a picture")


def _success(http: HttpResponse) -> dict[str, Any]:
    """Read a success answer's body. Raises Unusable where there is no JSON in it; a 202 may have none."""
    if http.headers.get("content-type", "").lower().startswith("text/event-stream"):
        return _from_stream(text_of(http.body))
    try:
        body = _parsed(http.body)
    except (ValueError, RecursionError):
        if http.status == 202:
            return {}
        raise _unusable(http, f"answered {http.status} with what is no JSON") from None
    return body if isinstance(body, dict) else {}


def _parsed(body: bytes) -> Any:
    """Parse JSON: at once as it should be, in six times as long what only resembles it. Raises ValueError."""
    try:
        return from_json(body)
    except ValueError:
        return json.loads(text_of(body))


def _from_stream(text: str) -> dict[str, Any]:
    """Merge a stream of server-sent events into one response body; partial images are left out.

    The client never asks for a stream, but `extra: {stream: true}` and some servers do, and its images are paid.
    """
    answer: dict[str, Any] = {}
    items: list[Any] = []
    for event in text.replace("\r\n", "\n").replace("\r", "\n").split("\n\n"):
        said = _event_data(event)
        if said.get("error"):
            answer["error"] = said["error"]
        elif isinstance(said.get("data"), list):  # a whole answer in one event
            answer |= said
            items += said["data"]
        elif "partial" not in str(said.get("type")) and (said.get("b64_json") or said.get("url")):
            answer |= {name: value for name, value in said.items() if name not in {"type", "b64_json", "url"}}
            items.append(said)
    return {**answer, "data": items}


def _event_data(event: str) -> dict[str, Any]:
    """Read an event's data; nothing where it is no object, as [DONE] is none."""
    lines = [line[5:].removeprefix(" ") for line in event.split("\n") if line.startswith("data:")]
    try:
        said = json.loads("\n".join(lines))
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _kept(value: Any, depth: int = 4) -> Any:
    """Keep what a server says beside its pictures so that any ledger and any manifest can hold it."""
    if isinstance(value, str):
        return encodable(value[:200])
    if isinstance(value, dict):
        return {encodable(name[:80]): _kept(inner, depth - 1) for name, inner in value.items()} if depth else None
    if isinstance(value, list):
        return [_kept(inner, depth - 1) for inner in value[:99]] if depth else None
    return value if value is not None and abs(value) < _BEYOND else None  # neither NaN nor a number beyond reckoning


def _is_a_task(said: Any) -> bool:
    """Say whether this is the number of a picture that will be made later, as gateways give it out."""
    if not isinstance(said, dict):
        return False
    status = said.get("status")
    return bool(said.get("task_id")) or (isinstance(status, str) and status.lower() in _LATER)


def _picture(item: Mapping[str, Any], base: str) -> LinkedImage | InlineImage | None:
    said = item.get("revised_prompt")
    revised = encodable(said) if isinstance(said, str) else None
    for field in ("b64_json", "url"):
        value = item.get(field)
        if not isinstance(value, str) or not value:
            continue
        if value.startswith("data:"):  # as one vendor's SDK expects it: data:image/png;base64,…
            return InlineImage(value.partition("base64,")[2], revised)
        if field == "b64_json":
            return InlineImage(value, revised)
        return LinkedImage(_absolute(encodable(value), base), revised)
    return None


def _absolute(url: str, base: str) -> str:
    """Complete a relative URL; an absolute one stays byte for byte, as its signature may cover it."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", url):
        return url
    try:
        return urljoin(base, url)
    except ValueError:  # "//[": no URL, and the download says so
        return url


def _is_moderated(item: Mapping[str, Any]) -> bool:
    """Say whether the service withheld this picture: HTTP 200, yet neither URL nor base64 (xAI's documentation)."""
    return item.get("respect_moderation") is False and not item.get("url") and not item.get("b64_json")


def _refusal(http: HttpResponse, error_body: ErrorBody, now: float, status: int | None = None) -> RequestError:
    """Make the error of a refusal. `status` is what the body says that HTTP did not."""
    status = status or http.status
    wait = pause(status, http.headers, error_body.message, now)
    kind = error_class(status, error_body, http.headers, wait)
    if wait is not None and wait > LONGEST_PAUSE:
        if kind in {RateLimited, ServerFault}:
            kind = PausedTooLong
        else:  # behind a gateway the call may have gone on: that fate weighs more, and our own backoff holds
            wait = None
    return _error(kind, http, error_body, wait)


def _hidden_error(http: HttpResponse, error_body: ErrorBody, now: float) -> RequestError:
    """Make the error that came as a success: what its words leave open may have been billed."""
    if status := stated_status(error_body):
        return _refusal(http, error_body, now, status)
    kind = error_class_of_words(http.status, error_body, http.headers)
    return _error(kind or (Invalid if blames_the_call(error_body) else Unusable), http, error_body, None)


def _error(kind: type[RequestError], http: HttpResponse, error_body: ErrorBody, wait: float | None) -> RequestError:
    error = kind(
        _sentence(kind, http, error_body.message, wait),
        http_status=http.status,
        type=error_body.type,
        code=error_body.code,
        param=error_body.param,
        request_id=http.request_id,
        retry_after=wait,
    )
    if isinstance(error, RateLimited) and error_body.type != "tokens":
        error.limit = image_limit(http.headers, error_body.message)
    return error


_ADVICE: dict[type[RequestError], str] = {
    KeyRefused: "check the key and what its organization may use",
    QuotaSpent: "check the plan, the balance and the limits of the account",
    WrongAddress: "check `base_url`",
    WrongPath: "check `base_url`, and whether the server has this operation",
    ModelUnknown: "check `model`",
    Deferred: "use an address whose answers bring the pictures themselves",
}


def _sentence(kind: type[RequestError], http: HttpResponse, message: str, wait: float | None) -> str:
    target = http.headers.get("location") if 300 <= http.status < 400 else None
    said = f"redirects to {plain(target.partition('?')[0], 200)}" if target else message or "no reason given"
    advice = _ADVICE.get(kind)
    if kind is PausedTooLong and wait is not None:
        advice = f"run again in {min(wait, 1e9) / 3600:.1f} hours"
    return f"{said} ({advice})" if advice else said


def _unusable(http: HttpResponse, what: str) -> Unusable:
    return Unusable(f"the server {what}", http_status=http.status, request_id=http.request_id)
