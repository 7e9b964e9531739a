"""Responses: the images of a success response, or the error that the response means.

The facts are from OpenAI's error-code and rate-limit guides; if servers differ, the widest interpretation is used.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Never

import pybase64
from pydantic_core import from_json

from pipeline.client.classify import blames_the_call, error_class, error_class_of_words, stated_status
from pipeline.client.error_body import (
    ErrorBody,
    chat_answer,
    encodable,
    error_body_of,
    error_of_items,
    plain,
    read_error_body,
    text_of,
    word,
)
from pipeline.client.event_stream import cut_object, embedded_object, is_stream, merge_events, merge_lines
from pipeline.client.limits import LIST_ITEMS, URL_CHARACTERS, WORD_CHARACTERS
from pipeline.client.rate_limit_hints import LONGEST_PAUSE, image_limit, pause, remaining_images, skew
from pipeline.client.replay import is_replay
from pipeline.client.response_forms import (
    InlineImage,
    LinkedImage,
    find_images,
    is_image,
    is_unknown_form,
    key_names,
    says_failure,
    says_something,
)
from pipeline.client.secrets import NO_SECRETS
from pipeline.client.task_form import is_a_task
from pipeline.errors import (
    Deferred,
    Invalid,
    KeyRefused,
    ModelUnknown,
    Moderated,
    PausedTooLong,
    QuotaSpent,
    RateLimited,
    RequestError,
    ServerFault,
    Stop,
    Unusable,
    WrongAddress,
    WrongPath,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.client.secrets import Secrets

__all__ = ["HttpResponse", "ImagesResponse", "InlineImage", "LinkedImage", "read_error", "read_object", "read_response"]

_SETTINGS = ("size", "quality", "background", "output_format")  # that responses of GPT Image models state
_NO_IMAGE = (b"{", b"[", b"")  # first bytes of JSON, whatever the content type
_TITLE = re.compile(r"(?is)<title[^>]{0,200}>([^<]{0,200})")
_BEYOND = 1e15


@dataclass(frozen=True, slots=True)
class ImagesResponse:
    """A success response. `settings` are those that the server says it used; `skew` is the server's clock minus the
    local one, in seconds; `moderated` counts images that the service withheld, `beyond` those beyond the ones kept.
    """

    http_status: int
    request_id: str | None
    images: tuple[LinkedImage | InlineImage, ...]
    moderated: int
    usage: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    skew: float
    beyond: int = 0
    remaining: int | None = None  # images in the window of the rate limit
    is_replay: bool = False


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response as it was received. `proxy` is the one that forwarded it and may have answered in the server's place:
    that of a plain http call, as host:port. `secrets` are those that the call carried: they are removed from its body
    as it is parsed; its headers are without them. `images` is how many were asked for: a body that is cut after them
    counts.
    """

    status: int
    headers: Mapping[str, str]  # case-insensitive
    body: bytes
    url: str
    proxy: str | None = None
    secrets: Secrets = NO_SECRETS
    images: int = 0
    has_key: bool = True  # whether the call carried a key, or a configured header that may be one

    @property
    def request_id(self) -> str | None:
        """The service's id of this call."""
        names = ("x-request-id", "apim-request-id", "x-litellm-call-id")
        return word(next(filter(None, map(self.headers.get, names)), None))


def read_response(http: HttpResponse, now: float | None = None) -> ImagesResponse:
    """Parse a response. Raises the RequestError that it means."""
    now = time.time() if now is None else now
    if not 200 <= http.status < 300:
        raise read_error(http, now)
    parsed = http.secrets.scrub(_success(http))
    found = find_images(parsed, http.url)
    body = parsed if isinstance(parsed, dict) else {}
    if found:
        usage = body.get("usage")
        usage = _kept(usage) if isinstance(usage, dict) else None
        settings = {name: _kept(body[name]) for name in _SETTINGS if isinstance(body.get(name), str)}
        images, ahead = tuple(found.images), skew(http.headers, now)
        known = (http.status, http.request_id, images, found.withheld, usage, settings, ahead, found.beyond)
        return ImagesResponse(*known, remaining_images(http.headers), is_replay(http.headers))
    fails = says_failure(body)
    if not fails and (http.status == 202 or is_a_task(body)):
        raise _error(Deferred, http, ErrorBody("the server accepts calls for later", None, None, None), None)
    item = None if fails else error_of_items(parsed)
    error_body = item or error_body_of(body)
    if fails or item or says_something(body) or error_class_of_words(http.status, error_body, http.headers):
        raise _hidden_error(http, error_body, now)
    raise _without_image(http, parsed, has_long_url=found.has_long_url)


