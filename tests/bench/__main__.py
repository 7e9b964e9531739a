"""Run the benchmarks and print the table of their README: `python -m tests.bench [--only PART] [--times N] [--write]`.

The parts: throughput, memory, limit, queue, startup, beside, machines. Nothing else should work on the machine
meanwhile; ratios compare what was measured in one run, by turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.bench import beside, limits, machines, queue, startup
from tests.bench.pictures import noise
from tests.bench.server import serving
from tests.bench.table import machine, medians, megabytes, table, verdict

README = Path(__file__).with_name("README.md")
Row = tuple[str, str, str]  # what, measured, target
MOST_QUEUED = (15, 200, 0.5, 2)
"""For 100,000 requests: seconds of a submit, its megabytes, seconds of a status and to the first call of a run."""

Part = Callable[[Path, int], Iterator[Row]]


def contend(name: str, base_url: str, folder: Path, *more: str) -> dict[str, float]:
    """Let one contender work in a process of its own; give what it measured, and the seconds of the whole process."""
    place = Path(tempfile.mkdtemp(dir=folder))
    command = [sys.executable, "-m", "tests.bench.contenders", name, base_url, str(place), *more]
    began = time.perf_counter()
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if said.returncode:
        raise SystemExit(f"{name} failed:\n{said.stderr}")
    measured: dict[str, float] = json.loads(said.stdout.splitlines()[-1]) | {"seconds": seconds}
    print(f"  {json.dumps(measured)}", file=sys.stderr, flush=True)
    _empty(place)
    return measured


def _empty(place: Path) -> None:
    """Give the room back and keep the files' names: where thousands have just been deleted, ext4 without a journal
    creates the next ones at half the speed, and whoever comes next would pay for it.
    """
    for path in place.rglob("*"):
        if path.is_file():
            os.truncate(path, 0)


def by_turns(
    names: tuple[str, ...], edge: int, folder: Path, times: int, *more: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Let contenders work by turns; give their medians of seconds and of the loop's lag."""
    with serving(edge) as base_url:
        runs = [(name, contend(name, base_url, folder, *more)) for _ in range(times) for name in names]
    return medians((name, run["seconds"]) for name, run in runs), medians((name, run["lag_p99"]) for name, run in runs)


def throughput(folder: Path, times: int) -> Iterator[Row]:
    """Compare the whole way without a limit."""
    for edge, requests, least in ((256, 2000, 0.90), (1024, 300, 0.95)):
        for way, flag in (("URL", ()), ("base64", ("--inline",))):
            names = ("bare", "careful", "sdk", "ours") if edge == 256 else ("bare", "careful", "ours")
            seconds, lag = by_turns(names, edge, folder, times, "--requests", str(requests), *flag)
            rates = ", ".join(f"{name} {requests / seconds[name]:,.0f}/s" for name in names)
            what = f"{edge}x{edge} by {way}, {requests:,} requests: {rates}"
            ratio = seconds["careful"] / seconds["ours"]
            yield what, f"{ratio:.2f} of careful", verdict(ratio, least, least=True)
            if edge == 256:
                ratio = seconds["sdk"] / seconds["ours"]
                yield what.partition(":")[0], f"{ratio:.2f} of the SDK", verdict(ratio, 1.4, least=True)
            else:
                milliseconds = lag["ours"] * 1000
                yield (
                    f"the event loop's lag meanwhile, p99 ({edge}x{edge} by {way})",
                    f"{milliseconds:.1f} ms",
                    verdict(milliseconds, 20, least=False),
                )


def memory(folder: Path, _times: int) -> Iterator[Row]:
    """Hold 200 answers of about 4 MB in flight at once."""
    payload = 200 * len(noise(1024, 0)) * 4 / 3
    with serving(1024, latency=2.0) as base_url:
        idle = contend("ours", base_url, folder, "--inline", "--requests", "1", "--concurrency", "200")
        busy = contend("ours", base_url, folder, "--inline", "--requests", "400", "--concurrency", "200")
    grown = busy["rss"] - idle["rss"]
    yield (
        f"memory with 200 calls in flight, {megabytes(payload)} of base64",
        f"{megabytes(grown)}: {grown / payload:.2f} of the payload",
        verdict(grown / payload, 3, least=False),
    )


