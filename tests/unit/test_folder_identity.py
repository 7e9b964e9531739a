"""The output folder of a run is held by its identity."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import DiskFull, FolderGone
from pipeline.ledger.database import FILE_NAME
from pipeline.ledger.folder_identity import HeldFolder
from pipeline.storage import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs"
    folder.mkdir()
    (folder / FILE_NAME).write_bytes(b"ledger")
    return folder


def test_a_folder_that_stays_where_it_is_is_held_whatever_is_written_to_it(folder: Path, tmp_path: Path) -> None:
    with contextlib.closing(HeldFolder(folder, LocalStore(tmp_path / "images"))) as held:
        held.images.put("job/images/a.png", b"image")
        (folder / FILE_NAME).write_bytes(b"more")
        held.check()
        assert held.is_in_place
    assert (tmp_path / "images" / "job" / "images" / "a.png").read_bytes() == b"image"


def _move(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def _replace(folder: Path) -> None:
    _move(folder)
    shutil.copytree(folder.with_name("elsewhere"), folder)


@pytest.mark.parametrize("change", [_move, shutil.rmtree, _replace])
def test_a_folder_that_was_moved_removed_or_replaced_is_gone(folder: Path, change: Callable[[Path], None]) -> None:
    with contextlib.closing(HeldFolder(folder, LocalStore(folder))) as held:
        change(folder)
        with pytest.raises(FolderGone, match=r"outputs was moved, removed or replaced .* `--output`"):
            held.check()
        assert not held.is_in_place


def test_a_ledger_that_was_removed_or_replaced_is_gone_and_the_folder_is_not(folder: Path) -> None:
    with contextlib.closing(HeldFolder(folder, LocalStore(folder))) as held:
        ledger = folder / FILE_NAME
        ledger.rename(folder / "kept")
        for _ in range(2):
            with pytest.raises(FolderGone, match=rf"{FILE_NAME} was moved"):
                held.check()
            ledger.write_bytes(b"of a copy")
        assert held.is_in_place


def test_a_folder_of_images_elsewhere_is_held_too(folder: Path, tmp_path: Path) -> None:
    with contextlib.closing(HeldFolder(folder, LocalStore(tmp_path / "images"))) as held:
        shutil.rmtree(tmp_path / "images")
        with pytest.raises(FolderGone, match="images was moved"):
            held.check()


def test_a_folder_that_cannot_be_held_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(b"a file")
    with pytest.raises(DiskFull, match="images cannot be written"):
        HeldFolder(folder, LocalStore(tmp_path / "images"))
