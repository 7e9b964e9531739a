"""The vendor's current SDK runs batches of images against the sandbox, from upload to content."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, TypeVar

import openai
import pytest
from openai.types import Batch, ImagesResponse

from tests.support.batch_client import EDITS, FINAL, jsonl, line
from tests.support.sandbox_client import calling, decoded, hole, png

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

QUICK = {"seconds": [0.01, 0.05], "finalizing_seconds": 0.01}
Model = TypeVar("Model", bound=openai.BaseModel)


@contextlib.asynccontextmanager
async def sdk(folder: Path, **batch: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    wall_clock: Any = time.time
    async with (
        calling(folder, wall_clock, batch={**QUICK, **batch}) as caller,
        openai.AsyncOpenAI(base_url=caller.sandbox.base_url, api_key="sk-test", max_retries=0) as client,
    ):
        yield client


def strictly(answer: Model) -> Model:
    """Check a response against the SDK's types, which it does not do itself, and for unknown fields."""
    type(answer).model_validate(answer.to_dict(), strict=True)
    assert not answer.model_extra
    return answer


async def finished(client: openai.AsyncOpenAI, batch: Batch) -> Batch:
    async with asyncio.timeout(30):
        while batch.status not in FINAL:
            await asyncio.sleep(0.01)
            batch = strictly(await client.batches.retrieve(batch.id))
    return batch


async def lines_of(client: openai.AsyncOpenAI, file_id: str | None) -> dict[str, Any]:
    assert file_id
    found = strictly(await client.files.retrieve(file_id))
    content = await client.files.content(file_id)
    assert len(content.content) == found.bytes
    return {one["custom_id"]: one for one in map(json.loads, content.text.splitlines())}


def image_of(one: Any) -> Any:
    """Return the image of a line, whose body is checked as the answer of a call at once."""
    body = ImagesResponse.model_validate(one["response"]["body"], strict=True)
    assert body.data
    assert body.usage
    return decoded(base64.b64decode(body.data[0].b64_json or ""))


async def test_a_batch_of_generations(tmp_path: Path) -> None:
    asked = [*(line(f"cat/{place}", prompt=f"cat {place}") for place in range(5)), line("bad", size="1x1")]
    async with sdk(tmp_path) as client:
        kept = {"anchor": "created_at", "seconds": 86400}
        uploaded = strictly(
            await client.files.create(
                file=("night.jsonl", jsonl(asked)),
                purpose="batch",
                expires_after=kept,  # type: ignore[arg-type]
            )
        )
        assert (uploaded.filename, uploaded.purpose, uploaded.status) == ("night.jsonl", "batch", "processed")
        batch = strictly(
            await client.batches.create(
                input_file_id=uploaded.id,
                endpoint="/v1/images/generations",
                completion_window="24h",
                metadata={"pipeline": "token"},
            )
        )
        assert (batch.status, batch.metadata) == ("validating", {"pipeline": "token"})
        batch = await finished(client, batch)
        assert batch.request_counts
        assert (batch.status, batch.request_counts.total) == ("completed", 6)
        good = await lines_of(client, batch.output_file_id)
        bad = await lines_of(client, batch.error_file_id)
        assert {image_of(one).size for one in good.values()} == {(1024, 640)}
        assert (len(good), list(bad)) == (5, ["bad"])
        listed = [strictly(one) async for one in client.batches.list(limit=1)]
        assert [one.id for one in listed] == [batch.id]
        files = [strictly(one) async for one in client.files.list(limit=1)]
        assert {one.id for one in files} == {batch.output_file_id, batch.error_file_id, uploaded.id}
        assert strictly(await client.files.delete(uploaded.id)).deleted


async def test_a_batch_of_edits_with_uploaded_pictures(tmp_path: Path) -> None:
    async with sdk(tmp_path) as client:
        picture, mask = [
            await client.files.create(file=("x.png", content), purpose="vision") for content in (png(), hole())
        ]
        edit = {"images": [{"file_id": picture.id}], "mask": {"file_id": mask.id}}
        uploaded = await client.files.create(
            file=("edits.jsonl", jsonl(line(str(place), EDITS, **edit) for place in range(3))), purpose="batch"
        )
        batch = await client.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/images/edits", completion_window="24h"
        )
        batch = await finished(client, batch)
        good = await lines_of(client, batch.output_file_id)
    assert (batch.status, batch.error_file_id, len(good)) == ("completed", None, 3)
    for one in good.values():
        assert image_of(one).convert("RGB").getpixel((100, 100)) == (0xC0, 0x49, 0x6B)


async def test_a_failed_batch_has_typed_errors(tmp_path: Path) -> None:
    async with sdk(tmp_path) as client:
        uploaded = await client.files.create(file=("x.jsonl", b"{"), purpose="batch")
        batch = await client.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/images/generations", completion_window="24h"
        )
        batch = await finished(client, batch)
    assert batch.status == "failed"
    assert batch.errors
    assert batch.errors.data
    assert [(one.code, one.line) for one in batch.errors.data] == [("invalid_json_line", 1)]


async def test_a_batch_is_cancelled(tmp_path: Path) -> None:
    async with sdk(tmp_path, seconds=[60, 60]) as client:
        uploaded = await client.files.create(file=("x.jsonl", jsonl([line("a")])), purpose="batch")
        batch = await client.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/images/generations", completion_window="24h"
        )
        assert strictly(await client.batches.cancel(batch.id)).status == "cancelling"
        assert (await finished(client, batch)).status == "cancelled"


async def test_errors_have_their_classes(tmp_path: Path) -> None:
    async with sdk(tmp_path) as client:
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            await client.files.retrieve("file-x")
        with pytest.raises(openai.NotFoundError, match="No batch found"):
            await client.batches.retrieve("batch_x")
        with pytest.raises(openai.BadRequestError, match="Cannot find file file-x, or project") as caught:
            await client.batches.create(input_file_id="file-x", endpoint="/v1/images/edits", completion_window="24h")
        assert caught.value.param == "file_id"
        with pytest.raises(openai.BadRequestError, match=r"Must be \.jsonl"):
            await client.files.create(file=("x.txt", b"{}"), purpose="batch")
        uploaded = await client.files.create(file=("x.jsonl", jsonl([line("a")])), purpose="batch")
        batch = await client.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/images/generations", completion_window="24h"
        )
        await finished(client, batch)
        with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
            await client.batches.cancel(batch.id)
