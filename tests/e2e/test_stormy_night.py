"""Many requests with the provider `stormy` of config.yaml: few lines in a pipe, and a terminal that stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.stage import HOME
from tests.support.terminal import CountingScreen, terminal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.stage import Stage

pytestmark = pytest.mark.processes

ROWS = 24
SHORT = 150  # requests; each second one meets a fault
MOST_ANNOUNCED = 8  # lines above what is redrawn: what a person would act on
SHOWN = b"\x1b[?25h"  # the cursor, which is hidden until the last drawing is erased


def _night(stage: Stage, requests: int) -> Path:
    """Write a job of so many requests for the provider, which is as it is shipped; only the waits are shorter."""
    shipped = yaml.safe_load((HOME / "config.yaml").read_text())["providers"]["stormy"]
    shipped["sandbox"]["slow_seconds"] = 0.1
    stage.settings["retry"] = {"max_wait_seconds": 0.2}
    stage.providers["stormy"] = shipped
    stage.write_config()
    return stage.prompts("night", requests)


@pytest.mark.parametrize(("requests", "most"), [(SHORT, 25), pytest.param(500, 60, marks=pytest.mark.long)])
def test_in_a_pipe_it_prints_few_lines(stage: Stage, requests: int, most: int) -> None:
    ended = stage.run("run", _night(stage, requests), exit_code=None)
    assert ended.exit_code in {0, 1}
    lines = ended.stderr.splitlines() + ended.stdout.splitlines()
    assert len(lines) <= most, "\n".join(lines)
    assert "http_429" in str(stage.providers), "there was something to say"
    log = (stage.output / "run.log").read_text()
    assert log.count("asks for a pause") + log.count("is down") > requests // 50, "all of it is in the log"


@pytest.mark.parametrize("requests", [SHORT, pytest.param(500, marks=pytest.mark.long)])
def test_on_a_terminal_nothing_scrolls_until_the_summary(stage: Stage, requests: int) -> None:
    """Never scrolls: until the summary no line leaves the top of the screen, since what is redrawn stays in its place.

    It is never taller than the screen, and above it stand the first warnings and a few announcements only.
    """
    with terminal(stage.folder, "run", _night(stage, requests), rows=ROWS) as seen:
        seen.read_until(lambda: "in flight" in seen.text)
        assert seen.read_to_the_end() in {0, 1}
    while_at_work, shown, _ = bytes(seen.raw).partition(SHOWN)
    assert shown
    screen = CountingScreen(80, ROWS)
    screen.play(while_at_work)
    assert screen.scrolled == 0
    assert sum(bool(line.strip()) for line in screen.display) <= MOST_ANNOUNCED
