"""Integration tests run servers and commands in their own process; a process of its own is for e2e and the drills."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.stage import Stage, staged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A folder, servers and the command."""
    with staged(tmp_path, within=True) as made:
        yield made
