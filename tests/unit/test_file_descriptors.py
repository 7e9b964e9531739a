"""The limit of open files is raised at the start, and writing waits for a descriptor instead of dropping an image."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline import file_descriptors
from pipeline.errors import DiskFull, TooManyOpenFiles
from pipeline.file_descriptors import MAX_LIMIT, descriptors_for_calls, raise_descriptor_limit, when_free
from pipeline.files import disk_error, sync_folder, write_whole
from pipeline.ledger.database import translate_error
from pipeline.storage import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

resource = pytest.importorskip("resource", reason="Windows has no limit of open files")


class Limits:
    """The limits of a process, without changing those of this one; `most` is the system's own maximum."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, most: int = 1 << 20) -> None:
        self.now, self.most = (soft, hard), most
        monkeypatch.setattr(resource, "getrlimit", lambda _: self.now)
        monkeypatch.setattr(resource, "setrlimit", self._set)

    def _set(self, _: int, limits: tuple[int, int]) -> None:
        if limits[0] > self.most:
            raise ValueError("not allowed to raise maximum limit")
        self.now = limits


@pytest.mark.parametrize(
    ("soft", "hard", "most", "raised"),
    [
        (256, 4096, 1 << 20, 4096),
        (1024, 1 << 20, 1 << 20, MAX_LIMIT),
        (256, resource.RLIM_INFINITY, 10_240, 8192),  # as on macOS
        (1024, 1024, 1 << 20, 1024),
        (100_000, 1 << 20, 1 << 20, 100_000),
        (512, 4096, 256, 512),
    ],
)
def test_the_soft_limit_is_raised_to_what_the_system_allows(
    soft: int, hard: int, most: int, raised: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(monkeypatch, soft, hard, most)
    assert raise_descriptor_limit() == raised
    assert limits.now == (raised, hard)


def test_an_unlimited_process_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(monkeypatch, resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert raise_descriptor_limit() == MAX_LIMIT
    assert limits.now == (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def test_calls_leave_descriptors_to_files_and_downloads() -> None:
    assert [descriptors_for_calls(limit) for limit in (256, 1024, 65_536)] == [96, 480, 32_736]
    assert descriptors_for_calls(10) == 1


def exhaust(monkeypatch: pytest.MonkeyPatch, code: int, times: int) -> list[int]:
    """Make the next openings fail as if no descriptor were free; return a list that grows with each."""
    opened, failed = os.open, list[int]()

    def refuse(*arguments: object, **more: object) -> int:
        if len(failed) < times:
            failed.append(code)
            raise OSError(code, os.strerror(code))
        return opened(*arguments, **more)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(file_descriptors, "PAUSE", 0.001)
    return failed


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize(
    "action",
    [
        lambda folder: write_whole(folder / "a", b"paid"),
        lambda folder: LocalStore(folder).put("job/images/a.png", b"paid"),
        sync_folder,
    ],
)
def test_writing_waits_for_a_descriptor(
    action: Callable[[Path], None], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = exhaust(monkeypatch, code, 3)
    action(tmp_path)
    assert failed == [code] * 3
    assert all(path.read_bytes() == b"paid" for path in tmp_path.rglob("a*") if path.is_file())


def test_waiting_ends_with_a_sentence_that_names_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exhaust(monkeypatch, errno.EMFILE, 1_000_000)
    monkeypatch.setattr(file_descriptors, "WAIT_SECONDS", 0.01)
    with pytest.raises(TooManyOpenFiles, match=r"too many open files.*`ulimit -n 4096`.*`concurrency`"):
        LocalStore(tmp_path).put("job/images/a.png", b"paid")


def test_no_free_descriptor_is_no_full_disk(tmp_path: Path) -> None:
    for code in (errno.EMFILE, errno.ENFILE):
        error = disk_error(OSError(code, os.strerror(code)), tmp_path)
        assert type(error) is TooManyOpenFiles
        assert error.exit_code == 3
    assert type(disk_error(OSError(errno.ENOSPC, ""), tmp_path)) is DiskFull


def test_other_errors_are_raised_at_once() -> None:
    calls = []

    def refuse() -> None:
        calls.append(1)
        raise PermissionError(errno.EACCES, "no")

    with pytest.raises(PermissionError):
        when_free(refuse)
    assert calls == [1]


def test_a_ledger_that_cannot_be_opened_for_lack_of_descriptors_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect(tmp_path / "absent" / "ledger")
    assert "permissions" in str(translate_error(caught.value))
    exhaust(monkeypatch, errno.EMFILE, 1_000_000)
    assert isinstance(translate_error(caught.value), TooManyOpenFiles)


_IN_A_CHILD = """
import os, pathlib, resource, sys, threading, time
from pipeline.files import write_whole
path = pathlib.Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
held = []
try:
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
writer = threading.Thread(target=write_whole, args=(path, b"paid"))
writer.start()
time.sleep(0.2)
assert writer.is_alive() and not path.exists()
for one in held:
    os.close(one)
writer.join(10)
assert path.read_bytes() == b"paid"
"""


def test_a_process_at_its_limit_writes_once_a_descriptor_is_free(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", _IN_A_CHILD, str(tmp_path / "a.png")], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
