"""Calls of the Files API and the Batch API, for tests that serve a sandbox themselves."""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.support.sandbox_client import Caller, Reply, calling

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.support.sandbox_client import Time

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
QUICK: dict[str, Any] = {"seconds": [0, 0], "finalizing_seconds": 0}
SMALL: dict[str, Any] = {"model": "gpt-image-2", "prompt": "a cat", "size": "1024x640", "quality": "low"}
FINAL = {"completed", "failed", "expired", "cancelled"}
Line = dict[str, Any]


def line(custom_id: str, url: str = GENERATIONS, **body: Any) -> Line:
    """Return a line that asks for a small image."""
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {**SMALL, **body}}


def lines(number: int, **body: Any) -> list[Line]:
    return [line(f"line-{place}", **body) for place in range(number)]


def jsonl(content: Iterable[object]) -> bytes:
    return "".join(f"{json.dumps(one)}\n" for one in content).encode()


def patient(
    folder: Path, time: Time | None = None, *, seed: int = 0, **batch: Any
) -> AbstractAsyncContextManager[Caller]:
    """Serve a sandbox whose batches take no time unless these settings say so."""
    return calling(folder, time, seed=seed, rate_limit=None, batch={**QUICK, **batch})


async def upload(caller: Caller, content: bytes, name: str = "in.jsonl", **fields: str) -> Reply:
    form = aiohttp.FormData()
    for field, value in {"purpose": "batch", **fields}.items():
        form.add_field(field, value)
    form.add_field("file", io.BytesIO(content), filename=name)
    return await caller.call("POST", "/files", data=form)


async def create(caller: Caller, file_id: str, **fields: Any) -> Reply:
    asked = {"input_file_id": file_id, "endpoint": GENERATIONS, "completion_window": "24h", **fields}
    return await caller.call("POST", "/batches", json=asked)


async def send(caller: Caller, content: Iterable[object], **fields: Any) -> Any:
    """Upload lines and create their batch; return its object."""
    file_id = (await upload(caller, jsonl(content))).json["id"]
    created = await create(caller, file_id, **fields)
    assert created.status == 200, created.content
    return created.json


async def retrieve(caller: Caller, batch_id: str) -> Any:
    return (await caller.call("GET", f"/batches/{batch_id}")).json


async def reaching(caller: Caller, batch_id: str, *statuses: str) -> Any:
    """Poll until the batch is in one of these states, or has ended; return its object."""
    async with asyncio.timeout(30):
        while (batch := await retrieve(caller, batch_id))["status"] not in FINAL.union(statuses):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return batch


async def content(caller: Caller, file_id: str, **headers: str) -> Reply:
    return await caller.call("GET", f"/files/{file_id}/content", headers={**caller.headers, **headers})


async def results(caller: Caller, file_id: str | None) -> list[Any]:
    """Return the lines of a file that a batch made."""
    if not file_id:
        return []
    return [json.loads(text) for text in (await content(caller, file_id)).content.splitlines()]
