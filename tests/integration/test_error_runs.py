"""Whole runs that meet each line of the table of errors: what is called, what is recorded, and how the run exits."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import time
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from pipeline import errors
from pipeline.batch import Batch
from pipeline.config.load import Config, RetryRules
from pipeline.engine.admission import Admission
from pipeline.engine.events import Paused, Retrying, Stopped
from tests.support.error_table import REQUEST, TABLE, Line, always, bytes_of, inner, naming
from tests.support.workbench import MODEL, PNG_BASE64, Body, answer_with, lab, request, until, vendor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from pipeline.engine.events import Event
    from pipeline.errors import RequestError
    from pipeline.result import Result
    from tests.support.workbench import Bench

RULES = RetryRules(attempts=3, max_wait_seconds=0.01)


def whole(body: Body) -> web.Response:
    return answer_with(*[{"b64_json": PNG_BASE64}] * body["n"])


@dataclass(frozen=True)
class Reply:
    """What a server answers, and the class of error that it is."""

    name: str
    status: int
    body: bytes
    error_class: type[RequestError]
    headers: dict[str, str] = field(default_factory=dict)
    words: tuple[str | None, str | None] | None = None  # type and code, if the body has them

    def __str__(self) -> str:
        return f"{self.status} {self.name}"

    def answer(self) -> web.Response:
        return web.Response(status=self.status, body=self.body or None, headers=self.headers)


def says(line: Line) -> Reply:
    """Answer with this line of the table, in the service's own form."""
    return Reply(
        f"{line.code or line.type}",
        line.status,
        bytes_of({"error": inner(line)}),
        line.error_class,
        {},
        (line.type, line.code),
    )


def raw(name: str, status: int, body: bytes, error_class: type[RequestError], **headers: str) -> Reply:
    """Answer with these bytes."""
    return Reply(name, status, body, error_class, {name.replace("_", "-"): value for name, value in headers.items()})


def asks(status: int, kind: str | None, code: str | None, error_class: type[RequestError], **headers: str) -> Reply:
    """Answer with these headers, and an error in the service's own form."""
    reply = says(always(status, kind, code, "as it is", error_class))
    return replace(reply, headers={name.replace("_", "-"): value for name, value in headers.items()})


TOO_SLOW = ("51.84 seconds", "20 seconds")  # waits that a message asks for, and that would be waited here


def of_class(*kinds: type[RequestError]) -> list[Reply]:
    """Return every line of the table whose class is one of these, except those that a test cannot wait for."""
    lines = (line for line in TABLE if issubclass(line.error_class, kinds))
    return [says(line) for line in lines if not line.message.partition("after ")[2].startswith(TOO_SLOW)]


HTML = b"<html><h1>Some gateway</h1></html>"
CUT = b'{"error": {"message": "as it is", "type": "server_er'
BROKEN_GZIP = gzip.compress(b'{"error": {"message": "as it is"}}' * 50)[:-30]

