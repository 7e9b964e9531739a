"""An HTTP answer → the pictures in it, or the error whose class is the request's fate.

The facts stand in OpenAI's error-code and rate-limit guides; where servers differ, the widest reading is taken.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

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

LONGEST_PAUSE = 3600.0
"""Seconds that a server may ask us to wait; for more, a person decides."""

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
_PACE = frozenset({"rate_limit_exceeded", "slow_down", "rate_limit_error"})
_FORM = frozenset({"invalid_request_error", "invalid_value", "unknown_parameter", "invalid_image", "invalid_size"})


@dataclass(frozen=True, slots=True)
class Link:
    """A picture that is to be downloaded. `expires_at` is None where the answer does not say it."""

    url: str
    revised_prompt: str | None


@dataclass(frozen=True, slots=True)
class Inline:
    """A picture that came along, in base64."""

    base64: str
    revised_prompt: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a success answer brought. `skew` is the server's clock minus ours, in seconds."""

    http_status: int
    request_id: str | None
    pictures: tuple[Link | Inline, ...]
    moderated: int
    usage: Mapping[str, Any] | None
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
        return self.headers.get("x-request-id") or self.headers.get("apim-request-id")


def read_answer(http: HttpAnswer, now: float | None = None) -> Answer:
    """Read the pictures out of an answer. Raises the RequestError whose class is the request's fate."""
    now = time.time() if now is None else now
    if not 200 <= http.status < 300:
        raise _refusal(http, _envelope(http.body), now)
    try:
        body = json.loads(http.body)
    except (ValueError, RecursionError):
        raise _unusable(http, f"answered {http.status} with what is no JSON") from None
    if isinstance(body, dict) and body.get("error"):
        raise _hidden_error(http, _envelope_of(body), now)
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise _unusable(http, f"answered {http.status} without a list of pictures")
    pictures = tuple(picture for item in data if (picture := _picture(item, http.url)))
    moderated = sum(_is_moderated(item) for item in data)
    if not pictures and not moderated:
        raise _unusable(http, f"answered {http.status} without a picture")
    usage = body.get("usage")
    return Answer(
        http.status, http.request_id, pictures, moderated, usage if isinstance(usage, dict) else None, _skew(http, now)
    )


def _picture(item: Mapping[str, Any], base: str) -> Link | Inline | None:
    revised = item.get("revised_prompt")
    revised = revised if isinstance(revised, str) else None
    for field in ("b64_json", "url"):
        value = item.get(field)
        if not isinstance(value, str) or not value:
            continue
        if value.startswith("data:"):  # as one vendor's SDK expects it: data:image/png;base64,…
            return Inline(value.partition("base64,")[2], revised)
        if field == "b64_json":
            return Inline(value, revised)
        return Link(value if "://" in value else urljoin(base, value), revised)
    return None


def _is_moderated(item: Mapping[str, Any]) -> bool:
    """Say whether the service withheld this picture: HTTP 200, yet neither URL nor base64 (xAI's documentation)."""
    return item.get("respect_moderation") is False and not item.get("url") and not item.get("b64_json")


@dataclass(frozen=True, slots=True)
class _Envelope:
    message: str
    type: str | None
    code: str | None
    param: str | None

    @property
    def words(self) -> set[str]:
        """Type and code, the stable discriminators, in small letters."""
        return {word.lower() for word in (self.type, self.code) if word}


def _envelope(body: bytes) -> _Envelope:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        text = re.sub(r"<[^>]*>|\s+", " ", body[:4000].decode("utf-8", "replace"))
        return _Envelope(re.sub(r"\s+", " ", text).strip()[:300], None, None, None)
    return _envelope_of(value)


def _envelope_of(value: Any) -> _Envelope:
    """Find the error in the vendor's envelope, FastAPI's {"detail"}, or what stands in for them."""
    error = value.get("error", value.get("detail", value)) if isinstance(value, dict) else value
    if isinstance(error, str):
        return _Envelope(error[:2000], _text(value.get("type")), _text(value.get("code")), None)
    if not isinstance(error, dict):
        return _Envelope(json.dumps(error)[:2000], None, None, None)
    message = error.get("message") or error.get("detail") or error.get("msg") or json.dumps(error)
    return _Envelope(str(message)[:2000], _text(error.get("type")), _text(error.get("code")), _text(error.get("param")))


def _text(value: Any) -> str | None:
    return str(value)[:200] if isinstance(value, str | int) and not isinstance(value, bool) else None


