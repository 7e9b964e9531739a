"""Files and result images are written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline import storage
from pipeline.errors import DiskFull, FolderGone
from pipeline.files import PART, make_folder, whole_file, write_whole
from pipeline.storage import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterator


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def fail(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "no room")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system forks no process")
def test_forked_processes_name_their_temporary_files_differently(tmp_path: Path) -> None:
    """One that is killed leaves its file: the next one must not stop at that."""
    script = """
import os, pathlib, sys
from pipeline.files import whole_file
folder = pathlib.Path(sys.argv[1]) / ("child" if os.fork() == 0 else "parent")
folder.mkdir()
with whole_file(folder / "a.png"):
    os.write(1, f"{os.listdir(folder)}\\n".encode())
if folder.name == "parent":
    os.wait()
"""
    said = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True).stdout
    one, other = said.splitlines()
    assert one != other


def test_a_file_appears_whole_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with whole_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_neither_the_file_nor_a_part(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="no room"):
        write_whole(tmp_path / "a.png", b"content")
    assert names(tmp_path) == []


def test_a_disk_that_fails_leaves_the_old_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "a", b"old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no room"):
        write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("reason", [ValueError, KeyboardInterrupt])
def test_a_block_that_is_left_early_leaves_nothing(reason: type[BaseException], tmp_path: Path) -> None:
    def leave_early() -> None:
        with whole_file(tmp_path / "a") as file:
            file.write(b"half")
            raise reason

    with pytest.raises(reason):
        leave_early()
    assert names(tmp_path) == []


def test_the_first_reason_is_told_though_tidying_up_fails_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "read only")

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError, match="no room"):
        write_whole(tmp_path / "a", b"content")


def test_content_is_on_disk_before_its_name_and_the_name_before_we_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(number: int) -> None:
        steps.append("fsync")
        fsync(number)

    def seen_replace(old: Path, new: Path) -> None:
        steps.append("replace")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    write_whole(tmp_path / "a", b"content")
    assert steps[:2] == ["fsync", "replace"]
    assert steps[2:] == ([] if os.name == "nt" else ["fsync"])


def test_a_part_is_known_by_its_name_and_hidden(tmp_path: Path) -> None:
    with whole_file(tmp_path / ("x" * 220)):
        (part,) = names(tmp_path)
        assert part.startswith(".x")
        assert part.endswith(PART)


def test_a_folder_is_made_with_its_parents_and_once(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="exists"):
        make_folder(tmp_path / "file")


def test_who_finds_a_folder_that_another_thread_has_just_made_goes_on_only_when_it_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, reached, go_on = os.fsync, threading.Event(), threading.Event()

    def slow_fsync(number: int) -> None:
        reached.set()
        assert go_on.wait(30)
        fsync(number)

    monkeypatch.setattr(os, "fsync", slow_fsync)
    first = threading.Thread(target=make_folder, args=[tmp_path / "images"])
    first.start()
    assert reached.wait(30)
    assert (tmp_path / "images").is_dir()
    second = threading.Thread(target=make_folder, args=[tmp_path / "images"])
    second.start()
    second.join(0.1)
    assert second.is_alive()
    go_on.set()
    first.join()
    second.join()


NAME = "lounge/images/cat-1.png"


@pytest.fixture(params=["by its path", "by a descriptor"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalStore]:
    if request.param == "by its path":
        yield LocalStore(tmp_path)
        return
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield LocalStore(tmp_path, descriptor)
    os.close(descriptor)


def test_an_image_is_stored_whole_in_a_folder_that_is_made_for_it(tmp_path: Path, store: LocalStore) -> None:
    store.put(NAME, memoryview(b"new"))
    assert (tmp_path / "lounge" / "images" / "cat-1.png").read_bytes() == b"new"
    assert (store.read(NAME), store.size(NAME)) == (b"new", 3)
    assert store.local_path(NAME).parent == store.job_folder("lounge")
    assert names(store.job_folder("lounge")) == ["cat-1.png"]


def refuse_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.parametrize("links", [True, False])
def test_an_image_never_replaces_what_was_there(
    links: bool, tmp_path: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        refuse_links(monkeypatch)
    store.put(NAME, b"old")
    store.put(NAME, b"old")
    for content in (b"new", b"older", b"ol"):
        with pytest.raises(FileExistsError):
            store.put(NAME, content)
    assert store.read(NAME) == b"old"
    (tmp_path / "lounge" / "images" / "cat-2.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        store.put("lounge/images/cat-2.png", b"new")
    assert names(tmp_path / "lounge" / "images") == ["cat-1.png", "cat-2.png"]


def test_a_store_with_a_descriptor_writes_to_the_folder_wherever_it_is_now(tmp_path: Path) -> None:
    there, moved = tmp_path / "there", tmp_path / "moved"
    there.mkdir()
    descriptor = os.open(there, os.O_RDONLY)
    store = LocalStore(there, descriptor)
    store.put(NAME, b"one")
    there.rename(moved)
    store.put("lounge/images/cat-2.png", b"two")
    store.flush_folder("lounge")
    broken = store.put_aside("other", "cat", b"three", "is no image")
    assert names(moved / "lounge" / "images") == ["cat-1.png", "cat-2.png"]
    assert (moved / "other" / broken.file).read_bytes() == b"three"
    assert names(tmp_path) == ["moved"]
    os.close(descriptor)


def test_a_store_with_a_descriptor_never_makes_a_removed_folder_again(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    descriptor = os.open(there, os.O_RDONLY)
    store = LocalStore(there, descriptor)
    store.put(NAME, b"one")
    shutil.rmtree(there)
    for write in (
        lambda: store.put(NAME, b"two"),
        lambda: store.flush_folder("lounge"),
        lambda: store.put_aside("lounge", "cat", b"three", "is no image"),
    ):
        with pytest.raises(FolderGone, match=r"there was moved, removed or replaced .* `--output`"):
            write()
    assert names(tmp_path) == []
    os.close(descriptor)


def test_the_name_of_an_image_is_made_durable_by_the_flush_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, flushed, fsync = LocalStore(tmp_path), list[bool](), os.fsync
    store.put(NAME, b"first")  # makes the folders, which are flushed at once

    def seen_fsync(number: int) -> None:
        flushed.append(stat.S_ISDIR(os.fstat(number).st_mode))
        fsync(number)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    store.put("lounge/images/cat-2.png", b"second")
    assert flushed == [False]
    store.flush_folder("lounge")
    assert flushed == ([False] if os.name == "nt" else [False, True])


def test_an_image_for_which_there_is_no_room_is_a_full_disk_that_names_the_jobs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    store.put(NAME, b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskFull, match=re.escape(str(tmp_path / "lounge"))):
        store.put("lounge/images/cat-2.png", b"new")
    assert (store.read(NAME), store.leftovers()) == (b"old", [])


def test_an_image_that_is_not_there_has_no_size_and_is_no_trouble_to_delete_or_to_quarantine(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert store.size(NAME) is None
    assert store.quarantine(NAME) is None
    store.delete(NAME)
    assert names(tmp_path) == []
    with pytest.raises(FileNotFoundError):
        store.read(NAME)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_what_is_no_file_in_place_of_an_image_is_neither_waited_for_nor_read(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    images = tmp_path / "job" / "images"
    images.mkdir(parents=True)
    os.mkfifo(images / "pipe.png")
    (images / "zero.png").symlink_to("/dev/zero")
    for name in ("job/images/pipe.png", "job/images/zero.png"):
        with pytest.raises(OSError, match="no ordinary file"):
            store.read(name)
        with pytest.raises(FileExistsError):
            store.put(name, b"a picture")


def test_a_deleted_image_is_gone_and_its_neighbours_are_not(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put(NAME, b"one")
    store.put("lounge/images/cat-2.png", b"two")
    store.delete(NAME)
    assert names(store.job_folder("lounge")) == ["cat-2.png"]


def test_damaged_images_are_quarantined_beside_each_other_though_they_have_the_same_name(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    moved = []
    for content in (b"first", b"second", b"third"):
        store.put(NAME, content)
        moved.append(store.quarantine(NAME))
    assert moved == [f"lounge/quarantine/cat-1{plus}.png" for plus in ("", "+", "++")]
    assert [store.read(name or "") for name in moved] == [b"first", b"second", b"third"]
    assert store.size(NAME) is None


def test_half_written_images_are_found_by_name_and_whole_ones_are_not_among_them(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put(NAME, b"whole")
    (store.job_folder("lounge") / f".cat-2.png.00000000{PART}").write_bytes(b"half")
    (tmp_path / "lounge" / f".manifest.jsonl.00000000{PART}").write_bytes(b"none of ours")
    assert store.leftovers() == [f"lounge/images/.cat-2.png.00000000{PART}"]


def test_half_written_files_of_killed_processes_are_swept_once_they_are_old(tmp_path: Path) -> None:
    (tmp_path / "job" / "inputs").mkdir(parents=True)
    (tmp_path / "job" / "images").mkdir()
    (tmp_path / "elsewhere").mkdir()
    ours = [".ledger.0123abcd.part", "job/.manifest.jsonl.0123abcd.part", "job/inputs/.a.png.ffffffff.part"]
    kept = ["job/.mine.part", "job/.manifest.jsonl.0123ABCD.part", "job/x.0123abcd.part", "job/images/.a.0123abcd.part"]
    for name in (*ours, *kept, "job/.new.0123abcd.part"):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (1000, 1000))
    os.utime(tmp_path / "job/.new.0123abcd.part", (9000, 9000))
    (tmp_path / "job/.link.0123abcd.part").symlink_to(tmp_path / "job" / ".mine.part")
    storage.sweep_parts(tmp_path, 1000 + storage.PART_SECONDS + 5000)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob(".*") if not path.is_dir()}
    assert left == {*kept, "job/.new.0123abcd.part", "job/.link.0123abcd.part"} - {"job/x.0123abcd.part"}
    assert (tmp_path / "job/x.0123abcd.part").exists()


def test_what_whole_file_writes_is_what_is_swept(tmp_path: Path) -> None:
    with whole_file(tmp_path / "manifest.jsonl"):
        (part,) = tmp_path.iterdir()
        os.utime(part, (1000, 1000))
        storage.sweep_parts(tmp_path, 1000 + storage.PART_SECONDS + 1)
        assert not part.exists()
        part.touch()  # so that it can be renamed
