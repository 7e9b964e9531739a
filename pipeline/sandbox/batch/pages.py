"""Cut a list into pages: `after`, `limit` and `order` of a query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.sandbox.responses import json_response
from pipeline.sandbox.rules.fields import Choice, Integer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.sandbox.api_errors import ApiError
    from pipeline.sandbox.responses import Response

ORDER: Final = Choice(("asc", "desc"))


def page_size(query: Mapping[str, str], usual: int, most: int) -> int:
    """Return how many objects a page has. Raises ApiError."""
    return Integer(1, most).parse("limit", query["limit"], from_text=True) if "limit" in query else usual


def order_of(query: Mapping[str, str]) -> str:
    """Return the order of a list. Raises ApiError."""
    return ORDER.parse("order", query.get("order", "desc"), from_text=True)


def page_of(
    objects: Sequence[Mapping[str, object]], after: str | None, limit: int, missing: Callable[[str], ApiError]
) -> Response:
    """Return the page that begins behind the object with the id `after`; `missing` is the error if there is none."""
    ids = [item["id"] for item in objects]
    if after is not None and after not in ids:
        raise missing(after)
    start = 0 if after is None else ids.index(after) + 1
    page = objects[start : start + limit]
    return json_response(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": start + limit < len(objects),
        }
    )
