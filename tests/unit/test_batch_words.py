"""How batches stand, for people and for scripts: in the status, in the summary of a run, in a notification."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pipeline.config.load import RateLimit
from pipeline.errors import QuotaSpent
from pipeline.ledger.batch_queries import BatchesOut
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.notifications.message import end_message
from pipeline.progress.view import ProviderView, provider_facts
from pipeline.reports.batches import mode_words, out_words, waits_words
from pipeline.reports.facts import clock, job_line
from pipeline.reports.report_data import read_report_data
from pipeline.reports.status import read_status, status_json, status_lines
from pipeline.result import Result
from tests.support.workbench import LAB, request
from tests.unit.test_summary import lines as summary_of

if TYPE_CHECKING:
    from tests.support.workbench import Bench

NIGHT = time.mktime((2026, 11, 27, 22, 0, 0, 0, 0, -1))
DAY = 86_400.0


def _send(bench: Bench, batches: int, each: int, *, completed: int = 0, failed: int = 0) -> None:
    """Send a job in so many batches of so many requests, a minute between them."""
    bench.submit(*map(request, range(batches * each)))
    for number in range(batches):
        sent_at = NIGHT + 60 * number
        bench.send_batch(
            *range(1 + number * each, 1 + (number + 1) * each),
            id=f"batch_{number}",
            completed=completed,
            failed=failed,
            sent_at=sent_at,
            expires_at=sent_at + DAY,
        )


def _status(bench: Bench, *, verbose: bool = False) -> list[str]:
    return list(status_lines(read_status(bench.folder, None), {"lab": LAB}, verbose=verbose))


def test_two_hundred_batches_are_one_line_and_each_has_one_on_request(bench: Bench) -> None:
    _send(bench, 200, 2, completed=1)
    first, last = clock(NIGHT, time.time()), clock(NIGHT + 199 * 60 + DAY, time.time())
    said = _status(bench)
    assert said[:2] == ["job (lab)", "  400 in batch"]
    assert said[3:] == [
        f"  200 batches out: 200 of 400 lines made, the first sent {first}, the last expires {last} at the latest"
    ]
    each = _status(bench, verbose=True)
    assert len(each) == 204
    end = clock(NIGHT + DAY, time.time())
    assert (
        each[4] == f"    batch_0: in_progress, 1 of 2 lines made, dall-e-2, sent {first}, expires {end} at the latest"
    )


def test_one_batch_is_told_in_the_singular_and_one_that_is_being_sent_has_no_moments(bench: Bench) -> None:
    _send(bench, 1, 3, completed=1, failed=1)
    sent, end = clock(NIGHT, time.time()), clock(NIGHT + DAY, time.time())
    assert _status(bench)[3:] == [
        f"  1 batch out: 1 of 3 lines made, 1 failed, sent {sent}, expires {end} at the latest"
    ]
    bench.set("UPDATE batch SET id = NULL, status = NULL, completed = 0, failed = 0, sent_at = NULL, expires_at = NULL")
    assert _status(bench, verbose=True)[3:] == [
        "  1 batch out: 0 of 3 lines made, being sent",
        "    a batch: sending, 0 of 3 lines made, dall-e-2",
    ]
    (summary,) = read_job_summaries(bench.connection)
    assert waits_words(summary.out, NIGHT) == "waits for 1 batch"


def test_what_the_work_waits_for_is_told_with_its_end() -> None:
    now = NIGHT
    end = clock(NIGHT + DAY, now)
    assert waits_words(BatchesOut(12, expires_at=NIGHT + DAY), now) == (
        f"waits for 12 batches, the last expires {end} at the latest"
    )
    assert (
        waits_words(BatchesOut(1, expires_at=NIGHT + DAY), now)
        == f"waits for 1 batch, which expires {end} at the latest"
    )
    assert out_words(BatchesOut(2, 1200, 840, 0, NIGHT, NIGHT + DAY), now) == (
        f"2 batches out: 840 of 1,200 lines made, the first sent 22:00, the last expires {end} at the latest"
    )


def test_a_wish_to_cancel_and_how_the_job_is_served_are_told(bench: Bench) -> None:
    _send(bench, 2, 1)
    bench.set("UPDATE job SET mode = 'batch', cancel_since = 1")
    said = _status(bench)
    assert said[0] == "job (lab, by batch)"
    assert said[3].startswith("  being cancelled; 2 batches out: 0 of 2 lines made")
    deadline = clock(NIGHT + DAY, time.time())
    bench.set("UPDATE job SET mode = 'auto', cancel_since = NULL, deadline = ?", NIGHT + DAY)
    assert _status(bench)[0] == f"job (lab, auto, deadline {deadline})"
    bench.set("UPDATE job SET realtime_since = ?", NIGHT)
    (summary,) = read_job_summaries(bench.connection)
    assert mode_words(summary) == f"auto, deadline {deadline}, in realtime since {clock(NIGHT, time.time())}"
    bench.set("UPDATE job SET deadline = NULL, realtime_since = NULL")
    assert _status(bench)[0] == "job (lab, auto)"


def test_the_json_has_every_batch_in_the_fields_of_the_contract(bench: Bench) -> None:
    _send(bench, 2, 2, completed=1, failed=1)
    bench.set("UPDATE batch SET ended_at = 1, status = 'expired', completed = 1 WHERE pk = 1")
    bench.set("UPDATE batch SET id = NULL, status = NULL, sent_at = NULL, expires_at = NULL WHERE pk = 2")
    bench.set("UPDATE batch SET sent_at = 1790000000.7, expires_at = 1790086400 WHERE pk = 1")
    bench.set("UPDATE job SET mode = 'auto', deadline = 1790000000")
    (job,) = status_json(read_status(bench.folder, None))["jobs"]
    assert (job["mode"], job["deadline"], job["counts"]["running"]) == ("auto", "2026-09-21T14:13:20Z", 4)
    both = {"provider": "lab", "model": "dall-e-2", "requests": 2, "completed": 1, "failed": 1}
    ended = {**both, "id": "batch_0", "status": "expired", "sent_at": "2026-09-21T14:13:20Z"}
    assert job["batches"] == [
        {**ended, "expires_at": "2026-09-22T14:13:20Z"},
        {**both, "id": None, "status": "sending", "sent_at": None, "expires_at": None},
    ]
    (job,) = status_json(read_status(bench.folder, None), living_only=True)["jobs"]
    assert [one["status"] for one in job["batches"]] == ["sending"], "a notification does not grow from night to night"


def test_the_limit_says_nothing_of_what_is_in_a_batch(bench: Bench) -> None:
    from dataclasses import replace

    limited = {"lab": replace(LAB, rate_limit=RateLimit(1, 60))}
    bench.submit(*map(request, range(10)))
    bench.send_batch(*range(1, 9))
    said = list(status_lines(read_status(bench.folder, None), limited))
    assert said[2].endswith("2 to come, 2 min at the limit")
    assert said[1] == "  2 pending · 8 in batch"
    bench.set("UPDATE job SET mode = 'batch'")
    assert "at the limit" not in "".join(status_lines(read_status(bench.folder, None), limited))


def test_a_run_that_leaves_batches_out_says_so_and_what_collects_them_and_ends_with_3(bench: Bench) -> None:
    _send(bench, 12, 100)
    left = "12 batches (1,200 requests) are out at lab; `pipeline run` collects them"
    assert summary_of(bench) == ["job: 1,200 requests: 1,200 in batch; 0 images", left]
    summaries = read_job_summaries(bench.connection)
    result = Result(None, summaries, (), None, (), {})  # type: ignore[arg-type]  # the config is not read
    assert result.exit_code == 3
    message = end_message(result.exit_code, summaries, [], None, "pipeline run")
    assert (message.moment, message.title) == ("stop", "waits for batches: job, 0 images")
    assert message.text.splitlines()[1:] == [left]
    assert message.facts["command"] == "pipeline run"


def test_what_is_queued_is_told_apart_from_what_is_out(bench: Bench) -> None:
    bench.submit(*map(request, range(5)))
    bench.send_batch(1)
    said = summary_of(bench)
    assert said[-3:] == [
        "1 batch (1 request) is out at lab; `pipeline run` collects it",
        "still queued: 4 requests for 4 images; to continue, run:",
        "    pipeline run",
    ]
    (summary,) = read_job_summaries(bench.connection)
    assert job_line(summary) == "job: 5 requests: 4 pending, 1 in batch; 0 images"
    stop = end_message(3, [summary], [QuotaSpent("no money")], None, "pipeline run")
    assert stop.title == "stopped: job, 0 images"
    assert stop.text.splitlines()[-2:] == [said[-3], "4 requests still queued; to continue, type: pipeline run"]


@pytest.mark.parametrize("mode", ["realtime", "batch"])
def test_the_report_says_the_mode_the_batches_and_what_they_cost(bench: Bench, mode: str) -> None:
    _send(bench, 2, 2)
    bench.set("UPDATE job SET mode = ?", mode)
    bench.set("UPDATE batch SET ended_at = 1, status = 'completed' WHERE pk = 1")
    bench.set("UPDATE attempt SET outcome = 'answered', ended_at = sent_at + 30000, cost_usd = 0.01 WHERE batch = 1")
    bench.set("UPDATE request SET status = 'succeeded', cost_usd = 0.01 WHERE pk < 3")
    data = read_report_data(bench.connection, "job")
    assert data["spent"] == [
        ["spent", "$0.02"],
        *([["mode", "batch"]] if mode == "batch" else []),
        ["batches", "2, 1 of them out"],
        ["of that by batch", "$0.02"],
    ]
    assert data["batches"].startswith("1 batch out: 0 of 2 lines made")
    assert data["requests"][0]["seconds"] is None, "the hours of a batch are not the seconds of a call"


def test_the_report_of_a_job_without_batches_has_no_word_of_them(bench: Bench) -> None:
    bench.submit(request(1))
    data = read_report_data(bench.connection, "job")
    assert (data["spent"], data["batches"]) == ([], None)


def test_a_provider_that_only_waits_for_batches_has_no_speed_of_calls_to_measure() -> None:
    out = BatchesOut(1, expires_at=NIGHT + DAY)
    waiting = ProviderView("lab", None, 50.0, 0, "batch", out=out)
    assert provider_facts(waiting, NIGHT) == [waits_words(out, NIGHT)]
    calling = replace(waiting, bottleneck="provider", in_flight=2)
    assert provider_facts(calling, NIGHT)[:2] == ["measuring… (limit 50 images a minute)", "2 calls in flight"]
    assert provider_facts(replace(waiting, per_minute=12.0), NIGHT)[1] == "0 calls in flight"
