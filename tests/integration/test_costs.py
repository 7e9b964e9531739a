"""What a request costs, counted and not timed: a number that grows here is speed lost everywhere.

Whoever makes one of these smaller lowers its bound; whoever needs it larger says why.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.client.response import HttpResponse, InlineImage, read_response
from pipeline.engine.caller import image_threads
from pipeline.engine.image_writer import FileNames, ImageWriter
from pipeline.ledger.database import open_for_reading
from pipeline.ledger.writer import Writer
from pipeline.reports.status import read_status
from pipeline.storage import LocalStore
from tests.support.workbench import PNG_BASE64, answer_with, lab, request, sandbox, vendor

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import web

    from tests.support.workbench import Bench, Body

REQUESTS = 20
TRANSACTIONS_BY_BASE64 = 4  # take, begin, answered with its file and the end; and the look for more
TRANSACTIONS_BY_URL = 5  # and the picture's arrival
STATEMENTS_BY_BASE64 = 21  # one request at a time: where many meet, a look at the queue and BEGIN, COMMIT are shared
STATEMENTS_BY_URL = 24
STATEMENTS_OF_A_RUN = 45
FSYNCS_OF_FILES = 2  # a picture's file, and its folder
STATEMENTS_OF_A_STATUS = 2  # the jobs, and one for each of them
COPIES_OF_AN_ANSWER = 1.1  # the text in the parsed JSON, beside the body that came
COPIES_OF_A_PICTURE = 2.1  # its bytes, beside its base64; and its pixels' chunks joined, as libdeflate takes them
HEAVY = {"PIL", "aiohttp", "asyncio", "jinja2", "pydantic", "rich", "tenacity", "uvloop", "yarl"}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count fsyncs and transactions."""
    counts = {"fsync": 0, "transactions": 0}
    fsync, commit = os.fsync, Writer._commit

    def counting_fsync(descriptor: int) -> None:
        counts["fsync"] += 1
        fsync(descriptor)

    def counting_commit(self: Writer, batch: Any) -> Any:
        counts["transactions"] += 1
        return commit(self, batch)

    monkeypatch.setattr(os, "fsync", counting_fsync)
    monkeypatch.setattr(Writer, "_commit", counting_commit)
    return counts


async def _run(bench: Bench, counted: dict[str, int], first: int, *, inline: bool) -> dict[str, int]:
    """Carry requests one after the other; give what they cost together."""

    async def answer(_body: Body) -> web.StreamResponse:
        return answer_with({"b64_json": PNG_BASE64} if inline else {"url": "/picture/one.png"})

    bench.submit(*(request(number) for number in range(first, first + REQUESTS)))
    before = dict(counted)
    async with vendor(answer) as base_url:
        await bench.run(lab(base_url, concurrency=1))
    assert set(bench.statuses().values()) == {"succeeded"}
    return {name: counted[name] - before[name] for name in counted}


@pytest.mark.parametrize(("inline", "most"), [(True, STATEMENTS_BY_BASE64), (False, STATEMENTS_BY_URL)])
async def test_a_request_takes_so_many_statements(
    bench: Bench, counted: dict[str, int], inline: bool, most: int
) -> None:
    statements: list[str] = []
    bench.connection.set_trace_callback(statements.append)
    await _run(bench, counted, 0, inline=inline)
    await _run(bench, counted, 1000, inline=inline)
    assert len(statements) <= 2 * (most * REQUESTS + STATEMENTS_OF_A_RUN), len(statements) / REQUESTS / 2


@pytest.mark.parametrize(("inline", "transactions"), [(True, TRANSACTIONS_BY_BASE64), (False, TRANSACTIONS_BY_URL)])
async def test_a_request_takes_so_many_transactions_and_fsyncs(
    bench: Bench, counted: dict[str, int], inline: bool, transactions: int
) -> None:
    await _run(bench, counted, 0, inline=inline)  # folders are made, the first looks at the queue are over
    cost = await _run(bench, counted, 1000, inline=inline)
    assert cost["transactions"] <= transactions * REQUESTS + 5, cost
    assert cost["fsync"] == FSYNCS_OF_FILES * REQUESTS, cost


