"""A large output file: collected in constant memory, although its connection is cut again and again."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import re
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from PIL import Image

from tests.support.batch_run import peak_of_run
from tests.support.batch_server import BatchServer, File, batch_lab, done, fates, painted, queue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.workbench import Bench

CUTS = 20
MOST_MB = 300
PICTURES, SIZE = 3, 820  # pictures of noise, whose PNG has 2 MB


def noise(seed: int) -> str:
    stream = io.BytesIO()
    pixels = random.Random(seed).randbytes(SIZE * SIZE * 3)
    Image.frombytes("RGB", (SIZE, SIZE), pixels).save(stream, "png", compress_level=0)
    return base64.b64encode(stream.getvalue()).decode()


class Volume(BatchServer):
    """A service whose output file is made as it is sent, and whose connection is cut `CUTS` times."""

    output: File
    lines: list[str]
    pictures: list[str]
    size: int = 0
    cuts: int = 0

    def _finish(self, batch: dict[str, Any], lines: list[Any]) -> None:
        self.pictures = [noise(seed) for seed in range(PICTURES)]
        self.lines = [json.dumps(done(line, "@")) for line in lines]
        self.size = sum(len(piece) for piece in self._pieces())
        self.output = self.add("batch_output", "output.jsonl", b"")
        self.output.size = self.size
        batch["request_counts"]["completed"] = len(lines)
        batch["output_file_id"] = self.output.id

    def _pieces(self) -> Iterator[bytes]:
        for number, line in enumerate(self.lines):
            before, _, after = line.partition("@")
            yield before.encode()
            yield self.pictures[number % PICTURES].encode()
            yield f"{after}\n".encode()

    async def handle(self, http: web.Request) -> web.StreamResponse:
        if not http.path.endswith("/content"):
            return await super().handle(http)
        found = re.fullmatch(r"bytes=(\d+)-", http.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        response = web.StreamResponse(status=206 if found else 200, headers={"ETag": '"x"'})
        response.content_length = self.size - start
        if found:
            response.headers["Content-Range"] = f"bytes {start}-{self.size - 1}/{self.size}"
        await response.prepare(http)
        left = self.size // (CUTS + 1) + 1 if self.cuts < CUTS else self.size
        for piece in self._pieces():
            if start >= len(piece):
                start -= len(piece)
                continue
            part, start = piece[start:][:left], 0
            await response.write(part)
            left -= len(part)
            if not left:
                self.cuts += 1
                assert http.transport is not None
                http.transport.close()
                break
        return response


@pytest.mark.parametrize(
    "megabytes", [pytest.param(200, id="short"), pytest.param(5_000, id="long", marks=pytest.mark.long)]
)
@pytest.mark.timeout(1800)
async def test_a_large_output_is_collected_in_constant_memory_over_a_connection_that_is_cut(
    bench: Bench, megabytes: int
) -> None:
    server = Volume()
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/v1/{rest:.*}", server.handle)
    count = megabytes * 1_000_000 // (SIZE * SIZE * 4)
    rules = {"most_images": 10**6, "most_output_bytes": 10**12, "enqueued_tokens": None}
    async with TestServer(app) as running:
        url = str(running.make_url("/v1"))
        queue(bench, batch_lab(url), *(painted(number) for number in range(count)))
        peak = await asyncio.to_thread(peak_of_run, bench.folder, url, **rules)
    print(f"{server.size / 1e6:.0f} MB, {server.cuts} cuts, {peak} MB of memory")
    assert fates(bench) == {"succeeded": count}
    assert server.size > megabytes * 990_000
    assert (server.cuts, len(server.batches)) == (CUTS, 1)
    assert bench.one("SELECT count(DISTINCT file) FROM image WHERE state = 'stored'") == count
    assert peak < MOST_MB
