"""Images on disk that the ledger does not know, as after its copy was restored."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from aiohttp import web

from pipeline import ledger
from pipeline.batch import Batch
from pipeline.config.load import Config
from pipeline.engine.events import ImagesFound
from pipeline.errors import LeftToRunAtWork
from pipeline.ledger.database import BACKUP_NAME, FILE_NAME
from pipeline.ledger.lock import run_lock
from tests.support.workbench import MODEL, PRICE, Body, answer_with, lab, picture, vendor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from pipeline.engine.events import Event


class Shop:
    """Sells images that differ from each other, by URL."""

    def __init__(self) -> None:
        self.sold = 0

    async def __call__(self, body: Body) -> web.Response:
        self.sold += body["n"]
        return answer_with(*[{"url": f"/image/{self.sold - number}"} for number in range(body["n"])])

    async def image(self, http: web.Request) -> web.Response:
        return web.Response(body=picture(16 + int(http.match_info["name"])))


class Restored:
    """A folder in which ten images were made, and then the ledger's copy that knew three of them was put back."""

    def __init__(self, folder: Path, base_url: str, shop: Shop) -> None:
        self.batch = Batch(Config(None, folder / "outputs", "lab", {"lab": lab(base_url)}), {})
        self.folder = folder / "outputs"
        self.job = folder / "job.yaml"
        self.shop = shop
        self.events: list[Event] = []

    async def run(self, count: int) -> Any:
        requests = [{"prompt": f"number {number}", "id": f"r{number}"} for number in range(count)]
        self.job.write_text(yaml.safe_dump({"defaults": MODEL, "requests": requests}))
        return await self.batch.run([self.job], emit=self.events.append)

    async def make(self) -> dict[str, bytes]:
        await self.run(3)
        shutil.copy(self.folder / BACKUP_NAME, self.folder / "kept")
        await self.run(10)
        assert (self.shop.sold, self.found()) == (10, [])
        for path in self.folder.glob(f"{FILE_NAME}*"):
            path.unlink()
        shutil.copy(self.folder / "kept", self.folder / FILE_NAME)
        return self.images()

    def images(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / "job" / "images").iterdir()}

    def found(self) -> list[tuple[int, int]]:
        return [(one.adopted, one.unknown) for one in self.events if isinstance(one, ImagesFound)]

    def edit(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change each entry of the manifest."""
        path = self.folder / "job" / "manifest.jsonl"
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        for entry in entries:
            change(entry)
        path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))


@pytest.fixture
async def restored(tmp_path: Path) -> AsyncIterator[Restored]:
    shop = Shop()
    async with vendor(shop, shop.image) as base_url:
        yield Restored(tmp_path, base_url, shop)


async def test_images_that_the_manifest_proves_are_recorded_again_and_not_bought_again(restored: Restored) -> None:
    before = await restored.make()
    manifest = (restored.folder / "job" / "manifest.jsonl").read_bytes()
    result = await restored.run(10)
    assert (result.exit_code, restored.shop.sold, restored.found()) == (0, 10, [(7, 0)])
    assert (restored.images(), restored.batch.verify()) == (before, (10, []))
    (summary,) = restored.batch.summaries()
    assert summary.cost_usd == pytest.approx(10 * PRICE)
    after = [json.loads(line) for line in (restored.folder / "job" / "manifest.jsonl").read_text().splitlines()]
    for old, new in zip([json.loads(line) for line in manifest.splitlines()], after, strict=True):
        same = ("key", "status", "images", "attempts", "cost_usd", "maybe_paid", "request_id")
        assert [old[name] for name in same] == [new[name] for name in same]


@pytest.mark.parametrize("change", ["manifest", "rename", "run", "forget"])
async def test_what_a_manifest_proves_outlives_that_it_is_written_again(restored: Restored, change: str) -> None:
    before = await restored.make()
    batch = restored.batch
    if change == "manifest":
        batch.manifest("job")
        batch.manifest("job")
    elif change == "rename":
        batch.rename("job", "other")
        batch.rename("other", "job")
    elif change == "run":
        assert (await batch.run()).exit_code == 0
    else:
        batch.forget("job")
        await restored.run(2)
        batch.manifest("job")
    assert (restored.folder / "job" / "manifest.unknown.jsonl").exists()
    assert (await restored.run(10)).exit_code == 0
    assert restored.shop.sold == 10
    assert (restored.images(), batch.verify()) == (before, (10, []))
    assert not (restored.folder / "job" / "manifest.unknown.jsonl").exists()


@pytest.mark.parametrize("how", ["submit", "run"])
async def test_a_job_that_is_queued_beside_a_run_records_them_at_once(restored: Restored, how: str) -> None:
    await restored.make()
    batch = restored.batch
    batch.forget("job")
    lock = (batch.folder, batch.stores.new)
    with ledger.writing(batch.folder) as connection, run_lock(*lock, connection, lambda: None):
        if how == "submit":
            batch.submit([restored.job])
        else:
            with pytest.raises(LeftToRunAtWork):
                await batch.run([restored.job])
        assert connection.execute("SELECT count(*) FROM image").fetchone()[0] == 10
        connection.execute("DELETE FROM image WHERE file LIKE '%r0%' OR file LIKE '%r1%'")
        connection.execute("UPDATE request SET status = 'running', received = 0 WHERE id = 'r0'")
        connection.execute("UPDATE request SET status = 'pending', received = 0 WHERE id = 'r1'")
        batch.submit([restored.job])
        assert connection.execute("SELECT count(*) FROM image").fetchone()[0] == 9, "the run may just have stored r0"
    assert ((await restored.run(10)).exit_code, restored.shop.sold) == (0, 10)


async def test_resume_records_them_too(restored: Restored) -> None:
    await restored.make()
    restored.batch.submit([restored.job])
    result = await restored.batch.resume(["job"], emit=restored.events.append)
    assert (result.exit_code, restored.shop.sold, restored.found()) == (0, 10, [(7, 0)])


@pytest.mark.parametrize("how", ["no manifest", "another hash", "another key", "no lines of ours"])
async def test_images_that_nothing_proves_stay_as_they_are_and_are_named(restored: Restored, how: str) -> None:
    before = await restored.make()
    manifest = restored.folder / "job" / "manifest.jsonl"
    match how:
        case "no manifest":
            manifest.unlink()
        case "another hash":
            restored.edit(lambda entry: entry["images"][0].update(sha256="0" * 64))
        case "another key":
            restored.edit(lambda entry: entry.update(key="0" * 64))
        case _:
            manifest.write_bytes(b'[]\n{"images": 1}\n{"images": [1]}\nhalf a li\xff')
    result = await restored.run(10)
    assert (result.exit_code, restored.shop.sold, restored.found()) == (0, 17, [(0, 7)])
    after = restored.images()
    assert {name: after[name] for name in before} == before
    assert len(after) == 17
    assert restored.batch.verify() == (10, [])
    assert restored.batch.unknown_images("JOB") == [f"job/images/r{number}-1.png" for number in range(3, 10)]
    assert restored.batch.unknown_images() == restored.batch.unknown_images("job")


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a width of another type": lambda entry: entry["images"][0].update(width={}),
    "an endless height": lambda entry: entry["images"][0].update(height=10**30),
    "a side that is no number": lambda entry: entry["images"][0].update(width=float("nan")),
    "a remark of another type": lambda entry: entry["images"][0].update(remark=["\x1b"]),
    "half a character": lambda entry: entry["images"][0].update(revised_prompt="\ud800"),
    "a cost that is no number": lambda entry: entry.update(cost_usd=float("nan")),
    "an endless cost": lambda entry: entry.update(cost_usd=float("inf")),
}


@pytest.mark.parametrize("how", HOSTILE)
async def test_an_entry_that_this_program_did_not_write_proves_nothing(restored: Restored, how: str) -> None:
    await restored.make()
    restored.edit(lambda entry: HOSTILE[how](entry) if entry["id"] == "r3" else None)
    result = await restored.run(10)
    assert (result.exit_code, restored.shop.sold, restored.found()) == (0, 11, [(6, 1)])


async def test_a_manifest_with_lines_that_exhaust_a_parser_is_read_on(restored: Restored) -> None:
    await restored.make()
    manifest = restored.folder / "job" / "manifest.jsonl"
    manifest.write_bytes(b"[" * 1_000_000 + b"\n" + b"9" * 5000 + b"\n" + manifest.read_bytes())
    result = await restored.run(10)
    assert (result.exit_code, restored.shop.sold, restored.found()) == (0, 10, [(7, 0)])


async def test_a_manifest_that_is_a_pipe_is_not_waited_for(restored: Restored) -> None:
    await restored.make()
    manifest = restored.folder / "job" / "manifest.jsonl"
    manifest.unlink()
    os.mkfifo(manifest)
    result = await restored.run(10)
    assert (result.exit_code, restored.shop.sold, restored.found()) == (0, 17, [(0, 7)])


@pytest.mark.parametrize("number", ["99999999999999999999", "3"])
async def test_of_two_files_with_one_number_or_an_endless_one_none_ends_the_run(
    restored: Restored, number: str
) -> None:
    await restored.make()
    images = restored.folder / "job" / "images"
    shutil.copy(images / "r3-1.png", images / f"odd-{number}.png")
    shutil.copy(images / "r3-1.png", images / f"odder-{number}.png")

    def name_them(entry: dict[str, Any]) -> None:
        (image,) = entry["images"]
        entry["images"] = [{**image, "file": f"images/{name}-{number}.png"} for name in ("odd", "odder")]

    restored.edit(lambda entry: name_them(entry) if entry["id"] == "r3" else None)
    assert (await restored.run(10)).exit_code == 0


@pytest.mark.parametrize("cost", [-1.0, 10**400, "much", True], ids=["negative", "endless", "text", "boolean"])
async def test_a_cost_that_no_request_has_is_not_recorded(restored: Restored, cost: object) -> None:
    await restored.make()
    restored.edit(lambda entry: entry.update(cost_usd=cost, request_id=[cost]))
    assert (await restored.run(10)).exit_code == 0
    (summary,) = restored.batch.summaries()
    assert 0 <= (summary.cost_usd or 0) <= 10


async def test_only_what_a_request_misses_is_recorded(restored: Restored) -> None:
    await restored.make()
    restored.edit(lambda entry: entry.update(cost_usd=None))
    result = await restored.run(5)
    assert (result.exit_code, restored.shop.sold, restored.found()) == (0, 10, [(2, 5)])
    (summary,) = restored.batch.summaries()
    assert summary.images == 5
    assert summary.cost_usd == pytest.approx(3 * PRICE)
