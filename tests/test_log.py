"""run.log takes what matters, is made with the first event, and is rotated."""

from __future__ import annotations

from contextlib import closing
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING

from pipeline.progress import log as module
from pipeline.progress.log import Log
from pipeline.progress.wording import describe
from tests.test_wording import EVENTS

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_log_is_made_at_the_first_event_and_takes_what_matters(tmp_path: Path) -> None:
    with closing(Log(tmp_path, verbose=False)) as log:
        assert not (tmp_path / "run.log").exists()
        for event in EVENTS:
            log(event)
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert len(lines) == len(EVENTS) - 4
    assert lines[0].endswith(describe(EVENTS[1]))


def test_a_verbose_log_takes_all_and_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = RotatingFileHandler
    monkeypatch.setattr(module, "RotatingFileHandler", lambda path, **more: handler(path, **{**more, "maxBytes": 2000}))
    with closing(Log(tmp_path, verbose=True)) as log:
        for _ in range(10):
            for event in EVENTS:
                log(event)
    assert {path.name for path in tmp_path.iterdir()} == {"run.log", "run.log.1", "run.log.2", "run.log.3"}
