"""A long run that measures itself: `python -m tests.support.soak CONFIG JOB` prints memory, files and tasks as JSON.

One sample when the first hundred requests have ended, one after each further tenth, one when the run is over.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import Batch
from pipeline.engine.events import RequestEnded

if TYPE_CHECKING:
    from pipeline.engine.events import Event

WARM = 100
"""Requests after which pools, caches and threads are what they will be."""


@dataclass(frozen=True)
class Sample:
    """What the process holds. `rss` is in bytes."""

    ended: int
    rss: int
    files: int
    tasks: int


def sample(ended: int) -> Sample:
    """Measure this process (Linux's /proc)."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    tasks = len(asyncio.all_tasks()) if asyncio._get_running_loop() else 0
    return Sample(ended, pages * os.sysconf("SC_PAGE_SIZE"), len(list(Path("/proc/self/fd").iterdir())), tasks)


@dataclass
class Watch:
    """Listens to a run, and takes the samples."""

    every: int
    ended: int = 0
    samples: list[Sample] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        if isinstance(event, RequestEnded):
            self.ended += 1
            if self.ended == WARM or self.ended % self.every == 0:
                self.samples.append(sample(self.ended))


def main(config: str, job: str, requests: int) -> None:
    """Run the job, and print what was measured."""
    watch = Watch(max(1, requests // 10))
    result = Batch.open(config=Path(config)).run_sync([Path(job)], emit=watch)
    watch.samples.append(sample(watch.ended))
    print(json.dumps({"exit": result.exit_code, "samples": [asdict(one) for one in watch.samples]}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