def read_error(http: HttpResponse, now: float | None = None) -> RequestError:
    """Return the error that a response with the status of an error means."""
    return _error_response(http, read_error_body(http.body, http.secrets.scrub), time.time() if now is None else now)


def read_object(http: HttpResponse) -> dict[str, Any]:
    """Parse a response that is a JSON object. Raises the RequestError that any other means."""
    if not 200 <= http.status < 300:
        raise read_error(http)
    try:
        parsed = http.secrets.scrub(_parsed(http.body))
    except (ValueError, RecursionError):
        _raise_unreadable(http, _content_type(http), http.secrets.scrub_text(text_of(http.body)))
    if not isinstance(parsed, dict):
        raise _unusable(http, f"answered {http.status} with JSON that is no object")
    return parsed


def _content_type(http: HttpResponse) -> str:
    return http.headers.get("content-type", "").partition(";")[0].strip().lower()


def _success(http: HttpResponse) -> Any:
    """Parse the body of a success response, which may be an image itself.

    Raises Unusable if it is nothing that can be read, and WrongAddress if it is an HTML page; a 202 may have no body.
    """
    kind = _content_type(http)
    if is_image(http.body) or (kind.startswith("image/") and http.body[:1] not in _NO_IMAGE):
        return {"b64_json": pybase64.b64encode(http.body).decode()}
    try:
        if kind != "text/event-stream":
            return _parsed(http.body)
    except (ValueError, RecursionError):
        pass
    text = text_of(http.body)
    if kind == "text/event-stream" or is_stream(text):
        return merge_events(text) if is_stream(text) else _text_body(text) or {}
    if (merged := merge_lines(text)) is not None:
        return merged
    if http.status == 202:
        return {}
    body = embedded_object(text) or cut_object(http.body, http.images) or _text_body(text)
    return body or _raise_unreadable(http, kind, http.secrets.scrub_text(text))


def _parsed(body: bytes) -> Any:
    """Parse JSON, leniently in a second attempt that takes six times as long. Raises ValueError."""
    try:
        return from_json(body)
    except ValueError:
        return json.loads(text_of(body))


