"""A run over a folder in a process of its own, which kills itself at a given moment: see `killed`."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.client.session import ApiSession
from pipeline.config.load import RetryRules
from pipeline.ledger.writer import Writer
from tests.support.batch_server import batch_lab
from tests.support.stage import KEY
from tests.support.workbench import benched

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

_LONGEST = 900.0  # seconds of a run that collects 5 GB
PATIENT = RetryRules(attempts=50, unknown=50, max_wait_seconds=0.05)
POLLS: dict[str, Any] = {"poll_seconds": (0.05, 0.1), "cancel_seconds": 0.5}


def _die_at(number: int) -> None:
    """Kill this process at this moment: moments are before and after each transaction, and around each HTTP call."""
    left = number

    def moment() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    commit, send = Writer._commit, ApiSession._send

    def commit_at_moments(self: Writer, batch: Any) -> Any:
        moment()
        results = commit(self, batch)
        moment()
        return results

    class Sent:
        """An HTTP call with a moment before it is sent, and one when its answer begins."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def __aenter__(self) -> Any:
            moment()
            response = await self.inner.__aenter__()
            moment()
            return response

        async def __aexit__(self, *error: object) -> Any:
            return await self.inner.__aexit__(*error)

    Writer._commit = commit_at_moments  # type: ignore[method-assign]
    ApiSession._send = lambda self, *values: Sent(send(self, *values))  # type: ignore[method-assign]


def _work(folder: str, url: str, dies_at: int | None, rules: dict[str, Any]) -> None:
    if dies_at is not None:
        _die_at(dies_at)
    with benched(Path(folder)) as bench:
        bench.retry, bench.environment = PATIENT, {"STAGE_KEY": KEY}
        provider = batch_lab(url, more={"api_key_env": "STAGE_KEY"}, **{**POLLS, **rules})
        asyncio.run(bench.run(provider))


def _process(
    folder: Path, url: str, dies_at: int | None, rules: dict[str, Any], said: Any = None, longest: float = 60.0
) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")  # of a process with one thread, which has all modules
    context.set_forkserver_preload(["tests.support.batch_run"])
    process = context.Process(target=_measured, args=(str(folder), url, dies_at, rules, said))
    process.start()
    process.join(longest)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError("the run does not end")
    return process


def _measured(folder: str, url: str, dies_at: int | None, rules: dict[str, Any], said: Any) -> None:
    _work(folder, url, dies_at, rules)
    if said is not None:
        said.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def peak_of_run(folder: Path, url: str, **rules: Any) -> int:
    """Run over a folder to the end; return the most memory that the process had, in MB."""
    heard, said = multiprocessing.Pipe(duplex=False)
    assert _process(folder, url, None, rules, said, _LONGEST).exitcode == 0
    return int(heard.recv()) // 1024


def killed(folder: Path, url: str, dies_at: int, **rules: Any) -> bool:
    """Run over a folder until the moment of this number, or to the end; return whether the process was killed."""
    process = _process(folder, url, dies_at, rules)
    assert process.exitcode in {0, -signal.SIGKILL}, process.exitcode
    return process.exitcode != 0
