"""What a command does is asked in this process; signals, exit codes, pipes and terminals of real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.stage import Stage, staged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A folder, servers and the command: processes of their own under the mark `processes`."""
    with staged(tmp_path, within=request.node.get_closest_marker("processes") is None) as made:
        yield made
