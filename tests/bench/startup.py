"""What a command costs before it does anything, beside a bare interpreter that imports click."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TIMES = 15


@dataclass(frozen=True)
class Startup:
    """Medians in seconds."""

    click: float
    help: float
    status: float


def _seconds(*arguments: str, folder: Path) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, check=True)
    return time.perf_counter() - began


def measure(folder: Path) -> Startup:
    """Take turns, so that a noisy machine is noisy for all; `folder` has a config and a small ledger."""
    commands = {
        "click": ("-c", "import click"),
        "help": ("-m", "pipeline", "--help"),
        "status": ("-m", "pipeline", "status"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(TIMES):
        for name, arguments in commands.items():
            seconds[name].append(_seconds(*arguments, folder=folder))
    return Startup(**{name: statistics.median(values) for name, values in seconds.items()})
