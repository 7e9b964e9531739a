"""An output folder of version 0.1.0 (ledger version 2) is read, verified and continued by this version.

`tests/data/ledger-v2` was made with that version on the sandbox: `run lounge.yaml` made four requests and was refused
one; then `replaced` left the job file, `snow` came in, and `submit lounge.yaml` queued it; at last `run night.yaml`
was killed while its only call was in flight. Reports, thumbnails and the copy of the ledger were deleted, and the
ledger was checkpointed into one file.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.ledger.migrations import MIGRATIONS

if TYPE_CHECKING:
    from tests.support.stage import Stage

DATA = Path(__file__).parents[1] / "data" / "ledger-v2"
LAMP = "a-lamp-in-a-dark-window-884c0064"
IMAGES = {
    "a-lighthouse-in-the-fog-848b8af5-1.png",
    "a-white-siamese-cat-b3b6158e-1.png",
    "replaced-1.png",
    "sun-1.png",
}


@pytest.fixture
def old(stage: Stage) -> Stage:
    shutil.copytree(DATA, stage.folder, dirs_exist_ok=True)
    return stage


def _version(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "ledger.sqlite3")) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _calls(stage: Stage, *arguments: object) -> list[str]:
    """Run a command that ends with exit 1, as `refused` stays refused, and return the ids that it called for."""
    events = map(json.loads, stage.run(*arguments, "--json", exit_code=1).stdout.splitlines())
    return sorted(event["id"] for event in events if event["event"] == "call_sent")


def _moments(stage: Stage) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (stage.output / "lounge" / "images").iterdir()}


def _is_within(old: Any, new: Any) -> bool:
    """Whether `new` says all that `old` says; mappings may have more fields."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(key in new and _is_within(old[key], new[key]) for key in old)
    if isinstance(old, list):
        return isinstance(new, list) and len(old) == len(new) and all(map(_is_within, old, new))
    return bool(old == new)


def test_the_fixture_is_of_version_2_and_holds_every_kind_of_request() -> None:
    assert _version(DATA / "outputs") == 2
    assert {path.name for path in (DATA / "outputs" / "lounge" / "images").iterdir()} == IMAGES
    manifest = [json.loads(line) for line in (DATA / "outputs/lounge/manifest.jsonl").read_text().splitlines()]
    kinds = {(entry["operation"], entry["status"]) for entry in manifest}
    assert kinds == {
        ("generation", "succeeded"),
        ("generation", "failed"),
        ("generation", "superseded"),
        ("edit", "succeeded"),
        ("edit", "pending"),
    }


def test_status_shows_what_the_old_version_left(old: Stage) -> None:
    lounge, night = old.standings().values()
    assert {status: number for status, number in lounge["counts"].items() if number} == {
        "pending": 1,
        "succeeded": 3,
        "failed": 1,
        "superseded": 1,
    }
    assert {status: number for status, number in night["counts"].items() if number} == {"running": 1}
    assert (lounge["images"], lounge["cost_usd"], lounge["maybe_paid"], lounge["rehearsal"]) == (4, 0.064, 0, True)


def test_the_manifest_written_again_says_all_that_it_said_and_verify_finds_every_file_whole(old: Stage) -> None:
    before = old.manifest("lounge")
    old.run("manifest", "lounge")
    after = old.manifest("lounge")
    assert _is_within(before, after)
    assert [entry["error"]["kind"] for entry in after if entry["error"]] == ["Moderated"]
    assert old.run("verify").stdout == ""


def test_a_run_makes_what_is_missing_and_nothing_that_is_there(old: Stage) -> None:
    before = _moments(old)
    assert _calls(old, "run") == [LAMP, "snow"]
    after = _moments(old)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"snow-1.png", "snow-2.png"}
    snow = next(entry for entry in old.manifest("lounge") if entry["id"] == "snow")
    assert (snow["status"], len(snow["images"]), [one["role"] for one in snow["inputs"]]) == (
        "succeeded",
        2,
        ["image", "mask"],
    )
    (lamp,) = old.manifest("night")
    assert (lamp["status"], lamp["attempts"], lamp["maybe_paid"]) == ("succeeded", 2, 1)
    assert _version(old.output) == len(MIGRATIONS)
    assert old.check_files("lounge") == 6


def test_the_job_file_names_the_same_requests_as_before(old: Stage) -> None:
    keys = {entry["id"]: entry["key"] for entry in old.manifest("lounge")}
    assert _calls(old, "run", "lounge.yaml") == ["snow"]
    assert _calls(old, "run", "lounge.yaml") == []
    assert {entry["id"]: entry["key"] for entry in old.manifest("lounge")} == keys
    assert old.manifest("lounge")[-1]["status"] == "superseded"


def test_resume_asks_again_for_what_had_failed(old: Stage) -> None:
    assert _calls(old, "resume", "lounge") == ["refused", "snow"]
    refused = next(entry for entry in old.manifest("lounge") if entry["id"] == "refused")
    assert (refused["attempts"], refused["error"]["code"], refused["error"]["kind"]) == (
        2,
        "content_policy_violation",
        "Moderated",
    )


def test_a_deleted_file_is_found_and_made_again(old: Stage) -> None:
    (old.output / "lounge" / "images" / "sun-1.png").unlink()
    assert "lounge/images/sun-1.png" in old.run("verify", exit_code=1).stdout
    old.run("verify", "--repair", exit_code=1)
    assert _calls(old, "run", "lounge.yaml") == ["snow", "sun"]
    assert old.run("verify").stdout == ""


def test_a_request_that_comes_back_into_the_job_file_is_not_made_again(old: Stage) -> None:
    job = old.folder / "lounge.yaml"
    job.write_text(f"{job.read_text()}  - id: replaced\n    prompt: a pier at dawn\n")
    assert _calls(old, "run", "lounge.yaml") == ["snow"]
    assert {entry["id"]: entry["status"] for entry in old.manifest("lounge")}["replaced"] == "succeeded"
