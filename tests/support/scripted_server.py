"""A server that answers each request with the bytes that a test has written for it, and shows what it was sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp.multipart import parse_content_disposition

from pipeline.client.batch_client import BatchClient
from pipeline.client.secrets import Secrets
from pipeline.client.session import ApiSession
from pipeline.config.dialect import Dialect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Answer = bytes | Callable[["Request"], bytes]

KEY = "sk-test-0123456789"


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    head: bytes
    body: bytes

    @property
    def line(self) -> str:
        """Method and target."""
        return self.head.partition(b" HTTP/")[0].decode()

    def header(self, name: str) -> str | None:
        """Return one header."""
        found = re.search(rb"(?im)^" + name.encode() + rb": *(.*?)\r$", self.head)
        return found[1].decode() if found else None

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def parts(self) -> list[tuple[str, str | None, str | None, bytes]]:
        """The parts of a form: name, file name, content type, content."""
        boundary = re.search(r"boundary=(\w+)", self.header("Content-Type") or "")
        assert boundary is not None
        found = []
        for part in self.body.split(f"--{boundary[1]}".encode())[1:-1]:
            head, _, content = part.partition(b"\r\n\r\n")
            named = Request(head + b"\r\n", content.removesuffix(b"\r\n"))
            _, fields = parse_content_disposition(named.header("Content-Disposition"))
            found.append((fields["name"], fields.get("filename"), named.header("Content-Type"), named.body))
        return found


@dataclass
class ScriptedServer:
    """Answers one request per connection, each with the next answer; the last one serves all that follow."""

    answers: list[Answer]
    requests: list[Request] = field(default_factory=list)
    stalls_after: int | None = None  # from this answer on, counted from 0, connections stay open
    port: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def lines(self) -> list[str]:
        """Method and target of each request."""
        return [request.line for request in self.requests]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            request = Request(head, await reader.readexactly(int(length[1])) if length else b"")
            number = len(self.requests)
            self.requests.append(request)
            answer = self.answers[min(number, len(self.answers) - 1)]
            writer.write(answer if isinstance(answer, bytes) else answer(request))
            await writer.drain()
            if self.stalls_after is not None and number >= self.stalls_after:
                return
        writer.close()

    def close(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.close()


@contextlib.asynccontextmanager
async def scripted(*answers: Answer, stalls_after: int | None = None) -> AsyncIterator[ScriptedServer]:
    """Serve until the block ends."""
    server = ScriptedServer(list(answers), stalls_after=stalls_after)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        server.close()
        listening.close()


def response(status: int, body: bytes | object = b"", *headers: str, length: int | None = None) -> bytes:
    """Write a response: bytes as they are, anything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
    lines = [f"HTTP/1.1 {status} X", "Connection: close"]
    lines.append(f"Content-Length: {len(content) if length is None else length}")
    if not any(header.lower().startswith("content-type:") for header in headers):
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join([*lines, *headers, "", ""]).encode() + content


@contextlib.asynccontextmanager
async def batch_client(base_url: str, **more: Any) -> AsyncIterator[BatchClient]:
    """Open a client in a session of its own."""
    settings: dict[str, Any] = {"dialect": Dialect(), "timeout": 20.0, "connections": 8, **more}
    headers = settings.pop("headers", {})
    async with ApiSession(base_url, KEY, headers, secrets=Secrets({"key": KEY, **headers}), **settings) as session:
        yield BatchClient(session, settings["dialect"])
