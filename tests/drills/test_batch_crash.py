"""What a death costs a batch: the process is killed while it builds, uploads, creates, polls and collects."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.audit import audit, check_uploads
from tests.support.batch_run import killed
from tests.support.sandbox_client import hole, png
from tests.support.stage import staged

if TYPE_CHECKING:
    from tests.support.stage import Server, Stage

GENERATIONS, EDITS = 24, 6
FAULTS = {
    "create_lost": 0.2,
    "not_yet_visible": 0.2,
    "failed": 0.1,
    "expired": 0.15,
    "spend_cap": 0.05,
    "lines_missing": 0.05,
    "duplicate_line": 0.05,
    "malformed_line": 0.05,
    "cut_content": 0.3,
    "empty_ids": 0.5,
}
RULES = {"most_images": 5, "enqueued_tokens": None}
PHASES = (70, 160, 350)  # moments within which a run builds and uploads, creates, and polls and collects, about
KILLS = 8  # of runs over one folder
NEVER = 10**9


def queued(stage: Stage, server: Server) -> None:
    """Queue a job of generations, and of edits that share input images and a mask."""
    batch = {**RULES, "poll_seconds": [0.05, 0.1]}
    stage.settings["retry"] = {"attempts": 50, "unknown": 50, "max_wait_seconds": 0.05}
    stage.provider("lab", server, batch=batch)
    (stage.folder / "a.png").write_bytes(png())
    (stage.folder / "b.png").write_bytes(png(size=(80, 64)))
    (stage.folder / "mask.png").write_bytes(hole())
    requests: list[dict[str, Any]] = [{"prompt": f"picture {number}"} for number in range(GENERATIONS)]
    for number in range(EDITS):
        edit: dict[str, Any] = {
            "operation": "edit",
            "prompt": f"edit {number}",
            "image": ["a.png", "b.png"][: 1 + number % 2],
        }
        requests.append({**edit, **({"mask": "mask.png"} if number < 2 else {})})
    small = {"model": "gpt-image-2", "size": "1024x640", "quality": "low", "output_format": "jpeg"}
    stage.run("submit", stage.job("night", requests, mode="batch", defaults=small))


def books(server: Server) -> list[dict[str, Any]]:
    return [entry for kind in ("call", "batch", "batch_line", "upload") for entry in server.books(kind)]


def night(stage: Stage, seed: int, faults: dict[str, float]) -> int:
    """Kill the runs over one folder so often at moments of this seed, then let one end; return how many died."""
    draw, deaths = random.Random(seed), 0
    server = stage.serve(
        rate_limit=None, seed=seed, latency_seconds=[0, 0],
        batch={"seconds": [0.02, 0.1], "finalizing_seconds": 0.02, "faults": faults},
    )  # fmt: skip
    stage.within = True
    queued(stage, server)
    for _ in range(KILLS):
        deaths += killed(stage.output, server.base_url, draw.randint(1, draw.choice(PHASES)), **RULES)
    for _ in range(20):  # a spend cap ends a run
        killed(stage.output, server.base_url, NEVER, **RULES)
        if not stage.ask("SELECT 1 FROM request WHERE status IN ('pending', 'running')"):
            break
    stage.run("run")  # nothing is left; the manifest is written
    found = audit(stage, books(server))
    assert (found.pictures, found.lost) == (GENERATIONS + EDITS, 0)
    assert server.books() == [], "a picture was made in realtime"
    check_uploads(server.base_url, books(server), deaths=deaths)
    if not faults:
        assert (found.charged, found.maybe_paid) == (GENERATIONS + EDITS, 0)
    server.stop()
    return deaths


@pytest.mark.parametrize("wanted", [pytest.param(8, id="short"), pytest.param(150, id="long", marks=pytest.mark.long)])
@pytest.mark.parametrize("faults", [pytest.param({}, id="calm"), pytest.param(FAULTS, id="every fault")])
@pytest.mark.timeout(3600)
def test_kill_9_loses_no_line_and_buys_none_twice(
    tmp_path_factory: pytest.TempPathFactory, wanted: int, faults: dict[str, float]
) -> None:
    deaths, seeds = 0, itertools.count()
    while deaths < wanted:
        with staged(tmp_path_factory.mktemp("night")) as stage:
            deaths += night(stage, next(seeds), faults)