async def test_writes_that_meet_share_a_transaction(bench: Bench, counted: dict[str, int]) -> None:
    async with Writer(bench.connection) as writer:
        writes = [writer.do(lambda connection: connection.execute("SELECT 1").fetchone()) for _ in range(500)]
        for write in writes:
            await write
    assert counted["transactions"] <= 250


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_status_takes_one_statement_a_job(bench: Bench, monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    for number in range(jobs):
        bench.submit(*(request(one) for one in range(50)), name=f"job-{number}")
    statements: list[str] = []

    def traced(folder: Path) -> Any:
        connection = open_for_reading(folder)
        assert connection is not None
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr("pipeline.ledger.database.open_for_reading", traced)
    assert len(read_status(bench.folder, None)) == jobs
    assert len([one for one in statements if one.startswith("SELECT")]) <= STATEMENTS_OF_A_STATUS - 1 + jobs


def _peak(work: Any) -> int:
    """Give the bytes that are allocated at the peak of a piece of work."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_answer_is_copied_once_while_it_is_read() -> None:
    text = base64.b64encode(os.urandom(3_000_000)).decode()
    http = HttpResponse(200, {}, json.dumps({"created": 1, "data": [{"b64_json": text}]}).encode(), "http://x/v1")
    read_response(http)
    assert _peak(lambda: read_response(http)) <= COPIES_OF_AN_ANSWER * len(http.body) + len(http.body)


async def test_a_picture_is_copied_no_more_than_twice_while_it_is_filed(tmp_path: Path) -> None:
    from tests.bench.pictures import noise

    picture = noise(512, 1)
    writer, names = ImageWriter(LocalStore(tmp_path), image_threads()), FileNames("job", "one", None)
    inline = InlineImage(base64.b64encode(picture).decode(), None)
    await writer.write_all([inline], names, [1])
    decoded = 512 * 512 * 4
    tracemalloc.start()
    await writer.write_all([inline], names, [1])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= COPIES_OF_A_PICTURE * len(picture) + decoded


OF_STORES = {"fsspec", "s3fs", "gcsfs", "adlfs", "botocore", "aiobotocore", "pipeline.stores.object_store"}


def test_images_on_the_local_disk_import_no_library_of_an_object_store(tmp_path: Path) -> None:
    (tmp_path / "cat.yaml").write_text("requests: [{prompt: a cat, model: dall-e-2, size: 256x256}]\n")
    modules = _modules("run", "cat.yaml", "--provider", "sandbox", folder=tmp_path)
    assert list(tmp_path.glob("outputs/*/images/*.png"))
    assert not modules & OF_STORES


OF_OPTIONS = {
    *("pipeline.sandbox.settings", "pipeline.config.opening_hours", "pipeline.notifications.notifier"),
    *("pipeline.ledger.redo", "ray"),
}


async def test_a_run_imports_nothing_for_what_its_config_leaves_out(tmp_path: Path) -> None:
    async with sandbox() as base_url:
        (tmp_path / "config.yaml").write_text(f"providers: {{lab: {{base_url: '{base_url}'}}}}\n")
        (tmp_path / "cat.yaml").write_text(
            "{provider: lab, requests: [{prompt: a cat, model: dall-e-2, size: 256x256}]}\n"
        )
        modules = await asyncio.to_thread(_modules, "run", "cat.yaml", folder=tmp_path)
    assert {"PIL", "pipeline.engine.worker"} <= modules
    assert modules & OF_OPTIONS == set()


def _modules(*arguments: str, folder: Path) -> set[str]:
    script = (
        "import sys; from pipeline.cli.main import _main;"
        f"code = _main({list(arguments)!r}); print(); print(' '.join(sys.modules)); sys.exit(code)"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    return set(ended.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("command", "most", "unwanted"),
    [
        (
            ("--help",),
            130,
            HEAVY | {"yaml", "sqlite3", "json", "pathlib", "pipeline.errors", "pipeline.cli.job_commands"},
        ),
        (("status",), 260, HEAVY),
    ],
)
def test_a_command_imports_only_what_it_uses(
    bench: Bench, command: tuple[str, ...], most: int, unwanted: set[str]
) -> None:
    modules = _modules(*command, "--output", str(bench.folder), folder=bench.folder)
    assert not modules & unwanted
    assert len(modules) <= most, sorted(modules)
