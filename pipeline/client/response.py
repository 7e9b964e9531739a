"""Responses: the images of a success response, or the error that the response means.

The facts are from OpenAI's error-code and rate-limit guides; if servers differ, the widest interpretation is used.
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

_SETTINGS = ("size", "quality", "background", "output_format")  # that responses of GPT Image models state
_LATER = frozenset({"queued", "pending", "submitted", "processing", "in_progress"})
_BEYOND = 1e15


@dataclass(frozen=True, slots=True)
class LinkedImage:
    """An image that is to be downloaded."""

    url: str
    revised_prompt: str | None


@dataclass(frozen=True, slots=True)
class InlineImage:
    """An image inside the response, in base64."""

    base64: str
    revised_prompt: str | None


@dataclass(frozen=True, slots=True)
class ImagesResponse:
    """A success response. `settings` are those that the server says it used; `skew` is the server's clock minus the
    local one, in seconds; `moderated` counts images that the service withheld.
    """

    http_status: int
    request_id: str | None
    images: tuple[LinkedImage | InlineImage, ...]
    moderated: int
    usage: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    skew: float


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response as it was received."""

    status: int
    headers: Mapping[str, str]  # case-insensitive
    body: bytes
    url: str

    @property
    def request_id(self) -> str | None:
        """The service's id of this call."""
        names = ("x-request-id", "apim-request-id", "x-litellm-call-id")
        return word(next(filter(None, map(self.headers.get, names)), None))


def read_response(http: HttpResponse, now: float | None = None) -> ImagesResponse:
    """Parse a response. Raises the RequestError that it means."""
    now = time.time() if now is None else now
    if not 200 <= http.status < 300:
        raise _error_response(http, read_error_body(http.body), now)
    body = _success(http)
    data = body.get("data")
    items = [item for item in data if isinstance(item, dict)] if isinstance(data, list) else []
    images = tuple(image for item in items if (image := _image(item, http.url)))
    moderated = sum(_is_moderated(item) for item in items)
    if images or moderated:
        usage = body.get("usage")
        usage = _kept(usage) if isinstance(usage, dict) else None
        settings = {name: _kept(body[name]) for name in _SETTINGS if isinstance(body.get(name), str)}
        return ImagesResponse(http.status, http.request_id, images, moderated, usage, settings, skew(http.headers, now))
    says_error = any(body.get(name) for name in ("error", "detail"))
    if not says_error and (http.status == 202 or any(_is_a_task(one) for one in (body, data, *items))):
        raise _error(Deferred, http, ErrorBody("the server accepts calls for later", None, None, None), None)
    if says_error or body.get("message") or body.get("msg"):
        raise _hidden_error(http, error_body_of(body), now)
    raise _unusable(http, f"answered {http.status} without an image")


def _success(http: HttpResponse) -> dict[str, Any]:
    """Parse the body of a success response. Raises Unusable if it is not JSON; a 202 may have none."""
    if http.headers.get("content-type", "").lower().startswith("text/event-stream"):
        return _from_stream(text_of(http.body))
    try:
        body = _parsed(http.body)
    except (ValueError, RecursionError):
        if http.status == 202:
            return {}
        raise _unusable(http, f"answered {http.status} with a body that is not JSON") from None
    return body if isinstance(body, dict) else {}


def _parsed(body: bytes) -> Any:
    """Parse JSON, leniently in a second attempt that takes six times as long. Raises ValueError."""
    try:
        return from_json(body)
    except ValueError:
        return json.loads(text_of(body))


def _from_stream(text: str) -> dict[str, Any]:
    """Merge a stream of server-sent events into one response body; partial images are left out.

    The client never asks for a stream, but `extra: {stream: true}` and some servers do, and its images are paid.
    """
    body: dict[str, Any] = {}
    items: list[Any] = []
    for event in text.replace("\r\n", "\n").replace("\r", "\n").split("\n\n"):
        said = _event_data(event)
        if said.get("error"):
            body["error"] = said["error"]
        elif isinstance(said.get("data"), list):  # a complete response in one event
            body |= said
            items += said["data"]
        elif "partial" not in str(said.get("type")) and (said.get("b64_json") or said.get("url")):
            body |= {name: value for name, value in said.items() if name not in {"type", "b64_json", "url"}}
            items.append(said)
    return {**body, "data": items}


def _event_data(event: str) -> dict[str, Any]:
    """Return the data of an event; empty if it is not an object, as [DONE] is not."""
    lines = [line[5:].removeprefix(" ") for line in event.split("\n") if line.startswith("data:")]
    try:
        said = json.loads("\n".join(lines))
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _kept(value: Any, depth: int = 4) -> Any:
    """Return a value of a response reduced to what a ledger and a manifest can hold."""
    if isinstance(value, str):
        return encodable(value[:200])
    if isinstance(value, dict):
        return {encodable(name[:80]): _kept(inner, depth - 1) for name, inner in value.items()} if depth else None
    if isinstance(value, list):
        return [_kept(inner, depth - 1) for inner in value[:99]] if depth else None
    return value if value is not None and abs(value) < _BEYOND else None  # neither NaN nor an absurd number


def _is_a_task(said: Any) -> bool:
    """Return whether this is the id of a task whose image will be made later, as some gateways return it."""
    if not isinstance(said, dict):
        return False
    status = said.get("status")
    return bool(said.get("task_id")) or (isinstance(status, str) and status.lower() in _LATER)


def _image(item: Mapping[str, Any], base: str) -> LinkedImage | InlineImage | None:
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
    """Resolve a relative URL; an absolute one stays byte for byte, as its signature may cover it."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", url):
        return url
    try:
        return urljoin(base, url)
    except ValueError:  # "//[": invalid, which the download reports
        return url


def _is_moderated(item: Mapping[str, Any]) -> bool:
    """Return whether the service withheld this image: HTTP 200, yet neither URL nor base64 (xAI's documentation)."""
    return item.get("respect_moderation") is False and not item.get("url") and not item.get("b64_json")


def _error_response(http: HttpResponse, error_body: ErrorBody, now: float, status: int | None = None) -> RequestError:
    """Return the error of an error response. `status` replaces the HTTP status if the body states another."""
    status = status or http.status
    wait = pause(status, http.headers, error_body.message, now)
    kind = error_class(status, error_body, http.headers, wait)
    if wait is not None and wait > LONGEST_PAUSE:
        if kind in {RateLimited, ServerFault}:
            kind = PausedTooLong
        else:  # the call may have continued behind a gateway: that class matters more, and our own backoff applies
            wait = None
    return _error(kind, http, error_body, wait)


def _hidden_error(http: HttpResponse, error_body: ErrorBody, now: float) -> RequestError:
    """Return the error that came with a success status: it may have been billed unless it says otherwise."""
    if status := stated_status(error_body):
        return _error_response(http, error_body, now, status)
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
    Deferred: "use an address whose responses contain the images",
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
