"""Usage and costs: the sandbox's own books, and the client that reads them page by page."""

from __future__ import annotations

import contextlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.client import usage
from pipeline.client.organization import open_admin_session
from pipeline.client.usage import DAY, MINUTE, InvoiceLine, UsageClient, UsedImages
from pipeline.errors import KeyRefused, RateLimited, Unusable
from tests.support.sandbox_client import Caller, Time, calling
from tests.support.scripted_server import response, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEY = "sk-admin-0123456789"
START = 1_800_000_000 // DAY * DAY


@contextlib.asynccontextmanager
async def reading(base_url: str, *, key: str = KEY, project: str | None = None) -> AsyncIterator[UsageClient]:
    async with open_admin_session(base_url, key, timeout=10) as session:
        yield UsageClient(session, project)


async def _buy(caller: Caller, at: float, **parameters: Any) -> None:
    caller.time.now = at
    assert (await caller.generate(**parameters)).status == 200


async def test_usage_counts_images_by_kind_and_minute_and_costs_by_day(tmp_path: Path) -> None:
    async with calling(tmp_path, Time(START + 30.0), rate_limit=None) as caller:
        await _buy(caller, START + 30, n=2)
        await _buy(caller, START + 59)
        await _buy(caller, START + 60, size="512x512")
        await _buy(caller, START + 3 * DAY, model="dall-e-3", size="1024x1024")
        caller.time.now += MINUTE
        async with reading(caller.sandbox.base_url) as client:
            minutes = await client.images(START, START + MINUTE * 2, MINUTE)
            days = await client.images(START, START + 9 * DAY, DAY)
            costs = await client.costs(START, START + 9 * DAY)
    assert minutes == [
        UsedImages(START, "dall-e-2", "256x256", "image.generation", 3),
        UsedImages(START + 60, "dall-e-2", "512x512", "image.generation", 1),
    ]
    assert [(one.start, one.model, one.images) for one in days] == [
        (START, "dall-e-2", 3),
        (START, "dall-e-2", 1),
        (START + 3 * DAY, "dall-e-3", 1),
    ]
    assert costs == [
        InvoiceLine(START, "dall-e-2 image, output", Decimal("0.066")),
        InvoiceLine(START + 3 * DAY, "dall-e-3 image, output", Decimal("0.04")),
    ]


