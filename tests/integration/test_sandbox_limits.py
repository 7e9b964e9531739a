"""Rate limit, quota, concurrency and the request log over real sockets."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.support.sandbox_client import calling, png

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_spent_quota_refuses_every_call(tmp_path: Path) -> None:
    async with calling(tmp_path, quota_images=3) as caller:
        assert (await caller.generate(n=3)).status == 200
        refused = await caller.generate()
        assert (refused.status, refused.error["type"]) == (429, "insufficient_quota")
        assert refused.error["code"] == "insufficient_quota"
        assert "Retry-After" not in refused.headers


async def test_the_fifty_first_image_of_a_minute_is_refused_until_its_retry_after(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        for _ in range(5):
            assert (await caller.generate(n=10)).status == 200
        caller.time.now += 10.5
        refused = await caller.generate()
        assert refused.status == 429
        assert refused.error["code"] == "rate_limit_exceeded"
        assert refused.error["type"] == "requests"
        assert "Limit: 50/1min. Current: 51/1min. Please try again in 49.5s." in refused.error["message"]
        assert refused.headers["Retry-After"] == "50"
        assert refused.headers["retry-after-ms"] == "49500"
        assert refused.headers["x-ratelimit-limit-images"] == "50"
        assert refused.headers["x-ratelimit-remaining-images"] == "0"
        assert refused.headers["x-ratelimit-reset-images"] == "49.5s"
        caller.time.now += 49.499
        assert (await caller.generate()).status == 429
        caller.time.now += 0.001
        assert (await caller.generate()).status == 200


async def test_the_rate_limit_counts_invalid_calls_and_not_those_that_it_refused(tmp_path: Path) -> None:
    async with calling(tmp_path, rate_limit={"images": 3, "per_seconds": 60}) as caller:
        assert (await caller.generate(n=4)).status == 429, "four images never pass a limit of three"
        assert (await caller.generate(size="1x1")).status == 400
        assert (await caller.generate(prompt="forbidden")).status == 400
        assert (await caller.generate()).status == 200
        assert (await caller.generate()).status == 429


async def test_a_body_that_cannot_be_read_counts_as_one_image(tmp_path: Path) -> None:
    async with calling(tmp_path, rate_limit={"images": 1, "per_seconds": 60}) as caller:
        headers = {**caller.headers, "Content-Type": "application/json"}
        assert (await caller.call("POST", "/images/generations", data=b"{", headers=headers)).status == 400
        assert (await caller.generate()).status == 429


async def test_the_rate_limit_error_of_an_edit_names_input_images(tmp_path: Path) -> None:
    async with calling(tmp_path, rate_limit={"images": 0, "per_seconds": 60}) as caller:
        refused = await caller.upload("/images/edits", [("image", png(), "image/png")], prompt="x")
        assert (refused.status, refused.error["type"]) == (429, "input-images")


async def test_simultaneous_calls_never_exceed_the_window(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        replies = await asyncio.gather(*(caller.generate(n=1 + k % 3) for k in range(60)))
        assert Counter(reply.status for reply in replies)[429] > 0
        accepted = [entry["n"] for entry in caller.entries("call") if entry["status"] == 200]
        assert 48 <= sum(accepted) <= 50


async def test_hundreds_of_calls_in_flight_take_the_latency_of_one(tmp_path: Path) -> None:
    async with calling(tmp_path, rate_limit=None, latency_seconds=[0.5, 0.5]) as caller:
        loop = asyncio.get_running_loop()
        start = loop.time()
        replies = await asyncio.gather(*(caller.generate() for _ in range(400)))
        assert {reply.status for reply in replies} == {200}
        assert 0.5 <= loop.time() - start < 0.1 * 400 * 0.5, "a tenth of what they would take one after the other"
        ids = [reply.headers["x-request-id"] for reply in replies]
        assert len(set(ids)) == 400


async def test_the_log_has_every_call_in_order_of_arrival(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        await asyncio.gather(*(caller.generate() for _ in range(20)))
        arrivals = [entry["mono"] for entry in caller.entries("call")]
        assert len(arrivals) == 20
        assert all(early <= late for early, late in pairwise(arrivals))