GIVEN_UP = [
    *of_class(errors.GiveUp),
    raw("HTML", 405, HTML, errors.Invalid),
    raw("cut", 400, CUT, errors.Invalid),
    raw("HTML", 413, HTML, errors.Invalid),
    raw("detail", 422, b'{"detail": [{"loc": ["body", "image"], "msg": "Field required"}]}', errors.Invalid),
    raw("empty", 415, b"", errors.Invalid),
    raw("broken gzip", 400, BROKEN_GZIP, errors.Invalid, content_encoding="gzip"),
    raw("no gzip though it says so", 400, HTML, errors.Invalid, content_encoding="gzip"),
    raw("an unknown coding", 400, HTML, errors.Invalid, content_encoding="x-lab"),
    raw("error in a success", 200, b'{"error": {"message": "no", "code": "moderation_blocked"}}', errors.Moderated),
]
PASSING = [
    *of_class(errors.ServerFault),
    *(raw("empty", status, b"", errors.ServerFault) for status in (408, 409, 425, 500, 503)),
    asks(400, REQUEST, None, errors.ServerFault, x_should_retry="true"),
    raw("HTML", 503, HTML, errors.ServerFault),
    raw("cut", 500, CUT, errors.ServerFault),
    raw("broken gzip", 500, BROKEN_GZIP, errors.ServerFault, content_encoding="gzip"),
]
UNKNOWN = [
    *of_class(errors.OutcomeUnknown),
    *(raw("HTML", status, HTML, errors.OutcomeUnknown) for status in (502, 504, 520, 521, 522, 523, 524)),
    raw("empty", 504, b"", errors.OutcomeUnknown),
    raw("a gateway's", 408, b'{"error": {"message": "litellm.Timeout: APITimeoutError"}}', errors.OutcomeUnknown),
    raw("a gateway's", 500, b'{"html-message": "Message: fetch failed"}', errors.OutcomeUnknown),
    raw("a gateway's own", 500, b"", errors.OutcomeUnknown, x_portkey_gateway_exception="true"),
    raw("no data", 200, b'{"created": 1, "data": []}', errors.Unusable),
    raw("detail", 200, b'{"detail": "something went wrong"}', errors.Unusable),
    raw("cut", 200, b'{"data": [{"b64_json": "iVBO', errors.Unusable),
    raw("empty", 200, b"", errors.Unusable),
    raw("empty", 204, b"", errors.Unusable),
    raw("a stream without an end", 200, b"data: {}\n\n", errors.Unusable, content_type="text/event-stream"),
]
PACE = [
    *of_class(errors.RateLimited),
    raw("empty", 429, b"", errors.RateLimited),
    raw("HTML", 429, HTML, errors.RateLimited),
    raw("detail", 429, b'{"detail": "slow down"}', errors.RateLimited),
    raw("error in a success", 200, b'{"error": {"message": "Rate limit reached", "type": "x"}}', errors.RateLimited),
]
STOPPING = [
    *of_class(errors.KeyRefused, errors.QuotaSpent, errors.WrongAddress),
    raw("empty", 401, b"", errors.KeyRefused),
    raw("empty", 402, b"", errors.QuotaSpent),
    raw("HTML", 403, HTML, errors.WrongAddress),
    raw("HTML", 404, HTML, errors.WrongPath),
    raw("HTML", 200, HTML, errors.WrongAddress),
    raw("redirect", 307, b"", errors.WrongAddress, location="https://other.example/v1"),
    raw("said in words", 400, b'{"detail": "Billing hard limit has been reached"}', errors.QuotaSpent),
    raw("a limit of nothing", 429, b'{"detail": "Limit: 0/1min. Try again after 0.0 seconds"}', errors.QuotaSpent),
    raw("error in a success", 200, b'{"error": {"message": "x", "type": "insufficient_quota"}}', errors.QuotaSpent),
    asks(429, "requests", "rate_limit_exceeded", errors.PausedTooLong, retry_after="3601"),
    asks(429, "requests", None, errors.PausedTooLong, retry_after=formatdate(time.time() + 90000, usegmt=True)),
    raw("accepted", 202, b"", errors.Deferred),
    raw("a task", 200, b'{"task_id": "t-1", "status": "queued"}', errors.Deferred),
]


