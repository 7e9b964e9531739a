"""The wall that a budget is: set aside before a call, settled after it, taken from the ledger at a start."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from pipeline.engine.budget import Budget
from pipeline.errors import BudgetSpent
from pipeline.ledger.attempts import committed_usd
from tests.support.workbench import request

if TYPE_CHECKING:
    from pipeline.ledger.queue import QueuedRequest
    from tests.support.workbench import Bench


def _work(bench: Bench, **more: object) -> QueuedRequest:
    bench.submit(request(1))
    return dataclasses.replace(bench.works()[0], **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "job", "config", "limit"), [(3, 2, 1, 3), (None, 2, 1, 2), (None, None, 1, 1), (None, None, None, None)]
)
def test_the_command_line_wins_over_the_job_and_the_job_over_the_config(
    bench: Bench, option: float | None, job: float | None, config: float | None, limit: float | None
) -> None:
    assert Budget(option, config).limit(_work(bench, budget_usd=job)) == limit


def test_a_rehearsal_obeys_the_budget_and_says_that_it_is_one(bench: Bench) -> None:
    work = _work(bench, budget_usd=0.5, rehearsal=True)
    with pytest.raises(
        BudgetSpent, match=r"budget of \$0.50 .* \(a rehearsal: nothing is billed\); raise `budget_usd`"
    ):
        Budget(None, None).reserve(work, 5)
    Budget(None, None).reserve(work, 0.5)


def test_a_budget_below_a_cent_is_named_as_it_is(bench: Bench) -> None:
    with pytest.raises(BudgetSpent, match=r"of its budget of \$0.0010 is spent or may be;"):
        Budget(0.001, None).reserve(_work(bench), 0.02)


def test_what_is_set_aside_counts_until_it_is_settled(bench: Bench) -> None:
    work, money = _work(bench, budget_usd=1.0), Budget(None, None)
    money.load(work, 0.25)
    money.reserve(work, 0.5)
    with pytest.raises(BudgetSpent, match=r"\$0.7500 of its budget of \$1.00 is spent or may be; raise `budget_usd`"):
        money.reserve(work, 0.5)
    money.settle(work, 0.5, 0.0)  # refused: nothing was spent
    money.reserve(work, 0.5)
    money.settle(work, 0.5, None)  # unknown: the estimate stays
    money.reserve(work, 0.25)
    money.settle(work, 0.25, 0.375)  # dearer than estimated
    with pytest.raises(BudgetSpent):
        money.reserve(work, 0.0)


def test_the_last_cent_may_be_spent(bench: Bench) -> None:
    work, money = _work(bench, budget_usd=0.3), Budget(None, None)
    for _ in range(3):
        money.reserve(work, 0.1)


def test_a_budget_that_comes_while_the_run_works_counts_what_it_has_spent_already(bench: Bench) -> None:
    work, money = _work(bench), Budget(None, None)
    money.load(work, 0.5)
    money.reserve(work, 0.4)
    money.load(work, 0.0)
    with pytest.raises(BudgetSpent):
        money.reserve(dataclasses.replace(work, budget_usd=1.0), 0.2)


def test_jobs_have_budgets_of_their_own(bench: Bench) -> None:
    work, money = _work(bench, budget_usd=1.0), Budget(None, None)
    money.reserve(work, 1.0)
    money.reserve(dataclasses.replace(work, job_pk=2), 1.0)


def test_the_ledgers_sum_takes_the_cost_where_it_is_known_and_the_estimate_where_it_may_have_been_paid(
    bench: Bench,
) -> None:
    bench.submit(request(1))
    bench.submit(request(2), name="other")
    for job, outcome, estimate, cost in [
        (1, "answered", 1, 10),
        (1, "answered", 200, None),
        (1, "unknown", 1000, None),
        (1, None, 20_000, None),
        (1, "refused", 300_000, None),
        (1, "not_sent", 4_000_000, None),
        (1, "unknown", None, None),
        (2, "answered", 50_000_000, None),
    ]:
        bench.set(
            "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome, estimate_usd, cost_usd)"
            " VALUES (?, 'lab', 1, 1, ?, ?, ?, ?)",
            *(job, None if outcome is None else 2, outcome, estimate, cost),
        )
    assert committed_usd(bench.connection, 1) == 21_210
