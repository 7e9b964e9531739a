"""Which job is meant by a name, or by a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.errors import BadInput
from pipeline.ledger.job_names import find_job, known_hint

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.workbench import Bench

EMPTY = "nothing in /x/outputs"


def add(bench: Bench, name: str, file: Path | None = None) -> None:
    """Add a job that was submitted."""
    bench.set(
        "INSERT INTO job (name, file, provider, rehearsal, revision, submitted_at) VALUES (?, ?, 'lab', 0, 1, 1)",
        *(name, file and str(file)),
    )


def test_without_any_job_the_folder_is_named(bench: Bench) -> None:
    assert known_hint(bench.connection, "night") == "nothing has been submitted here yet"
    with pytest.raises(BadInput, match=f"there is no job `night`: {EMPTY}"):
        find_job(bench.connection, "night", EMPTY)


def test_a_file_that_two_jobs_come_from_is_not_enough(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "night.yaml"
    file.write_text("name: other\n")
    add(bench, "night.sandbox", file)
    add(bench, "night.lab", file)
    with pytest.raises(BadInput, match=r"is the file of `night\.lab`, `night\.sandbox`: write one of these names"):
        find_job(bench.connection, str(file), EMPTY)
    add(bench, "other")
    file.unlink()
    with pytest.raises(BadInput, match="is the file of"):
        find_job(bench.connection, str(file), EMPTY)


def test_a_file_that_was_not_submitted_says_so_and_one_that_is_not_there_too(bench: Bench, tmp_path: Path) -> None:
    add(bench, "night")
    file = tmp_path / "day.yaml"
    with pytest.raises(BadInput, match="and no such file"):
        find_job(bench.connection, str(file), EMPTY)
    file.write_text("- a list\n")
    with pytest.raises(BadInput, match=r"job `day` of .* has not been submitted"):
        find_job(bench.connection, str(file), EMPTY)
    file.write_text("name: night\n")
    assert find_job(bench.connection, str(file), EMPTY) == "night"