@dataclass
class Met:
    """What became of the two requests of one provider whose server misbehaves, in a run that is over."""

    result: Result
    provider: str
    job: str
    calls: list[Body] = field(default_factory=list)
    manifest: list[dict[str, Any]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def column(self, name: str) -> list[Any]:
        return [entry[name] for entry in self.manifest]

    @property
    def unsuccessful(self) -> int:
        (summary,) = (one for one in self.result.summaries if one.name == self.job)
        return summary.unsuccessful

    @property
    def stops(self) -> list[type[RequestError]]:
        return [type(event.error) for event in self.events if isinstance(event, Stopped)]


@contextlib.asynccontextmanager
async def _served(answer: Callable[[str, Body], web.Response]) -> AsyncIterator[Callable[[str], str]]:
    """Serve many Images APIs at once, each under its own path; yields the base_url of each."""

    async def call(http: web.Request) -> web.Response:
        return answer(http.match_info["name"], await http.json())

    app = web.Application()
    app.router.add_post("/{name}/v1/images/generations", call)
    async with TestServer(app) as server:
        yield lambda name: str(server.make_url(f"/{name}/v1"))


async def _meet(folder: Path, replies: list[Reply], answer: Callable[[Reply, int, Body], web.Response]) -> list[Met]:
    """Run one job per reply, each at a provider of its own, whose calls are answered by their number; and a job at a
    server that behaves.
    """
    calls: dict[str, list[Body]] = {f"lab-{number}": [] for number in range(len(replies))}
    by_name = dict(zip(calls, replies, strict=True))

    def serve(name: str, body: Body) -> web.Response:
        if name == "good":
            return whole(body)
        calls[name].append(body)
        return answer(by_name[name], len(calls[name]), body)

    events: list[Event] = []
    async with _served(serve) as url:
        providers = {name: lab(url(name), name, concurrency=1) for name in (*calls, "good")}
        batch = Batch(Config(None, folder / "outputs", "good", providers, retry=RULES), {})
        jobs = [_write_job(folder, name, ["three"] if name == "good" else ["one", "two"]) for name in providers]
        result = await batch.run(jobs, emit=events.append)
    manifests = {name: _read_manifest(batch.folder / f"of-{name}") for name in providers}
    assert [entry["status"] for entry in manifests["good"]] == ["succeeded"], "an error at one provider is its own"
    met = [
        Met(result, name, f"of-{name}", calls[name], manifests[name], [one for one in events if _is_of(one, name)])
        for name in calls
    ]
    assert sum(len(one.stops) for one in met) == len(result.stops)
    return met


def _write_job(folder: Path, provider: str, prompts: list[str]) -> Path:
    path = folder / f"of-{provider}.yaml"
    requests = [{"prompt": prompt} for prompt in prompts]
    path.write_text(yaml.safe_dump({"provider": provider, "defaults": MODEL, "requests": requests}))
    return path


def _read_manifest(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def _is_of(event: Event, provider: str) -> bool:
    if isinstance(event, Stopped):
        return f"provider `{provider}`" in event.what
    return provider == getattr(event, "provider", None) or f"of-{provider}" == getattr(event, "job", None)


async def _meet_one(folder: Path, answer: Callable[[int, Body], web.Response]) -> Met:
    (met,) = await _meet(folder, [raw("", 200, b"", errors.Unusable)], lambda _, number, body: answer(number, body))
    return met


def _check_error(reply: Reply, error: dict[str, Any]) -> None:
    assert set(error) == {"http_status", "type", "code", "message", "kind"}
    assert error["kind"] == reply.error_class.__name__
    assert error["http_status"] == reply.status
    if reply.words is not None:
        assert (error["type"], error["code"]) == reply.words
    assert error["message"]


def _once(reply: Reply, number: int, body: Body) -> web.Response:
    return reply.answer() if number == 1 else whole(body)


def _the_first_prompt(reply: Reply, _number: int, body: Body) -> web.Response:
    return reply.answer() if body["prompt"] == "one" else whole(body)


def _always(reply: Reply, _number: int, _body: Body) -> web.Response:
    return reply.answer()


async def test_what_is_given_up_fails_alone(tmp_path: Path) -> None:
    """What is invalid is tried a second time, since others pass; what the policy refuses is not."""
    for reply, met in zip(GIVEN_UP, await _meet(tmp_path, GIVEN_UP, _the_first_prompt), strict=True):
        with naming(reply):
            calls = 2 if reply.error_class is errors.Invalid else 1
            assert (met.result.exit_code, met.unsuccessful, met.stops, len(met.calls)) == (1, 1, [], calls + 1)
            assert met.column("status") == ["failed", "succeeded"]
            assert (met.column("attempts"), met.column("maybe_paid")) == ([calls, 1], [0, 0])
            _check_error(reply, met.manifest[0]["error"])


async def test_what_was_invalid_once_may_pass_the_second_time(tmp_path: Path) -> None:
    replies = [reply for reply in GIVEN_UP if reply.error_class is errors.Invalid]
    for reply, met in zip(replies, await _meet(tmp_path, replies, _once), strict=True):
        with naming(reply):
            assert (met.result.exit_code, met.unsuccessful, len(met.calls)) == (0, 0, 3)
            assert met.column("attempts") == [2, 1]


async def test_what_passes_is_tried_again_for_nothing(tmp_path: Path) -> None:
    for reply, met in zip(PASSING, await _meet(tmp_path, PASSING, _once), strict=True):
        with naming(reply):
            assert (met.result.exit_code, met.unsuccessful, len(met.calls)) == (0, 0, 3)
            assert (met.column("attempts"), met.column("maybe_paid")) == ([2, 1], [0, 0])
            assert met.column("error") == [None, None]


async def test_what_does_not_pass_is_given_up_after_the_attempts(tmp_path: Path) -> None:
    replies = [*PASSING, *UNKNOWN]
    for reply, met in zip(replies, await _meet(tmp_path, replies, _always), strict=True):
        with naming(reply):
            assert (met.result.exit_code, met.unsuccessful, met.stops, len(met.calls)) == (1, 2, [], 6)
            assert met.column("status") == ["failed"] * 2
            unknown = 3 if reply.error_class.outcome == "unknown" else 0
            assert (met.column("attempts"), met.column("maybe_paid")) == ([3] * 2, [unknown] * 2)
            _check_error(reply, met.manifest[0]["error"])


async def test_what_may_have_been_billed_is_tried_again_and_counted(tmp_path: Path) -> None:
    for reply, met in zip(UNKNOWN, await _meet(tmp_path, UNKNOWN, _once), strict=True):
        with naming(reply):
            assert (met.result.exit_code, met.unsuccessful, len(met.calls)) == (0, 0, 3)
            assert (met.column("attempts"), met.column("maybe_paid")) == ([2, 1], [1, 0])


async def test_pace_is_free_and_waited_out_however_often(tmp_path: Path) -> None:
    def answer(reply: Reply, number: int, body: Body) -> web.Response:
        return reply.answer() if number <= 7 else whole(body)

    for reply, met in zip(PACE, await _meet(tmp_path, PACE, answer), strict=True):
        with naming(reply):
            assert (met.result.exit_code, len(met.calls)) == (0, 9)
            assert (sum(met.column("attempts")), met.column("maybe_paid")) == (9, [0, 0])
            assert sum(isinstance(event, Paused) for event in met.events) == 7


async def test_what_no_wait_can_cure_stops_its_provider_at_the_first_call(tmp_path: Path) -> None:
    for reply, met in zip(STOPPING, await _meet(tmp_path, STOPPING, _always), strict=True):
        with naming(reply):
            assert (met.result.exit_code, len(met.calls)) == (3, 1)
            assert met.stops == [reply.error_class]
            assert [event.what for event in met.events if isinstance(event, Stopped)] == [
                f"provider `{met.provider}` and its generations"
                if reply.error_class is errors.WrongPath
                else f"provider `{met.provider}`"
            ]
            assert met.column("status") == ["pending"] * 2
            assert met.column("attempts") == [1, 0]
            assert met.column("maybe_paid") == [int(reply.error_class is errors.Deferred), 0]
            _check_error(reply, met.manifest[0]["error"])


def _first(reply: Reply | None) -> Callable[[int, Body], web.Response]:
    return lambda _number, body: whole(body) if reply is None else reply.answer()


async def test_a_stop_is_made_good_by_the_next_run(tmp_path: Path) -> None:
    for reply, calls in ((STOPPING[0], 1), (None, 2)):
        met = await _meet_one(tmp_path, _first(reply))
        assert len(met.calls) == calls
    assert met.result.exit_code == 0
    assert met.column("attempts") == [2, 1]


@pytest.mark.parametrize("status", [404, 400])
async def test_an_unknown_model_stops_its_requests_and_no_others(bench: Bench, status: int) -> None:
    asked: list[str] = []

    async def serve(body: Body) -> web.StreamResponse:
        asked.append(body["model"])
        if body["model"] == "gone":
            return asks(status, REQUEST, "model_not_found", errors.ModelUnknown).answer()
        return whole(body)

    async with vendor(serve) as base_url:
        bench.submit(request(1, model="gone"), request(2, model="gone"), request(3))
        runner = await bench.run(lab(base_url, concurrency=1))
    assert asked == ["gone", "dall-e-2"]
    assert [type(stop) for stop in runner.stops] == [errors.ModelUnknown]
    assert list(bench.statuses().values()) == ["pending", "pending", "succeeded"]


async def test_a_provider_that_says_nothing_but_429_is_given_up_like_one_that_is_away(bench: Bench) -> None:
    async def serve(_: Body) -> web.StreamResponse:
        error = {"message": "Please try again after 0.0 seconds.", "type": "requests", "code": "rate_limit_exceeded"}
        return web.json_response({"error": error}, status=429)

    bench.retry = RetryRules(attempts=3, max_wait_seconds=0.01, outage_hours=0.2 / 3600)
    async with vendor(serve) as base_url:
        bench.submit(request(1), request(2))
        runner = await bench.run(lab(base_url, concurrency=2))
    assert [type(stop) for stop in runner.stops] in ([errors.OutageGivenUp], [errors.OutageGivenUp] * 2)
    assert bench.one("SELECT count(*) FROM attempt") >= 4
    assert bench.ask("SELECT status, maybe_paid FROM request") == [("pending", 0)] * 2


# The waits


@pytest.mark.parametrize("word", ["0", "0.0", "-5", "nan", "inf", "garbage", formatdate(1, usegmt=True)])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_wait_that_is_none_leaves_our_own(tmp_path: Path, status: int, word: str) -> None:
    reply = asks(status, None, None, errors.TryAgain, retry_after=word)
    met = await _meet_one(tmp_path, lambda number, body: reply.answer() if number == 1 else whole(body))
    assert met.result.exit_code == 0
    waits = [event.seconds for event in met.events if isinstance(event, Paused if status == 429 else Retrying)]
    assert len(waits) == 1
    assert 0 < waits[0] <= RULES.max_wait_seconds * 1.05 + 0.01


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"Retry-After": "0.2"}, "", 0.2),
        ({"retry-after-ms": "200", "Retry-After": "900"}, "", 0.2),
        ({"Retry-After": "0"}, "Please try again in 200ms.", 0.2),
        ({"Retry-After": "0.1"}, "Please try again in 0.2s.", 0.2),
        ({"Retry-After": "0.2"}, "Please try again after 0.0 seconds.", 0.2),
    ],
    ids=str,
)
@pytest.mark.parametrize("status", [429, 503])
async def test_the_server_s_own_wait_is_waited(
    tmp_path: Path, status: int, headers: dict[str, str], message: str, seconds: float
) -> None:
    moments: list[float] = []
    first: list[str] = []

    def answer(number: int, body: Body) -> web.Response:
        first.append(body["prompt"])
        if status == 429 or body["prompt"] == first[0]:  # a 429 holds all, a 503 its own request
            moments.append(time.monotonic())
        if number > 1:
            return whole(body)
        return web.json_response({"error": {"message": message}}, status=status, headers=headers)

    met = await _meet_one(tmp_path, answer)
    waits = [event.seconds for event in met.events if isinstance(event, Paused if status == 429 else Retrying)]
    assert len(waits) == 1
    assert seconds <= waits[0] <= 1.05 * seconds + 0.01
    assert moments[1] - moments[0] >= seconds


