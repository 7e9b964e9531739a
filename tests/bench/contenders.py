"""The same work, done by us and by others: `python -m tests.bench.contenders NAME …` does it once and prints JSON.

bare      an aiohttp loop that posts, downloads and writes files: no ledger, no check, no fsync
careful   the bare loop, and what each picture is owed: full decode, SHA-256, fsync, rename, in threads
sdk       the `openai` package in an asyncio loop, with downloads by httpx2, which it brings along: no check, no fsync
ours      `pipeline run` with a job file: expand, queue, call, check, store, record, log, manifest, report
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import io
import json
import os
import resource
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

SIZE = "256x256"
LAG_SECONDS = 0.005

T = TypeVar("T")


@dataclass
class Workload:
    """What is to be done, and where the pictures go."""

    base_url: str
    inline: bool  # base64 in the answer, not a URL
    requests: int
    concurrency: int
    folder: Path

    def body(self, number: int) -> dict[str, object]:
        """Write one call."""
        return {
            "prompt": f"picture number {number}",
            "model": "dall-e-2",
            "size": SIZE,
            "response_format": "b64_json" if self.inline else "url",
        }


@dataclass
class Lag:
    """How late the event loop wakes who sleeps; seconds."""

    seen: list[float] = field(default_factory=list)

    async def watch(self) -> None:
        """Sample until cancelled."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(LAG_SECONDS)
            self.seen.append(time.perf_counter() - began - LAG_SECONDS)

    @property
    def p99(self) -> float:
        """The lag that 99 of 100 samples stay under."""
        return sorted(self.seen)[int(len(self.seen) * 0.99)] if self.seen else 0.0


async def side_by_side(work: Workload, make: Callable[[int], Awaitable[None]]) -> None:
    """Make all pictures, so many at once."""
    numbers = iter(range(work.requests))

    async def worker() -> None:
        for number in numbers:
            await make(number)

    await asyncio.gather(*(worker() for _ in range(work.concurrency)))


async def loop(work: Workload, keep: Callable[[bytes, Path], Awaitable[None]]) -> None:
    """Post and download with aiohttp."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def make(number: int) -> None:
            async with session.post(f"{work.base_url}/images/generations", json=work.body(number)) as response:
                item = (await response.json())["data"][0]
            if work.inline:
                content = base64.b64decode(item["b64_json"])
            else:
                async with session.get(item["url"]) as response:
                    content = await response.read()
            await keep(content, work.folder / f"{number}.png")

        await side_by_side(work, make)


async def bare(work: Workload) -> None:
    """Write what comes."""

    async def keep(content: bytes, path: Path) -> None:
        path.write_bytes(content)  # noqa: ASYNC240 - this is the loop that does not care

    await loop(work, keep)


async def careful(work: Workload) -> None:
    """Give each picture what it is owed."""
    from PIL import Image

    def owed(content: bytes, path: Path) -> str:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        return hashlib.sha256(content).hexdigest()

    async def keep(content: bytes, path: Path) -> None:
        await asyncio.to_thread(owed, content, path)

    await loop(work, keep)


async def sdk(work: Workload) -> None:
    """Call through the vendor's SDK."""
    import httpx2
    import openai

    limits = httpx2.Limits(max_connections=None)
    async with (
        openai.AsyncOpenAI(base_url=work.base_url, api_key="sk-bench", max_retries=0) as client,
        httpx2.AsyncClient(limits=limits) as downloads,
    ):

        async def make(number: int) -> None:
            body = work.body(number)
            answer = await client.images.generate(**body)  # type: ignore[call-overload] # the body is the SDK's words
            item = answer.data[0]
            content = base64.b64decode(item.b64_json) if work.inline else (await downloads.get(item.url)).content
            (work.folder / f"{number}.png").write_bytes(content)

        await side_by_side(work, make)


def ours(work: Workload, lag: Lag) -> None:
    """Run a job file as people do."""
    (work.folder / "config.yaml").write_text(
        f"provider: lab\nproviders:\n  lab: {{base_url: '{work.base_url}', rate_limit: null,"
        f" concurrency: {work.concurrency}}}\n"
    )
    (work.folder / "prompts.txt").write_text("".join(f"picture number {number}\n" for number in range(work.requests)))
    (work.folder / "bench.yaml").write_text(
        f"defaults: {{model: dall-e-2, size: {SIZE}, response_format: {'b64_json' if work.inline else 'url'}}}\n"
        "requests:\n  - {prompt: '{{ prompt }}', rows: prompts.txt}\n"
    )
    os.chdir(work.folder)
    from pipeline import run
    from pipeline.cli.main import main

    run_in_loop = run.run_in_loop
    # a benchmark may look where the program does not
    run.run_in_loop = lambda coroutine: run_in_loop(watched(coroutine, lag))
    code: object = None
    try:
        main(["run", "bench.yaml"])
    except SystemExit as ended:
        code = ended.code
    assert code == 0, code


CONTENDERS: dict[str, Callable[[Workload], Coroutine[Any, Any, None]]] = {
    "bare": bare,
    "careful": careful,
    "sdk": sdk,
}


async def watched(work: Coroutine[Any, Any, T], lag: Lag) -> T:
    """Work, and watch the event loop meanwhile."""
    watching = asyncio.create_task(lag.watch())
    try:
        return await work
    finally:
        watching.cancel()


@dataclass(frozen=True)
class Measured:
    """What one run took. `rss` is the process's peak, in bytes, imports included; `lag_p99` in seconds."""

    contender: str
    pictures: int
    rss: int
    lag_p99: float


def measure(name: str, work: Workload) -> Measured:
    """Do the work once."""
    lag = Lag()
    if name == "ours":
        ours(work, lag)
    else:
        asyncio.run(watched(CONTENDERS[name](work), lag))
    pictures = sum(path.stat().st_size > 0 for path in work.folder.rglob("*.png") if path.parent.name != "thumbnails")
    return Measured(name, pictures, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, lag.p99)


def main() -> None:
    """Read the command line, do the work, print what it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=[*CONTENDERS, "ours"])
    parser.add_argument("base_url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--inline", action="store_true")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=32)
    given = parser.parse_args()
    work = Workload(given.base_url, given.inline, given.requests, given.concurrency, given.folder)
    print(json.dumps(asdict(measure(given.name, work))))


if __name__ == "__main__":
    main()
