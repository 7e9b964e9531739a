"""Read `batch:` of a provider: whether and within which bounds its Batch API is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.config.validation import find_number_fault

if TYPE_CHECKING:
    from pipeline.config.validation import Section

_KEYS = (
    *("discount", "most_requests", "most_bytes", "most_images", "most_output_bytes", "enqueued_tokens"),
    *("poll_seconds", "cancel_seconds", "expires_hours"),
)


@dataclass(frozen=True, slots=True)
class BatchRules:
    """The bounds of a provider's Batch API.

    A batch has at most `most_requests` lines in `most_bytes` for `most_images`, and its output is estimated at no more
    than `most_output_bytes`; one request may exceed a bound alone. The living batches of a model have `ENQUEUED_SHARE`
    of `enqueued_tokens` at most, any number if that is None. `poll_seconds` are the first and the longest interval.
    """

    discount: float = 0.5
    most_requests: int = 50_000
    most_bytes: int = 100_000_000
    most_images: int = 100
    most_output_bytes: int = 250_000_000
    enqueued_tokens: int | None = 1_000_000
    poll_seconds: tuple[float, float] = (60.0, 300.0)
    cancel_seconds: float = 600.0
    expires_hours: float = 24.0


ENQUEUED_SHARE = 0.8
"""How much of `enqueued_tokens` is used, since the service counts the tokens and this program estimates them."""

SANDBOX_BATCH_RULES = BatchRules(poll_seconds=(0.2, 1.0))


def read_batch_rules(section: Section, base_url: str | None, *, is_sandbox: bool) -> BatchRules | None:
    """Read `batch:` of a provider's section; None if the provider has no Batch API, as far as is known."""
    given = section.value.get("batch")
    if given is None and not is_sandbox and not _is_openai(base_url):
        return None
    rules = section.section("batch")
    rules.reject_unknown_keys(*_KEYS)
    default = SANDBOX_BATCH_RULES if is_sandbox else BatchRules()
    discount = rules.number("discount", default.discount, least=0)
    if discount > 1:
        rules.add_problem("discount", f"must be a share of the price, from 0 to 1, not {discount:g}")
    return BatchRules(
        discount=discount,
        most_requests=rules.integer("most_requests", default.most_requests, least=1),
        most_bytes=rules.integer("most_bytes", default.most_bytes, least=1),
        most_images=rules.integer("most_images", default.most_images, least=1),
        most_output_bytes=rules.integer("most_output_bytes", default.most_output_bytes, least=1),
        enqueued_tokens=_read_tokens(rules, default.enqueued_tokens),
        poll_seconds=_read_poll_seconds(rules, default.poll_seconds),
        cancel_seconds=rules.number("cancel_seconds", default.cancel_seconds, least=0),
        expires_hours=rules.number("expires_hours", default.expires_hours, least=0.001),
    )


def _is_openai(base_url: str | None) -> bool:
    url = urlsplit(base_url or "")
    return (url.scheme, url.hostname, url.path.rstrip("/")) == ("https", "api.openai.com", "/v1")


def _read_tokens(rules: Section, default: int | None) -> int | None:
    if "enqueued_tokens" in rules.value and rules.value["enqueued_tokens"] is None:
        return None
    return rules.integer("enqueued_tokens", default or 1, least=1)


def _read_poll_seconds(rules: Section, default: tuple[float, float]) -> tuple[float, float]:
    value = rules.value.get("poll_seconds")
    if value is None:
        return default
    if not isinstance(value, list) or len(value) != 2:
        rules.add_problem("poll_seconds", f"must be two numbers like [60, 300], not {value!r:.60}")
        return default
    for seconds in value:
        if fault := find_number_fault(seconds, 0.001):
            rules.add_problem("poll_seconds", f"each {fault}")
            return default
    if value[0] > value[1]:
        rules.add_problem("poll_seconds", "the first interval must not be longer than the second")
        return default
    return float(value[0]), float(value[1])
