"""Object stores in memory, and what the errors of their libraries mean."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.errors import ConfigError, StoreRefused
from pipeline.storage import StoredImage
from pipeline.stores import Addresses, Stores
from pipeline.stores.object_errors import StoreDown, store_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.stores.object_store import RemoteStore

CONTENT = b"a picture"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "job/images/a-1.png"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RemoteStore]:
    pytest.importorskip("fsspec", reason="the extra [s3] is not installed")
    from fsspec.implementations.memory import MemoryFileSystem

    remote = Stores(tmp_path, "memory://bucket/nights").remote
    assert remote is not None
    yield remote
    MemoryFileSystem.store.clear()


def _upload(store: RemoteStore, content: bytes = CONTENT, name: str = NAME) -> bool:
    return asyncio.run(store.upload(name, content, "image/png"))


def test_an_upload_is_read_back_and_the_same_again_is_the_same(store: RemoteStore) -> None:
    assert _upload(store)
    assert _upload(store)
    assert not _upload(store, b"b picture")
    assert not _upload(store, b"another")
    assert (store.read(NAME), store.names()) == (CONTENT, [NAME])


def test_bytes_that_arrive_damaged_are_removed_and_sent_again(
    store: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = store._fs._pipe_file

    async def damaging(path: str, content: bytes, **more: Any) -> None:
        await put(path, b"x" + content[1:], **more)

    with monkeypatch.context() as patch:
        patch.setattr(store._fs, "_pipe_file", damaging)
        with pytest.raises(StoreDown, match="other bytes"):
            _upload(store)
    assert store.names() == []
    assert _upload(store)


def test_faults_by_size_moves_and_deletions(store: RemoteStore) -> None:
    asyncio.run(store.check("0123456789abcdef"))
    assert store.find_fault(NAME, len(CONTENT), SHA256) == "is missing"
    _upload(store)
    assert store.find_fault(NAME, len(CONTENT), SHA256) is None
    assert store.find_fault(NAME, 5, SHA256) == "has 9 bytes, recorded are 5"
    assert store.quarantine(NAME) == "job/quarantine/a-1.png"
    _upload(store)
    assert store.quarantine(NAME) == "job/quarantine/a-1+.png"
    assert store.quarantine(NAME) is None
    assert store.names() == []
    _upload(store)
    store.move_job("job", "other")
    assert store.names() == ["other/images/a-1.png"]
    store.delete("other/images/a-1.png")
    store.delete("other/images/a-1.png")
    with pytest.raises(FileNotFoundError):
        store.read(NAME)


def test_a_missing_object_counts_only_while_the_marker_is_there(store: RemoteStore) -> None:
    with pytest.raises(ConfigError, match="is gone"):
        store.find_fault(NAME, len(CONTENT), SHA256)


def test_the_marker_names_the_ledger(store: RemoteStore) -> None:
    asyncio.run(store.check("0" * 32))
    asyncio.run(store.check("0" * 32))
    with pytest.raises(ConfigError, match=f"another ledger \\({'0' * 32}\\)"):
        asyncio.run(store.check("1" * 32))
    assert store.names() == []


def test_a_store_that_does_not_answer_in_time_is_down(store: RemoteStore) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    with pytest.raises(StoreDown, match="did not answer"):
        asyncio.run(store._in_loop(hang(), 0.01))


def test_what_cannot_be_opened_is_a_mistake_in_the_config(tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="the extra [s3] is not installed")
    remote = Stores(tmp_path, "zebra://bucket").remote
    assert remote is not None
    with pytest.raises(ConfigError, match="cannot be opened"):
        remote.read(NAME)
    with pytest.raises(ConfigError, match="cannot be opened"):
        asyncio.run(remote.check("0" * 32))


class ClientError(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class HttpError(Exception):
    def __init__(self, code: Any) -> None:
        super().__init__(f"{code}")
        self.code = code


class NoCredentialsError(Exception):
    pass


def _caused(cause: Exception) -> OSError:
    error = OSError("translated")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (PermissionError("Access Denied"), StoreRefused),
        (FileNotFoundError("bucket"), StoreRefused),
        (NoCredentialsError("Unable to locate credentials"), StoreRefused),
        (_caused(ClientError(400, "ExpiredToken")), StoreRefused),
        (_caused(ClientError(403, "RequestTimeTooSkewed")), StoreRefused),
        (HttpError(403), StoreRefused),
        (HttpError("401"), StoreRefused),
        (OSError("Forbidden: https://storage"), StoreRefused),
        (_caused(ClientError(400, "BadDigest")), StoreDown),
        (_caused(ClientError(400, "RequestTimeout")), StoreDown),
        (_caused(ClientError(503, "SlowDown")), StoreDown),
        (_caused(ClientError(507, "InsufficientStorage")), StoreDown),
        (HttpError(500), StoreDown),
        (ConnectionError("refused"), StoreDown),
        (ValueError(), StoreDown),
    ],
)
def test_an_error_is_refused_or_worth_another_try(reason: Exception, kind: type) -> None:
    found = store_error(reason, "s3://bucket")
    assert type(found) is kind
    assert "s3://bucket" in str(found)


def test_addresses() -> None:
    image = StoredImage(1, "images/a b-1.png", SHA256, 9, 1, 1, "png", None, root="s3://bucket")
    plain, public = Addresses("s3://bucket"), Addresses("s3://bucket", "https://cdn.example")
    assert plain.url("job", image.file, image) == "s3://bucket/job/images/a b-1.png"
    assert plain.public("job", image.file, image) is None
    assert public.url("job", image.file, image) == "https://cdn.example/job/images/a%20b-1.png"
    assert public.url("job", image.file, image._replace(spooled=1)) is None
    elsewhere = image._replace(root="s3://old")
    assert public.url("job", image.file, elsewhere) == "s3://old/job/images/a b-1.png"
    assert plain.url("job", image.file, image._replace(root=None)) is None


def test_each_image_is_in_the_store_that_its_row_remembers(tmp_path: Path) -> None:
    stores = Stores(tmp_path, "s3://bucket")
    image = StoredImage(1, "images/a-1.png", SHA256, 9, 1, 1, "png", None)
    local = stores.local(image)
    assert local is not None
    assert local.local_path("job/images/a-1.png") == tmp_path / "job" / "images" / "a-1.png"
    waiting = stores.local(image._replace(root="s3://bucket", spooled=1))
    assert waiting is not None
    assert waiting.local_path("job/images/a-1.png") == tmp_path / "job" / "spool" / "a-1.png"
    apart = stores.local(image._replace(root=(tmp_path / "a b").as_uri()))
    assert apart is not None
    assert apart.folder == tmp_path / "a b"
    assert stores.local(image._replace(root="s3://bucket")) is None
    assert stores.of_image(image._replace(root="s3://bucket")) is stores.remote
    assert stores.of_image(image._replace(root="s3://old")) is stores.remote_at("s3://old")
