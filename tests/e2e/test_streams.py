"""Standard streams that are closed, full, or read by nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.stage import HOME, KEY

if TYPE_CHECKING:
    from tests.support.stage import Stage

pytestmark = pytest.mark.processes
FULL = Path("/dev/full")


def started(stage: Stage, streams: str, *words: object) -> subprocess.Popen[str]:
    """Start a command by a shell that redirects its streams so."""
    return subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-m", "pipeline", *map(str, words)],
        cwd=stage.folder,
        env={**os.environ, "STAGE_KEY": KEY, "PYTHONPATH": str(HOME)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("streams", ["<&-", "2>&-", "<&- >&- 2>&-"])
def test_a_run_without_standard_streams_makes_its_images_and_writes_nowhere_else(stage: Stage, streams: str) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    run = started(stage, streams, "run", stage.prompts("night", 2))
    said = run.communicate()
    assert (run.returncode, "Error" in said[1]) == (0, False), said
    assert stage.standing("night")["counts"]["succeeded"] == 2
    assert stage.run("verify").exit_code == 0


@pytest.mark.skipif(not FULL.exists(), reason="there is no such device here")
def test_a_full_disk_behind_stdout_is_a_stop_and_behind_stderr_nothing(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    night = stage.prompts("night", 2)
    for streams, words, code in (
        (f">{FULL}", ("run", night, "--json"), 3),
        (f">{FULL}", ("status",), 3),
        (f">{FULL}", ("--help",), 3),
        (f"2>{FULL}", ("run", night), 0),
        (f"2>{FULL}", ("run", "--nosuch"), 2),
        ("<&-", ("forget", "night"), 2),
    ):
        ended = started(stage, streams, *words)
        said = ended.communicate()[1]
        assert ended.returncode == code, said
        assert "Traceback" not in said
        assert code != 3 or "No space left on device" in said
    assert stage.standing("night")["counts"]["succeeded"] == 2


def test_a_reader_that_is_gone_does_not_change_the_exit_code_of_a_run(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    with started(stage, "", "run", stage.prompts("night", 2), "--json") as run:
        assert run.stdout is not None
        run.stdout.close()
        assert run.stderr is not None
        said = run.stderr.read()
    assert (run.returncode, "Traceback" in said) == (0, False), said
    assert stage.standing("night")["counts"]["succeeded"] == 2
