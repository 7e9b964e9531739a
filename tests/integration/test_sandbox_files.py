"""The sandbox's Files API over HTTP."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.sandbox.rate_window import RateLimit
from tests.support.batch_client import content, create, patient, upload
from tests.support.sandbox_client import Time, calling, png

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.sandbox_client import Caller, Reply

HOUR = 3600


async def test_an_upload_is_an_object_and_is_found_again(tmp_path: Path) -> None:
    async with patient(tmp_path) as caller:
        made = await upload(caller, b"{}\n", "night.jsonl")
        assert (made.status, made.headers["Content-Type"]) == (200, "application/json")
        assert re.fullmatch("file-[A-Za-z0-9]{22}", made.json["id"])
        now = int(caller.time.now)
        times = {"created_at": now, "expires_at": now + 30 * 24 * HOUR}
        said = {"filename": "night.jsonl", "purpose": "batch", "status": "processed", "status_details": None}
        assert made.json == {"object": "file", "id": made.json["id"], "bytes": 3, **times, **said}
        assert (await caller.call("GET", f"/files/{made.json['id']}")).json == made.json
        (entry,) = caller.entries("upload")
        assert (entry["file"], entry["purpose"], entry["bytes"]) == (made.json["id"], "batch", 3)
        assert entry["sha256"] == "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356"


async def test_other_purposes_are_kept_until_they_are_deleted(tmp_path: Path) -> None:
    async with patient(tmp_path) as caller:
        file_id = (await upload(caller, png(), "a.png", purpose="vision")).json["id"]
        caller.time.now += 1e9
        assert (await caller.call("GET", f"/files/{file_id}")).json["expires_at"] is None
        gone = await caller.call("DELETE", f"/files/{file_id}")
        assert gone.json == {"id": file_id, "object": "file", "deleted": True}
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/content")):
            reply = await caller.call(method, f"/files/{file_id}{path}")
            assert reply.status == 404
            assert reply.error["message"] == f"No such File object: {file_id}"
            assert (reply.error["type"], reply.error["param"]) == ("invalid_request_error", "id")
            assert reply.error["code"] is None
        assert (await caller.call("GET", "/files")).json["data"] == []


async def test_a_file_expires_when_it_says(tmp_path: Path) -> None:
    expiry = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    async with patient(tmp_path) as caller:
        made = (await upload(caller, png(), "a.png", purpose="vision", **expiry)).json
        assert made["expires_at"] == made["created_at"] + HOUR
        caller.time.now += HOUR - 1
        assert (await content(caller, made["id"])).status == 200
        caller.time.now += 1
        assert (await content(caller, made["id"])).status == 404
        assert (await caller.call("GET", "/files")).json["data"] == []


@pytest.mark.parametrize(
    ("name", "fields", "sentence", "param"),
    [
        ("in.json", {}, "Invalid file format for Batch API. Must be .jsonl", None),
        ("in.jsonl", {"purpose": "batches"}, "Supported values are: 'assistants', 'batch'", "purpose"),
        ("in.jsonl", {"expires_after[seconds]": "3600"}, "parameter: 'expires_after.anchor'", "expires_after.anchor"),
        ("in.jsonl", {"expires_after[anchor]": "created_at"}, "'expires_after.seconds'", "expires_after.seconds"),
        (
            "in.jsonl",
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"},
            "Expected a value >= 3600",
            "expires_after.seconds",
        ),
        ("in.jsonl", {"colour": "red"}, "Unknown parameter: 'colour'", "colour"),
    ],
)
async def test_a_wrong_upload_is_refused_and_leaves_nothing(
    tmp_path: Path, name: str, fields: dict[str, str], sentence: str, param: str | None
) -> None:
    async with patient(tmp_path) as caller:
        reply = await upload(caller, b"{}\n", name, **fields)
        assert reply.status == 400
        assert sentence in reply.error["message"]
        assert (reply.error["type"], reply.error["param"]) == ("invalid_request_error", param)
        assert (await caller.call("GET", "/files")).json["data"] == []
        assert list((tmp_path / "spool" / "files").iterdir()) == []
        assert caller.entries("upload") == []


async def test_a_form_without_a_file_or_a_purpose_is_refused(tmp_path: Path) -> None:
    async with patient(tmp_path) as caller:
        for path, asked, param in (
            ("/files", {"files": [("file", b"x", None)]}, "purpose"),
            ("/files", {"files": [("other", b"x", None)], "purpose": "vision"}, "other"),
        ):
            reply = await caller.upload(path, **asked)
            assert (reply.status, reply.error["param"]) == (400, param)
        reply = await caller.call("POST", "/files", json={"purpose": "vision"})
        assert reply.status == 400
        assert "multipart/form-data" in reply.error["message"]


async def test_a_batch_file_of_more_than_200_mb_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sandbox.batch.files.MAX_BATCH_FILE_BYTES", 1000)
    async with patient(tmp_path) as caller:
        reply = await upload(caller, b"x" * 1001)
        assert (reply.status, reply.error["message"]) == (400, "File is too large.")
        assert (await upload(caller, b"x" * 1000)).status == 200
        assert (await upload(caller, b"x" * 1001, "a.png", purpose="vision")).status == 200


async def test_the_list_is_newest_first_in_pages(tmp_path: Path) -> None:
    async with patient(tmp_path) as caller:
        ids = [(await upload(caller, b"{}\n", purpose=kind)).json["id"] for kind in ("batch", "vision", "batch")]

        async def listed(query: str = "") -> Any:
            page = (await caller.call("GET", f"/files{query}")).json
            return [one["id"] for one in page["data"]], page["has_more"]

        assert await listed() == (ids[::-1], False)
        assert await listed("?order=asc") == (ids, False)
        assert await listed("?purpose=batch") == ([ids[2], ids[0]], False)
        assert await listed("?limit=2") == ([ids[2], ids[1]], True)
        assert await listed(f"?limit=2&after={ids[1]}") == ([ids[0]], False)
        page = (await caller.call("GET", "/files?limit=2")).json
        assert (page["object"], page["first_id"], page["last_id"]) == ("list", ids[2], ids[1])
        for query, status in (("limit=0", 400), ("limit=10001", 400), ("order=up", 400), ("after=file-x", 404)):
            assert (await caller.call("GET", f"/files?{query}")).status == status


async def test_a_content_comes_with_and_without_its_length(tmp_path: Path) -> None:
    text = bytes(range(256)) * 10_000
    async with patient(tmp_path) as caller:
        file_id = (await upload(caller, text, "a-b.jsonl")).json["id"]
        replies = [await content(caller, file_id) for _ in range(20)]
    assert {reply.content for reply in replies} == {text}
    assert {reply.headers.get("Content-Length") for reply in replies} == {str(len(text)), None}
    for reply in replies:
        assert reply.headers["Content-Type"] == "application/octet-stream"
        assert reply.headers["Content-Disposition"] == 'attachment; filename="a-b.jsonl"'
        assert reply.headers["Accept-Ranges"] == "bytes"
        assert reply.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("asked", "status", "found"),
    [
        ("bytes=0-", 206, slice(0, 1000)),
        ("bytes=990-", 206, slice(990, 1000)),
        ("bytes=10-19", 206, slice(10, 20)),
        ("bytes=990-5000", 206, slice(990, 1000)),
        ("bytes=-10", 206, slice(990, 1000)),
        ("bytes=1-2,4-5", 200, slice(0, 1000)),
        ("lines=1-2", 200, slice(0, 1000)),
        ("bytes=1000-", 416, None),
    ],
)
async def test_a_range_of_a_content(tmp_path: Path, asked: str, status: int, found: slice | None) -> None:
    text = bytes(number % 251 for number in range(1000))
    async with patient(tmp_path) as caller:
        file_id = (await upload(caller, text)).json["id"]
        reply = await content(caller, file_id, Range=asked)
    assert reply.status == status
    if found is None:
        assert reply.headers["Content-Range"] == "bytes */1000"
        return
    assert reply.content == text[found]
    if status == 206:
        assert reply.headers["Content-Range"] == f"bytes {found.start}-{found.stop - 1}/1000"


async def test_a_range_is_followed_only_if_the_tag_is_that_of_the_file(tmp_path: Path) -> None:
    async with patient(tmp_path) as caller:
        file_id = (await upload(caller, b"0123456789")).json["id"]
        tag = (await content(caller, file_id)).headers["ETag"]
        same = await content(caller, file_id, Range="bytes=4-", **{"If-Range": tag})
        other = await content(caller, file_id, Range="bytes=4-", **{"If-Range": '"other"'})
    assert (same.status, same.content) == (206, b"456789")
    assert (other.status, other.content) == (200, b"0123456789")


async def test_some_purposes_may_not_be_downloaded(tmp_path: Path) -> None:
    async with patient(tmp_path) as caller:
        file_id = (await upload(caller, b"x", "x.txt", purpose="user_data")).json["id"]
        reply = await content(caller, file_id)
    assert (reply.status, reply.error["message"]) == (400, "Not allowed to download files of purpose: user_data")


async def test_a_cut_content_ends_early_in_three_ways_and_a_range_brings_the_rest(tmp_path: Path) -> None:
    text = bytes(range(256)) * 4000
    ways = set()
    async with patient(tmp_path, faults={"cut_content": 0.7}) as caller:
        file_id = (await upload(caller, text)).json["id"]
        got = b""
        async with asyncio.timeout(30):
            while len(got) < len(text):
                part, way = await _read_until_cut(caller, file_id, len(got))
                got += part
                ways.add(way)
    assert got == text
    assert ways == {"whole", "cut with a length", "cut without a length", "ends as if whole"}


async def _read_until_cut(caller: Caller, file_id: str, start: int) -> tuple[bytes, str]:
    url, got = f"{caller.sandbox.base_url}/files/{file_id}/content", b""
    async with caller.session.get(url, headers={**caller.headers, "Range": f"bytes={start}-"}) as response:
        expected = int(response.headers["Content-Range"].rpartition("/")[2]) - start
        try:
            async for chunk in response.content.iter_any():
                got += chunk
        except Exception:  # noqa: BLE001 - what aiohttp raises for a cut body differs
            return got, f"cut {'with' if response.content_length is not None else 'without'} a length"
    # Read little of each answer, so that many are asked for.
    return (got[:2000], "whole") if len(got) == expected else (got[:2000], "ends as if whole")


async def test_paths_methods_and_keys_are_checked_as_everywhere(tmp_path: Path) -> None:
    async with patient(tmp_path) as caller:

        async def answer(method: str, path: str, **options: Any) -> Reply:
            return await caller.call(method, path, **options)

        for path in ("/files", "/batches", "/files/x/content", "/batches/x/cancel"):
            wrong = await answer("PUT", path)
            assert (wrong.status, wrong.error["code"]) == (405, "method_not_supported")
            assert (await answer("GET", path, headers={})).status == 401
        for path in ("/filesystem", "/files/x/y", "/batches/x/y", "/batches/x/cancel/y"):
            assert (await answer("GET", path)).error["code"] == "unknown_url"


async def test_files_are_there_again_after_a_restart_and_leftovers_are_not(tmp_path: Path) -> None:
    async with patient(tmp_path) as caller:
        kept = (await upload(caller, b"kept")).json
        gone = (await upload(caller, b"gone")).json
        await caller.call("DELETE", f"/files/{gone['id']}")
    folder = tmp_path / "spool" / "files"
    (folder / "0123456789abcdef.part").write_bytes(b"of an upload that was killed")
    (folder / "file-0123456789abcdefghijkl").write_bytes(b"without its record")
    (folder / "file-1123456789abcdefghijkl.json").write_text("without its content")
    async with patient(tmp_path) as caller:
        assert (await caller.call("GET", "/files")).json["data"] == [kept]
        assert (await content(caller, kept["id"])).content == b"kept"
        newer = (await upload(caller, b"newer")).json
        assert [one["id"] for one in (await caller.call("GET", "/files")).json["data"]] == [newer["id"], kept["id"]]
    assert len(list(folder.iterdir())) == 4


async def test_an_edit_at_once_may_name_an_uploaded_picture(tmp_path: Path) -> None:
    edit = {"model": "gpt-image-2", "prompt": "bluer", "size": "1024x640", "quality": "low"}
    async with patient(tmp_path) as caller:
        file_id = (await upload(caller, png(), "a.png", purpose="vision")).json["id"]
        made = await caller.call("POST", "/images/edits", json={**edit, "images": [{"file_id": file_id}]})
        assert made.status == 200
        batch_file = (await upload(caller, png(), "a.jsonl")).json["id"]
        for wrong in ("file-x", batch_file):
            reply = await caller.call("POST", "/images/edits", json={**edit, "images": [{"file_id": wrong}]})
            assert (reply.status, reply.error["code"]) == (400, "file_not_found")
            assert reply.error["param"] == "images[0].file_id"


async def test_one_sandbox_at_a_time_uses_a_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sandbox.spool.LOCK_SECONDS", 0.05)
    async with patient(tmp_path):
        with pytest.raises(OSError, match="another sandbox uses"):
            async with calling(tmp_path, Time()):
                pass
    async with patient(tmp_path) as caller:
        assert (await create(caller, "file-x")).status == 400


async def test_a_dialect_is_demanded_of_files_and_batches_too(tmp_path: Path) -> None:
    dialect = {"auth": {"header": "api-key"}, "query": {"api-version": "v1"}, "errors": "detail"}
    async with calling(tmp_path, dialect=dialect) as caller:
        headers = {"api-key": "k"}
        assert (await caller.call("GET", "/files?api-version=v1", headers=headers)).status == 200
        assert (await caller.call("GET", "/batches", headers=headers)).status == 404
        refused = await caller.call("GET", "/batches/x?api-version=v1", headers=headers)
        assert refused.json == {"detail": "No batch found with id 'x'."}


async def test_uploads_and_creates_have_limits_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sandbox.batch.routes.UPLOADS", RateLimit(2, 60))
    monkeypatch.setattr("pipeline.sandbox.batch.routes.BATCHES", RateLimit(1, 3600))
    async with patient(tmp_path) as caller:
        file_id = (await upload(caller, b"x")).json["id"]
        assert (await upload(caller, b"x")).status == 200
        refused = await upload(caller, b"x")
        assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
        assert refused.headers["Retry-After"] == "60"
        assert "on uploads: Limit 2 in 1m0s. Please try again in 1m0s." in refused.error["message"]
        assert [(await create(caller, file_id)).status for _ in range(2)] == [200, 429]
        caller.time.now += 60
        assert (await upload(caller, b"x")).status == 200
        assert (await create(caller, file_id)).status == 429
        caller.time.now += 3540
        assert (await create(caller, file_id)).status == 200
