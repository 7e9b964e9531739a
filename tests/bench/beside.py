"""How long the record of a paid answer waits: alone, and while a million requests are submitted beside the run."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline import Batch
from pipeline.engine.events import CallSent
from pipeline.ledger import attempts
from pipeline.ledger.writer import Writer
from pipeline.run import run_in_loop
from tests.bench.queue import command, write_job

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from pipeline.engine.events import Event


@dataclass
class Waits:
    """The longest wait of a record, in seconds, and how many there were."""

    longest: float = 0.0
    records: int = 0
    began: list[float] = field(default_factory=list)

    def note(self, seconds: float) -> None:
        """Take one into account."""
        self.longest = max(self.longest, seconds)
        self.records += 1


def measure(folder: Path, base_url: str, requests: int, submitted: int) -> tuple[Waits, float]:
    """Run `requests` calls, and submit so many others beside them; give the waits, and the submit's seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    provider = {"base_url": base_url, "rate_limit": None, "concurrency": 8}
    (folder / "config.yaml").write_text(json.dumps({"provider": "lab", "providers": {"lab": provider}}))
    (folder / "prompts.txt").write_text("".join(f"number {number}\n" for number in range(requests)))
    defaults = {"model": "dall-e-2", "size": "256x256", "response_format": "b64_json"}
    job = {"defaults": defaults, "requests": [{"prompt": "{{ prompt }}", "rows": "prompts.txt"}]}
    (folder / "run.yaml").write_text(json.dumps(job))
    unknown = "elsewhere"  # a provider that the run does not know, and whose requests it leaves alone
    other = write_job(folder / "other", submitted, base_url, unknown)
    waits = Waits()
    do = Writer.do

    def timed(self: Writer, statement: Any, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        began = time.perf_counter()
        future = do(self, statement, *args, **kwargs)
        if statement is attempts.record_response:
            future.add_done_callback(lambda _: waits.note(time.perf_counter() - began))
        return future

    submit: list[subprocess.Popen[bytes]] = []

    def emit(event: Event) -> None:
        if isinstance(event, CallSent) and not submit:
            arguments = [*command(folder / "other", "--output", str(folder / "outputs"), "submit"), str(other)]
            submit.append(subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            waits.began.append(time.perf_counter())

    Writer.do = timed  # type: ignore[method-assign] # a benchmark may look where the program does not
    try:
        result = run_in_loop(Batch.open(config=folder / "config.yaml").run([folder / "run.yaml"], emit=emit))
    finally:
        Writer.do = do  # type: ignore[method-assign]
    assert result.exit_code == 3
    assert submit[0].poll() == 0, "the run was over before the submit"
    return waits, time.perf_counter() - waits.began[0]
