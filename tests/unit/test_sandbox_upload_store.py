"""The folder of uploaded images."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from pipeline.sandbox.upload_store import KEPT_SECONDS, UploadStore

if TYPE_CHECKING:
    from pathlib import Path

OLD, USED = "a" * 64, "b" * 64


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    return folder


def age(*files: Path) -> None:
    past = time.time() - KEPT_SECONDS - 60
    for file in files:
        os.utime(file, (past, past), follow_symlinks=False)


def test_a_file_is_kept_for_a_day_after_its_last_use(spool: Path) -> None:
    store = UploadStore(spool)
    store.put(OLD, b"1")
    store.put(USED, b"2")
    part = spool / f".{OLD}.0123abcd"
    part.write_bytes(b"half")
    age(spool / OLD, spool / USED, part)
    store.put(USED, b"2")
    again = UploadStore(spool)
    assert again.read(USED) == b"2"
    with pytest.raises(LookupError):
        again.read(OLD)
    assert not part.exists()


def test_a_folder_that_is_missing_is_made_for_this_user_alone(tmp_path: Path) -> None:
    UploadStore(tmp_path / "a" / "spool")
    assert (tmp_path / "a" / "spool").stat().st_mode & 0o777 == 0o700


def test_old_files_of_other_names_stay(spool: Path) -> None:
    others = [spool / name for name in ("thesis.txt", "c" * 63, "D" * 64, f".{OLD}.part")]
    for file in others:
        file.write_bytes(b"mine")
    age(*others)
    UploadStore(spool)
    assert all(file.exists() for file in others)


def test_a_link_in_place_of_the_folder_is_refused_and_nothing_behind_it_is_touched(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    (victim / OLD).write_bytes(b"mine")
    age(victim / OLD)
    (tmp_path / "spool").symlink_to(victim)
    with pytest.raises(OSError, match="is a link or a file, not a folder"):
        UploadStore(tmp_path / "spool")
    assert (victim / OLD).read_bytes() == b"mine"


def test_an_old_link_is_removed_and_not_what_it_names(spool: Path, tmp_path: Path) -> None:
    target = tmp_path / "thesis.txt"
    target.write_bytes(b"mine")
    (spool / OLD).symlink_to(target)
    age(spool / OLD)
    UploadStore(spool)
    assert not (spool / OLD).is_symlink()
    assert target.read_bytes() == b"mine"


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_a_folder_that_others_may_enter_is_refused(spool: Path, mode: int) -> None:
    spool.chmod(mode)
    with pytest.raises(PermissionError, match="chmod 700"):
        UploadStore(spool)


def test_a_folder_of_another_user_is_refused(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: spool.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="another user"):
        UploadStore(spool)
