"""What every test may ask for."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support.browser import Viewer, launched, viewing
from tests.support.stage import Stage, staged
from tests.support.workbench import Bench, benched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser


# The first text that is drawn in a new clone builds tables of Unicode, which takes seconds on a machine at work.
settings.register_profile("pipeline", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pipeline")


def pytest_configure(config: pytest.Config) -> None:
    """Measure the coverage of what runs in the processes of the tests, not of the commands that they start.

    Those run at their own speed then, and what they run is covered by tests that call it. All of them keep the bytecode
    that they compile, also if the environment forbids it: a command that compiles this package takes a third longer.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        os.environ.pop("COVERAGE_PROCESS_START", None)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A folder, servers and the command."""
    with staged(tmp_path) as made:
        yield made


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """An output folder with a ledger, and runs over it in this process."""
    with benched(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium, for a module without coroutines: its driver keeps a loop of its own running."""
    with launched() as made:
        yield made


@pytest.fixture
def viewer(browser: Browser) -> Iterator[Viewer]:
    """Opens pages, and ends the test where one of them does anything wrong."""
    with viewing(browser) as made:
        yield made
