"""Runs whose calls are made by workers behave as those of one process: the same tests, with another caller."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

from tests.integration import test_budget, test_runner, test_worker
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


_OF_ONE_PROCESS = {
    "test_cancelled_mid_call_the_row_goes_back_and_the_next_start_counts_the_call",  # workers end with their run
}
for _module in (test_worker, test_budget, test_runner):
    tests = {name: test for name, test in vars(_module).items() if name.startswith("test_")}
    globals().update({name: test for name, test in tests.items() if name not in _OF_ONE_PROCESS})
