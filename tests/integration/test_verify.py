"""Verify reads every image and compares it with the ledger; repair quarantines damaged ones and queues them."""

from __future__ import annotations

import errno
import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from pipeline import Batch, ledger
from pipeline.errors import DiskFull
from pipeline.files import make_folder
from pipeline.ledger.queries import count_images
from pipeline.ordinary_file import open_ordinary
from pipeline.reports.verify import find_damage, repair
from pipeline.storage import LocalStore
from tests.integration.test_worker import HERE, Vendor
from tests.support.stage import HOME
from tests.support.workbench import PNG, answer_with, lab, picture, request, vendor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

    from tests.support.stage import Stage
    from tests.support.workbench import Bench


def _repair(bench: Bench) -> None:
    """Repair all damage that verify finds."""
    damages = list(find_damage(bench.connection, bench.folder, bench.stores, None))
    repair(bench.connection, bench.folder, bench.stores, damages)


async def _make(bench: Bench) -> Path:
    """Run a job of one request with two images; return the path of the first."""
    async with vendor(Vendor(lambda _: answer_with(HERE, HERE))) as base_url:
        bench.submit(request(1, id="pool", n=2))
        await bench.run(lab(base_url))
    return bench.folder / "job" / "images" / "pool-1.png"


async def test_what_is_as_recorded_is_no_damage(bench: Bench) -> None:
    await _make(bench)
    assert list(find_damage(bench.connection, bench.folder, bench.stores, None)) == []
    assert (count_images(bench.connection, None), count_images(bench.connection, "JOB")) == (2, 2)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(PNG[:-3]), "bytes, recorded are"),
        (lambda path: path.write_bytes(bytes([PNG[0] ^ 1]) + PNG[1:]), "another hash"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    ],
)
async def test_damage_is_named_and_not_touched(bench: Bench, harm: Callable[[Path], object], said: str) -> None:
    path = await _make(bench)
    harm(path)
    before = bench.ask("SELECT * FROM request"), bench.ask("SELECT * FROM image")
    (damage,) = find_damage(bench.connection, bench.folder, bench.stores, "job")
    assert damage.file == "job/images/pool-1.png"
    assert said in damage.what
    assert (bench.ask("SELECT * FROM request"), bench.ask("SELECT * FROM image")) == before


async def test_what_was_recorded_and_is_no_picture_is_damage_too(bench: Bench) -> None:
    path = await _make(bench)
    content = picture()[:-20]
    path.write_bytes(content)
    bench.set(
        "UPDATE image SET sha256 = ?, bytes = ? WHERE number = 1", hashlib.sha256(content).hexdigest(), len(content)
    )
    (damage,) = find_damage(bench.connection, bench.folder, bench.stores, None)
    assert "is not a whole image" in damage.what


async def test_repair_puts_aside_queues_and_the_next_run_makes_it_again(bench: Bench) -> None:
    path = await _make(bench)
    path.write_bytes(b"damaged")
    damages = list(find_damage(bench.connection, bench.folder, bench.stores, None))
    repair(bench.connection, bench.folder, bench.stores, damages)
    repair(bench.connection, bench.folder, bench.stores, damages)  # as a second process might
    assert bench.ask("SELECT status, received FROM request") == [("pending", 1)]
    assert (bench.folder / "job" / "quarantine" / "pool-1.png").read_bytes() == b"damaged"
    served = Vendor(lambda _: answer_with(HERE))
    async with vendor(served) as base_url:
        await bench.run(lab(base_url))
    assert served.asked == [1]
    assert path.read_bytes() == PNG
    path.write_bytes(b"damaged again")
    _repair(bench)
    assert {one.name for one in (bench.folder / "job" / "quarantine").iterdir()} == {"pool-1.png", "pool-1+.png"}


async def test_more_images_than_wanted_are_not_queued_again(bench: Bench) -> None:
    path = await _make(bench)
    bench.submit(request(1, id="pool", n=1))
    path.unlink()
    _repair(bench)
    assert bench.ask("SELECT status, received FROM request") == [("succeeded", 1)]


async def test_a_disk_that_takes_nothing_aside_is_said_and_nothing_is_queued(bench: Bench) -> None:
    path = await _make(bench)
    path.write_bytes(PNG[:-3])
    (bench.folder / "job" / "quarantine").touch()
    with pytest.raises(DiskFull, match="cannot be written"):
        _repair(bench)
    assert bench.one("SELECT status FROM request") == "succeeded"
    assert path.exists()


def _with_input(bench: Bench, content: bytes) -> Path:
    name = hashlib.sha256(PNG).hexdigest()
    bench.submit(request(1))
    bench.set("UPDATE request SET inputs = json_array(json_object('role', 'image', 'file', ?))", f"inputs/{name}.png")
    path = bench.folder / "job" / "inputs" / f"{name}.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_an_image_that_may_not_be_read_is_not_bought_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.job("night", [{"id": "cat", "prompt": "a cat", "n": 3}]))
    (stage.output / "night" / "images" / "cat-3.png").unlink()

    def refuse(path: Path) -> BinaryIO:
        if path.name == "cat-1.png":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return open_ordinary(path)

    monkeypatch.setattr("pipeline.storage.open_ordinary", refuse)
    assert "1 of 3 images are complete; 2 not" in stage.run("verify", exit_code=1).stderr
    ended = stage.run("verify", "--repair", exit_code=1)
    assert "night/images/cat-1.png: may not be read" in ended.stdout
    assert "1 of 3 images are complete; 1 queued again" in ended.stderr
    assert (stage.output / "night" / "images" / "cat-1.png").exists()
    assert stage.ask("SELECT number FROM image WHERE state = 'stored'") == [(1,), (2,)]