def limit(folder: Path, _times: int) -> Iterator[Row]:
    """Let a strict server say how much of its limit was used."""
    whole = limits.IMAGES * limits.WINDOWS
    mixed = [1, 4, 10] * (whole // 15)
    cases = [("ours", latency, [1] * whole, "n=1") for latency in (10, 80, 195)]
    cases += [("ours", 10, mixed, "n=1, 4, 10"), ("naive", 10, [1] * whole, "n=1")]
    places = [folder / f"limit-{number}" for number in range(len(cases))]
    with ProcessPoolExecutor(len(cases), get_context("spawn")) as processes:  # side by side: all of them mostly wait
        seen = list(processes.map(limits.measure, places, *zip(*cases, strict=True)))
    for used in seen:
        least = 0.99 if used.mix == "n=1" else 0.95
        met = verdict(used.share, least, least=True) + f"; 429s ≤ 0: {'missed' if used.refused else 'met'}"
        what = f"the limit, {used.contender}, latency {used.latency:.0f} s, {used.mix}"
        yield what, f"{used.share:.3f} used, {used.refused} 429s", met if used.contender == "ours" else ""


def queues(folder: Path, _times: int) -> Iterator[Row]:
    """Queue ten thousand to a million requests."""
    with serving(256) as base_url:
        for requests in (10_000, 100_000, 1_000_000):
            one = queue.measure(folder / f"queue-{requests}", requests, base_url)
            measured = (one.submit_seconds, one.submit_rss / 2**20, one.status_seconds, one.first_call_seconds)
            targets = [verdict(value, most, least=False) for value, most in zip(measured, MOST_QUEUED, strict=True)]
            yield (
                f"{requests:,} requests: submit, its memory, status, first call of a run",
                "{:.1f} s, {:.0f} MB, {:.2f} s, {:.2f} s".format(*measured),
                "; ".join(targets) if requests == 100_000 else "",
            )


def starts(folder: Path, _times: int) -> Iterator[Row]:
    """Start commands that do little."""
    place = folder / "startup"
    with serving(256) as base_url:
        job = queue.write_job(place, 100, base_url)
        queue.timed(*queue.command(place, "submit", str(job)))
    one = startup.measure(place)
    for name, seconds, most in (("--help", one.help, 1.5), ("status", one.status, 2.5)):
        ratio = seconds / one.click
        yield (
            f"`pipeline {name}` beside `import click` ({one.click * 1000:.0f} ms)",
            f"{ratio:.2f}",
            verdict(ratio, most, least=False),
        )


def submits(folder: Path, _times: int) -> Iterator[Row]:
    """Submit a million requests beside a working run."""
    with serving(256, latency=0.05) as base_url:
        waits, seconds = beside.measure(folder / "beside", base_url, requests=20_000, submitted=1_000_000)
    longest = waits.longest * 1000
    what = (
        f"the longest wait of a record of {waits.records:,}, while 1,000,000 requests are submitted ({seconds:.0f} s)"
    )
    yield what, f"{longest:.0f} ms", verdict(longest, 100, least=False)


def on_machines(folder: Path, _times: int) -> Iterator[Row]:
    """Compare the run's own process with one that hands its calls out to workers."""
    with serving(256) as base_url:
        for way, inline in (("base64", True), ("URL", False)):
            local, ray = (
                machines.measure(where, base_url, folder / f"{where}-{way}", 3000, inline=inline)
                for where in ("local", "ray")
            )
            what = (
                f"256x256 by {way}, 3,000 requests, the run's own processor time for a picture, with 8 workers on Ray"
            )
            ratio = ray["cpu_ms"] / local["cpu_ms"]
            said = f"{ray['cpu_ms']:.2f} ms: {ratio:.2f} of one process ({local['cpu_ms']:.2f} ms)"
            yield what, said, verdict(ratio, 0.4, least=False)
            yield (
                f"256x256 by {way}, pictures a second with 8 workers that only pretend",
                (f"{ray['per_second']:.0f}"),
                verdict(ray["per_second"], 500, least=True),
            )


PARTS: dict[str, Part] = {
    "throughput": throughput,
    "memory": memory,
    "limit": limit,
    "queue": queues,
    "startup": starts,
    "beside": submits,
    "machines": on_machines,
}


def main() -> None:
    """Measure, and print the table; with --write, put it into the README beside this module."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--times", type=int, default=5, help="how often each contender works")
    parser.add_argument("--write", action="store_true", help="put the table into tests/bench/README.md")
    parser.add_argument("--folder", type=Path, help="where the work is done (default: the system's temporary folder)")
    given = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for name in given.only or PARTS:
            print(name, file=sys.stderr, flush=True)
            for row in PARTS[name](Path(folder), given.times):
                print(f"  {' | '.join(row)}", file=sys.stderr, flush=True)
                rows.append(row)
    text = f"{machine()}.\n\n{table(('what', 'measured', 'target'), rows)}\n"
    print(text)
    if given.write:
        before, begin, rest = README.read_text().partition("<!-- bench -->\n")
        README.write_text(f"{before}{begin}{text}{rest[rest.index('<!-- end -->') :]}")


if __name__ == "__main__":
    main()
