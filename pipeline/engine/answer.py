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

from pipeline.engine.envelope import Envelope, encodable, envelope_of, plain, read_envelope, word
from pipeline.engine.hints import LONGEST_PAUSE, image_limit, pause, skew, zero_limit
from pipeline.errors import (
    Invalid,
    KeyRefused,
    ModelUnknown,
    Moderated,
    OutcomeUnknown,
    PausedTooLong,
    QuotaSpent,
    RateLimited,
    RequestError,
    ServerFault,
    Unusable,
    WrongAddress,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_QUOTA = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_hard_limit_reached",
        "billing_not_active",
        "quota_exceeded",
    }
)
_MODERATION = frozenset({"content_policy_violation", "moderation_blocked", "content_filter", "contentfilter"})
_MODEL = frozenset({"model_not_found", "deploymentnotfound", "model_deprecated"})
_SETTINGS = ("size", "quality", "background", "output_format")  # that GPT Image answers name
_PACE = frozenset({"rate_limit_exceeded", "slow_down", "rate_limit_error"})
_FORM = frozenset({"invalid_request_error", "invalid_value", "unknown_parameter", "invalid_image", "invalid_size"})

# What servers say in words alone. A message of pace may name the billing page, so these are whole phrases.
_SAYS_QUOTA = re.compile(
    r"exceeded your current quota|billing hard limit|insufficient (?:quota|balance|credits?|funds)", re.IGNORECASE
)
_SAYS_KEY = re.compile(r"(?:incorrect|invalid) api key|api key not valid", re.IGNORECASE)  # xAI and Google: 400
_SAYS_MODEL = re.compile(r"\bmodel\b.{0,200}\b(?:does not exist|not found|not exist)\b", re.IGNORECASE)  # vLLM: 404
_SAYS_PACE = re.compile(r"\brate limit\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Link:
    """A picture that is to be downloaded."""

    url: str
    revised_prompt: str | None


@dataclass(frozen=True, slots=True)
class Inline:
    """A picture that came along, in base64."""

    base64: str
    revised_prompt: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a success answer brought. `settings` are those that the server says it used; `skew` is the server's clock
    minus ours, in seconds.
    """

    http_status: int
    request_id: str | None
    pictures: tuple[Link | Inline, ...]
    moderated: int
    usage: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    skew: float


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer as it came over the wire."""

    status: int
    headers: Mapping[str, str]  # without regard to case
    body: bytes
    url: str

    @property
    def request_id(self) -> str | None:
        """The service's name for this call."""
        return word(self.headers.get("x-request-id") or self.headers.get("apim-request-id"))


def read_answer(http: HttpAnswer, now: float | None = None) -> Answer:
    """Read the pictures out of an answer. Raises the RequestError whose class is the request's fate."""
    now = time.time() if now is None else now
    if not 200 <= http.status < 300:
        raise _refusal(http, read_envelope(http.body), now)
    try:
        body = json.loads(http.body, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        raise _unusable(http, f"answered {http.status} with what is no JSON") from None
    data = body.get("data") if isinstance(body, dict) else None
    items = [item for item in data if isinstance(item, dict)] if isinstance(data, list) else []
    pictures = tuple(picture for item in items if (picture := _picture(item, http.url)))
    moderated = sum(_is_moderated(item) for item in items)
    if pictures or moderated:
        usage = body.get("usage")
        usage = usage if isinstance(usage, dict) else None
        settings = {name: body[name] for name in _SETTINGS if isinstance(body.get(name), str)}
        return Answer(http.status, http.request_id, pictures, moderated, usage, settings, skew(http.headers, now))
    if isinstance(body, dict) and (body.get("error") or body.get("detail")):
        raise _hidden_error(http, envelope_of(body), now)
    raise _unusable(http, f"answered {http.status} without a picture")


def _picture(item: Mapping[str, Any], base: str) -> Link | Inline | None:
    said = item.get("revised_prompt")
    revised = encodable(said) if isinstance(said, str) else None
    for field in ("b64_json", "url"):
        value = item.get(field)
        if not isinstance(value, str) or not value:
            continue
        if value.startswith("data:"):  # as one vendor's SDK expects it: data:image/png;base64,…
            return Inline(value.partition("base64,")[2], revised)
        if field == "b64_json":
            return Inline(value, revised)
        return Link(_absolute(encodable(value), base), revised)
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


def _refusal(http: HttpAnswer, envelope: Envelope, now: float, status: int | None = None) -> RequestError:
    """Give the fate of an HTTP error: by its code first, since money and moderation come under many statuses.

    `status` is what the body says that HTTP did not.
    """
    status = status or http.status
    wait = pause(status, http.headers, envelope.message, now)
    kind = _fate_of_words(status, envelope, wait, http.headers) or _fate_of_status(status)
    if wait is not None and wait > LONGEST_PAUSE:
        if kind in {RateLimited, ServerFault}:
            kind = PausedTooLong
        else:  # behind a gateway the call may have gone on: that fate weighs more, and our own backoff holds
            wait = None
    return _error(kind, http, envelope, wait)


def _hidden_error(http: HttpAnswer, envelope: Envelope, now: float) -> RequestError:
    """Give the fate of an error that came as a success: what its words leave open may have been billed."""
    if envelope.words & _PACE or (not envelope.words and _SAYS_PACE.search(envelope.message)):
        return _refusal(http, envelope, now, 429)
    if re.fullmatch(r"4\d\d", envelope.code or ""):  # gateways put the status into the body
        return _refusal(http, envelope, now, int(envelope.code or 0))
    kind = _fate_of_words(http.status, envelope, None, http.headers) or (
        Invalid if envelope.words & _FORM else Unusable
    )
    return _error(kind, http, envelope, None)


def _error(kind: type[RequestError], http: HttpAnswer, envelope: Envelope, wait: float | None) -> RequestError:
    error = kind(
        _sentence(kind, http, envelope.message),
        http_status=http.status,
        type=envelope.type,
        code=envelope.code,
        param=envelope.param,
        request_id=http.request_id,
        retry_after=wait,
    )
    if isinstance(error, RateLimited) and envelope.type != "tokens":
        error.limit = image_limit(http.headers, envelope.message)
    return error


def _fate_of_words(
    status: int, envelope: Envelope, wait: float | None, headers: Mapping[str, str]
) -> type[RequestError] | None:
    words, message = envelope.words, envelope.message
    if words & _QUOTA or status == 402:
        return QuotaSpent
    if status == 429 and zero_limit(headers, message):
        return QuotaSpent
    if status == 429 and wait is None and not words & _PACE and _SAYS_QUOTA.search(message):
        return QuotaSpent
    if words & _MODERATION:
        return Moderated
    if words & _MODEL and status in {200, 400, 403, 404, 410}:
        return ModelUnknown
    if status == 404 and (envelope.param == "model" or _SAYS_MODEL.search(message)):
        return ModelUnknown
    if "invalid_api_key" in words or (status == 400 and _SAYS_KEY.search(message)):
        return KeyRefused
    return None


def _fate_of_status(status: int) -> type[RequestError]:
    match status:
        case 401 | 403:
            return KeyRefused
        case 404:
            return WrongAddress
        case 408 | 409 | 425:
            return ServerFault
        case 429:
            return RateLimited
        case 502 | 504:  # a gateway's: behind it the call may have gone on
            return OutcomeUnknown
        case _ if 520 <= status < 530:  # Cloudflare's: the same
            return OutcomeUnknown
        case _ if status >= 500:
            return ServerFault
        case _ if status < 400:
            return WrongAddress
    return Invalid


_ADVICE: dict[type[RequestError], str] = {
    KeyRefused: "check the key and what its organization may use",
    QuotaSpent: "check the plan, the balance and the limits of the account",
    WrongAddress: "check `base_url`",
    ModelUnknown: "check `model`",
    PausedTooLong: "run again then",
}


def _sentence(kind: type[RequestError], http: HttpAnswer, message: str) -> str:
    target = http.headers.get("location") if 300 <= http.status < 400 else None
    said = f"redirects to {plain(target.partition('?')[0], 200)}" if target else message or "no reason given"
    advice = _ADVICE.get(kind)
    return f"{said} ({advice})" if advice else said


def _unusable(http: HttpAnswer, what: str) -> Unusable:
    return Unusable(f"the server {what}", http_status=http.status, request_id=http.request_id)
