"""A run at work follows pauses, lower limits and priorities that other processes set, with many calls in flight."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.config.load import Config, RateLimit
from pipeline.config.opening_hours import DailySpan, OpeningHours
from pipeline.controls import FolderControls
from pipeline.engine.control_events import Held, Reprioritised, Throttled
from pipeline.engine.events import CallEnded, CallSent
from pipeline.engine.records import Attempt, Records
from pipeline.errors import ProviderHeld
from tests.support.workbench import PNG_BASE64, Body, answer_with, lab, request, sandbox, until, vendor

if TYPE_CHECKING:
    from aiohttp import web

    from pipeline.config.load import Provider
    from tests.support.stage import Stage
    from tests.support.workbench import Bench

SECONDS = 2.0
"""Within which a run at work follows."""


class Counter:
    """Answers each call after `seconds`, if these are given, or when it is opened; keeps when each came."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        self.opened = asyncio.Event()
        self.arrivals: list[tuple[float, str]] = []
        self.inside = 0

    async def __call__(self, body: Body) -> web.StreamResponse:
        self.arrivals.append((time.monotonic(), body["prompt"]))
        self.inside += 1
        try:
            async with asyncio.timeout(self.seconds):
                await self.opened.wait()
        except TimeoutError:
            pass
        self.inside -= 1
        return answer_with({"b64_json": PNG_BASE64})

    def since(self, moment: float) -> list[str]:
        """Return the prompts of the calls that came after a moment."""
        return [prompt for arrived, prompt in self.arrivals if arrived > moment]


def _controls(bench: Bench, *providers: Provider) -> FolderControls:
    return FolderControls(Config(None, bench.folder, None, {one.name: one for one in providers}))


async def _followed(bench: Bench, kind: type, number: int, since: float) -> None:
    """Wait until the run has followed, as so many events of a kind say; it has to be in time."""
    await until(lambda: len([one for one in bench.events if isinstance(one, kind)]) == number)
    assert time.monotonic() - since < SECONDS


async def test_a_pause_takes_hold_with_200_calls_in_flight_and_its_end_too(bench: Bench) -> None:
    counter = Counter()
    async with vendor(counter) as base_url:
        bench.submit(*(request(number) for number in range(2000)))
        provider = lab(base_url, concurrency=200)
        run = asyncio.create_task(bench.run(provider))
        await until(lambda: counter.inside == 200)
        await asyncio.to_thread(_controls(bench, provider).pause, "lab")
        await _followed(bench, Held, 1, time.monotonic())
        counter.opened.set()
        await until(lambda: not counter.inside)
        held = time.monotonic()
        await until(lambda: bench.one("SELECT count(*) FROM request WHERE status = 'running'") == 0)
        await asyncio.sleep(1.0)
        assert counter.since(held) == [], "calls in flight have ended, and none has followed"
        assert counter.inside == 0
        await asyncio.to_thread(_controls(bench, provider).unpause)
        released = time.monotonic()
        await _followed(bench, Held, 2, released)
        await until(lambda: counter.since(released))
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    assert [one.held for one in bench.events if isinstance(one, Held)] == [True, False]


async def test_a_lower_limit_takes_hold_and_is_taken_back(bench: Bench) -> None:
    counter = Counter(1.5)
    async with vendor(counter) as base_url:
        bench.submit(*(request(number) for number in range(1000)))
        provider = lab(base_url, concurrency=1024, rate_limit=RateLimit(150, 1.5, margin=1.0))
        run = asyncio.create_task(bench.run(provider))
        await until(lambda: len(counter.arrivals) >= 100)
        await asyncio.to_thread(_controls(bench, provider).throttle, "lab", 3)
        await _followed(bench, Throttled, 1, time.monotonic())
        await asyncio.sleep(0.5)  # calls that had a permit already are on their way
        held = time.monotonic()
        await asyncio.sleep(2.0)
        assert len(counter.since(held)) <= 6, "three in any window of one and a half seconds"
        assert counter.since(held), "it is a limit and no pause"
        await asyncio.to_thread(_controls(bench, provider).throttle, "lab", None)
        released = time.monotonic()
        await _followed(bench, Throttled, 2, released)
        await until(lambda: len(counter.since(released)) > 20)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    assert [one.images for one in bench.events if isinstance(one, Throttled)] == [3, 150]