async def _met(bench: Bench, status: int, headers: dict[str, str], kind: type[Event]) -> tuple[list[str], float]:
    """Refuse the first of eight requests so, with four in flight; halt when all that can be called has been.

    Gives who was called, and the seconds that the event of this kind says.
    """
    asked: list[str] = []
    together = asyncio.Event()

    async def serve(body: Body) -> web.StreamResponse:
        asked.append(body["prompt"])
        if len(asked) == 4:
            together.set()
        await together.wait()
        if body["prompt"] != "prompt 0":
            await until(lambda: any(isinstance(event, kind) for event in bench.events))
            return whole(body)
        return web.json_response({"error": {"message": "later"}}, status=status, headers=headers)

    async with vendor(serve) as base_url:
        bench.submit(*(request(number) for number in range(8)))
        runner = bench.runner(lab(base_url, concurrency=4))
        run = asyncio.create_task(runner.run())
        done = 3 if kind is Paused else 7
        await until(lambda: bench.one("SELECT total(received) FROM request") == done)
        if kind is Paused:
            await until(lambda: runner._admissions["lab"].waiting == 4)
        runner.halt()
        await run
    (seconds,) = [
        event.seconds for event in bench.events if isinstance(event, Paused | Retrying) if type(event) is kind
    ]
    return asked, seconds


