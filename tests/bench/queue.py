"""Ledgers of ten thousand to a million requests, and how long the commands take on them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = "picture number {} of a row, with as many words about what is to be seen in it as people usually write"
_MEASURED = (
    "import json, resource, subprocess, sys, time;"
    "began = time.perf_counter();"
    "code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode;"
    "print(json.dumps([time.perf_counter() - began,"
    " resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, code]))"
)
"""A child's peak of memory is told to its parent only, so each command gets a parent of its own."""


@dataclass(frozen=True)
class Queued:
    """Seconds, and bytes at the peak, with this many requests queued."""

    requests: int
    submit_seconds: float
    submit_rss: int
    status_seconds: float
    first_call_seconds: float


def write_job(folder: Path, requests: int, base_url: str, provider: str = "lab") -> Path:
    """Write a config of one provider, and a job of so many rows; give the job file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(
        f"provider: {provider}\nproviders:\n  {provider}: {{base_url: '{base_url}', rate_limit: {{images: 50}}}}\n"
    )
    with (folder / "rows.jsonl").open("w") as rows:
        rows.writelines(json.dumps({"prompt": PROMPT.format(number)}) + "\n" for number in range(requests))
    job = folder / "rows.yaml"
    job.write_text(
        "defaults: {model: dall-e-2, size: 256x256}\nrequests:\n  - {prompt: '{{ prompt }}', rows: rows.jsonl}\n"
    )
    return job


def command(folder: Path, *arguments: str) -> list[str]:
    """Write the command as it is run in this folder."""
    return [sys.executable, "-m", "pipeline", "--config", str(folder / "config.yaml"), *arguments]


def timed(*arguments: str) -> tuple[float, int]:
    """Run a command to its end; give its seconds and its peak of memory in bytes."""
    said = subprocess.run([sys.executable, "-c", _MEASURED, *arguments], capture_output=True, text=True, check=True)
    seconds, rss, code = json.loads(said.stdout)
    assert code == 0, arguments
    return seconds, rss


def first_call(folder: Path) -> float:
    """Start a plain run; give the seconds until its first call is sent, then end it."""
    began = time.perf_counter()
    arguments = command(folder, "run", "--json")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "call_sent":
                seconds = time.perf_counter() - began
                process.kill()
                return seconds
    raise AssertionError("the run made no call")


def measure(folder: Path, requests: int, base_url: str) -> Queued:
    """Submit, ask for the status, begin a run."""
    job = write_job(folder, requests, base_url)
    more = ["--allow-large"] if requests > 1_000_000 else []
    submit_seconds, rss = timed(*command(folder, "submit", str(job), *more))
    status_seconds = min(timed(*command(folder, "status", "--json"))[0] for _ in range(3))
    return Queued(requests, submit_seconds, rss, status_seconds, first_call(folder))
