"""A wall clock that jumps in mid-run: neither the limit nor the money depends on what it says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.audit import audit
from tests.support.stage import finish

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.stage import Stage

HOUR = 3600


@pytest.mark.parametrize(
    "seconds",
    [HOUR, -HOUR, *(pytest.param(days * 24 * HOUR, id=f"long {days}", marks=pytest.mark.long) for days in (-30, 30))],
)
def test_a_clock_that_jumps_in_mid_run_breaks_no_limit_and_pays_no_living_url_twice(stage: Stage, seconds: int) -> None:
    """The clock jumps when images are paid and many have not arrived, and while calls wait for their turn."""
    limit = {"images": 8, "per_seconds": 1}
    first = stage.serve(rate_limit=limit, faults={"cut_download": 0.8})
    stage.provider("lab", first, rate_limit={**limit, "margin": 1.5})
    process = stage.start("run", stage.prompts("many", 16), sabotage=f"clock:{seconds}:jump")
    _until(lambda: len(first.books()) >= 10)
    (stage.folder / "jump").touch()
    broken = len(first.books("download"))
    _until(lambda: len(first.books()) == 16 and len(first.books("download")) > broken)
    first.stop()
    again = stage.serve(rate_limit=limit, port=first.port)
    ended = finish(process)
    assert ended.exit_code == 0, ended.stderr
    found = audit(stage, first.books() + again.books(), limit=(8, 1.0))
    assert (found.pictures, found.charged, found.lost) == (16, 16, 0)


def test_a_clock_that_is_set_back_keeps_no_dead_url_alive(stage: Stage) -> None:
    first = stage.serve(rate_limit=None, faults={"cut_download": 1.0}, url_ttl_seconds=2)
    stage.provider("lab", first)
    process = stage.start("run", stage.prompts("many", 4), sabotage=f"clock:{-HOUR}:jump")
    _until(lambda: len(first.books()) == 4)
    (stage.folder / "jump").touch()
    first.stop()
    time.sleep(3)
    again = stage.serve(rate_limit=None, port=first.port)
    ended = finish(process)
    assert ended.exit_code == 0, ended.stderr
    found = audit(stage, first.books() + again.books())
    assert (found.pictures, found.charged, found.lost) == (4, 8, 4)


def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.01)
