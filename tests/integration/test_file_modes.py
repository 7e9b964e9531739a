"""What is written about jobs is for its owner alone, unless the config says that it is shared."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.stage import Stage

FILES = ("ledger.sqlite3", "ledger.backup.sqlite3", "run.log", "lounge/manifest.jsonl", "lounge/report.html")


def modes(folder: Path) -> set[str]:
    return {f"{stat.S_IMODE((folder / name).stat().st_mode):o}" for name in FILES}


def folder_mode(folder: Path) -> str:
    return f"{stat.S_IMODE(folder.stat().st_mode):o}"


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def run(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.prompts("lounge", 1))


def test_files_and_a_new_folder_are_for_their_owner(stage: Stage) -> None:
    run(stage)
    assert (modes(stage.output), folder_mode(stage.output)) == ({"600"}, "700")


def test_where_it_is_shared_the_umask_decides(stage: Stage) -> None:
    stage.settings["shared"] = True
    run(stage)
    stage.run("report", "lounge")
    stage.run("verify")
    assert (modes(stage.output), folder_mode(stage.output)) == ({"644"}, "755")


def test_a_folder_of_others_stays_as_it_is_and_old_files_become_private(stage: Stage) -> None:
    stage.settings["shared"] = True
    run(stage)
    del stage.settings["shared"]
    stage.write_config()
    stage.run("run", stage.prompts("lounge", 2))
    assert (modes(stage.output), folder_mode(stage.output)) == ({"600"}, "755")


def test_a_stricter_umask_wins(stage: Stage) -> None:
    os.umask(0o077)
    stage.settings["shared"] = True
    run(stage)
    assert (modes(stage.output), folder_mode(stage.output)) == ({"600"}, "700")
