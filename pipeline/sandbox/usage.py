"""Serve `/v1/organization/usage/images` and `/v1/organization/costs` from the sandbox's own books.

A bucket is a minute, an hour or a day of UTC; one without a charge is there, too. Amounts are texts, as the service
sends them since 2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox.responses import json_response
from pipeline.sandbox.rules.fields import Choice, Integer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from multidict import MultiMapping

    from pipeline.sandbox.charges import Charge
    from pipeline.sandbox.responses import Response
    from pipeline.sandbox.service import Service

WIDTHS: Final = {"1m": 60, "1h": 3600, "1d": 86400}
PAGES: Final = {"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)}
"""Buckets of a page of usage: how many it has if the query does not say, and how many at most."""
COST_PAGE: Final = (7, 180)
USAGE_GROUPS: Final = ("project_id", "user_id", "api_key_id", "model", "size", "source")
USAGE_FILTERS: Final = {"sources": "source", "sizes": "size", "models": "model", "project_ids": "project_id"}
COST_GROUPS: Final = ("project_id", "line_item", "api_key_id")
KEY_FILTERS: Final = {"user_ids": "user_id", "api_key_ids": "api_key_id"}
EPOCH_END: Final = 2**40


@dataclass(frozen=True, slots=True)
class _Query:
    """What is asked: moments in seconds since 1970, by which dimensions charges are grouped and filtered."""

    first: int  # the beginning of the first bucket of the page
    start: int
    end: float
    width: int
    buckets: int
    groups: tuple[str, ...]
    filters: dict[str, set[str]]


def serve_image_usage(service: Service, query: MultiMapping[str]) -> Response:
    """Answer `usage/images`. Raises ApiError."""
    word = Choice(tuple(WIDTHS)).parse("bucket_width", query.get("bucket_width", "1d"), from_text=True)
    asked = _read(service, query, WIDTHS[word], PAGES[word], USAGE_GROUPS, {**USAGE_FILTERS, **KEY_FILTERS})

    def result(values: dict[str, str | None], charges: Sequence[Charge]) -> dict[str, object]:
        images, calls = sum(charge.images for charge in charges), len(charges)
        return {
            "object": "organization.usage.images.result",
            "images": images,
            "num_model_requests": calls,
            **dict.fromkeys(USAGE_GROUPS),
            **values,
        }

    return _page(service, asked, result)


def serve_costs(service: Service, query: MultiMapping[str]) -> Response:
    """Answer `costs`. Raises ApiError."""
    Choice(("1d",)).parse("bucket_width", query.get("bucket_width", "1d"), from_text=True)
    filters = {"project_ids": "project_id", "api_key_ids": "api_key_id", "line_items": "line_item"}
    asked = _read(service, query, WIDTHS["1d"], COST_PAGE, COST_GROUPS, filters)

    def result(values: dict[str, str | None], charges: Sequence[Charge]) -> dict[str, object]:
        usd = sum(charge.cost_usd for charge in charges)
        counted = {"quantity": sum(charge.images for charge in charges), "quantity_unit": "images"}
        return {
            "object": "organization.costs.result",
            "amount": {"value": f"{usd:.10f}", "currency": "usd"},
            **dict.fromkeys(COST_GROUPS),
            **values,
            **(counted if values.get("line_item") else {"quantity": None, "quantity_unit": None}),
        }

    return _page(service, asked, result)


def _read(
    service: Service,
    query: MultiMapping[str],
    width: int,
    page: tuple[int, int],
    groups: Sequence[str],
    filters: dict[str, str],
) -> _Query:
    if "start_time" not in query:
        raise errors.missing_parameter("start_time")
    start = Integer(0, EPOCH_END).parse("start_time", query["start_time"], from_text=True)
    end = service.clock()
    if "end_time" in query:
        end = min(end, Integer(0, EPOCH_END).parse("end_time", query["end_time"], from_text=True))
    usual, most = page
    limit = Integer(1, most).parse("limit", query["limit"], from_text=True) if "limit" in query else usual
    by = tuple(dict.fromkeys(_values(query, "group_by")))
    for name in by:
        Choice(tuple(groups)).parse("group_by", name, from_text=True)
    first = start // width * width
    if "page" in query:
        first = Integer(0, EPOCH_END).parse("page", query["page"].removeprefix("page_"), from_text=True)
    wanted = {dimension: set(_values(query, name)) for name, dimension in filters.items() if _values(query, name)}
    return _Query(first, start, end, width, limit, by, wanted)


def _values(query: MultiMapping[str], name: str) -> list[str]:
    """Return the values of a list, written as the vendor's SDK does (name[]=a) or as its curl samples (name=a)."""
    return [*query.getall(f"{name}[]", []), *query.getall(name, [])]


def _page(
    service: Service, asked: _Query, result: Callable[[dict[str, str | None], Sequence[Charge]], dict[str, object]]
) -> Response:
    project, data = service.settings.organization.project, []
    last = min(asked.first + asked.buckets * asked.width, EPOCH_END)
    buckets: dict[int, dict[tuple[str | None, ...], list[Charge]]] = {}
    for charge in service.admission.charges.between(max(asked.first, asked.start), min(last, asked.end)):
        if all(charge.dimension(name, project) in wanted for name, wanted in asked.filters.items()):
            rows = buckets.setdefault(int(charge.at // asked.width) * asked.width, {})
            rows.setdefault(tuple(charge.dimension(name, project) for name in asked.groups), []).append(charge)
    start = asked.first
    while start < min(last, asked.end):
        found = buckets.get(start, {}).items()
        results = [result(dict(zip(asked.groups, by, strict=True)), charges) for by, charges in found]
        data.append({"object": "bucket", "start_time": start, "end_time": start + asked.width, "results": results})
        start += asked.width
    more = start < asked.end
    return json_response(
        {"object": "page", "data": data, "has_more": more, "next_page": f"page_{start}" if more else None}
    )
