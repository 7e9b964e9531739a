"""An Images API that costs nothing: its answers lie ready, so that only the clients are measured.

`python -m tests.bench.server EDGE` prints its port and serves until its stdin ends.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from aiohttp import web

from tests.bench.pictures import noise

if TYPE_CHECKING:
    from collections.abc import Iterator

DIFFERENT = 4  # pictures; the next call gets the next one


def application(edge: int, latency: float) -> web.Application:
    """Build the server: pictures of `edge` by `edge` pixels, `latency` seconds a call."""
    pictures = [noise(edge, seed) for seed in range(DIFFERENT)]
    inline = [
        json.dumps({"created": 1, "data": [{"b64_json": base64.b64encode(one).decode()}]}).encode() for one in pictures
    ]
    calls = 0

    async def call(request: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        body = await request.json()
        if latency:
            await asyncio.sleep(latency)
        if body.get("response_format") == "b64_json":
            return web.Response(body=inline[calls % DIFFERENT], content_type="application/json")
        url = f"http://{request.host}/pictures/{calls}.png"
        return web.json_response({"created": 1, "data": [{"url": url}]})

    async def give(request: web.Request) -> web.Response:
        return web.Response(body=pictures[int(request.match_info["number"]) % DIFFERENT], content_type="image/png")

    app = web.Application()
    app.router.add_post("/v1/images/generations", call)
    app.router.add_get("/pictures/{number}.png", give)
    return app


async def serve(edge: int, latency: float) -> None:
    """Serve until stdin ends."""
    runner = web.AppRunner(application(edge, latency), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=2048).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


@contextlib.contextmanager
def serving(edge: int, latency: float = 0.0) -> Iterator[str]:
    """Start the server in a process of its own; give its base_url."""
    command = [sys.executable, "-m", "tests.bench.server", str(edge), str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        process.stdin.close()


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {0})  # one core is the server's
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