async def test_many_minutes_come_in_pages(tmp_path: Path) -> None:
    async with calling(tmp_path, Time(float(START)), rate_limit=None) as caller:
        for minute in (0, 1439, 1440, 3000):
            await _buy(caller, START + minute * MINUTE)
        caller.time.now += 1
        async with reading(caller.sandbox.base_url) as client:
            minutes = await client.images(START, START + 4000 * MINUTE, MINUTE)
    assert [(one.start - START) // MINUTE for one in minutes] == [0, 1439, 1440, 3000]


async def test_a_project_has_only_its_own_and_the_spool_keeps_all(tmp_path: Path) -> None:
    for number in (1, 2):
        async with calling(tmp_path, Time(float(START)), rate_limit=None) as caller:
            await _buy(caller, START + number)
            caller.time.now += 1
            async with reading(caller.sandbox.base_url, project="proj_sandbox") as client:
                found = [one.images for one in await client.images(START, START + DAY, DAY)]
            async with reading(caller.sandbox.base_url, project="proj_other") as client:
                assert await client.images(START, START + DAY, DAY) == []
                assert await client.costs(START, START + DAY) == []
        assert found == [number]


async def test_the_sandbox_groups_filters_and_refuses_as_it_is_asked(tmp_path: Path) -> None:
    async with calling(tmp_path, Time(float(START)), rate_limit=None) as caller:
        await _buy(caller, START + 1)
        await _buy(caller, START + 2, size="512x512")
        caller.time.now += 1
        caller.headers = {"Authorization": f"Bearer {KEY}"}

        async def ask(query: str) -> Any:
            return await caller.call("GET", f"/organization/{query}")

        plain = (await ask(f"usage/images?start_time={START}")).json["data"][0]["results"]
        assert [(one["images"], one["num_model_requests"], one["size"]) for one in plain] == [(2, 2, None)]
        sized = f"usage/images?start_time={START}&group_by=size&group_by=api_key_id&sizes=512x512"
        (row,) = (await ask(sized)).json["data"][0]["results"]
        assert (row["images"], row["size"], row["api_key_id"][:4]) == (1, "512x512", "key_")
        (bucket,) = (await ask(f"costs?start_time={START}")).json["data"]
        assert bucket["results"][0]["amount"] == {"value": "0.0340000000", "currency": "usd"}
        for query in (
            "usage/images",
            f"usage/images?start_time={START}&bucket_width=2m",
            f"usage/images?start_time={START}&group_by=colour",
            f"usage/images?start_time={START}&limit=32",
            f"costs?start_time={START}&bucket_width=1h",
            f"costs?start_time={START}&group_by=model",
        ):
            assert (await ask(query)).status == 400, query
        caller.headers = {"Authorization": "Bearer sk-project"}
        assert (await ask(f"costs?start_time={START}")).status == 403


def _page(*results: Any, **more: Any) -> dict[str, Any]:
    return {"object": "page", "data": [{"start_time": 60, "results": list(results)}], "has_more": False, **more}


ROW = {"images": 1.0, "model": "m", "size": None, "source": "image.edit"}


async def test_a_call_is_tried_again_as_long_as_the_service_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "_LONGEST_WAIT", 0.05)
    busy, broken = response(429, {"error": {"message": "slow down"}}, "Retry-After: 0.01"), response(500, b"")
    async with scripted(busy, broken, response(200, _page(ROW))) as server, reading(server.url) as client:
        assert await client.images(0, 60, MINUTE) == [UsedImages(60, "m", None, "image.edit", 1)]
    assert len({request.line for request in server.requests}) == 1
    asked = server.requests[0].line
    for part in ("start_time=0", "end_time=60", "bucket_width=1m", "limit=1440", "group_by%5B%5D=size"):
        assert part in asked or part.replace("%5B%5D", "[]") in asked, asked
    async with scripted(busy) as server, reading(server.url) as client:
        with pytest.raises(RateLimited):
            await client.images(0, 60, MINUTE)
    assert len(server.requests) == 6


async def test_a_key_that_is_no_admin_key_is_refused_at_once(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller, reading(caller.sandbox.base_url, key="sk-project") as client:
        with pytest.raises(KeyRefused):
            await client.costs(START, START + DAY)


@pytest.mark.parametrize(
    "body",
    [
        {"data": None},
        {"data": [1]},
        _page({"images": "many"}),
        _page({"images": True}),
        _page({"images": -1}),
        _page(ROW, has_more=True, next_page="page_1"),
        _page(ROW, has_more=True, next_page=7),
    ],
)
async def test_usage_that_cannot_be_understood_is_not_taken_for_none(
    monkeypatch: pytest.MonkeyPatch, body: dict[str, Any]
) -> None:
    monkeypatch.setattr(usage, "_TRIES", 1)
    async with scripted(response(200, body)) as server, reading(server.url) as client:
        with pytest.raises(Unusable):
            await client.images(0, 60, MINUTE)


@pytest.mark.parametrize(
    ("amount", "usd"),
    [
        ({"value": "2.1072", "currency": "usd"}, "2.1072"),
        ({"value": 0.06, "currency": "USD"}, "0.06"),
        ({"value": "-1.5", "currency": "usd"}, "-1.5"),
        ({"value": "2.10", "currency": "eur"}, None),
        ({"value": "much", "currency": "usd"}, None),
        ({"value": "NaN"}, None),
        ({"value": True, "currency": "usd"}, None),
        (None, None),
    ],
)
async def test_amounts_are_numbers_or_texts_in_us_dollars(
    monkeypatch: pytest.MonkeyPatch, amount: Any, usd: str | None
) -> None:
    monkeypatch.setattr(usage, "_TRIES", 1)
    async with scripted(response(200, _page({"amount": amount}))) as server, reading(server.url) as client:
        if usd is None:
            with pytest.raises(Unusable):
                await client.costs(0, 60)
        else:
            assert await client.costs(0, 60) == [InvoiceLine(60, None, Decimal(usd))]
