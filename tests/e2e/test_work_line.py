"""A command that takes more than a second says on its terminal what it is at; one that does not says nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest

from tests.support.stage import finish
from tests.support.terminal import terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.stage import Stage

pytestmark = pytest.mark.processes


@contextlib.contextmanager
def _held_ledger(stage: Stage) -> Iterator[Callable[[], object]]:
    """Hold the ledger's write lock, as another program may; yields what lets it go."""
    with contextlib.closing(sqlite3.connect(stage.output / "ledger.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield lambda: other.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("words", "line", "ends"),
    [
        (("forget", "many", "--yes"), "forgetting", True),
        (("run", "many.yaml"), "checking and queueing", False),
        (("resume", "many"), "reading the ledger", False),
    ],
)
def test_a_command_that_waits_for_the_ledger_shows_what_it_is_at(
    stage: Stage, words: tuple[str, ...], line: str, ends: bool
) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.run("submit", stage.prompts("many", 2))
    with _held_ledger(stage) as let_go, terminal(stage.folder, *words) as shown:
        shown.read_until(lambda: f"{line} · 1 s" in shown.text)
        assert len(shown.lines) == 1
        let_go()
        shown.read_until(lambda: line not in shown.text)
        if ends:
            assert shown.read_to_the_end() == 0
            assert shown.lines == ["job `many` is forgotten, with 2 requests and 0 images; its files stay"]


def test_a_command_that_is_fast_or_quiet_or_in_a_pipe_shows_no_line(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    with terminal(stage.folder, "submit", stage.prompts("many", 2)) as fast:
        assert fast.read_to_the_end() == 0
    with _held_ledger(stage) as let_go:
        piped = stage.start("cancel", "many")
        with (
            terminal(stage.folder, "cancel", "many", "--quiet") as quiet,
            terminal(stage.folder, "cancel", "many") as shown,
        ):
            shown.read_until(lambda: "taking requests out of the queue · 2 s" in shown.text)  # so the others wait, too
            let_go()
            assert (shown.read_to_the_end(), quiet.read_to_the_end()) == (0, 0)
    assert b"\x1b[K" in shown.raw
    assert b"\x1b[K" not in fast.raw + quiet.raw
    assert finish(piped).stderr == ""
