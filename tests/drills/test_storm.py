"""Bad nights: every fault at once, servers that go away, URLs that die, and refusals in mid-run."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest

from tests.support.audit import audit
from tests.support.stage import finish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.stage import Server, Stage

CALL_FAULTS = (
    *("http_429", "http_500", "http_503", "html_502", "drop_before", "drop_after", "broken_json", "empty", "slow"),
)
STORM = dict.fromkeys((*CALL_FAULTS, "cut_download", "wrong_download"), 0.08)


def _patient(stage: Stage, **rules: Any) -> None:
    """Let retries come quickly, and often enough for any storm."""
    stage.settings["retry"] = {"attempts": 40, "unknown": 40, "max_wait_seconds": 0.5, **rules}
    stage.settings["download"] = {"attempts": 40}


@pytest.mark.parametrize(
    "requests", [pytest.param(20, id="short"), pytest.param(1600, id="long", marks=pytest.mark.long)]
)
@pytest.mark.timeout(1800)
def test_in_a_storm_of_every_fault_each_picture_comes_and_what_was_paid_again_is_named(
    stage: Stage, requests: int
) -> None:
    draw = random.Random(5)
    limit = {"images": 60, "per_seconds": 1}
    server = stage.serve(rate_limit=limit, seed=5, faults=STORM, latency_seconds=[0.0, 0.1])
    _patient(stage)
    stage.provider("lab", server, rate_limit={**limit, "margin": 1.5})
    rows: list[dict[str, Any]] = [
        {"prompt": f"prompt {number}", "n": draw.choice([1, 1, 2, 3]), "by": draw.choice(["url", "b64_json"])}
        for number in range(requests)
    ]
    (stage.folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    each = {"prompt": "{{ prompt }}", "n": "{{ n }}", "response_format": "{{ by }}", "rows": "rows.jsonl"}
    job = stage.job("storm", [each])
    stage.run("run", job)
    found = audit(stage, server.books(), limit=(60, 1.0))
    assert {call["fault"] for call in server.books()} == {None, *CALL_FAULTS}
    assert (found.pictures, found.lost, found.unowned) == (sum(row["n"] for row in rows), 0, 0)
    assert found.paid_again > 0
    calls = len(server.books())
    stage.run("run", job)
    assert len(server.books()) == calls


@pytest.mark.parametrize(
    ("away", "outages", "each"),  # requests, for each server: more than it answers until it is stopped
    [pytest.param(2.0, 1, 40, id="short"), pytest.param(100.0, 3, 200, id="long", marks=pytest.mark.long)],
)
@pytest.mark.timeout(900)
def test_an_outage_longer_than_any_wait_is_sat_out_and_costs_the_calls_in_flight_alone(
    stage: Stage, away: float, outages: int, each: int
) -> None:
    """The server dies with its calls in flight, and comes back on its port while the run still works.

    No image is downloaded: a download that fails first would say the outage in other words.
    """
    settings: dict[str, Any] = {"rate_limit": None, "latency_seconds": [0.3, 0.3]}  # calls are answered together
    servers = [stage.serve(**settings)]
    _patient(stage, attempts=2)
    stage.provider("lab", servers[0], concurrency=6)
    job = stage.prompts("many", each * (outages + 1), response_format="b64_json")
    process = stage.start("run", job, "--quiet")
    log = stage.output / "run.log"  # not a pipe, which nobody reads while the servers come and go
    received = 0
    for _ in range(outages):
        _serving(servers[-1], 20)
        while log.read_text().count(": response after ") - received < len(servers[-1].books()):
            time.sleep(0.001)  # an answer on its way would say that the server is up again
        servers[-1].stop()
        time.sleep(away)
        assert process.poll() is None, finish(process).stderr
        received = log.read_text().count(": response after ")
        servers.append(stage.serve(port=servers[0].port, **settings))
    _serving(servers[-1], 20)
    ended = finish(process)
    assert ended.exit_code == 0, ended.stderr
    said = log.read_text()
    assert said.count("lab is down") == said.count("lab is up again") == outages
    found = audit(stage, [entry for server in servers for entry in server.books()])
    assert found.pictures == each * (outages + 1)
    assert found.maybe_paid <= 6 * outages, "an outage costs each call in flight at most once"


def _serving(server: Server, calls: int) -> None:
    """Wait until the server has answered so many calls."""
    while len(server.books()) < calls:
        assert server.is_running()
        time.sleep(0.01)


@pytest.mark.parametrize("life", [pytest.param(1.5, id="short"), pytest.param(20.0, id="long", marks=pytest.mark.long)])
@pytest.mark.timeout(300)
def test_urls_that_die_during_an_outage_are_made_again_and_those_that_live_are_not(stage: Stage, life: float) -> None:
    """All pictures are made and none comes home; then the server is away until the first URLs have died."""
    first = stage.serve(rate_limit=None, url_ttl_seconds=life, faults={"cut_download": 1.0})
    _patient(stage)
    stage.provider("lab", first)
    process = stage.start("run", stage.prompts("many", 6))
    _serving(first, 6)
    first.stop()
    time.sleep(life + 1.5)
    again = stage.serve(rate_limit=None, port=first.port, url_ttl_seconds=60)
    ended = finish(process)
    assert ended.exit_code == 0, ended.stderr
    found = audit(stage, first.books() + again.books())
    assert (found.pictures, found.lost, found.maybe_paid) == (6, 6, 0)
    assert (first.charged(), again.charged()) == (6, 6)


def test_urls_that_outlive_an_outage_are_downloaded_and_nothing_is_paid_again(stage: Stage) -> None:
    first = stage.serve(rate_limit=None, faults={"cut_download": 1.0})
    _patient(stage)
    stage.provider("lab", first)
    process = stage.start("run", stage.prompts("many", 6))
    _serving(first, 6)
    first.stop()
    again = stage.serve(rate_limit=None, port=first.port)
    ended = finish(process)
    assert ended.exit_code == 0, ended.stderr
    found = audit(stage, first.books() + again.books())
    assert (found.pictures, found.charged, found.lost) == (6, 6, 0)


Refusal = tuple[int, str, str]
"""Status, code and message."""

REFUSALS: dict[str, Refusal] = {
    "quota": (
        429,
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "billing": (400, "billing_hard_limit_reached", "Billing hard limit has been reached."),
    "key": (401, "invalid_api_key", "Incorrect API key provided."),
    "rights": (403, "unsupported_country_region_territory", "Country, region, or territory not supported."),
    "paid no more": (402, "billing_not_active", "Your account is not active."),
}


@contextlib.contextmanager
def _toll(server: Server, judge: Callable[[int], Refusal | None]) -> Iterator[str]:
    """Stand before a server: let a call of this number through, or refuse it. Give the base_url."""
    count = itertools.count(1)

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if refusal := judge(next(count)):
                status, code, message = refusal
                said = {"error": {"message": message, "type": "refused", "code": code, "param": None}}
                self._answer(status, {}, json.dumps(said).encode())
                return
            headers = {name: self.headers[name] for name in ("Authorization", "Content-Type")}
            url = f"{server.base_url.removesuffix('/v1')}{self.path}"
            with urlopen(Request(url, body, headers)) as answer:  # noqa: S310 - our own sandbox
                self._answer(200, {"x-request-id": answer.headers["x-request-id"]}, answer.read())

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Type": "application/json", "Content-Length": len(body)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as door:
        threading.Thread(target=door.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{door.server_port}/v1"
        door.shutdown()


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(refusal, id=name, marks=[] if name in {"quota", "billing", "key"} else pytest.mark.long)
        for name, refusal in REFUSALS.items()
    ],
)
def test_a_refusal_in_mid_run_stops_with_everything_queued_and_the_next_run_goes_on(
    stage: Stage, refusal: Refusal
) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[0.02, 0.05])
    with _toll(server, lambda number: refusal if number > 10 else None) as base_url:
        stage.provider("lab", base_url, concurrency=4)
        ended = stage.run("run", stage.prompts("many", 20), exit_code=3)
    assert refusal[2][:20] in ended.stderr
    found = audit(stage, server.books())
    assert (found.pictures, found.charged, found.maybe_paid) == (10, 10, 0)
    standing = stage.standing("many")
    assert (standing["counts"]["pending"], standing["counts"]["failed"]) == (10, 0)
    most = 10 + 4 + 2  # made, in flight with the first that is refused, and sent to confirm it
    assert sum(entry["attempts"] for entry in stage.manifest("many")) <= most
    stage.provider("lab", server)
    stage.run("run")
    assert audit(stage, server.books()).charged == 20


class _Outage:
    """Refuses all calls but the first ten with 503, from `begin` to `end`; calls before `begin` wait for it."""

    def __init__(self) -> None:
        self.refused = 0
        self._has_begun, self._lock, self._is_over = threading.Event(), threading.Lock(), False

    def __call__(self, number: int) -> Refusal | None:
        if number <= 10:
            return None
        self._has_begun.wait()
        with self._lock:
            if self._is_over:
                return None
            self.refused += 1
            return 503, "overloaded", f"refused {self.refused} times"

    def begin(self) -> None:
        self._has_begun.set()

    def end(self, heard: int) -> None:
        """End, unless a refusal is on its way: the client has heard of so many."""
        with self._lock:
            self._is_over |= heard == self.refused


def test_a_provider_that_answers_nothing_but_503_is_away_too_and_burns_no_attempts(stage: Stage) -> None:
    """It lasts for two probes, which is as long as the three attempts that each request has could last.

    It begins when all that was served has arrived, and ends when every refusal has: so it is one outage.
    """
    server, outage, in_flight = stage.serve(rate_limit=None), _Outage(), 8
    _patient(stage, attempts=3, max_wait_seconds=2)
    said: Counter[str] = Counter()
    heard = 0
    with _toll(server, outage) as base_url:
        stage.provider("lab", base_url, concurrency=in_flight)
        process = stage.start("run", stage.prompts("many", 30), "--json")
        assert process.stdout is not None
        for event in map(json.loads, process.stdout):
            said[event["event"]] += 1
            heard += event["event"] == "call_ended" and event["error"] is not None
            if said["request_ended"] == 10:
                outage.begin()
            if said["provider_down"] and heard >= in_flight + 2:
                outage.end(heard)
        ended = finish(process)
    assert ended.exit_code == 0, ended.stderr
    assert said["provider_down"] == said["provider_up"] == 1
    found = audit(stage, server.books())
    assert (found.charged, found.maybe_paid) == (30, 0)
    assert outage.refused <= 3 * in_flight
