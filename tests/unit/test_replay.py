"""Which headers mark a response as a replay."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from pipeline.client.replay import is_replay


@pytest.mark.parametrize(
    ("name", "value", "marked"),
    [
        ("Idempotent-Replayed", "true", True),
        ("idempotent-replayed", "1", True),
        ("Idempotency-Replay", "yes", True),
        ("X-Idempotency-Key-Replayed", "TRUE", True),
        ("X-Replayed-Idempotently", "true", True),
        ("Idempotent-Replayed", "false", False),
        ("Idempotent-Replayed", "", False),
        ("Idempotency-Key", "a-key", False),
        ("X-Replay", "true", False),
    ],
)
def test_a_replay_is_marked_by_a_header_that_speaks_of_both(name: str, value: str, marked: bool) -> None:
    assert is_replay(CIMultiDict({"Content-Type": "application/json", name: value})) is marked
