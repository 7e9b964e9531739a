"""Client for a sandbox served by the test itself, and small images to upload."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
from PIL import Image
from yarl import URL

from pipeline.sandbox.server import RunningSandbox, serve
from pipeline.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

CAT = {"prompt": "a white siamese cat", "size": "256x256"}


@dataclass
class Time:
    """A clock and a monotonic clock that a test moves."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Reply:
    status: int
    headers: Any
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def error(self) -> Any:
        error = self.json["error"]
        assert error.keys() >= {"message", "type", "param", "code"}
        return error


@dataclass
class Caller:
    sandbox: RunningSandbox
    session: aiohttp.ClientSession
    time: Time
    request_log: Path
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": "Bearer sk-test"})

    async def call(self, method: str, path: str, **options: Any) -> Reply:
        options.setdefault("headers", self.headers)
        async with self.session.request(method, f"{self.sandbox.base_url}{path}", **options) as response:
            return Reply(response.status, response.headers, await response.read())

    async def generate(self, **parameters: Any) -> Reply:
        return await self.call("POST", "/images/generations", json={**CAT, **parameters})

    async def upload(self, path: str, files: Sequence[tuple[str, bytes, str | None]], **fields: str) -> Reply:
        form = aiohttp.FormData()
        for name, value in fields.items():
            form.add_field(name, value)
        for name, content, mime in files:
            form.add_field(name, content, filename=f"{name}.png", content_type=mime)
        return await self.call("POST", path, data=form)

    async def download(self, url: str | URL, **headers: str) -> Reply:
        url = url if isinstance(url, URL) else URL(url, encoded=True)
        async with self.session.get(url, headers=headers) as response:
            return Reply(response.status, response.headers, await response.read())

    def entries(self, kind: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.request_log.read_text().splitlines()]
        return [line for line in lines if line["type"] == kind]


@contextlib.asynccontextmanager
async def calling(folder: Path, time: Time | None = None, *, port: int = 0, **settings: Any) -> AsyncIterator[Caller]:
    """Serve a sandbox with uploads and request log in `folder`, and yield a caller with a valid key."""
    time = time or Time()
    request_log = folder / "books.jsonl"
    async with (
        serve(
            SandboxSettings.from_mapping(settings),
            port=port,
            request_log=request_log,
            upload_folder=folder / "uploads",
            spool=folder / "spool",
            clock=time,
            monotonic=time,
        ) as sandbox,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30), connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        yield Caller(sandbox, session, time, request_log)


def png(mode: str = "RGBA", size: tuple[int, int] = (64, 64), kind: str = "PNG", colour: str = "#c0496b") -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", size, colour).convert(mode).save(file, kind)
    return file.getvalue()


def hole(size: tuple[int, int] = (64, 64)) -> bytes:
    """A mask that is transparent in its right half."""
    mask = Image.new("RGBA", size, "black")
    mask.paste((0, 0, 0, 0), (size[0] // 2, 0, size[0], size[1]))
    file = io.BytesIO()
    mask.save(file, "PNG")
    return file.getvalue()


def decoded(content: bytes) -> Image.Image:
    opened = Image.open(io.BytesIO(content))
    opened.load()
    return opened
