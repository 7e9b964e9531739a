"""The client of batches against the sandbox, which reads the documentation independently."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.client.file_download import FileGone
from pipeline.errors import Invalid, OutcomeUnknown, RequestError
from tests.support.sandbox_client import Time, calling
from tests.support.scripted_server import batch_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pipeline.client.batch_client import BatchClient
    from pipeline.client.batch_objects import RemoteBatch

GENERATIONS = "/v1/images/generations"
FINAL = {"completed", "failed", "expired", "cancelled"}
NOW = Time().now
QUICK: dict[str, Any] = {"seconds": [0, 0], "finalizing_seconds": 0}


def _written(path: Path, number: int, **body: Any) -> Path:
    """Write an input file of so many lines."""
    asked = {"model": "gpt-image-2", "prompt": "a cat", "size": "1024x640", "quality": "low", **body}
    lines = [{"custom_id": f"line-{one}", "method": "POST", "url": GENERATIONS, "body": asked} for one in range(number)]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


@asynccontextmanager
async def sandbox(folder: Path, **batch: Any) -> AsyncIterator[BatchClient]:
    async with (
        calling(folder, rate_limit=None, batch={**QUICK, **batch}) as caller,
        batch_client(caller.sandbox.base_url) as client,
    ):
        yield client


async def sent(client: BatchClient, path: Path, name: str = "one") -> RemoteBatch:
    file = await client.upload(path, f"{name}.jsonl", "batch", "application/jsonl", 3600)
    return await client.create(file.id, GENERATIONS, {"pipeline": name}, lambda: None)


async def ended(client: BatchClient, batch: RemoteBatch) -> RemoteBatch:
    async with asyncio.timeout(60):
        while True:
            found = await client.get_batch(batch.id)
            assert found is not None
            if found.status in FINAL:
                return found
            await asyncio.sleep(0.01)


async def test_a_batch_goes_from_upload_to_content(tmp_path: Path) -> None:
    async with sandbox(tmp_path) as client:
        path = _written(tmp_path / "in.jsonl", 5)
        file = await client.upload(path, "one.jsonl", "batch", "application/jsonl", 3600)
        assert file.bytes == path.stat().st_size
        assert file.expires_at == NOW + 3600
        assert await client.get_file(file.id) == file
        assert await client.find_file("one.jsonl", "batch", NOW - 60) == file
        assert await client.find_file("two.jsonl", "batch", NOW - 60) is None
        batch = await client.create(file.id, GENERATIONS, {"pipeline": "one"}, lambda: None)
        assert (batch.input_file_id, batch.endpoint, batch.metadata) == (file.id, GENERATIONS, {"pipeline": "one"})
        assert [one.id async for one in client.list_batches(NOW - 60)] == [batch.id]
        end = await ended(client, batch)
        assert (end.status, end.total, end.completed, end.failed) == ("completed", 5, 5, 0)
        assert end.output_file_id is not None
        assert await client.cancel(batch.id) is None
        output = await client.get_file(end.output_file_id)
        assert output is not None
        await client.download(output.id, tmp_path / "out.jsonl", output.bytes, idle_seconds=5)
        await client.delete_file(file.id)
        await client.delete_file(file.id)
        assert await client.get_file(file.id) is None
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {line["custom_id"] for line in lines} == {f"line-{one}" for one in range(5)}


async def test_contents_that_are_cut_are_whole_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.client.file_download._FIRST_WAIT", 0.001)
    async with sandbox(tmp_path, faults={"cut_content": 0.4}) as client:
        end = await ended(client, await sent(client, _written(tmp_path / "in.jsonl", 12)))
        assert end.output_file_id is not None
        output = await client.get_file(end.output_file_id)
        assert output is not None
        for number in range(10):
            await client.download(output.id, tmp_path / f"{number}.jsonl", output.bytes, idle_seconds=5)
    contents = {(tmp_path / f"{number}.jsonl").read_bytes() for number in range(10)}
    assert len(contents) == 1
    assert len(contents.pop()) == output.bytes


async def test_errors_of_validation_and_empty_ids_are_read(tmp_path: Path) -> None:
    async with sandbox(tmp_path, faults={"empty_ids": 1.0}) as client:
        end = await ended(client, await sent(client, _written(tmp_path / "in.jsonl", 2)))
        assert (end.status, end.error_file_id) == ("completed", None)
        (tmp_path / "bad.jsonl").write_text('{"custom_id": \n')
        end = await ended(client, await sent(client, tmp_path / "bad.jsonl", "two"))
        assert (end.status, end.output_file_id) == ("failed", None)
        assert (end.errors[0].code, end.errors[0].line) == ("invalid_json_line", 1)


async def test_a_batch_at_work_is_cancelled(tmp_path: Path) -> None:
    async with sandbox(tmp_path, seconds=[30, 30]) as client:
        batch = await sent(client, _written(tmp_path / "in.jsonl", 2))
        cancelled = await client.cancel(batch.id)
        assert cancelled is not None
        assert cancelled.status in {"cancelling", "cancelled"}
        assert (await ended(client, batch)).status == "cancelled"


async def test_a_batch_whose_answer_is_lost_is_found_in_the_list(tmp_path: Path) -> None:
    told: list[None] = []
    lost = 0
    async with sandbox(tmp_path, faults={"create_lost": 1.0}) as client:
        for number in range(4):
            path, token = _written(tmp_path / "in.jsonl", 1), {"pipeline": str(number)}
            file = await client.upload(path, f"{number}.jsonl", "batch", "application/jsonl", 3600)
            with pytest.raises(RequestError) as caught:
                await client.create(file.id, GENERATIONS, token, lambda: told.append(None))
            lost += isinstance(caught.value, OutcomeUnknown)
            found = [one async for one in client.list_batches(NOW - 60) if one.metadata == token]
            assert [one.input_file_id for one in found] == [file.id]
    assert len(told) == 4
    assert lost


async def test_what_the_sandbox_does_not_have_is_unknown(tmp_path: Path) -> None:
    async with sandbox(tmp_path) as client:
        assert await client.get_batch("batch_0") is None
        assert await client.get_file("file-0") is None
        with pytest.raises(FileGone):
            await client.download("file-0", tmp_path / "out.jsonl", None, idle_seconds=5)
        with pytest.raises(Invalid, match="Cannot find file"):
            await client.create("file-0", GENERATIONS, {}, lambda: None)
        with pytest.raises(Invalid, match="Invalid file format"):
            await client.upload(_written(tmp_path / "in.jsonl", 1), "in.txt", "batch", "text/plain", None)


async def test_batches_are_listed_through_all_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.client.batch_client._BATCHES_PER_PAGE", 3)
    async with sandbox(tmp_path, seconds=[30, 30]) as client:
        file = await client.upload(_written(tmp_path / "in.jsonl", 1), "a.jsonl", "batch", "application/jsonl", 3600)
        made = [(await client.create(file.id, GENERATIONS, {}, lambda: None)).id for _ in range(20)]
        assert [one.id async for one in client.list_batches(NOW - 600)] == made[::-1]
