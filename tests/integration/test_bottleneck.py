"""One word says what binds: limit, provider, downloads, disk, or a pause with its end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from pipeline.config.load import Provider, RateLimit
from pipeline.engine import image_writer
from pipeline.engine import runner as module
from tests.integration.test_dispatcher import Door
from tests.support.workbench import answer_with, lab, request, until, vendor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from pipeline.engine.events import ProviderPace
    from tests.support.workbench import Bench, Body


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)


@contextlib.asynccontextmanager
async def at_work(bench: Bench, provider: Provider, count: int = 3) -> AsyncIterator[None]:
    """Have requests worked while the block lasts."""
    bench.submit(*(request(number) for number in range(count)), provider=provider)
    runner = bench.runner(provider)
    run = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        runner.halt()
        await run


async def bound(bench: Bench, by: str) -> ProviderPace:
    """Wait until this binds, and give what is said then."""
    await until(lambda: bench.paces and bench.paces[-1].bottleneck == by)
    return bench.paces[-1]


async def test_who_waits_for_answers_is_bound_by_the_provider(bench: Bench) -> None:
    door = Door()
    async with vendor(door) as base_url, at_work(bench, lab(base_url)):
        pace = await bound(bench, "provider")
        assert (pace.provider, pace.images, pace.per_seconds, pace.until) == ("lab", None, None, None)
        door.open.set()
    assert bench.paces[0].bottleneck == bench.paces[-1].bottleneck == "", "before its first request and after its last"


async def test_who_waits_for_a_turn_is_bound_by_the_limit_in_force(bench: Bench) -> None:
    door = Door()
    door.open.set()
    async with vendor(door) as base_url, at_work(bench, lab(base_url, rate_limit=RateLimit(2, 100))):
        pace = await bound(bench, "limit")
        assert (pace.images, pace.per_seconds) == (2, 100)


async def test_a_pause_is_said_with_its_end(bench: Bench) -> None:
    async def refuse(_body: Body) -> web.StreamResponse:
        return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "900"})

    async with vendor(refuse) as base_url, at_work(bench, lab(base_url)):
        pace = await bound(bench, "paused")
        assert pace.until == pytest.approx(time.time() + 900, abs=60)


async def test_who_waits_for_another_try_is_bound_by_the_provider(bench: Bench) -> None:
    async def fail(_body: Body) -> web.StreamResponse:
        return web.json_response({"error": {"message": "busy"}}, status=503, headers={"Retry-After": "900"})

    async with vendor(fail) as base_url, at_work(bench, lab(base_url), 1):
        await until(lambda: bench.events and type(bench.events[-1]).__name__ == "Retrying")
        await asyncio.sleep(0.1)  # several looks; else it would count as work at the disk
        assert bench.paces[-1].bottleneck == "provider"


async def test_pictures_that_do_not_come_bind_and_the_nearest_death_is_said(bench: Bench) -> None:
    dies = [time.time() + 3000, time.time() + 2000]

    async def answer(body: Body) -> web.StreamResponse:
        moment = datetime.fromtimestamp(dies[body["prompt"] == "prompt 1"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return answer_with({"url": f"http://127.0.0.1:9/gone.png?se={moment}"})

    async with vendor(answer) as base_url, at_work(bench, lab(base_url), 2):
        await until(lambda: bench.paces and bench.paces[-1].downloads == 2)
        pace = bench.paces[-1]
        assert pace.bottleneck == "downloads"
        assert pace.expires_at == pytest.approx(dies[1], abs=1)


async def test_files_that_are_slow_to_write_are_the_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    written, inner = threading.Event(), image_writer._validate_and_store

    def slow(*arguments: Any) -> Any:
        written.wait()
        return inner(*arguments)

    monkeypatch.setattr(image_writer, "_validate_and_store", slow)
    door = Door()
    door.open.set()
    async with vendor(door) as base_url, at_work(bench, lab(base_url)):
        try:
            await bound(bench, "disk")
        finally:
            written.set()


async def test_what_has_not_changed_is_not_said_again(bench: Bench) -> None:
    door = Door()
    async with vendor(door) as base_url, at_work(bench, lab(base_url)):
        await bound(bench, "provider")
        said = len(bench.paces)
        await asyncio.sleep(0.1)
        assert len(bench.paces) == said
        door.open.set()
