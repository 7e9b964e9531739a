"""Files of any size go through the sandbox in constant memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest

from pipeline.sandbox.file_store import FileStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MIB = 1024 * 1024
SIZE = 100 * MIB


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
async def test_a_large_file_is_received_and_sent_in_constant_memory(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    store = FileStore(spool / "files")
    with store.part().open("wb") as sparse:
        sparse.truncate(SIZE)
    output = store.add(Path(sparse.name), created_at=0, expires_at=None, filename="out.jsonl", purpose="batch_output")
    process = subprocess.Popen(  # noqa: ASYNC220 - started once, and its line is awaited at once
        [sys.executable, "-m", "pipeline.sandbox", "--with-stdin", "--spool", str(spool)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    base_url = json.loads(process.stdout.readline())["base_url"]
    headers = {"Authorization": "Bearer k"}
    try:
        before = _peak(process.pid)
        async with aiohttp.ClientSession(headers=headers) as session:
            async with session.get(f"{base_url}/files/{output.id}/content") as response:
                received = sum([len(chunk) async for chunk in response.content.iter_chunked(MIB)])
            form = aiohttp.FormData({"purpose": "user_data"})
            form.add_field("file", _zeros(60), filename="big")
            async with session.post(f"{base_url}/files", data=form) as response:
                sent = (await response.json())["bytes"]
        grown = _peak(process.pid) - before
    finally:
        process.kill()
        process.communicate()
    assert (received, sent) == (SIZE, 60 * MIB)
    assert grown < 30 * MIB


async def _zeros(pieces: int) -> AsyncIterator[bytes]:
    for _ in range(pieces):
        yield bytes(MIB)


def _peak(pid: int) -> int:
    """Return the most memory that a process has had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
