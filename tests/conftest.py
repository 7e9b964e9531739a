"""What every test may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.stage import Stage, staged
from tests.workbench import Bench, benched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A folder, servers and the command."""
    with staged(tmp_path) as made:
        yield made


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """An output folder with a ledger, and runs over it in this process."""
    with benched(tmp_path) as made:
        yield made