@pytest.mark.parametrize("concurrency", [8, 1024])
async def test_requests_in_line_give_way_to_a_higher_priority(bench: Bench, concurrency: int) -> None:
    counter = Counter()
    counter.opened.set()
    async with vendor(counter) as base_url:
        provider = lab(base_url, concurrency=concurrency, rate_limit=RateLimit(20, 2.0, margin=1.0))
        bench.submit(*(request(number) for number in range(400)), name="low")
        bench.submit(*(request(1000 + number) for number in range(10)), name="late")
        run = asyncio.create_task(bench.run(provider))
        await until(lambda: len(counter.arrivals) > 5)
        await asyncio.to_thread(_controls(bench, provider).prioritise, "late", 5)
        moment = time.monotonic()
        await _followed(bench, Reprioritised, 1, moment)
        late = {f"prompt {1000 + number}" for number in range(10)}
        await until(lambda: late <= set(counter.since(moment)))
        prompts = counter.since(moment)
        between = prompts[prompts.index("prompt 1000") :]
        assert len([one for one in between if one not in late]) <= 2, "those that had a permit already"
        await asyncio.to_thread(_controls(bench, provider).prioritise, "low", -5)
        await until(lambda: len([one for one in bench.events if isinstance(one, Reprioritised)]) == 2)
        await asyncio.to_thread(_controls(bench, provider).prioritise, "late", 0)
        await until(lambda: len([one for one in bench.events if isinstance(one, Reprioritised)]) == 3)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    said = [(one.job, one.priority) for one in bench.events if isinstance(one, Reprioritised)]
    assert said == [("late", 5), ("low", -5), ("late", 0)]


@pytest.mark.parametrize(
    ("concurrency", "limit"), [(1, None), (8, RateLimit(10, 1.0, margin=1.0)), (1024, RateLimit(10, 1.0, margin=1.0))]
)
async def test_a_route_s_job_of_a_higher_priority_goes_before_a_member_s_own(
    bench: Bench, concurrency: int, limit: RateLimit | None
) -> None:
    counter = Counter(0.02)
    async with vendor(counter) as base_url:
        provider = lab(base_url, concurrency=concurrency, rate_limit=limit)
        bench.submit(*(request(number) for number in range(400)), name="low", provider=provider)
        bench.submit_routed(*(request(number) for number in range(1000, 1012)), providers=(provider,), name="high")
        run = asyncio.create_task(bench.run(provider))
        await until(lambda: len(counter.arrivals) >= 10)
        await asyncio.to_thread(_controls(bench, provider).prioritise, "high", 5)
        await _followed(bench, Reprioritised, 1, time.monotonic())
        await until(lambda: _sent_after(bench, Reprioritised).count("high") == 12)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    sent = _sent_after(bench, Reprioritised)
    last = len(sent) - sent[::-1].index("high")
    assert sent[:last].count("low") <= 4, "those that had a permit already"


def _sent_after(bench: Bench, kind: type) -> list[str]:
    """Return the jobs of the calls that were sent after the first event of a kind, in their order."""
    first = next(place for place, event in enumerate(bench.events) if isinstance(event, kind))
    return [event.job for event in bench.events[first:] if isinstance(event, CallSent)]


async def test_a_run_that_starts_while_paused_waits_and_says_so_first(bench: Bench) -> None:
    counter = Counter()
    counter.opened.set()
    async with vendor(counter) as base_url:
        bench.submit(request(1))
        provider = lab(base_url)
        controls = _controls(bench, provider)
        controls.pause()
        controls.prioritise("job", 2)
        run = asyncio.create_task(bench.run(provider))
        await until(lambda: len(bench.events) == 2)
        assert {type(one) for one in bench.events} == {Held, Reprioritised}
        await until(lambda: bench.paces and bench.paces[-1].bottleneck == "held")
        await asyncio.to_thread(controls.unpause)
        await run
    assert bench.statuses() == {bench.one("SELECT id FROM request"): "succeeded"}


