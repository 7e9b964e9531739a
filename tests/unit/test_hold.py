"""No call is sent while a provider is held: by people, outside its window, and just after a sleep of the process."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest

from pipeline.config.load import RateLimit, RetryRules
from pipeline.config.opening_hours import DailySpan, OpeningHours
from pipeline.engine.admission import Admission
from pipeline.engine.hold import HeldBack, Hold
from pipeline.errors import NotSent, OutageGivenUp
from tests.support.virtual_time import VirtualLoop, run
from tests.support.workbench import lab, queued_request, until

NIGHT = OpeningHours((DailySpan(22 * 60, 7 * 60, "UTC"),))


def _sleep_process(seconds: float) -> None:
    """Have the process stand still for so long: every timer that is due meanwhile is late."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.now += seconds


async def _keep_looking(admission: Admission) -> None:
    while True:
        admission.follow_hold()
        await asyncio.sleep(0.3)


def test_the_last_second_of_a_window_starts_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    closing = datetime(2026, 11, 28, 7, 0, tzinfo=UTC).timestamp()
    clock = [closing - 1.5]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    hold = Hold(NIGHT)
    assert (hold.is_closed, hold.reason) == (False, None)
    for clock[0] in (closing - 0.9, closing, closing + 3600):
        assert hold.is_closed
        assert hold.reason is not None
        assert hold.reason.until == closing + 15 * 3600
    clock[0] = closing - 3600
    assert not hold.is_closed, "the clock was set back"


def test_after_a_sleep_nothing_is_granted_until_the_sockets_are_read_and_the_limit_holds() -> None:
    async def main() -> None:
        admission = Admission(lab("http://x/v1", rate_limit=RateLimit(3, 10.0, 1.0)), "http://x/v1", RetryRules())
        beat = asyncio.create_task(_keep_looking(admission))
        first, late = [await admission.acquire(queued_request(pk), 1) for pk in (1, 2)]
        waiting = [asyncio.create_task(admission.acquire(queued_request(pk), 1)) for pk in (3, 4, 5)]
        await asyncio.sleep(0.1)
        first.send()
        _sleep_process(60)
        woke = asyncio.get_running_loop().time()
        with pytest.raises(HeldBack):
            late.send()
        late.release()
        for one in waiting[:2]:
            (await one).send()
        assert asyncio.get_running_loop().time() < woke + 8
        (await waiting[2]).send()
        assert asyncio.get_running_loop().time() >= woke + 10, "the one from before may have left only now"
        beat.cancel()

    run(main())


def test_hours_in_which_nobody_called_are_no_part_of_an_outage() -> None:
    async def main() -> None:
        admission = Admission(lab("http://x/v1"), "http://x/v1", RetryRules(outage_hours=1.0), known_good=True)
        admission.follow_hold()
        request = queued_request(1)
        assert admission.stop_after_failure(request, NotSent("no way")) is None
        admission.hold.set_paused(paused=True)
        admission.follow_hold()
        for _ in range(12):
            await asyncio.sleep(1)
            admission.follow_hold()
        _sleep_process(10 * 3600)
        admission.follow_hold()
        admission.hold.set_paused(paused=False)
        admission.follow_hold()
        assert admission.stop_after_failure(request, NotSent("no way")) is None
        assert admission.down_for is not None
        assert admission.down_for < 60
        for _ in range(3700):
            await asyncio.sleep(1)
            admission.follow_hold()
        assert isinstance(admission.stop_after_failure(request, NotSent("no way")), OutageGivenUp)

    run(main())


async def test_whoever_waits_goes_on_when_the_pause_ends() -> None:
    hold = Hold()
    hold.set_paused(paused=True)
    waiting = asyncio.create_task(hold.admit())
    await asyncio.sleep(0)
    assert not waiting.done()
    hold.set_paused(paused=False)
    await until(waiting.done)
