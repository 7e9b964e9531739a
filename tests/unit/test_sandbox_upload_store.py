"""The folder of uploaded images."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from pipeline.sandbox.upload_store import KEPT_SECONDS, UploadStore

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_kept_for_a_day_after_its_last_use(tmp_path: Path) -> None:
    store = UploadStore(tmp_path)
    store.put("old", b"1")
    store.put("used", b"2")
    past = time.time() - KEPT_SECONDS - 60
    for name in ("old", "used"):
        os.utime(tmp_path / name, (past, past))
    store.put("used", b"2")
    again = UploadStore(tmp_path)
    assert again.read("used") == b"2"
    with pytest.raises(LookupError):
        again.read("old")
