"""What happens to many batches at once is one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.engine.events import BatchCollected, BatchMoved, BatchSent
from pipeline.progress.announcements import Announcements
from pipeline.progress.batch_waves import MOST_SECONDS, QUIET_SECONDS
from pipeline.progress.event_text import describe

if TYPE_CHECKING:
    from pipeline.engine.events import Event


def _sent(number: int, provider: str = "lab") -> BatchSent:
    return BatchSent(f"batch_{number}", provider, "gpt-image-2", 100, 150)


def _hear(seen: Announcements, *events: Event, at: float = 0.0) -> None:
    for event in events:
        assert seen.of(event, at) == []


def _due(seen: Announcements, at: float) -> list[str]:
    return [describe(one) for one in seen.due(at)]


def test_batches_that_are_sent_together_are_one_line_for_each_provider() -> None:
    seen = Announcements()
    for number in range(12):
        _hear(seen, _sent(number), at=float(number))
    _hear(seen, _sent(99, "other"), at=11.0)
    assert _due(seen, 11.0 + QUIET_SECONDS - 0.1) == []
    assert _due(seen, 11.0 + QUIET_SECONDS) == [
        "→ 12 batches: 1,200 requests for 1,800 images sent to lab",
        "→ batch batch_99: 100 requests for 150 images sent to other",
    ]
    assert _due(seen, 1000.0) == [], "each wave is told once"


def test_a_wave_that_does_not_end_is_told_after_a_while() -> None:
    seen, told = Announcements(), []
    for second in range(int(2 * MOST_SECONDS) + 2):
        _hear(seen, _sent(second), at=float(second))
        told += _due(seen, float(second))
    assert len(told) == 2
    assert told[0].startswith(f"→ {int(MOST_SECONDS) + 1} batches: ")


def test_progress_gets_no_line_and_a_bad_end_gets_one_once() -> None:
    seen = Announcements()
    for made in range(50):
        _hear(seen, BatchMoved("batch_1", "in_progress", made, 0))
    for status in ("finalizing", "completed", "cancelling"):
        _hear(seen, BatchMoved("batch_1", status, 50, 0))
    for _ in range(3):
        _hear(seen, BatchMoved("batch_2", "expired", 70, 5), BatchMoved("batch_3", "expired", 30, 0))
    _hear(seen, BatchMoved("batch_4", "failed", 0, 0))
    assert _due(seen, 100.0) == [
        "! 2 batches: expired; 100 made, 5 failed",
        "! batch batch_4: failed; 0 made, 0 failed",
    ]
    _hear(seen, BatchMoved("batch_2", "expired", 70, 5))
    assert _due(seen, 200.0) == []


def test_what_is_collected_is_one_line_and_the_end_of_the_run_leaves_none_untold() -> None:
    seen = Announcements()
    _hear(seen, BatchCollected("batch_1", 99, 1, 0, 0.5), BatchCollected("batch_2", 60, 0, 40, 0.3), _sent(3))
    assert [describe(one) for one in seen.rest()] == [
        "← 2 batches collected: 159 made, 1 failed, 40 returned to the queue, $0.80",
        "→ batch batch_3: 100 requests for 150 images sent to lab",
    ]
    assert seen.rest() == []
