"""An S3 server as a process of its own, moto's or seaweedfs, behind a proxy that refuses, delays, damages and hangs.

moto accepts a wrong SHA-256, so the proxy compares it with the body that it forwards, as S3 does.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import hashlib
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote
from xml.etree import ElementTree as ET

import pytest
from aiohttp import ClientSession, web

if TYPE_CHECKING:
    import http.client
    from collections.abc import Callable, Iterator
    from pathlib import Path

Action = Literal["pass", "damage", "damage in silence", "drop", "hang", "hang after"]

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
BUCKET = "bucket"
_UNCHECKED = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
_HOP = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"})


@contextlib.contextmanager
def descriptions_read_once() -> Iterator[None]:
    """Within the block the S3 library parses its description of the service once, not in each of a file's many runs."""
    from botocore.loaders import JSONFileLoader

    read = JSONFileLoader.load_file
    once = functools.cache(lambda path: read(JSONFileLoader(), path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: once(path))
        yield


@dataclass
class ObjectServer:
    """The server and its proxy. `rule` gets the method and the path of each request and says what becomes of it."""

    upstream: str
    rule: Callable[[str, str], Action | tuple[int, str]] = lambda _method, _path: "pass"
    seen: list[tuple[str, str]] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)  # set once a request hangs
    url: str = ""
    is_open: bool = False  # it lets anybody in

    def get(self, key: str) -> tuple[bytes, str]:
        """Return the content and the media type of an object, by the server itself."""
        with self._send("GET", f"{BUCKET}/{quote(key)}") as response:
            return response.read(), response.headers["Content-Type"]

    def put(self, key: str, content: bytes) -> None:
        """Put an object into the server, past the proxy."""
        self._send("PUT", f"{BUCKET}/{quote(key)}", content).close()

    def delete(self, key: str) -> None:
        """Delete an object from the server, past the proxy."""
        self._send("DELETE", f"{BUCKET}/{quote(key)}").close()

    def _send(self, method: str, path: str, content: bytes | None = None) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/octet-stream"} | ({} if self.is_open else {"Authorization": _UNCHECKED})
        request = urllib.request.Request(f"{self.upstream}/{path}", content, headers, method=method)  # noqa: S310
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=10)  # noqa: S310
        return response

    def make_bucket(self, process: subprocess.Popen[bytes]) -> bool:
        """Create the bucket as soon as the server listens; return False if its process has ended instead."""
        until = time.monotonic() + 60
        while process.poll() is None:
            try:
                self._send("PUT", BUCKET).close()
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert time.monotonic() < until, "the server does not start"
                time.sleep(0.1)
            else:
                return True
        return False

    def names(self) -> list[str]:
        """Return the keys of all objects."""
        with self._send("GET", f"{BUCKET}?list-type=2") as response:
            tree = ET.fromstring(response.read())  # noqa: S314 - our own server's
        return [one.text or "" for one in tree.iter() if one.tag.endswith("}Key")]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Do with one request what the rule says."""
        body = await request.read()
        self.seen.append((request.method, request.path))
        action = self.rule(request.method, request.path)
        if isinstance(action, tuple):
            status, code = action
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
            return web.Response(status=status, text="" if request.method == "HEAD" else text, content_type="text/xml")
        if action == "drop":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if action == "hang":
            await self._hang()
        stated = request.headers.get("x-amz-checksum-sha256")
        if action.startswith("damage") and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        is_right = stated is None or stated == base64.b64encode(hashlib.sha256(body).digest()).decode()
        if not is_right and action != "damage in silence":
            return web.Response(status=400, text="<Error><Code>BadDigest</Code></Error>", content_type="text/xml")
        return await self._forward(request, body, action)

    async def _hang(self) -> None:
        self.held.set()
        await asyncio.sleep(3600)

    async def _forward(self, request: web.Request, body: bytes, action: str) -> web.StreamResponse:
        silent = action == "damage in silence"
        dropped = {"x-amz-checksum-sha256", "x-amz-sdk-checksum-algorithm"} if silent else set()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP | dropped}
        async with (
            ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, f"{self.upstream}{request.raw_path}", data=body, headers=headers
            ) as response,
        ):
            content = await response.read()
            if action == "hang after":
                await self._hang()
            kept = {
                name: value
                for name, value in response.headers.items()
                if name.lower() not in _HOP | {"content-type"} and not (silent and "checksum" in name.lower())
            }
            kept["Content-Type"] = response.headers.get("Content-Type", "application/octet-stream")
            if request.method == "HEAD":
                kept["Content-Length"] = response.headers.get("Content-Length", "0")
            return web.Response(status=response.status, body=content or None, headers=kept)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def object_server(kind: Literal["moto", "weed"], folder: Path) -> Iterator[ObjectServer]:
    """Start a server and its proxy, and end both after the block."""
    with _started(kind, folder) as server, _proxied(server):
        yield server


@contextlib.contextmanager
def _started(kind: Literal["moto", "weed"], folder: Path) -> Iterator[ObjectServer]:
    """Start a server with a bucket: on other ports if one of them was taken before the server had it."""
    for _ in range(5):
        port = free_port()
        server = ObjectServer(f"http://127.0.0.1:{port}", is_open=kind == "weed")
        with (
            (folder / f"{kind}.log").open("wb") as log,
            subprocess.Popen(_command(kind, port, folder), stdout=log, stderr=log, cwd=folder) as process,
        ):
            try:
                if server.make_bucket(process):
                    yield server
                    return
            finally:
                process.kill()
    raise AssertionError(f"the server does not start: {(folder / f'{kind}.log').read_text()}")


def _command(kind: str, port: int, folder: Path) -> list[str]:
    if kind == "moto":
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    weed = shutil.which("weed", path=f"{sys.prefix}/bin")
    assert weed is not None
    (folder / "weed").mkdir(exist_ok=True)
    ports = [f"-{name}.port={free_port()}" for name in ("master", "volume", "filer")]
    grpc = [f"-{name}.port.grpc={free_port()}" for name in ("master", "volume", "filer", "s3")]
    return [
        *(weed, "server", f"-dir={folder / 'weed'}", "-ip=127.0.0.1", "-s3", f"-s3.port={port}"),
        *(*ports, *grpc, "-volume.max=20", "-master.volumeSizeLimitMB=64"),
    ]


@contextlib.contextmanager
def _proxied(server: ObjectServer) -> Iterator[None]:
    """Run the proxy in a thread of its own."""
    loop, ready, end = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", server.answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await end.wait()
        await runner.cleanup()

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=work, name="proxy")
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(10)
