"""A whole job by batch: every picture is there, at half of what the same job costs in realtime."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.audit import audit, check_uploads
from tests.support.batch_run import POLLS
from tests.support.batch_server import GPT, batch_lab, fates
from tests.support.sandbox_client import hole, png
from tests.support.stage import KEY
from tests.support.workbench import benched

if TYPE_CHECKING:
    from tests.support.stage import Server, Stage

KINDS = ("call", "batch", "batch_line", "upload")


def submitted(stage: Stage, server: Server, name: str, generations: int, edits: int, mode: str) -> None:
    """Queue a job whose edits share input images and masks."""
    stage.provider("lab", server, batch={})
    for file, size in (("a", 64), ("b", 80), ("c", 96)):
        (stage.folder / f"{file}.png").write_bytes(png(size=(size, 64)))
        (stage.folder / f"{file}-mask.png").write_bytes(hole((size, 64)))
    requests: list[dict[str, Any]] = [{"prompt": f"picture {number}"} for number in range(generations)]
    for number in range(edits):
        file = "abc"[number % 3]
        mask = {"mask": f"{file}-mask.png"} if number % 2 else {}
        requests.append({"operation": "edit", "prompt": f"edit {number}", "image": f"{file}.png", **mask})
    small = {**GPT, "output_format": "jpeg"}
    stage.run("submit", stage.job(name, requests, mode=mode, defaults=small))


async def _run(stage: Stage, server: Server) -> None:
    with benched(stage.output) as bench:
        bench.environment = {"STAGE_KEY": KEY}
        await bench.run(batch_lab(server.base_url, more={"api_key_env": "STAGE_KEY"}, **POLLS))
        jobs = [row[0] for row in bench.ask("SELECT name FROM job")]
        assert all(set(fates(bench, job)) == {"succeeded"} for job in jobs)


@pytest.mark.parametrize(
    ("generations", "edits"),
    [pytest.param(20, 6, id="short"), pytest.param(300, 40, id="long", marks=pytest.mark.long)],
)
@pytest.mark.timeout(900)
def test_a_job_by_batch_has_every_picture_at_half_the_price(stage: Stage, generations: int, edits: int) -> None:
    batch = {"seconds": [0.05, 0.2], "finalizing_seconds": 0.05}
    servers = [stage.serve(rate_limit=None, latency_seconds=[0, 0], batch=batch) for _ in range(2)]
    stage.within = True
    costs: list[float] = []
    for server, mode in zip(servers, ("realtime", "batch"), strict=True):
        submitted(stage, server, mode, generations, edits, mode)
        asyncio.run(_run(stage, server))
        costs.append(sum(entry["cost_usd"] for kind in KINDS[::2] for entry in server.books(kind)))
    by_batch = servers[1]
    assert by_batch.books("call") == []
    assert costs[1] == pytest.approx(costs[0] / 2, abs=0.01)
    uploads = [entry for entry in by_batch.books("upload") if entry["purpose"] == "vision"]
    assert len(uploads) == 6
    stage.run("run")
    every = [entry for server in servers for kind in KINDS for entry in server.books(kind)]
    found = audit(stage, every)
    assert (found.pictures, found.charged, found.maybe_paid) == (2 * (generations + edits), found.pictures, 0)
    check_uploads(by_batch.base_url, every)
