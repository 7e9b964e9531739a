"""How a job is served is remembered by the ledger: as it was submitted, and as options of a run change it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.config.batch_rules import BatchRules
from pipeline.errors import JobError
from pipeline.ledger.job_modes import ModeChange, unfinished_jobs
from pipeline.ledger.submit import submit
from pipeline.planning.mode import ModeOptions
from tests.support.workbench import LAB, models, plan, request

if TYPE_CHECKING:
    from pipeline.planning.mode_names import Mode
    from tests.support.workbench import Bench

BATCHES = dataclasses.replace(LAB, batch=BatchRules())
GPT: dict[str, Any] = {"model": "gpt-image-2", "size": "1024x1024"}
MODES = "SELECT name, mode, deadline, realtime_since FROM job ORDER BY pk"


def queue(bench: Bench, name: str, mode: Mode = "realtime", deadline: float | None = None, **params: Any) -> None:
    made = plan(request(1, **{**GPT, **params}), name=name, provider=BATCHES)
    submit(bench.connection, dataclasses.replace(made, mode=mode, deadline=deadline))


def change(bench: Bench, *names: str, is_put_back: bool = False, **options: Any) -> None:
    one = ModeChange(names, ModeOptions(**options))
    one.check(bench.connection, {"lab": BATCHES}, models(), is_put_back=is_put_back)
    one.apply(bench.connection)


def refusal(bench: Bench, *names: str, is_put_back: bool = False, **options: Any) -> list[str]:
    before = bench.ask(MODES)
    with pytest.raises(JobError) as caught:
        change(bench, *names, is_put_back=is_put_back, **options)
    assert bench.ask(MODES) == before
    return [str(problem) for problem in caught.value.problems]


def test_a_job_is_submitted_with_its_mode_and_its_deadline(bench: Bench) -> None:
    queue(bench, "night", "auto", 5000.0)
    queue(bench, "day")
    assert bench.ask(MODES) == [("night", "auto", 5000.0, None), ("day", "realtime", None, None)]


@pytest.mark.parametrize(
    ("mode", "deadline", "since"),
    [("auto", 5000.0, 4000.0), ("auto", 6000.0, None), ("auto", None, None), ("batch", None, None)],
)
def test_a_job_that_has_switched_to_realtime_stays_there_until_its_deadline_or_mode_is_another(
    bench: Bench, mode: Mode, deadline: float | None, since: float | None
) -> None:
    queue(bench, "night", "auto", 5000.0)
    bench.set("UPDATE job SET realtime_since = 4000")
    queue(bench, "night", mode, deadline)
    assert bench.ask(MODES) == [("night", mode, deadline, since)]


def test_a_submit_that_dies_changes_no_mode(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    queue(bench, "night")

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.ledger.submit.write_mode", die)
    with pytest.raises(KeyboardInterrupt):
        queue(bench, "night", "batch", user="me")
    assert bench.ask(MODES) == [("night", "realtime", None, None)]
    assert bench.one("SELECT revision FROM job") == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"mode": "batch"}, [("a", "batch", None, None), ("b", "auto", 5000.0, 4000.0)]),
        ({"mode": "auto"}, [("a", "auto", None, None), ("b", "auto", 5000.0, 4000.0)]),
        ({"mode": "auto", "deadline": 6000.0}, [("a", "auto", 6000.0, None), ("b", "auto", 5000.0, 4000.0)]),
    ],
)
def test_options_change_the_jobs_that_are_named(
    bench: Bench, options: dict[str, Any], expected: list[tuple[Any, ...]]
) -> None:
    queue(bench, "a")
    queue(bench, "b", "auto", 5000.0)
    bench.set("UPDATE job SET realtime_since = 4000 WHERE name = 'b'")
    change(bench, "a", **options)
    assert bench.ask(MODES) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"deadline": 6000.0}, ("b", "auto", 6000.0, None)),
        ({"mode": "auto"}, ("b", "auto", 5000.0, 4000.0)),
        ({"mode": "realtime"}, ("b", "realtime", None, None)),
        ({"mode": "batch"}, ("b", "batch", None, None)),
    ],
)
def test_a_job_in_auto_keeps_its_deadline_unless_it_gets_another_or_leaves_auto(
    bench: Bench, options: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    queue(bench, "b", "auto", 5000.0)
    bench.set("UPDATE job SET realtime_since = 4000")
    change(bench, "b", **options)
    assert bench.ask(MODES) == [expected]


def test_a_deadline_alone_is_for_jobs_in_auto(bench: Bench) -> None:
    queue(bench, "a", "batch")
    queue(bench, "b", "auto", 5000.0)
    assert refusal(bench, "a", "b", deadline=6000.0) == [
        "job `a`: the mode is batch, and a deadline is for mode auto only; add --mode auto"
    ]


def test_requests_that_cannot_go_by_batch_are_named_with_their_number(bench: Bench) -> None:
    requests = [request(number, id=f"r{number}", model="dall-e-2") for number in range(3)]
    submit(bench.connection, plan(request(9, **GPT), *requests, name="old", provider=BATCHES))
    said = "job `old`, request `r0`: `dall-e-2` cannot go by batch; use --mode auto, which makes it in realtime"
    assert refusal(bench, "old", mode="batch") == [said]
    change(bench, "old", mode="auto")
    assert bench.one("SELECT mode FROM job") == "auto"


def test_only_what_is_worked_on_has_to_be_able_to(bench: Bench) -> None:
    submit(bench.connection, plan(request(1, **GPT), request(2), name="old", provider=BATCHES))
    bench.set("UPDATE request SET status = 'failed' WHERE json_extract(params, '$.model') = 'dall-e-2'")
    change(bench, "old", mode="batch")
    assert len(refusal(bench, "old", mode="batch", is_put_back=True)) == 1
    bench.set("UPDATE request SET status = 'succeeded' WHERE status = 'failed'")
    change(bench, "old", mode="batch", is_put_back=True)


def test_a_provider_without_a_batch_api_takes_no_batch_and_auto_all_the_same(bench: Bench) -> None:
    queue(bench, "night")
    one = ModeChange(("night",), ModeOptions(mode="batch"))
    with pytest.raises(JobError, match=r"^job `night`: provider `lab` has no Batch API"):
        one.check(bench.connection, {"lab": LAB}, models(), is_put_back=False)
    one.check(bench.connection, {}, models(), is_put_back=False)  # the provider is no longer configured: said elsewhere
    ModeChange(("night",), ModeOptions(mode="auto")).check(bench.connection, {"lab": LAB}, models(), is_put_back=False)


def test_unfinished_jobs_are_those_with_something_to_make(bench: Bench) -> None:
    queue(bench, "a")
    queue(bench, "b")
    bench.set("UPDATE request SET status = 'succeeded' WHERE job = 1")
    assert unfinished_jobs(bench.connection) == ["b"]
