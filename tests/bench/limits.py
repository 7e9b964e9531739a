"""A strict limit, and how much of it is used: by us, and by the loop that takes one AsyncLimiter(50, 60).

The minute is scaled down to `PERIOD` seconds and the latencies with it, so that a night passes in moments.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
from aiolimiter import AsyncLimiter

from pipeline import Batch
from pipeline.run import run_in_loop

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = 50
PERIOD = 10.0
WINDOWS = 12


@dataclass(frozen=True)
class Used:
    """What a strict server saw: pictures a period as a share of the limit, after the first period, and its 429s."""

    contender: str
    latency: float  # of an unscaled minute, seconds
    mix: str
    share: float
    refused: int


def ours(folder: Path, base_url: str, counts: list[int]) -> None:
    """Run a job with the limit in its config."""
    provider: dict[str, Any] = {
        "base_url": base_url,
        "rate_limit": {"images": IMAGES, "per_seconds": PERIOD},
    }
    (folder / "config.yaml").write_text(json.dumps({"provider": "lab", "providers": {"lab": provider}}))
    requests = [{"prompt": f"number {number}", "n": n} for number, n in enumerate(counts)]
    job = {"defaults": {"model": "dall-e-2", "size": "256x256"}, "requests": requests}
    (folder / "bench.yaml").write_text(json.dumps(job))
    assert run_in_loop(Batch.open(config=folder / "config.yaml").run([folder / "bench.yaml"])).exit_code == 0


async def _naive(base_url: str, counts: list[int]) -> None:
    limiter = AsyncLimiter(IMAGES, PERIOD)
    headers = {"Authorization": "Bearer sk-bench"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

        async def make(number: int, n: int) -> None:
            await limiter.acquire(n)
            body = {"prompt": f"number {number}", "n": n, "model": "dall-e-2", "size": "256x256"}
            async with session.post(f"{base_url}/images/generations", json=body) as response:
                await response.read()

        await asyncio.gather(*(make(number, n) for number, n in enumerate(counts)))


def naive(_folder: Path, base_url: str, counts: list[int]) -> None:
    """Call as soon as the limiter lets us."""
    asyncio.run(_naive(base_url, counts))


def measure(folder: Path, contender: str, latency: float, counts: list[int], mix: str) -> Used:
    """Let a contender work against a strict sandbox, and read the sandbox's books."""
    folder.mkdir(parents=True, exist_ok=True)
    scaled = latency * PERIOD / 60
    settings = {
        "rate_limit": {"images": IMAGES, "per_seconds": PERIOD},
        "latency_seconds": [scaled, scaled],
        "require_key": False,
    }
    books = folder / "books.jsonl"
    arguments = ["--with-stdin", "--books", str(books), "--settings", json.dumps(settings)]
    server = [sys.executable, "-m", "pipeline.sandbox", *arguments]
    with subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        base_url = json.loads(process.stdout.readline())["base_url"]
        {"ours": ours, "naive": naive}[contender](folder, base_url, counts)
        process.stdin.close()
    calls = [entry for line in books.read_text().splitlines() if (entry := json.loads(line))["type"] == "call"]
    taken = sorted((call["mono"], call["n"]) for call in calls if call["status"] != 429)
    return Used(contender, latency, mix, _share(taken), sum(call["status"] == 429 for call in calls))


def _share(taken: list[tuple[float, int]]) -> float:
    """Give the pictures a period between the first and the last call, as a share of the limit."""
    first, last = taken[0][0], taken[-1][0]
    pictures = sum(n for _, n in taken) - taken[-1][1]  # the last call opens time that nobody uses
    return pictures / IMAGES / ((last - first) / PERIOD)