HOUR = 3600.0


def _an_hour(as_date: bool) -> str:
    return formatdate(time.time() + HOUR - 1, usegmt=True) if as_date else "3600"


@pytest.mark.parametrize("as_date", [False, True])
async def test_a_429_of_an_hour_pauses_its_provider_also_over_a_restart(bench: Bench, as_date: bool) -> None:
    asked, seconds = await _met(bench, 429, {"Retry-After": _an_hour(as_date)}, Paused)
    assert len(asked) == 4, "whoever was not in flight waits"
    assert HOUR - 120 <= seconds <= 1.05 * HOUR + 0.01
    until_when = bench.one("SELECT paused_until FROM provider WHERE name = 'lab'")
    assert HOUR - 150 <= until_when - time.time() <= seconds
    assert sorted(bench.statuses().values()) == ["pending"] * 5 + ["succeeded"] * 3
    runner = bench.runner(lab("http://127.0.0.1:9/v1", concurrency=4))
    run = asyncio.create_task(runner.run())
    await until(lambda: "lab" in runner._admissions and runner._admissions["lab"].waiting == 4)
    assert runner._admissions["lab"].throttle.paused_for > HOUR - 200
    runner.halt()
    await run
    assert bench.one("SELECT count(*) FROM attempt") == 4


@pytest.mark.parametrize("as_date", [False, True])
async def test_a_503_of_an_hour_holds_its_request_alone(bench: Bench, as_date: bool) -> None:
    asked, seconds = await _met(bench, 503, {"Retry-After": _an_hour(as_date)}, Retrying)
    assert sorted(asked) == [f"prompt {number}" for number in range(8)]
    assert HOUR - 120 <= seconds <= 1.05 * HOUR
    assert sorted(bench.statuses().values()) == ["pending"] + ["succeeded"] * 7
    left = bench.one("SELECT wait_until FROM request WHERE status = 'pending'") - time.time()
    assert HOUR - 150 <= left <= HOUR, "and it is written down"
    runner = bench.runner(lab("http://127.0.0.1:9/v1"))
    run = asyncio.create_task(runner.run())
    await until(lambda: "lab" in runner._dispatchers and runner._dispatchers["lab"]._active)
    assert runner._admissions["lab"].waiting == 0, "another run waits too, and calls nobody"
    runner.halt()
    await run
    assert bench.one("SELECT count(*) FROM attempt") == 8


