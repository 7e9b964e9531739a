"""Runs whose calls are made by workers behave as those of one process: the same tests, with another caller."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

from tests.integration import test_budget, test_controls, test_idempotency, test_runner, test_worker
from tests.support.workbench import benched, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.workbench import Bench

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """An output folder with a ledger, whose runs have two workers."""
    from tests.support.workers_here import workers_here

    with benched(tmp_path) as made:
        made.environment["LAB_KEY"] = "sk-lab-0123456789"
        async with workers_here(made):
            await until(lambda: made.events)
            made.events.clear()
            yield made


shop = test_idempotency.shop

_OF_ONE_PROCESS = {
    "test_cancelled_mid_call_the_row_goes_back_and_the_next_start_counts_the_call",  # workers end with their run
    "test_the_sandbox_answers_a_known_key_with_the_response_that_it_keeps",  # no run makes its calls
    "test_the_sandbox_ignores_keys_unless_it_is_told_otherwise",
    "test_a_run_finds_how_many_calls_a_server_serves_at_once_and_the_next_one_knows",  # how many a server serves
    "test_others_who_use_the_limit_halve_the_pace_and_it_is_said",  # what a server answers
    "test_a_route_s_job_of_a_higher_priority_goes_before_a_member_s_own",  # which request is taken, before any call
    "test_a_window_is_said_by_status_and_plan_and_ends_a_run_that_is_not_to_wait",  # the same without workers: commands
    "test_the_commands_set_what_status_and_plan_say_first",
    "test_what_the_commands_do_not_take_is_exit_2_and_changes_nothing",
}
for _module in (test_worker, test_budget, test_runner, test_idempotency, test_controls):
    tests = {name: test for name, test in vars(_module).items() if name.startswith("test_")}
    globals().update({name: test for name, test in tests.items() if name not in _OF_ONE_PROCESS})
