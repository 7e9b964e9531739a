"""/metrics: what Prometheus reads of the ledger, and what its Grafana dashboard asks for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from prometheus_client.parser import text_string_to_metric_families

import pipeline.web
from pipeline.batch import Batch
from pipeline.config.load import Config, Provider, RateLimit
from pipeline.ledger.lock import run_lock
from pipeline.ledger.metrics import LATENCY_BUCKETS
from pipeline.web.access import AccessControl
from pipeline.web.metrics import MetricsPage, read_metrics
from pipeline.web.server import Site
from tests.support.exhibits import asked, drawn, fail, hang
from tests.support.workbench import request

if TYPE_CHECKING:
    from tests.support.workbench import Bench

LIMITED = Provider("lab", "http://127.0.0.1:9/v1", rate_limit=RateLimit(50, 60.0))
DASHBOARD = Path(pipeline.web.__file__).with_name("grafana.json")
NAMES = {
    "pipeline_images_stored_total",
    "pipeline_calls_total",
    "pipeline_failures_total",
    "pipeline_cost_usd_total",
    "pipeline_maybe_paid_total",
    "pipeline_calls_in_flight",
    "pipeline_window_used_ratio",
    "pipeline_requests",
    "pipeline_next_url_expiry_seconds",
    "gen_ai_client_inference_duration_seconds_bucket",
    "gen_ai_client_inference_duration_seconds_sum",
    "gen_ai_client_inference_duration_seconds_count",
}


def _config(bench: Bench) -> Config:
    return Config(None, bench.folder, None, {"lab": LIMITED})


def _samples(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the values of each name by the values of its labels, as Prometheus' own parser reads them."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert set(sample.labels) <= {"job", "provider", "outcome", "kind", "status", "le"}
            key = tuple(sample.labels.values())
            assert key not in found.setdefault(sample.name, {})
            found[sample.name][key] = sample.value
    return found


def _night(bench: Bench, now: float) -> None:
    """Leave what a night leaves: three images, a refusal, a call of unknown outcome, a URL, a call in flight."""
    bench.submit(*(asked(number) for number in range(1, 8)))
    hang(bench, 1, drawn(1), cost_usd=0.5)
    hang(bench, 2, drawn(2), drawn(3))
    fail(bench, 3)
    bench.set(  # as an old ledger has it, without its class
        "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome, error)"
        " VALUES (3, 'lab', 1, 1, 1, 'refused', json_object('code', 'content_policy_violation'))"
    )
    bench.set("UPDATE attempt SET sent_at = ?1, ended_at = ?1 + 3.0 * request", now - 20)
    bench.set("UPDATE attempt SET cost_usd = 0.25 WHERE outcome = 'answered'")
    bench.set(
        "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome, error)"
        " VALUES (4, 'lab', 1, ?, ?, 'unknown', json_object('kind', 'OutcomeUnknown'))",
        now - 100,
        now - 90,
    )
    bench.set("UPDATE request SET maybe_paid = 1 WHERE pk = 4")
    bench.set("INSERT INTO attempt (request, provider, n, sent_at) VALUES (5, 'lab', 4, ?)", now - 1)
    bench.set(
        "INSERT INTO image (request, attempt, job, state, number, url, expires_at)"
        " VALUES (2, 2, 1, 'paid', 9, 'https://a.example', ?)",
        now + 300,
    )


def test_every_figure_is_that_of_the_ledger(bench: Bench) -> None:
    _night(bench, now := 10_000.0)
    found = _samples(read_metrics(_config(bench), now))
    assert set(found) == NAMES
    answered = bench.one("SELECT count(*) FROM attempt WHERE outcome = 'answered'")
    refused = bench.one("SELECT count(*) FROM attempt WHERE outcome = 'refused'")
    sent = bench.one("SELECT sum(n) FROM attempt WHERE sent_at > 9940")
    lab = ("job", "lab")
    assert found["pipeline_images_stored_total"] == {lab: 3}
    assert found["pipeline_calls_total"] == {
        (*lab, "answered"): answered,
        (*lab, "refused"): refused,
        (*lab, "unknown"): 1,
        (*lab, "not_sent"): 0,
    }
    assert found["pipeline_failures_total"] == {(*lab, "Moderated"): refused, (*lab, "OutcomeUnknown"): 1}
    assert found["pipeline_cost_usd_total"] == {lab: 0.25 * answered}
    assert found["pipeline_maybe_paid_total"] == {lab: 2}, "one of a run that died"
    assert found["pipeline_calls_in_flight"] == {lab: 0}, "no run is at work"
    assert found["pipeline_window_used_ratio"] == {("lab",): sent / 50}
    counts = {status: number for (_, _, status), number in found["pipeline_requests"].items()}
    assert counts == {
        "pending": 4,
        "running": 0,
        "succeeded": 2,
        "partial": 0,
        "failed": 1,
        "cancelled": 0,
        "superseded": 0,
    }
    assert found["pipeline_next_url_expiry_seconds"] == {lab: 300}
    assert found["gen_ai_client_inference_duration_seconds_count"] == {lab: answered}
    seconds = bench.one("SELECT sum(ended_at - sent_at) FROM attempt WHERE outcome = 'answered'")
    assert found["gen_ai_client_inference_duration_seconds_sum"] == {lab: seconds}
    buckets = {float(le): value for (*_, le), value in found["gen_ai_client_inference_duration_seconds_bucket"].items()}
    assert list(buckets) == [*LATENCY_BUCKETS, math.inf]
    assert (buckets[2.56], buckets[5.12], buckets[10.24], buckets[math.inf]) == (0, 1, answered, answered)


def test_a_ledger_without_anything_has_every_name(bench: Bench) -> None:
    text = read_metrics(_config(bench), 1.0)
    assert {family.name for family in text_string_to_metric_families(text)} == {
        re.sub("_(total|bucket|sum|count)$", "", name) for name in NAMES
    }
    bench.submit(request(1))
    found = _samples(read_metrics(_config(bench), 1.0))
    assert found["pipeline_images_stored_total"] == {("job", "lab"): 0}
    assert found["pipeline_next_url_expiry_seconds"] == {("job", "lab"): math.inf}


def test_lines_of_batches_are_no_calls_and_cost_all_the_same(bench: Bench) -> None:
    _night(bench, 10_000.0)
    before = _samples(read_metrics(_config(bench), 10_000.0))
    bench.set(
        "INSERT INTO batch (job, provider, served_by, token, requests, tokens, created_at)"
        " VALUES (1, 'lab', 'generation', 't', 1, 1, 1)"
    )
    bench.set(
        "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome, cost_usd, batch)"
        " VALUES (6, 'lab', 1, 1, 9000, 'answered', 0.125, 1)"
    )
    after = _samples(read_metrics(_config(bench), 10_000.0))
    cost = after.pop("pipeline_cost_usd_total")
    assert cost == {place: value + 0.125 for place, value in before.pop("pipeline_cost_usd_total").items()}
    assert after == before


async def test_calls_are_in_flight_while_a_run_is_at_work(bench: Bench) -> None:
    _night(bench, now := time.time())

    def refuse() -> None:
        raise AssertionError

    with run_lock(bench.folder, bench.stores.new, bench.connection, refuse):
        found = _samples(read_metrics(_config(bench), now))
    assert found["pipeline_calls_in_flight"] == {("job", "lab"): 1}


def test_words_of_a_server_cannot_break_the_format(bench: Bench) -> None:
    _night(bench, 10_000.0)
    kind = 'a "kind"\\of\nerror{} 1'
    bench.set("UPDATE attempt SET error = json_object('kind', ?) WHERE outcome = 'unknown'", kind)
    assert ("job", "lab", kind) in _samples(read_metrics(_config(bench), 10_000.0))["pipeline_failures_total"]


@contextlib.asynccontextmanager
async def _served(bench: Bench, host: str) -> Any:
    access = AccessControl.of(host)
    async with (
        TestServer(Site(Batch(_config(bench)), access).application()) as server,
        aiohttp.ClientSession(base_url=server.make_url("/")) as client,
    ):
        yield client, access


async def test_it_is_served_with_the_token_of_the_page_if_there_is_one(bench: Bench) -> None:
    _night(bench, time.time())
    async with _served(bench, "127.0.0.1") as (client, _), client.get("/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert set(_samples(await answer.text())) == NAMES
    async with _served(bench, "0.0.0.0") as (client, access):  # noqa: S104 - not bound
        bearer = {"Authorization": f"Bearer {access.token}"}
        for path, headers, status in (
            ("/metrics", {}, 401),
            (f"/metrics?token={access.token}", {}, 200),
            ("/metrics", bearer, 200),
            ("/metrics", {"Authorization": "Bearer wrong"}, 401),
            ("/metrics", {"Authorization": f"Basic {access.token}"}, 401),
            ("/events", bearer, 401),
            (f"/events?token={access.token}", {}, 401),
        ):
            async with client.get(path, headers=headers) as answer:
                assert answer.status == status, (path, headers)


async def test_a_ledger_that_cannot_be_read_is_an_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.errors import LedgerError

    def fail_to_read(*_: object) -> str:
        raise LedgerError("the ledger is damaged")

    monkeypatch.setattr("pipeline.web.metrics.read_metrics", fail_to_read)
    async with _served(bench, "127.0.0.1") as (client, _), client.get("/metrics") as answer:
        assert (answer.status, await answer.text()) == (503, "the ledger is damaged\n")


@pytest.mark.parametrize("seconds", [0.002, 0.5, 4.0])
def test_readings_take_a_hundredth_of_the_time_at_most_after_the_first_second(bench: Bench, seconds: float) -> None:
    clock, work, read = [0.0], [0.0], 0

    def take_long(_config: Config, _now: float) -> str:
        nonlocal read
        work[0] += seconds
        read += 1
        return f"reading {read}\n"

    page = MetricsPage(_config(bench), take_long, lambda: clock[0], lambda: work[0])
    texts = []
    for _ in range(1000):
        texts.append(page.text(0.0))
        clock[0] += 5.0
    assert work[0] <= 1.0 + seconds + 0.01 * clock[0]
    assert texts[0] == "reading 1\n"
    if seconds == 0.002:
        assert read == 1000, "what is read fast is always new"
    else:
        assert read > 0.9 * 0.01 * clock[0] / seconds


def _expressions(value: Any) -> list[str]:
    """Return every query of a dashboard."""
    if isinstance(value, dict):
        own = [value[key] for key in ("expr", "query") if isinstance(value.get(key), str)]
        return [*own, *(found for item in value.values() for found in _expressions(item))]
    return [found for item in value for found in _expressions(item)] if isinstance(value, list) else []


def test_the_dashboard_asks_only_for_what_is_there_and_for_all_of_it(bench: Bench) -> None:
    _night(bench, time.time())
    there = set(_samples(read_metrics(_config(bench), time.time())))
    dashboard = json.loads(DASHBOARD.read_text())
    asked_for = {name for text in _expressions(dashboard) for name in re.findall(r"\b(?:pipeline|gen_ai)_\w+", text)}
    assert asked_for <= there
    assert asked_for >= there - {name for name in there if name.endswith(("_sum", "_count"))}
    labels = {
        label
        for text in _expressions(dashboard)
        for part in re.findall(r"by \(([^)]*)\)", text)
        for label in part.split(", ")
    }
    assert labels <= {"job", "provider", "outcome", "kind", "status", "le"}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


async def test_many_readers_at_once_share_one_reading(bench: Bench) -> None:
    read = 0

    def count(_config: Config, _now: float) -> str:
        nonlocal read
        read += 1
        return "text\n"

    page = MetricsPage(_config(bench), count, work_clock=iter(range(0, 2000, 10)).__next__)
    texts = await asyncio.gather(*(asyncio.to_thread(page.text, 0.0) for _ in range(8)))
    assert (set(texts), read) == ({"text\n"}, 1)