def _refusal(http: HttpAnswer, envelope: _Envelope, now: float) -> RequestError:
    """Give the fate of an HTTP error: by its code first, since money and moderation come under many statuses."""
    by_code = _fate_of_words(http.status, envelope)
    pause = _pause(http.headers, envelope.message, now)
    kind = by_code or _fate_of_status(http.status)
    if kind is RateLimited and _zero_limit(envelope.message):
        kind = QuotaSpent
    if kind in {RateLimited, ServerFault} and pause is not None and pause > LONGEST_PAUSE:
        kind = PausedTooLong
    return kind(
        _sentence(kind, http, envelope.message),
        http_status=http.status,
        type=envelope.type,
        code=envelope.code,
        param=envelope.param,
        request_id=http.request_id,
        retry_after=pause,
    )


def _hidden_error(http: HttpAnswer, envelope: _Envelope, now: float) -> RequestError:
    """Give the fate of an error that came as a success: what its words leave open may have been billed."""
    if envelope.words & _PACE:
        return _refusal(HttpAnswer(429, http.headers, http.body, http.url), envelope, now)
    kind = _fate_of_words(http.status, envelope) or (Invalid if envelope.words & _FORM else Unusable)
    return kind(
        _sentence(kind, http, envelope.message),
        http_status=http.status,
        type=envelope.type,
        code=envelope.code,
        param=envelope.param,
        request_id=http.request_id,
    )


def _fate_of_words(status: int, envelope: _Envelope) -> type[RequestError] | None:
    words = envelope.words
    if words & _QUOTA or status == 402:
        return QuotaSpent
    if words & _MODERATION:
        return Moderated
    if words & _MODEL and status in {200, 400, 403, 404}:
        return ModelUnknown
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
        case 502 | 504 | 520 | 521 | 522 | 523 | 524:  # a gateway's: behind it the call may have gone on
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
    said = message or {301: "redirect", 302: "redirect", 307: "redirect", 308: "redirect"}.get(
        http.status, "no reason given"
    )
    target = http.headers.get("location")
    said = f"redirects to {target.partition('?')[0]}" if 300 <= http.status < 400 and target else said
    advice = _ADVICE.get(kind)
    return f"{said} ({advice})" if advice else said


def _unusable(http: HttpAnswer, what: str) -> Unusable:
    return Unusable(f"the server {what}", http_status=http.status, request_id=http.request_id)


def _zero_limit(message: str) -> bool:
    """Say whether an account has a limit of nothing; such a 429 offers a wait of 0 seconds for ever."""
    return bool(re.search(r"\blimit:?\s*0(?:\.0+)?\s*(?:/|,|$|\.\s)", message, re.IGNORECASE))


_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", re.IGNORECASE)
_HINT = re.compile(
    r"(?:try again|retry)\s+(?:in|after)\s+((?:\d+(?:\.\d+)?\s*(?:milliseconds?|seconds?|minutes?|hours?|ms|s|m|h)\s*)+)",
    re.IGNORECASE,
)


def _pause(headers: Mapping[str, str], message: str, now: float) -> float | None:
    """Give the seconds that the server asks us to wait, or None. What it says in its message counts too, the longer wins."""
    stated = [pause for pause in (_retry_after(headers, now), _hint(message)) if pause is not None]
    if stated:
        return max(stated)
    resets = [
        duration(headers[name])
        for name in ("x-ratelimit-reset-images", "x-ratelimit-reset-requests")
        if name in headers
    ]
    return max((reset for reset in resets if reset is not None), default=None)


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Read `retry-after-ms`, then `Retry-After` as seconds or as an HTTP date (against the server's own clock)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            value = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= value < float("inf"):
            return value
    date = _date(headers.get("retry-after"))
    if date is None:
        return None
    return max(0.0, date - (_date(headers.get("date")) or now))


def _hint(message: str) -> float | None:
    found = _HINT.search(message)
    if not found:
        return None
    text = re.sub(r"(?i)milliseconds?", "ms", found[1])
    return duration(re.sub(r"(?i)\s*(s|m|h)(?:econds?|inutes?|ours?)", r"\1", text))


def duration(text: str) -> float | None:
    """Read a duration as the rate-limit headers write it: 1s, 6m0s, 120ms. Seconds; None where it is none."""
    parts = _DURATION.findall(text)
    return sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts) if parts else None


def _date(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _skew(http: HttpAnswer, now: float) -> float:
    """Give the server's clock minus ours; under two seconds it is the header's own coarseness, not skew."""
    date = _date(http.headers.get("date"))
    skew = 0.0 if date is None else date - now
    return skew if abs(skew) > 2 else 0.0
