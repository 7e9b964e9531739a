"""Processor time of the run's own process for each picture: one that makes its calls, and one that hands them out.

`python -m tests.bench.machines WHERE BASE_URL FOLDER REQUESTS [--inline]` does it once and prints JSON. The workers
only pretend the calls and the downloads, so that the run is measured and not they.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.batch import Batch
from pipeline.engine.caller import CallResult
from pipeline.engine.events import Event, RequestEnded
from pipeline.ledger.attempts import ImageUrl
from pipeline.planning.build import JobOptions
from pipeline.ray import cluster
from pipeline.ray.actor import WorkerActor
from pipeline.ray.messages import CallOrder, FetchOrder, Sent
from pipeline.ray.service import Service
from pipeline.storage import StoredImage
from tests.bench.queue import write_job

if TYPE_CHECKING:
    from pipeline.config.engine_names import Engine

WORKERS = 8
LATENCY = 0.1  # seconds of a pretended call
_SHA256 = "0" * 64


class PretendingService(Service):
    """Answers each order after a moment, as if there were a server and a store."""

    async def _call(self, order: CallOrder) -> CallResult:
        self._lease.check()
        self._report(Sent(order.id))
        await asyncio.sleep(LATENCY)
        now = time.time()
        names = order.names
        if order.call.params.get("response_format") == "b64_json":
            image = StoredImage(1, f"images/{names.stem}-1.png", _SHA256, 1000, 256, 256, "png", None)
            return CallResult("answered", now, now, http_status=200, returned=1, images=(image,))
        url = ImageUrl(1, f"http://127.0.0.1/{order.id}", now + 3600, None)
        return CallResult("answered", now, now, http_status=200, returned=1, urls=(url,))

    async def _fetch(self, order: FetchOrder) -> StoredImage:
        await asyncio.sleep(LATENCY / 10)
        name = f"images/{order.names.stem}-1.png"
        return StoredImage(order.number, name, _SHA256, 1000, 256, 256, "png", None)


class PretendingActor(WorkerActor):
    """An actor whose service pretends."""

    async def set_up(self, token: str, work: bytes) -> float:
        """Get ready."""
        import pickle

        from pipeline.ray.lease import clock
        from tests.bench.machines import PretendingService

        self._service, self._token = PretendingService(pickle.loads(work), self.end), token  # noqa: S301 - our own
        return clock()


def work(where: Engine, base_url: str, folder: Path, requests: int, *, inline: bool) -> dict[str, float]:
    """Run a job; return the seconds, and those of this process's processor, for each picture after the first tenth."""
    job = write_job(folder, requests, base_url)
    config = json.loads((folder / "c.json").read_text())
    (folder / "config.yaml").write_text(json.dumps(config))
    if inline:
        job.write_text(job.read_text().replace("size: 256x256", "size: 256x256, response_format: b64_json"))
    batch = Batch.open(config=folder / "config.yaml", output=folder / "outputs")
    ended: list[tuple[float, float]] = []

    def listen(event: Event) -> None:
        if isinstance(event, RequestEnded):
            ended.append((time.perf_counter(), time.process_time()))

    batch.run_sync([job], JobOptions(on=where), emit=listen)
    first, last = ended[requests // 10], ended[-1]
    count = len(ended) - requests // 10 - 1
    return {"per_second": count / (last[0] - first[0]), "cpu_ms": (last[1] - first[1]) / count * 1000}


def measure(where: str, base_url: str, folder: Path, requests: int, *, inline: bool) -> dict[str, float]:
    """Do the same in a process of its own."""
    folder.mkdir(parents=True)
    provider = {"base_url": base_url, "rate_limit": None, "concurrency": 256}
    (folder / "c.json").write_text(json.dumps({"provider": "lab", "workers": WORKERS, "providers": {"lab": provider}}))
    command = [sys.executable, "-m", "tests.bench.machines", where, base_url, str(folder), str(requests)]
    said = subprocess.run([*command, *["--inline"] * inline], capture_output=True, text=True, check=False)
    if said.returncode:
        raise SystemExit(f"{where} failed:\n{said.stderr}")
    measured: dict[str, float] = json.loads(said.stdout.splitlines()[-1])
    print(f"  {where} {json.dumps(measured)}", file=sys.stderr, flush=True)
    return measured


def main() -> None:
    """Do it once."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.machines", description=__doc__)
    parser.add_argument("where", choices=["ray", "local"])
    parser.add_argument("base_url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("requests", type=int)
    parser.add_argument("--inline", action="store_true")
    given: Any = parser.parse_args()
    vars(cluster)["WorkerActor"] = PretendingActor
    print(json.dumps(work(given.where, given.base_url, given.folder, given.requests, inline=given.inline)))


if __name__ == "__main__":
    main()
