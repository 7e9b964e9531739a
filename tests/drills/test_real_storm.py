"""A night in which one answer in fifty is odd, in every way that servers were seen to be odd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.engine import delivery_breaker, refusal_guard
from tests.support.audit import audit
from tests.support.odd_server import ODD, odd_server
from tests.support.stage import staged

if TYPE_CHECKING:
    from pathlib import Path

LIFE = 6.0  # seconds that URLs are assumed to live


@pytest.mark.parametrize(
    ("seed", "requests", "every"),
    [
        pytest.param(1, 300, 12, id="short"),
        *(pytest.param(seed, 2000, 50, id=f"long-{seed}", marks=pytest.mark.long) for seed in (1, 2, 3)),
    ],
)
@pytest.mark.timeout(1800)
def test_in_a_storm_of_odd_answers_every_image_that_can_be_made_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, requests: int, every: int
) -> None:
    """The short form has more odd answers and shorter waits."""
    if every < 50:
        monkeypatch.setattr(refusal_guard, "SAME_WAIT", 0.1)
        monkeypatch.setattr(refusal_guard, "OTHER_WAIT", 0.1)
        monkeypatch.setattr("pipeline.engine.failed_calls.FIRST_WAIT", 0.1)
        monkeypatch.setattr(delivery_breaker, "_FIRST_PROBE", 0.2)
    with odd_server(seed, every, life=LIFE) as server, staged(tmp_path, within=True) as stage:
        stage.settings["retry"] = {"max_wait_seconds": 1}
        stage.provider("lab", server.base_url, concurrency=8, url_ttl_seconds=LIFE)
        job = stage.prompts("storm", requests)
        ended = stage.run("run", job, exit_code=None)
        assert ended.exit_code in {0, 1}, ended.stderr[-3000:]
        books = list(server.books)
        found = audit(stage, books)
        unmakeable = {entry["prompt"] for entry in server.odd if not ODD[entry["fault"]].makeable}
        failed = {entry["prompt"] for entry in stage.manifest("storm") if entry["status"] != "succeeded"}
        assert failed <= unmakeable, [entry["fault"] for entry in server.odd if entry["prompt"] in failed - unmakeable]
        assert found.pictures >= requests - len(failed)
        assert len(books) <= requests + len(server.odd), "each odd answer costs one call more, at most"
        in_vain = sum(entry["charged"] for entry in server.odd)
        assert found.charged <= requests + in_vain
        assert found.unowned == 0
        assert "Traceback" not in ended.stderr + (stage.output / "run.log").read_text()
        assert set(server.drawn()) == set(ODD) if requests // every > len(ODD) + 1 else len(server.odd) > 20