async def test_without_waiting_a_paused_provider_stops_and_others_go_on(bench: Bench) -> None:
    counter = Counter()
    counter.opened.set()
    async with vendor(counter) as base_url:
        held, other = lab(base_url), lab(base_url, "other")
        bench.submit(request(1), name="held", provider=held)
        bench.submit(request(2), name="free", provider=other)
        _controls(bench, held).pause("lab")
        runner = await bench.run(held, other, waits=False)
        assert [type(stop) for stop in runner.stops] == [ProviderHeld]
        assert "pipeline unpause lab" in runner.stops[0].message
        assert counter.since(0.0) == ["prompt 2"]
        assert bench.one("SELECT count(*) FROM stop") == 0, "it is a fact of its own"


async def test_members_of_a_route_go_on_while_one_is_paused(bench: Bench) -> None:
    counter = Counter()
    counter.opened.set()
    async with vendor(counter) as base_url:
        held, other = lab(base_url), lab(base_url, "other")
        bench.submit_routed(*(request(number) for number in range(9)), providers=(held, other))
        _controls(bench, held).pause("lab")
        await bench.run(held, other)
        assert bench.ask("SELECT DISTINCT provider FROM attempt") == [("other",)]


def _window(start: float, end: float) -> OpeningHours:
    """Return a window from one moment to another, in whole minutes of UTC."""
    return OpeningHours((DailySpan(int(start // 60) % 1440, int(end // 60) % 1440, "UTC"),))


async def test_no_call_starts_outside_the_window_and_the_run_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter(1.0)
    real, edge, shift = time.time, (time.time() // 60 + 3) * 60.0, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + shift)
    async with vendor(counter) as base_url:
        bench.submit(*(request(number) for number in range(2000)))
        provider = lab(base_url, concurrency=200, window=_window(edge - 600, edge))
        run = asyncio.create_task(bench.run(provider))
        await until(lambda: len(counter.arrivals) >= 100)
        shift += edge - 2.0 - time.time()  # the window closes in two seconds
        closes = time.monotonic() + 2.0
        await until(lambda: any(isinstance(one, Held) for one in bench.events))
        await until(lambda: not counter.inside)
        assert counter.since(closes) == [], "the last call came inside"
        held = next(one for one in bench.events if isinstance(one, Held))
        assert (held.held, held.until) == (True, edge + 86400 - 600)
        assert "outside its window" in held.reason
        assert "UTC" in held.reason
        shift += 86400 - 600  # it opens again
        opened = time.monotonic()
        await _followed(bench, Held, 2, opened)
        await until(lambda: counter.since(opened))
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    assert [one.held for one in bench.events if isinstance(one, Held)] == [True, False]


async def test_a_call_that_is_recorded_when_the_window_closes_is_not_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter()
    counter.opened.set()
    async with vendor(counter) as base_url:
        bench.submit(request(1))
        provider = lab(base_url)
        controls, begun = _controls(bench, provider), asyncio.Event()
        begin = Records.begin

        async def begin_slowly(self: Records, *arguments: Any) -> Attempt:
            attempt = await begin(self, *arguments)
            if not begun.is_set():
                begun.set()
                await asyncio.to_thread(controls.pause)
                await until(lambda: any(isinstance(one, Held) for one in bench.events))
            return attempt

        monkeypatch.setattr(Records, "begin", begin_slowly)
        run = asyncio.create_task(bench.run(provider))
        await begun.wait()
        await until(lambda: bench.one("SELECT count(*) FROM attempt WHERE outcome = 'not_sent'"))
        assert counter.arrivals == []
        await asyncio.to_thread(controls.unpause)
        await run
    assert bench.one("SELECT attempts FROM request") == 1, "what was not sent is no attempt"
    assert [one.error is None for one in bench.events if isinstance(one, CallEnded)] == [False, True]


async def test_a_member_outside_its_window_is_down_for_a_fallback_route(bench: Bench) -> None:
    counter = Counter()
    counter.opened.set()
    async with vendor(counter) as base_url:
        closed = lab(base_url, window=_window(time.time() + 3600, time.time() + 7200))
        other = lab(base_url, "other")
        rules = {"policy": "fallback"}
        bench.submit_routed(*(request(number) for number in range(9)), providers=(closed, other), rules=rules)
        await bench.run(closed, other)
        assert bench.ask("SELECT DISTINCT provider FROM attempt") == [("other",)]


async def test_others_who_use_the_limit_halve_the_pace_and_it_is_said(bench: Bench) -> None:
    left = 100

    async def answer(_body: Body) -> web.StreamResponse:
        response = answer_with({"b64_json": PNG_BASE64})
        response.headers["x-ratelimit-remaining-images"] = str(left)
        return response

    async with vendor(answer) as base_url:
        provider = lab(base_url, rate_limit=RateLimit(20, 2.0, 1.0), shared_limit=RateLimit(100, 2.0, 1.0))
        bench.submit(*(request(number) for number in range(400)))
        run = asyncio.create_task(bench.run(provider))
        await until(lambda: bench.one("SELECT count(*) FROM image") > 3)
        assert not any(isinstance(one, Throttled) for one in bench.events)
        left = 0
        await until(lambda: any(isinstance(one, Throttled) for one in bench.events))
        left = 100
        await until(lambda: [one.images for one in bench.events if isinstance(one, Throttled)][-1] == 20)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    said = [one for one in bench.events if isinstance(one, Throttled)]
    assert said[0].images == 10
    assert "others use this limit" in said[0].reason
    assert [one.images for one in said] == sorted(one.images for one in said)


async def test_a_run_finds_how_many_calls_a_server_serves_at_once_and_the_next_one_knows(bench: Bench) -> None:
    capacity = {"calls": 6, "beyond": "http_503"}
    async with sandbox(latency_seconds=[0.15, 0.15], capacity=capacity) as base_url:
        bench.submit(*(request(number, response_format="b64_json") for number in range(200)))
        await bench.run(lab(base_url, concurrency=100), knows=False)
        found = bench.one("SELECT calls_in_flight FROM provider")
        assert 4 <= found <= 9
        refused = bench.one("SELECT count(*) FROM attempt WHERE outcome = 'refused'")
        assert refused <= 0.1 * bench.one("SELECT count(*) FROM attempt")
        assert set(bench.statuses().values()) == {"succeeded"}
        bench.submit(request(1000), name="later")
        runner = bench.runner(lab(base_url, concurrency=100), knows=False)
        await runner.run()
        adaptive = runner._admissions["lab"].room.adaptive
        assert adaptive is not None
        assert adaptive.measured_level == found


def test_a_window_is_said_by_status_and_plan_and_ends_a_run_that_is_not_to_wait(stage: Stage) -> None:
    hour = time.gmtime().tm_hour
    window = f"{(hour + 3) % 24:02}:00-{(hour + 4) % 24:02}:00 UTC"
    stage.provider("lab", stage.serve(), rate_limit={"images": 1, "per_seconds": 60}, window=window)
    job = stage.prompts("night", 90)
    stage.run("submit", job)
    said = stage.run("status").stdout
    assert said.startswith("provider `lab` is outside its window, ")
    assert window in said.splitlines()[0]
    found = json.loads(stage.run("plan", job, "--json").stdout)
    assert found["open_minutes"] == 90.0
    assert 24 * 60 + 30 < found["minutes"] < 28 * 60, "the rest is for the next day"
    assert ", of which 1 h 30 min in its window" in stage.run("plan", job).stdout
    (provider,) = found["providers"]
    assert (provider["open"], provider["window"]) == (False, [window])
    stopped = stage.run("run", "--no-wait", exit_code=3).stderr
    assert "is outside its window" in stopped
    assert "see: pipeline help ProviderHeld" in stopped


def test_the_commands_set_what_status_and_plan_say_first(stage: Stage) -> None:
    stage.provider("lab", stage.serve(), rate_limit={"images": 50, "per_seconds": 60})
    job = stage.prompts("night", 100)
    stage.run("submit", job)
    assert "provider `lab` is paused; to end that: pipeline unpause lab" in stage.run("pause", "lab").stdout
    assert "paused already" in stage.run("pause", "lab").stdout
    assert "every provider is paused already" in stage.run("pause").stdout
    assert "50 images per 60 s, as configured" in stage.run("throttle").stdout
    assert "throttled to 5 images per 60 s (configured: 50)" in stage.run("throttle", "lab", "5").stdout
    assert "throttled to 5 images" in stage.run("throttle", "lab").stdout
    assert stage.run("priority", "night", "-10").stdout == "job `night` has priority -10\n"
    said = stage.run("status").stdout.splitlines()
    assert said[0].startswith("provider `lab` is paused since ")
    assert said[1].startswith("provider `lab` is throttled to 5 images per 60 s")
    assert said[2] == "job `night` has priority -10"
    assert stage.run("plan", job).stdout.splitlines()[:3] == said[:3]
    found = json.loads(stage.run("status", "--json").stdout)
    (provider,) = found["providers"]
    assert (provider["name"], provider["paused"], provider["throttle"]) == ("lab", True, 5)
    assert found["jobs"][0]["priority"] == -10
    assert json.loads(stage.run("plan", job, "--json").stdout)["minutes"] == 20.0
    stopped = stage.run("run", "--no-wait", exit_code=3)
    assert "stopped: provider `lab` is paused" in stopped.stderr
    assert "see: pipeline help ProviderHeld" in stopped.stderr
    assert "not paused any more" in stage.run("unpause").stdout
    assert "no provider is paused" in stage.run("unpause").stdout
    assert "`lab` is not paused" in stage.run("unpause", "lab").stdout
    assert "as configured" in stage.run("throttle", "lab", "--reset").stdout
    stage.run("priority", "night", "0")
    assert stage.run("status").stdout.startswith("no run is at work")


def test_what_the_commands_do_not_take_is_exit_2_and_changes_nothing(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1", rate_limit={"images": 50, "per_seconds": 60})
    stage.provider("free", "http://127.0.0.1:9/v1")
    stage.settings["routes"] = {"both": ["lab", "free"]}
    stage.write_config()
    for words in (
        *(["pause", "both"], ["unpause", "both"], ["throttle", "both"], ["throttle", "both", "5"], ["pause", "lob"]),
        *(["throttle", "lab", "0"], ["throttle", "lab", "-5"], ["throttle", "lab", "51"], ["throttle", "lab", "1.5"]),
        *(["throttle", "free", "5"], ["throttle", "--reset"], ["throttle", "lab", "5", "--reset"]),
        *(["priority", "night", "5"], ["priority", "night", "x"], ["priority", "night"]),
    ):
        assert stage.run(*words, exit_code=2).stdout == "", words
    assert "one by one: `lab`, `free`" in stage.run("pause", "both", exit_code=2).stderr
    assert "`free` has no limit" in stage.run("throttle", "free").stdout
    assert not stage.output.exists()


def test_the_time_of_a_route_counts_windows_and_throttles_of_its_members(stage: Stage) -> None:
    hour = time.gmtime().tm_hour
    window = f"{(hour + 3) % 24:02}:00-{(hour + 4) % 24:02}:00 UTC"
    server = stage.serve()
    stage.provider("night", server, rate_limit={"images": 600, "per_seconds": 60}, window=window)
    stage.provider("day", server, rate_limit={"images": 20, "per_seconds": 60})
    stage.settings["routes"] = {"both": ["night", "day"]}
    stage.write_config()
    job = stage.job("lot", [{"prompt": "{{ prompt }}", "rows": "lot.txt"}], provider="both")
    (stage.folder / "lot.txt").write_text("".join(f"prompt number {number}\n" for number in range(100)))
    assert json.loads(stage.run("plan", job, "--json").stdout)["minutes"] == 5.0
    stage.run("throttle", "day", 10)
    assert json.loads(stage.run("plan", job, "--json").stdout)["minutes"] == 10.0
