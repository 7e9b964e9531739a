"""What every test may ask for."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.browser import Viewer, launched, viewing
from tests.support.memory_folder import folder_in_memory
from tests.support.stage import HOME, Stage, staged
from tests.support.workbench import Bench, benched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser


# The first text that is drawn in a new clone builds tables of Unicode, which takes seconds on a machine at work.
settings.register_profile("pipeline", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pipeline")

_ORDER = ["drills", "e2e", "integration", "browser", "unit"]  # what waits longest begins first


def pytest_configure(config: pytest.Config) -> None:
    """Measure the coverage of what runs in the processes of the tests, not of the commands that they start.

    Those run at their own speed then, and what they run is covered by tests that call it. All of them keep the bytecode
    that they compile, also if the environment forbids it: a command that compiles this package takes a third longer. A
    job in the background of a shell ignores SIGINT, and so would the commands. The long drills of a file are dealt to
    several processes, and write gigabytes; else each process gets whole files, and what tests write is in memory.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("markexpr") == "long":
        config.option.dist = "worksteal"
    elif folder := folder_in_memory():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(folder))
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        os.environ.pop("COVERAGE_PROCESS_START", None)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Import the test modules, each worker from another one on, so that in a new clone each is compiled once.

    Whatever an import raises is raised again where pytest collects the module. Until all is collected no garbage is
    looked for: there is none, and looking takes a third of the time.
    """
    worker: dict[str, Any] | None = getattr(session.config, "workerinput", None)
    if worker is None:
        return
    gc.disable()
    places = [Path(argument.partition("::")[0]).resolve() for argument in session.config.args]
    modules = sorted(path for place in places for path in ([place] if place.is_file() else place.rglob("test_*.py")))
    first = len(modules) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    for path in [*modules[first:], *modules[:first]]:
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(".".join(path.relative_to(HOME).with_suffix("").parts))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the folders in this order, so that tests which only compute fill the processors to the end."""
    tests = Path(__file__).parent
    items.sort(key=lambda item: _ORDER.index(item.path.relative_to(tests).parts[0]))


def pytest_collection_finish() -> None:
    """Leave what is there now alone for good when garbage is looked for: the tests, and all that they import.

    What the tests leave grows, too, and is looked through less often than by default: that takes a twentieth less time.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()


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
