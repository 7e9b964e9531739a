"""One output folder at work: what is changed, who holds it, what is written at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from filelock import FileLock
from PIL import Image

from pipeline import run as run_module
from pipeline.batch import Batch
from pipeline.config.load import Config, Provider
from pipeline.config.notifications import NotificationSettings
from pipeline.engine.events import ThumbnailsMade
from pipeline.errors import (
    BadInput,
    ConfigError,
    DiskFull,
    FolderBusy,
    FolderGone,
    JobError,
    LedgerError,
    LeftToRunAtWork,
)
from pipeline.ledger.database import BACKUP_NAME, FILE_NAME
from pipeline.planning.build import JobOptions
from pipeline.planning.job import find_name_fault
from pipeline.planning.python_job import make_job
from pipeline.progress.run_log import Log
from pipeline.reports.write import write_reports
from pipeline.storage import RUN_LOCK_FILE, SUBMIT_LOCK_FILE
from tests.integration.test_dispatcher import Door
from tests.support.stage import HOME
from tests.support.workbench import MODEL, lab, sandbox, until, vendor

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.engine.events import Event


def _batch(folder: Path, *providers: Provider, environment: dict[str, str] | None = None, **more: Any) -> Batch:
    config = Config(None, folder / "outputs", providers[0].name, {one.name: one for one in providers}, **more)
    return Batch(config, environment or {})


def _job(folder: Path, stem: str, /, *prompts: str, **more: Any) -> Path:
    path = folder / f"{stem}.yaml"
    requests = [{"prompt": prompt} for prompt in prompts]
    path.write_text(yaml.safe_dump({"defaults": MODEL, "requests": requests, **more}))
    return path


def _manifest(batch: Batch, job: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (batch.folder / job / "manifest.jsonl").read_text().splitlines()]


async def test_a_run_queues_works_and_writes_the_manifest(tmp_path: Path) -> None:
    async with sandbox() as base_url:
        batch = _batch(tmp_path, lab(base_url))
        result = await batch.run([_job(tmp_path, "lounge", "one", "two")])
    assert (result.exit_code, [summary.images for summary in result.summaries]) == (0, [2])
    assert result.manifests == (batch.folder / "lounge" / "manifest.jsonl",)
    assert [entry["status"] for entry in _manifest(batch, "lounge")] == ["succeeded"] * 2
    assert batch.verify() == (2, [])


async def test_no_job_can_have_the_name_of_a_file_in_the_output_folder(tmp_path: Path) -> None:
    seen: set[str] = set()
    async with sandbox() as base_url:
        batch = _batch(tmp_path, lab(base_url))
        with contextlib.closing(Log(batch.folder, verbose=True)) as log:

            def look(event: Event) -> None:
                log(event)
                seen.update(path.name for path in batch.folder.iterdir() if not path.is_dir())

            await batch.run([_job(tmp_path, "lounge", "one", "two")], emit=look)
    seen.update(path.name for path in batch.folder.iterdir() if not path.is_dir())
    assert seen >= {
        "ledger.sqlite3",
        "ledger.sqlite3-wal",
        "ledger.backup.sqlite3",
        "run.lock",
        "submit.lock",
        "run.log",
    }
    assert [name for name in seen if not find_name_fault(name)] == []


@pytest.mark.parametrize(("stem", "provider"), [("run", "lock"), ("run", "log"), ("submit", "lock")])
def test_a_name_with_another_provider_is_not_that_of_a_file_either(tmp_path: Path, stem: str, provider: str) -> None:
    config = Config(None, tmp_path / "out", None, {provider: Provider(provider, None, sandbox={})})
    with pytest.raises(JobError, match=f"`{stem}.{provider}` cannot be a job's name: names that begin with"):
        Batch(config).submit([_job(tmp_path, stem, "one")], JobOptions(provider=provider))
    assert not config.output.exists()


async def test_a_run_makes_all_thumbnails_of_its_report_and_counts_them(tmp_path: Path) -> None:
    counted: list[ThumbnailsMade] = []
    async with sandbox() as base_url:
        batch = _batch(tmp_path, lab(base_url))
        await batch.run(
            [_job(tmp_path, "lounge", "one", "two")],
            emit=lambda event: counted.append(event) if isinstance(event, ThumbnailsMade) else None,
        )
    assert counted[-1] == ThumbnailsMade("lounge", 2, 2)
    assert len(list((batch.folder / "lounge").glob("thumbnails/*.webp"))) == 2


async def test_the_exit_code_says_what_became_of_it(tmp_path: Path) -> None:
    async with sandbox() as base_url:
        batch = _batch(tmp_path, lab(base_url))
        assert (await batch.run([_job(tmp_path, "bad", "forbidden")])).exit_code == 1
        assert (await batch.run([_job(tmp_path, "good", "a cat")])).exit_code == 0
        assert (await batch.run()).exit_code == 1, "a failed request remains"
    async with sandbox(quota_images=0) as base_url:
        batch = _batch(tmp_path, lab(base_url))
        result = await batch.run([_job(tmp_path, "more", "a cat")])
        assert (result.exit_code, len(_manifest(batch, "more"))) == (3, 1)


@pytest.mark.parametrize("ask", ["resume", "cancel", "manifest", "verify"])
async def test_a_name_that_nobody_knows_makes_no_folder(tmp_path: Path, ask: str) -> None:
    batch = _batch(tmp_path, lab("http://127.0.0.1:9/v1"))
    with pytest.raises(BadInput, match="there is no job `lounge`; nothing has been submitted"):
        await batch.resume(["lounge"]) if ask == "resume" else getattr(batch, ask)("lounge")
    assert not batch.folder.exists()


async def test_an_unset_key_is_refused_before_anything_is_changed(tmp_path: Path) -> None:
    batch = _batch(tmp_path, lab("http://127.0.0.1:9/v1", api_key_env="NO_SUCH_KEY"))
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        await batch.run([_job(tmp_path, "lounge", "one")])
    assert not batch.folder.exists()
    batch.submit([tmp_path / "lounge.yaml"])
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        await batch.run()


async def test_of_two_files_with_one_name_none_is_queued(tmp_path: Path) -> None:
    batch = _batch(tmp_path, lab("http://127.0.0.1:9/v1"))
    files = [_job(tmp_path, "one", "a", name="lounge"), _job(tmp_path, "two", "b", name="Lounge")]
    with pytest.raises(JobError, match=r"has the same name as .*one\.yaml, `Lounge`"):
        batch.submit(files)
    batch.submit(files[:1])
    with pytest.raises(JobError, match="belongs to"):
        batch.submit([_job(tmp_path, "three", "c"), files[1]])
    with contextlib.closing(sqlite3.connect(batch.folder / FILE_NAME)) as ledger:
        assert ledger.execute("SELECT name FROM job").fetchall() == [("lounge",)]


async def test_a_name_keeps_the_spelling_it_had_first_and_its_inputs_are_found(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 64), "#3a7ca5").save(tmp_path / "x.png")
    path = tmp_path / "job.yaml"
    async with sandbox() as base_url:
        batch = _batch(tmp_path, lab(base_url))
        for name, user in (("lounge", "one"), ("LOUNGE", "two")):
            variation = {"operation": "variation", "image": "x.png", "user": user}
            path.write_text(yaml.safe_dump({"name": name, "defaults": MODEL, "requests": [variation]}))
            result = await batch.run([path])
            assert (result.exit_code, [summary.name for summary in result.summaries]) == (0, ["lounge"])
    assert sorted(one.name for one in batch.folder.iterdir() if one.is_dir()) == ["lounge"]


def test_a_job_from_python_loses_most_of_its_queue_only_if_that_is_meant(tmp_path: Path) -> None:
    batch = _batch(tmp_path, lab("http://127.0.0.1:9/v1"))
    long, short = ([{"prompt": f"number {number}"} for number in range(count)] for count in (20, 2))
    batch.submit([make_job("many", long, defaults=MODEL)])
    with pytest.raises(BadInput, match="18 of the 20 unfinished requests of `many` would leave the queue"):
        batch.submit([_job(tmp_path, "other", "one"), make_job("many", short, defaults=MODEL)])
    assert [(job.name, job.counts["pending"]) for job in batch.summaries()] == [("many", 20)], "all or none"
    (plan,) = batch.submit([make_job("MANY", short, defaults=MODEL)], JobOptions(allow_shrink=True))
    assert (plan.name, plan.warnings[-1]) == (
        "many",
        "18 requests leave the job: no longer made; images that are here stay",
    )


async def test_while_another_holds_the_folder_what_is_given_is_queued(tmp_path: Path) -> None:
    batch = _batch(tmp_path, lab("http://127.0.0.1:9/v1"))
    batch.submit([_job(tmp_path, "first", "one")])
    with FileLock(batch.folder / RUN_LOCK_FILE):
        with pytest.raises(LeftToRunAtWork, match=r"^queued: second, 1 request; the run at work \(.*\) takes it up$"):
            await batch.run([_job(tmp_path, "second", "two")])
        with pytest.raises(FolderBusy, match="is working on"):
            await batch.resume(["first"])
        assert batch.cancel("second") == 1
        with pytest.raises(LeftToRunAtWork, match="queued: second, 1 request; "):
            await batch.resume(["second"])
        with pytest.raises(FolderBusy, match="nothing was queued: 1 other requests of `first` are queued"):
            await batch.run([_job(tmp_path, "first", "two", "one")], JobOptions(limit=1))
        with pytest.raises(LeftToRunAtWork, match="queued: third, 1 request; "):
            await batch.run([_job(tmp_path, "third", "one", "two")], JobOptions(limit=1))


async def test_a_holder_is_named(tmp_path: Path) -> None:
    door = Door()
    async with vendor(door) as base_url:
        batch = _batch(tmp_path, lab(base_url))
        run = asyncio.create_task(batch.run([_job(tmp_path, "first", "one")]))
        await until(lambda: door.inside == 1)
        with pytest.raises(FolderBusy, match=f"process {os.getpid()} on "):
            await batch.run()
        door.open.set()
        assert (await run).exit_code == 0


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_folder_that_is_moved_in_mid_run_keeps_what_is_paid_and_nothing_more_is_bought(
    replaced: bool, tmp_path: Path
) -> None:
    door = Door()
    async with vendor(door) as base_url:
        batch = _batch(tmp_path, lab(base_url, concurrency=3))
        run = asyncio.create_task(batch.run([_job(tmp_path, "lounge", *map(str, range(30)))]))
        await until(lambda: door.inside == 3)
        moved = batch.folder.rename(tmp_path / "elsewhere")
        if replaced:
            shutil.copytree(moved, batch.folder)
        door.open.set()
        result = await run
    assert (result.exit_code, len(door.prompts)) == (3, 3)
    assert [type(stop) for stop in result.stops] == [FolderGone]
    assert "outputs was moved, removed or replaced" in str(result.stops[0])
    assert (result.manifests, result.reports) == ((), ())
    assert "the output folder is not where it was" in result.unwritten[0]
    assert len(list((moved / "lounge" / "images").iterdir())) == 3
    assert batch.folder.exists() == replaced
    assert not list(batch.folder.glob("lounge/images/*"))
    there = Batch(Config(None, moved, "lab", batch.config.providers), {})
    assert [(one.images, one.counts["pending"], one.maybe_paid) for one in there.summaries()] == [(3, 27, 0)]
    assert there.verify() == (3, [])


async def test_a_folder_that_is_removed_in_mid_run_is_not_made_again_and_nothing_more_is_bought(tmp_path: Path) -> None:
    door = Door()
    async with vendor(door) as base_url:
        batch = _batch(tmp_path, lab(base_url, concurrency=3))
        run = asyncio.create_task(batch.run([_job(tmp_path, "lounge", *map(str, range(30)))]))
        await until(lambda: door.inside == 3)
        shutil.rmtree(batch.folder)
        door.open.set()
        result = await run
    assert (result.exit_code, len(door.prompts), batch.folder.exists()) == (3, 3, False)
    assert {type(stop) for stop in result.stops} == {FolderGone}


async def test_a_ledger_that_is_removed_in_mid_run_is_whole_in_its_copy(tmp_path: Path) -> None:
    door = Door()
    async with vendor(door) as base_url:
        batch = _batch(tmp_path, lab(base_url, concurrency=3))
        run = asyncio.create_task(batch.run([_job(tmp_path, "lounge", *map(str, range(30)))]))
        await until(lambda: door.inside == 3)
        for path in batch.folder.glob("ledger.sqlite3*"):
            path.unlink()
        door.open.set()
        result = await run
        assert (result.exit_code, len(door.prompts)) == (3, 3)
        assert [type(stop) for stop in result.stops] == [FolderGone]
        with pytest.raises(LedgerError, match=r"is gone; .*restore it with: rm -f .* && cp "):
            await batch.run()
        (batch.folder / BACKUP_NAME).rename(batch.folder / FILE_NAME)
        assert (await batch.run()).exit_code == 0
    assert (len(door.prompts), batch.verify()) == (30, (30, []))


async def test_a_second_run_finds_the_first_though_the_lock_file_was_deleted(tmp_path: Path) -> None:
    door = Door()
    async with vendor(door) as base_url:
        batch = _batch(tmp_path, lab(base_url))
        run = asyncio.create_task(batch.run([_job(tmp_path, "first", "one")]))
        await until(lambda: door.inside == 1)
        (batch.folder / RUN_LOCK_FILE).unlink()
        config = tmp_path / "config.yaml"
        providers = {"lab": {"base_url": base_url, "rate_limit": None}}
        config.write_text(yaml.safe_dump({"output": "outputs", "provider": "lab", "providers": providers}))
        second = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pipeline", "run", str(_job(tmp_path, "second", "two"))),
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(HOME)},
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await second.communicate()
        assert second.returncode == 3, said.decode()
        assert f"process {os.getpid()} on " in said.decode()
        door.open.set()
        assert (await run).exit_code == 0
    assert [(one.name, one.images, one.maybe_paid) for one in batch.summaries()] == [("first", 1, 0), ("second", 1, 0)]


async def test_the_first_signal_ends_the_run_in_order(tmp_path: Path) -> None:
    door = Door()
    async with vendor(door) as base_url:
        batch = _batch(tmp_path, lab(base_url, concurrency=1))
        run = asyncio.create_task(batch.run([_job(tmp_path, "lounge", "one", "two")]))
        await until(lambda: door.inside == 1)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.05)
        door.open.set()
        result = await run
    assert (result.exit_code, result.signal) == (143, signal.SIGTERM)
    assert [entry["status"] for entry in _manifest(batch, "lounge")] == ["succeeded", "pending"]


async def test_a_cancelled_run_writes_its_manifest_all_the_same(tmp_path: Path) -> None:
    door = Door()
    async with vendor(door) as base_url:
        batch = _batch(tmp_path, lab(base_url))
        run = asyncio.create_task(batch.run([_job(tmp_path, "lounge", "one")]))
        await until(lambda: door.inside == 1)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        door.open.set()
    assert [entry["status"] for entry in _manifest(batch, "lounge")] == ["pending"]


async def test_a_listener_s_trouble_is_not_the_run_s(tmp_path: Path) -> None:
    def broken(_event: Event) -> None:
        raise BrokenPipeError

    async with sandbox() as base_url:
        batch = _batch(tmp_path, lab(base_url))
        result = await batch.run([_job(tmp_path, "lounge", "one")], emit=broken)
    assert result.exit_code == 0


async def test_half_a_picture_that_a_kill_left_is_swept_away(tmp_path: Path) -> None:
    async with sandbox() as base_url:
        batch = _batch(tmp_path, lab(base_url))
        batch.submit([_job(tmp_path, "lounge", "one")])
        images = batch.folder / "lounge" / "images"
        images.mkdir(parents=True)
        (images / ".one-1.png.1234.part").write_bytes(b"half")
        await batch.run()
    assert [path.suffix for path in images.iterdir()] == [".png"]


async def test_a_limit_states_the_first_so_many_and_without_it_the_rest_counts_again(tmp_path: Path) -> None:
    async with sandbox() as base_url:
        batch = _batch(tmp_path, lab(base_url))
        path = _job(tmp_path, "lounge", "one", "two", "three")
        result = await batch.run([path], JobOptions(limit=1))
        assert (result.exit_code, result.summaries[0].images) == (0, 1)
        assert (await batch.run([path])).summaries[0].images == 3


async def test_a_budget_that_is_spent_is_exit_3_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    async with sandbox() as base_url:
        batch = _batch(tmp_path, lab(base_url))
        path = _job(tmp_path, "lounge", "one", "two", "three")
        result = await batch.run([path], JobOptions(budget_usd=0.04))
        assert (result.exit_code, result.summaries[0].images) == (3, 2)
        assert "budget_usd" in result.stops[0].message
        result = await batch.run([path], JobOptions(budget_usd=0.05))
        assert (result.exit_code, result.summaries[0].images) == (0, 3)


async def test_a_budget_with_a_model_without_a_price_is_refused_unless_that_is_meant(tmp_path: Path) -> None:
    batch = _batch(tmp_path, lab("http://127.0.0.1:9/v1"))
    path = _job(tmp_path, "lounge", "one", defaults={"model": "new-model"}, budget_usd=1)
    with pytest.raises(JobError, match="`new-model` has no price"):
        batch.submit([path])
    assert len(batch.submit([path], JobOptions(allow_unpriced=True))) == 1


async def test_a_queued_job_whose_provider_has_left_the_config_is_named(tmp_path: Path) -> None:
    _batch(tmp_path, lab("http://127.0.0.1:9/v1")).submit([_job(tmp_path, "lounge", "one")])
    with pytest.raises(ConfigError, match="has no provider `lab`"):
        await _batch(tmp_path, lab("http://127.0.0.1:9/v1", "other")).run()


def test_input_pictures_that_find_no_room_are_a_full_disk_and_no_bug(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 64), "#3a7ca5").save(tmp_path / "x.png")
    batch = _batch(tmp_path, lab("http://127.0.0.1:9/v1"))
    batch.folder.mkdir()
    (batch.folder / "lounge").touch()
    requests = [{"operation": "variation", "image": "x.png"}]
    with pytest.raises(DiskFull, match="cannot be written"):
        batch.submit([_job(tmp_path, "lounge", requests=requests)])


def test_a_ledger_that_is_damaged_inside_is_a_sentence(tmp_path: Path) -> None:
    batch = _batch(tmp_path, lab("http://127.0.0.1:9/v1"))
    batch.submit([_job(tmp_path, "lounge", "one")])
    with contextlib.closing(sqlite3.connect(batch.folder / FILE_NAME)) as ledger:
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page = ledger.execute("PRAGMA page_size").fetchone()[0]
    path = batch.folder / FILE_NAME
    content = path.read_bytes()
    path.write_bytes(content[:page] + b"\xff" * (len(content) - page))
    with pytest.raises(LedgerError, match="damaged"):
        batch.cancel("lounge")


def test_submits_follow_one_another(tmp_path: Path) -> None:
    batch = _batch(tmp_path, lab("http://127.0.0.1:9/v1"))
    path = _job(tmp_path, "lounge", *(str(number) for number in range(30)))
    batch.submit([path])
    with ThreadPoolExecutor(4) as threads:
        with FileLock(batch.folder / SUBMIT_LOCK_FILE):
            submits = [threads.submit(batch.submit, [path]) for _ in range(4)]
            with pytest.raises(TimeoutError):
                submits[0].result(0.2)
        for submit in submits:
            submit.result()
    with contextlib.closing(sqlite3.connect(batch.folder / FILE_NAME)) as ledger:
        counted = "SELECT count(*), max(j.revision) FROM request r JOIN job j ON j.pk = r.job WHERE stated = revision"
        assert ledger.execute(counted).fetchone() == (30, 5)


async def test_summary_exit_and_notice_cover_a_job_that_the_run_took_up(tmp_path: Path) -> None:
    async with sandbox(latency_seconds=[0.3, 0.3]) as base_url:
        notice = tmp_path / "notice.json"
        notify = NotificationSettings(command=("sh", "-c", f"cat > {notice}"))
        batch = _batch(tmp_path, lab(base_url, concurrency=1), notify=notify)
        run = asyncio.create_task(batch.run([_job(tmp_path, "a", "one", "two")]))
        await until(lambda: (batch.folder / FILE_NAME).exists() and batch.summaries())
        with pytest.raises(
            LeftToRunAtWork, match=f"queued: b, 1 request; the run at work \\(process {os.getpid()} on "
        ):
            await batch.run([_job(tmp_path, "b", "forbidden")])
        result = await run
    assert [(one.name, one.images, one.unsuccessful) for one in result.summaries] == [("a", 2, 0), ("b", 0, 1)]
    assert result.exit_code == 1, "though all that it was given is there"
    assert [job["name"] for job in json.loads(notice.read_text())["jobs"]] == ["a", "b"]


async def test_what_is_submitted_when_the_run_ends_and_stays_queued_is_exit_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sandbox() as base_url:
        batch = _batch(tmp_path, lab(base_url))
        write = write_reports

        def submit_and_write(*arguments: Any) -> Any:
            batch.submit([_job(tmp_path, "late", "two")])
            return write(*arguments)

        monkeypatch.setattr(run_module, "write_reports", submit_and_write)
        result = await batch.run([_job(tmp_path, "lounge", "one")])
    assert ([one.name for one in result.summaries], result.unreached) == (["lounge", "late"], 1)
    assert result.exit_code == 3


async def test_a_job_submitted_again_beside_a_limited_run_is_worked_to_its_end(tmp_path: Path) -> None:
    door = Door()
    async with vendor(door) as base_url:
        batch = _batch(tmp_path, lab(base_url))
        path = _job(tmp_path, "lounge", "one", "two", "three")
        run = asyncio.create_task(batch.run([path], JobOptions(limit=1)))
        await until(lambda: door.inside == 1)
        batch.submit([path])
        door.open.set()
        assert (await run).summaries[0].images == 3


async def test_a_run_that_was_given_another_job_takes_up_what_is_put_back_beside_it(tmp_path: Path) -> None:
    door = Door()
    async with vendor(door) as base_url:
        batch = _batch(tmp_path, lab(base_url))
        batch.submit([_job(tmp_path, "old", "one")])
        batch.cancel("old")
        run = asyncio.create_task(batch.run([_job(tmp_path, "new", "two")]))
        await until(lambda: door.inside == 1)
        with pytest.raises(LeftToRunAtWork, match="queued: old, 1 request; "):
            await batch.resume(["old"])
        door.open.set()
        result = await run
    assert [(one.name, one.images) for one in result.summaries] == [("old", 1), ("new", 1)]
