"""The summary of a run: what is done, what failed and why, what is left, and what to type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.cli.summary import summary_lines
from pipeline.config.load import Config, RateLimit
from pipeline.errors import ModelUnknown, QuotaSpent
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.ledger.queue import Block
from pipeline.ledger.stops import record_stop
from pipeline.reports.advice import request_advice
from pipeline.reports.next_command import NextCommand
from pipeline.result import Result
from tests.support.workbench import request
from tests.unit.test_failure_report import BUSY, POLICY, fail

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.errors import Stop
    from tests.support.workbench import Bench


def lines(bench: Bench, *again: str, stops: Sequence[Stop] = (), **lowered: RateLimit) -> list[str]:
    """Return the summary of everything in the ledger."""
    result = Result(
        config=Config(None, bench.folder, None, {}),
        summaries=read_job_summaries(bench.connection),
        stops=stops,
        signal=None,
        manifests=(),
        lowered=lowered,
    )
    return list(summary_lines(result, NextCommand(None, ()), again or ["run"]))


def test_causes_of_all_jobs_are_grouped_the_most_frequent_first(bench: Bench, tmp_path: Path) -> None:
    for name in ("one", "two"):
        bench.submit(*(request(k, id=f"cat-{k}") for k in range(4)), name=name, file=tmp_path / f"{name} job.yaml")
        fail(bench, 0, BUSY, name)
        fail(bench, 1, POLICY, name)
        fail(bench, 2, POLICY, name)
    said = lines(bench)
    begin = said.index("failed: 6 requests")
    assert said[begin + 1 : begin + 10] == [
        "  4 × 400 content_policy_violation, such as one/cat-1: the policy refused it",  # noqa: RUF001
        f"    {request_advice('Moderated', 'one job.yaml')}:",
        f"    pipeline run '{tmp_path}/one job.yaml'",
        f"    pipeline run '{tmp_path}/two job.yaml'",
        "    see: pipeline help Moderated",
        "  2 × 500 ServerFault, such as one/cat-0: busy",  # noqa: RUF001
        f"    {request_advice('ServerFault', None)}:",
        "    pipeline resume one two",
        "    see: pipeline help ServerFault",
    ]
    assert said[begin + 10 :] == [
        "still queued: 2 requests for 2 images; to continue, run:",
        "    pipeline run",
    ]


def test_hundreds_of_jobs_and_causes_do_not_flood_the_terminal(bench: Bench) -> None:
    for job in range(30):
        bench.submit(request(1), name=f"job-{job}")
        fail(bench, 1, type(BUSY)("busy", http_status=500 + job), f"job-{job}")
    said = lines(bench)
    assert len(said) < 50
    assert "20 more jobs: 0 images; 20 failed" in said
    assert "  and 22 more causes; see the manifests" in said
    bench.set("UPDATE request SET error = (SELECT error FROM request LIMIT 1)")
    assert "    pipeline resume" in lines(bench), "thirty names are for no command line: all that failed"


def test_a_limit_that_was_lowered_and_calls_that_may_have_been_paid_are_said(bench: Bench) -> None:
    bench.submit(request(1))
    bench.set("UPDATE request SET status = 'succeeded', received = 1, cost_usd = 0.25, maybe_paid = 2")
    assert lines(bench, lab=RateLimit(5, 60)) == [
        "lab allowed only 5 images per 60 s",
        (
            "job: 1 request: 1 succeeded; 1 image; $0.25 spent;"
            " 2 more calls may have been paid (unclear: the response was lost)"
        ),
    ]


def test_a_stop_says_what_mends_it_before_the_command_that_continues(bench: Bench, tmp_path: Path) -> None:
    bench.submit(request(1), file=tmp_path / "job.yaml")
    money = [QuotaSpent("no money"), QuotaSpent("none at all")]
    assert lines(bench, stops=money)[1:] == [
        "to fix it: top up the account at the provider, or raise its limit",
        "still queued: 1 request for 1 image; to continue, run:",
        "    pipeline run",
    ]
    assert lines(bench, stops=[ModelUnknown("no such model")])[-1] == f"    pipeline run {tmp_path}/job.yaml"
    typed = ("run", str(tmp_path / "job.yaml"), "--limit", "1")
    assert lines(bench, *typed, stops=[ModelUnknown("no such model")])[-1] == f"    pipeline {' '.join(typed)}"


def test_jobs_that_the_run_took_up_have_commands_of_their_own(bench: Bench, tmp_path: Path) -> None:
    given, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    bench.submit(request(1), name="a", file=given)
    bench.submit(request(2), name="b", file=other)
    assert lines(bench, "run", str(given))[-2:] == [f"    pipeline run {given}", f"    pipeline run {other}"]
    bench.set("UPDATE request SET status = 'succeeded', received = 1 WHERE prompt = 'prompt 1'")
    said = lines(bench, "run", str(given))
    assert said[-2:] == ["still queued: 1 request for 1 image; to continue, run:", f"    pipeline run {other}"]
    assert lines(bench, "run")[-1] == "    pipeline run"


def test_a_stop_of_an_earlier_run_is_said_with_its_fix_and_this_run_s_own_only_once(bench: Bench) -> None:
    bench.submit(request(1))
    stop = QuotaSpent("the money is gone")
    record_stop(bench.connection, Block(provider="lab"), stop)
    said = lines(bench, "run")
    (at,) = [place for place, line in enumerate(said) if line.endswith("provider `lab`: the money is gone")]
    assert said[at + 1] == "  first: top up the account at the provider, or raise its limit"
    assert not any("the money is gone" in line for line in lines(bench, "run", stops=[stop]))
