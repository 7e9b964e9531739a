"""Client of an organization's usage and costs: the images that were made by the minute, and costs by the day."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from pipeline.backoff import Backoff
from pipeline.client.limits import OBJECT_BYTES
from pipeline.client.response import read_object
from pipeline.errors import TryAgain, Unusable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from pipeline.client.session import ApiSession

MINUTE, DAY = 60, 86400
_WIDTHS = {MINUTE: ("1m", "1440"), DAY: ("1d", "31")}  # with the most buckets of a page
_MOST_PAGES = 5000
_TRIES = 6
_LONGEST_WAIT = 60.0  # seconds: a rate limit of this API may ask for a minute
_MOST_IMAGES = 10**9
_MOST_ROWS = 100_000  # of one page


@dataclass(frozen=True, slots=True)
class UsedImages:
    """Images of one kind that were made within a bucket, which begins at `start`; None if a dimension is not stated."""

    start: int
    model: str | None
    size: str | None
    source: str | None
    images: int


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """What was charged on a day of UTC, which begins at `start`, for one line of the invoice; in USD."""

    start: int
    line_item: str | None
    usd: Decimal


class UsageClient:
    """Makes the calls of usage and costs in the session of an admin key; `project` limits both to one project.

    A call is tried again after an error that may pass, as long as the service asks. Raises the RequestError of the
    last one: KeyRefused for a key that is no admin key, Unusable for what cannot be understood.
    """

    def __init__(self, session: ApiSession, project: str | None = None) -> None:
        self._session = session
        self._only = [("project_ids[]", project)] if project else []

    async def images(self, start: int, end: int, width: int) -> list[UsedImages]:
        """Return what was made between two moments, in buckets of `MINUTE` or `DAY`."""
        word, most = _WIDTHS[width]
        groups = [("group_by[]", name) for name in ("model", "size", "source")]
        query = [("start_time", str(start)), ("end_time", str(end)), ("bucket_width", word), ("limit", most), *groups]
        return [
            UsedImages(at, _text(row, "model"), _text(row, "size"), _text(row, "source"), images)
            async for at, row in self._rows("usage/images", query)
            if (images := _count(row.get("images")))
        ]

    async def costs(self, start: int, end: int) -> list[InvoiceLine]:
        """Return what was charged on the days between two moments, for each line of the invoice."""
        query = [("start_time", str(start)), ("end_time", str(end)), ("bucket_width", "1d"), ("limit", "180")]
        return [
            InvoiceLine(at, _text(row, "line_item"), _usd(row.get("amount")))
            async for at, row in self._rows("costs", [*query, ("group_by[]", "line_item")])
        ]

    async def _rows(self, path: str, query: list[tuple[str, str]]) -> AsyncIterator[tuple[int, Mapping[str, Any]]]:
        """Yield the results of all pages, each with the beginning of its bucket. Raises Unusable if they do not end."""
        page: str | None = None
        known = set[str]()
        for _ in range(_MOST_PAGES):
            body = await self._get(path, [*query, *([("page", page)] if page else [])])
            for bucket in _list(body, "data"):
                start = _count(bucket.get("start_time"), most=2**40)
                for row in _list(bucket, "results"):
                    yield start, row
            page = body.get("next_page") if body.get("has_more") else None
            if not page:
                return
            if not isinstance(page, str) or page in known:
                break
            known.add(page)
        raise Unusable(f"the pages of {path} do not end")

    async def _get(self, path: str, query: list[tuple[str, str]]) -> dict[str, Any]:
        url = self._session.url(f"organization/{path}", {}).with_query([*query, *self._only])
        backoff = Backoff(1.0, _LONGEST_WAIT)
        for left in range(_TRIES - 1, -1, -1):
            try:
                return read_object(await self._session.request("GET", url, max_bytes=OBJECT_BYTES))
            except TryAgain as error:
                wait = backoff.next() if error.retry_after is None else error.retry_after
                if not left or wait > _LONGEST_WAIT:
                    raise
            await asyncio.sleep(wait)
        raise AssertionError("the last try returns or raises")


def _list(value: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return a list of objects. Raises Unusable."""
    found = value.get(name)
    if not isinstance(found, list) or len(found) > _MOST_ROWS or not all(isinstance(row, dict) for row in found):
        raise Unusable(f"the admin API answered without a list `{name}`")
    return found


def _text(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    return value[:200] if isinstance(value, str) and value else None


def _count(value: Any, most: int = _MOST_IMAGES) -> int:
    """Return a whole number. Raises Unusable."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise Unusable("the admin API answered with a number that is none")
    return int(value)


def _usd(amount: Any) -> Decimal:
    """Return an amount, which is a number or a text. Raises Unusable for another currency than US dollars."""
    value, currency = (amount.get("value"), amount.get("currency")) if isinstance(amount, dict) else (None, None)
    if isinstance(currency, str) and currency.lower() != "usd":
        raise Unusable(f"the admin API answered with costs in {currency[:20]}, and not in US dollars")
    try:
        usd = Decimal(str(value))
    except InvalidOperation:
        usd = Decimal("NaN")
    if isinstance(value, bool) or not usd.is_finite():
        raise Unusable("the admin API answered with an amount that is no number")
    return usd