def _text_body(text: str) -> Any:
    """Return a body that is text: JSON under the content type of a stream, or a lone URL or base64 of an image."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text if find_images(text, "") else None


def _raise_unreadable(http: HttpResponse, kind: str, text: str) -> Never:
    """Raise the error of a success body that is neither JSON nor an image."""
    start = text.lstrip("\ufeff \t\r\n")[:300].lower()
    if re.match(r"(?:<\?xml[^>]*>\s*)?<(?:!doctype html|html|head|body|script|meta|!--)", start) or (
        kind == "text/html" and "<" in start
    ):
        page = plain(_TITLE.sub(r"\1", found[0]), 60) if (found := _TITLE.search(text)) else ""
        proxy = f" through the proxy {http.proxy}" if http.proxy else ""
        what = f"the server answered {http.status} with an HTML page{page and f' “{page}”'}{proxy}"
        what = f"{what}: check `base_url`, and what answers in its place"
        raise WrongAddress(what, http_status=http.status, request_id=http.request_id)
    if not start:
        raise _unusable(http, f"answered {http.status} with an empty body")
    named = f" ({plain(kind, 60)})" if kind and "json" not in kind else ""
    error = _unusable(http, f"answered {http.status} with a body that is not JSON{named}")
    error.deterministic = start[0] not in "{["  # else it may be cut
    raise error


def _without_image(http: HttpResponse, body: Any, *, has_long_url: bool) -> Unusable:
    """Return the error of a success body without an image: in no known form, or without content."""
    if has_long_url:
        error = _unusable(http, f"answered {http.status} with an image URL of more than {URL_CHARACTERS:,} characters")
        error.deterministic = True
        return error
    named = chat_answer(body) or (key_names(body) if body else "")
    if not is_unknown_form(body):
        return _unusable(http, f"answered {http.status} without an image{named and f', with {named}'}")
    error = _unusable(http, f"answered {http.status} with {named}: no image in a form that is known here")
    error.deterministic = True
    return error


def _kept(value: Any, depth: int = 4) -> Any:
    """Return a value of a response reduced to what a ledger and a manifest can hold."""
    if isinstance(value, str):
        return encodable(value[:WORD_CHARACTERS])
    if isinstance(value, dict):
        items = itertools.islice(value.items(), LIST_ITEMS)
        return {encodable(name[:80]): _kept(inner, depth - 1) for name, inner in items} if depth else None
    if isinstance(value, list):
        return [_kept(inner, depth - 1) for inner in value[:LIST_ITEMS]] if depth else None
    return value if value is not None and abs(value) < _BEYOND else None  # neither NaN nor an absurd number


def _error_response(http: HttpResponse, error_body: ErrorBody, now: float, status: int | None = None) -> RequestError:
    """Return the error of an error response. `status` replaces the HTTP status if the body states another."""
    status = status or http.status
    wait = pause(status, http.headers, error_body.message, now, error_body.wait)
    kind = error_class(status, error_body, http.headers, wait)
    if _is_the_proxy_s(kind, http, error_body):
        kind = ServerFault if status >= 500 else WrongAddress
    kind = WrongAddress if kind is KeyRefused and _is_a_firewall_s(http) else kind
    if wait is not None and wait > LONGEST_PAUSE and kind is not ServerFault:  # that is an outage with a known end
        if kind is RateLimited:
            kind = PausedTooLong
        else:  # the call may have continued behind a gateway: that class matters more, and our own backoff applies
            wait = None
    return _error(kind, http, error_body, wait)


def _is_the_proxy_s(kind: type[RequestError], http: HttpResponse, error_body: ErrorBody) -> bool:
    """Return whether the proxy of a plain http call refused it, as far as can be seen: no word of an API is in it."""
    if http.proxy is None or not issubclass(kind, Stop | Moderated) or issubclass(kind, WrongPath):
        return False
    is_json = http.body.lstrip()[:1] in {b"{", b"["}
    return http.status == 407 or not is_json or error_class_of_words(http.status, error_body, http.headers) is None


def _is_a_firewall_s(http: HttpResponse) -> bool:
    """Return whether a 403 is a page for people, as of Cloudflare: it is no error of the key."""
    return http.status == 403 and ("cf-mitigated" in http.headers or http.body.lstrip()[:1] == b"<")


def _hidden_error(http: HttpResponse, error_body: ErrorBody, now: float) -> RequestError:
    """Return the error that came with a success status: it may have been billed unless it says otherwise."""
    if status := stated_status(error_body):
        return _error_response(http, error_body, now, status)
    kind = error_class_of_words(http.status, error_body, http.headers)
    return _error(kind or (Invalid if blames_the_call(error_body) else Unusable), http, error_body, None)


def _error(kind: type[RequestError], http: HttpResponse, error_body: ErrorBody, wait: float | None) -> RequestError:
    named: dict[str, Any] = {name: getattr(error_body, name) for name in ("type", "code", "param")}
    known: dict[str, Any] = {"http_status": http.status, "request_id": http.request_id, "retry_after": wait}
    error = kind(_sentence(kind, http, error_body.message, wait), **named, **known)
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
    sentence = f"redirects to {plain(target.partition('?')[0], 200)}" if target else message or "no reason given"
    advice = "no key was sent" if kind is KeyRefused and not http.has_key else _ADVICE.get(kind)
    if kind is WrongAddress and _is_a_firewall_s(http):
        advice = "a firewall answers in its place, and has to let the calls of this machine through"
    sentence = f"through the proxy {http.proxy}: {sentence}" if http.proxy else sentence
    if kind is WrongAddress and (http.proxy or http.status == 407):
        advice = "check HTTP_PROXY and NO_PROXY"
    advice = f"run again in {min(wait, 1e9) / 3600:.1f} hours" if kind is PausedTooLong and wait else advice
    return f"{sentence} ({advice})" if advice else sentence


def _unusable(http: HttpResponse, what: str) -> Unusable:
    return Unusable(f"the server {what}", http_status=http.status, request_id=http.request_id)
