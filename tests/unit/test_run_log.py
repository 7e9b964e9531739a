"""run.log contains what matters, is created with the first event, and is rotated."""

from __future__ import annotations

import contextlib
import time
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.engine.events import BatchMoved
from pipeline.progress import run_log as module
from pipeline.progress.event_text import describe
from pipeline.progress.run_log import Log
from tests.unit.test_event_text import EVENTS


def test_the_log_is_made_at_the_first_event_and_takes_what_matters(tmp_path: Path) -> None:
    with closing(Log(tmp_path, verbose=False)) as log:
        assert not (tmp_path / "run.log").exists()
        for event in EVENTS:
            log(event)
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert len(lines) == len(EVENTS) - 5
    assert lines[0].endswith(describe(EVENTS[1]))


def test_every_event_has_a_line_of_its_own_moment_in_its_order(tmp_path: Path) -> None:
    moments = (1_800_000_000.5 + second for second in range(20_000))
    with closing(Log(tmp_path, verbose=True, now=lambda: next(moments))) as log:
        for _ in range(300):
            for event in EVENTS:
                log(event)
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines] == 300 * [describe(event) for event in EVENTS]
    seconds = [time.mktime(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S")) for line in lines]
    assert seconds == list(range(1_800_000_000, 1_800_000_000 + len(lines)))
    assert {line[19:23] for line in lines} == {",500"}


def test_a_verbose_log_takes_all_and_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_AT_ONCE", 14)
    handler = module._RotatingFile
    monkeypatch.setattr(module, "_RotatingFile", lambda path, **more: handler(path, **{**more, "maxBytes": 2000}))
    with closing(Log(tmp_path, verbose=True)) as log:
        for _ in range(10):
            for event in EVENTS:
                log(event)
    assert {path.name for path in tmp_path.iterdir()} == {"run.log", "run.log.1", "run.log.2", "run.log.3"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device here")
def test_a_log_for_which_there_is_no_room_costs_no_word_and_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.log").symlink_to("/dev/full")
    with closing(Log(tmp_path, verbose=False)) as log:
        for event in EVENTS:
            with contextlib.suppress(OSError):
                log(event)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("verbose", "lines"), [(False, 3), (True, 52)])
def test_of_the_moves_of_a_batch_those_to_another_status_are_logged(tmp_path: Path, verbose: bool, lines: int) -> None:
    with closing(Log(tmp_path, verbose=verbose)) as log:
        for made in range(50):
            log(BatchMoved("batch_1", "in_progress", made, 0))
        log(BatchMoved("batch_2", "in_progress", 0, 0))
        log(BatchMoved("batch_1", "completed", 50, 0))
    assert len((tmp_path / "run.log").read_text().splitlines()) == lines