async def test_a_wait_that_has_passed_or_a_clock_that_was_set_back_holds_no_request_for_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with vendor(_gives) as base_url:
        bench.submit(request(1))
        bench.set("UPDATE request SET wait_until = ?", time.time() - 5)
        await bench.run(lab(base_url))
    assert list(bench.statuses().values()) == ["succeeded"]
    bench.submit(request(1), request(2))
    bench.set("UPDATE request SET wait_until = ? WHERE status = 'pending'", time.time() + 30 * 86400)
    (queued,) = bench.works()
    slept: list[float] = []
    runner = bench.runner(lab("http://127.0.0.1:9/v1"))

    async def sleep(_admission: Admission, seconds: float) -> None:
        slept.append(seconds)
        runner.halt()

    monkeypatch.setattr(Admission, "sleep", sleep)  # time alone is fake
    await runner.run()
    assert slept == [12 * HOUR], "for as long as an outage is waited out, at most"
    assert queued.wait_until is not None


async def _gives(body: Body) -> web.StreamResponse:
    return whole(body)


async def test_a_stream_that_nobody_asked_for_brings_its_picture_at_one_call(tmp_path: Path) -> None:
    event = {"type": "image_generation.completed", "b64_json": PNG_BASE64, "size": "256x256"}
    body = f"event: image_generation.completed\ndata: {json.dumps(event)}\n\n".encode()
    reply = raw("a stream", 200, body, errors.Unusable, content_type="text/event-stream")
    met = await _meet_one(tmp_path, lambda _number, _body: reply.answer())
    assert (met.result.exit_code, len(met.calls)) == (0, 2)
    assert met.column("maybe_paid") == [0, 0]


async def test_letters_that_no_file_can_hold_do_not_cost_the_manifest(tmp_path: Path) -> None:
    body = json.dumps(
        {
            "data": [{"b64_json": PNG_BASE64, "revised_prompt": "\ud800"}],
            "usage": {"output_tokens": 10**400, "note": "\udfff", "\ud800": 1},
            "size": "\ud800",
        }
    ).encode()
    met = await _meet_one(tmp_path, lambda _number, _body: raw("odd", 200, body, errors.Unusable).answer())
    assert met.result.exit_code == 0
    assert met.column("status") == ["succeeded"] * 2