def test_what_is_uploaded_is_read_again_too(bench: Bench) -> None:
    path = _with_input(bench, PNG)
    assert list(find_damage(bench.connection, bench.folder, bench.stores, "job")) == []
    path.write_bytes(PNG[:-1])
    (damage,) = find_damage(bench.connection, bench.folder, bench.stores, "job")
    assert (damage.image_pk, damage.file) == (None, f"job/inputs/{path.name}")
    assert "submit the job again" in damage.what
    repair(bench.connection, bench.folder, bench.stores, [damage])
    assert not path.exists()
    assert (bench.folder / "job" / "quarantine" / path.name).exists()
    (damage,) = find_damage(bench.connection, bench.folder, bench.stores, None)
    assert damage.what == "is missing; submit the job again"


async def test_images_in_a_folder_of_their_own_are_found_and_quarantined_there(bench: Bench) -> None:
    path = await _make(bench)
    elsewhere = LocalStore(bench.folder / "elsewhere")
    make_folder(elsewhere.folder / "job")
    (bench.folder / "job" / "images").rename(elsewhere.job_folder("job"))
    bench.set("UPDATE image SET root = ?", elsewhere.folder.as_uri())
    assert list(find_damage(bench.connection, bench.folder, bench.stores, None)) == []
    elsewhere.local_path(f"job/images/{path.name}").write_bytes(b"damaged")
    repair(
        bench.connection,
        bench.folder,
        bench.stores,
        list(find_damage(bench.connection, bench.folder, bench.stores, None)),
    )
    assert (elsewhere.folder / "job" / "quarantine" / path.name).read_bytes() == b"damaged"
    assert not (bench.folder / "job" / "quarantine").exists()


async def test_repair_revives_nothing_that_was_cancelled(bench: Bench) -> None:
    path = await _make(bench)
    bench.set("UPDATE request SET status = 'cancelled'")
    path.unlink()
    _repair(bench)
    assert bench.ask("SELECT status, received FROM request") == [("cancelled", 1)]


async def test_the_limit_of_pixels_is_that_of_the_config(bench: Bench) -> None:
    await _make(bench)
    assert list(find_damage(bench.connection, bench.folder, bench.stores, None, 16 * 16)) == []
    damages = list(find_damage(bench.connection, bench.folder, bench.stores, None, 1))
    assert ["set `download.max_pixels` higher" in damage.what for damage in damages] == [True, True]


async def test_an_image_that_every_viewer_shows_whole_is_no_damage(bench: Bench) -> None:
    path = await _make(bench)
    content = PNG[:33] + b"\0\0\0\3tEXta\0b\1\2\3\4" + PNG[33:-12]
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    bench.connection.execute(
        "UPDATE image SET bytes = ?, sha256 = ? WHERE file = ?", (len(content), digest, "images/pool-1.png")
    )
    assert list(find_damage(bench.connection, bench.folder, bench.stores, None)) == []


def _renamed(batch: Batch) -> None:
    batch.rename("night", "birds")


def _forgotten(batch: Batch) -> None:
    batch.forget("night", files=True)


def _uploaded(batch: Batch) -> None:
    """Do what a run does once an object store has the images."""
    folder = batch.folder / "night"
    (folder / "images").rmdir()
    (folder / "spool").rename(folder / "images")
    with ledger.writing(batch.folder) as connection:
        connection.execute("UPDATE image SET spooled = 0")


@pytest.mark.parametrize("change", [_renamed, _forgotten, _uploaded])
@pytest.mark.parametrize("mend", [True, False])
def test_images_that_another_command_moves_meanwhile_are_not_missing(
    stage: Stage, change: Callable[[Batch], None], mend: bool
) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    image = HOME / "jobs" / "images" / "corgi_and_cat_paw.png"
    stage.run("run", stage.job("night", [{"operation": "variation", "image": str(image), "n": 3}]))
    if change is _uploaded:
        folder = stage.output / "night"
        (folder / "images").rename(folder / "spool")
        (folder / "images").mkdir()
        with ledger.writing(stage.output) as connection:
            connection.execute("UPDATE image SET spooled = 1")
    batch, seen = Batch.open(config=stage.folder / "config.yaml"), set[int]()

    def count(number: int, _total: int) -> None:
        seen.add(number)
        if number == 1:
            change(batch)

    _, damages = batch.verify(repair=mend, count=count)
    assert seen == {0, 1, 2}
    assert [one for one in damages if one.image is not None] == []
    assert stage.ask("SELECT count(*) FROM image WHERE state != 'stored'") == [(0,)]
    assert stage.ask("SELECT count(*) FROM request WHERE status != 'succeeded'") == [(0,)]
    assert not (stage.output / "night" / "manifest.jsonl").exists() or change is _uploaded
