"""Each fault of the sandbox's batches, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp

from tests.support.batch_client import (
    content,
    create,
    jsonl,
    lines,
    patient,
    reaching,
    results,
    retrieve,
    send,
    upload,
)
from tests.support.sandbox_client import Time

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.sandbox_client import Caller


async def _listed(caller: Caller) -> list[Any]:
    found: list[Any] = (await caller.call("GET", "/batches")).json["data"]
    return found


async def test_a_batch_whose_answer_is_lost_is_made_once_and_works(tmp_path: Path) -> None:
    outcomes: set[int | str] = set()
    async with patient(tmp_path, faults={"create_lost": 1}) as caller:
        file_id = (await upload(caller, jsonl(lines(1)))).json["id"]
        for number in range(1, 9):
            try:
                outcomes.add((await create(caller, file_id)).status)
            except aiohttp.ClientError:
                outcomes.add("closed")
            batches = await _listed(caller)
            assert len(batches) == len(caller.entries("batch")) == number
            assert (await reaching(caller, batches[0]["id"]))["status"] == "completed"
    assert outcomes == {500, "closed"}


async def test_a_new_file_is_not_visible_to_the_first_creates(tmp_path: Path) -> None:
    seen = set()
    async with patient(tmp_path, faults={"not_yet_visible": 1}) as caller:
        for _ in range(12):
            file_id = (await upload(caller, jsonl(lines(1)))).json["id"]
            refused = 0
            while (reply := await create(caller, file_id)).status != 200:
                refused += 1
                assert (reply.status, reply.error["param"]) == (400, "file_id")
                assert reply.error["message"].startswith(f"Cannot find file {file_id}, or project")
                assert (await caller.call("GET", f"/files/{file_id}")).status == 200
            seen.add(refused)
        assert len(await _listed(caller)) == 12
    assert seen == {1, 2, 3}


async def test_a_batch_fails_in_two_ways(tmp_path: Path) -> None:
    async with patient(tmp_path, faults={"failed": 1}) as caller:
        batches = [await reaching(caller, (await send(caller, lines(1)))["id"]) for _ in range(8)]
        assert caller.entries("batch_line") == []
    assert {batch["status"] for batch in batches} == {"failed"}
    assert {batch["errors"]["data"][0]["code"] for batch in batches} == {"token_limit_exceeded", "server_error"}


async def test_a_spend_cap_is_disguised_as_a_missing_file(tmp_path: Path) -> None:
    forms = set()
    async with patient(tmp_path, faults={"spend_cap": 1}) as caller:
        file_id = (await upload(caller, jsonl(lines(1)))).json["id"]
        for _ in range(8):
            reply = await create(caller, file_id)
            if reply.status == 200:
                (error,) = (await reaching(caller, reply.json["id"]))["errors"]["data"]
                assert error["code"] == "invalid_request"
            else:
                error = reply.error
            forms.add(reply.status)
            text = f"Cannot find file {file_id}, or organization org-sandbox does not have access to it."
            assert error["message"] == text
            assert (await caller.call("GET", f"/files/{file_id}")).status == 200
        assert caller.entries("batch_line") == []
    assert forms == {200, 400}


async def test_a_batch_expires_with_some_of_its_lines_done(tmp_path: Path) -> None:
    shares = set()
    async with patient(tmp_path, faults={"expired": 1}) as caller:
        for _ in range(6):
            batch = await reaching(caller, (await send(caller, lines(6)))["id"])
            good = await results(caller, batch["output_file_id"])
            rest = await results(caller, batch["error_file_id"])
            assert batch["status"] == "expired"
            assert batch["request_counts"] == {"total": 6, "completed": len(good), "failed": 0}
            assert {one["custom_id"] for one in good + rest} == {one["custom_id"] for one in lines(6)}
            assert {one["error"]["code"] for one in rest} == {"batch_expired"}
            shares.add(len(good))
        assert sum(entry["charged"] for entry in caller.entries("batch_line")) >= sum(shares)
    assert len(shares) > 2


async def test_lines_are_missing_doubled_and_cut(tmp_path: Path) -> None:
    faults = {"lines_missing": 0.2, "duplicate_line": 0.2, "malformed_line": 0.2}
    asked = lines(25)
    async with patient(tmp_path, faults=faults) as caller:
        batch = await reaching(caller, (await send(caller, asked))["id"])
        assert batch["request_counts"] == {"total": 25, "completed": 25, "failed": 0}
        texts = (await content(caller, batch["output_file_id"])).content.splitlines()
        entries = {entry["custom_id"]: entry for entry in caller.entries("batch_line")}
    assert len(entries) == 25
    assert {entry["charged"] for entry in entries.values()} == {1}
    kinds = {entry["fault"] for entry in entries.values()}
    assert kinds == {None, *faults}
    for custom_id, entry in entries.items():
        own = [text for text in texts if f'"custom_id": "{custom_id}"'.encode() in text]
        whole = [text for text in own if text.endswith(b'"error": null}')]
        expected = {"lines_missing": (0, 0), "duplicate_line": (2, 2), "malformed_line": (1, 0), None: (1, 1)}
        assert (len(own), len(whole)) == expected[entry["fault"]]


async def test_an_id_of_an_empty_file_is_empty_in_place_of_null(tmp_path: Path) -> None:
    async with patient(tmp_path, faults={"empty_ids": 1}) as caller:
        good = await reaching(caller, (await send(caller, lines(1)))["id"])
        bad = await reaching(caller, (await send(caller, lines(1, n=11)))["id"])
    assert good["output_file_id"].startswith("file-")
    assert (good["error_file_id"], bad["output_file_id"]) == ("", "")


async def test_an_empty_id_is_null_until_the_end(tmp_path: Path) -> None:
    async with patient(tmp_path, Time(), faults={"empty_ids": 1}, seconds=[10, 10]) as caller:
        batch = await send(caller, lines(1))
        assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)
        assert (await retrieve(caller, batch["id"]))["output_file_id"] is None


async def test_the_same_seed_gives_the_same_faults(tmp_path: Path) -> None:
    faults = {"failed": 0.3, "expired": 0.3, "lines_missing": 0.3, "empty_ids": 0.5, "not_yet_visible": 0.5}
    nights = []
    for number, seed in enumerate((3, 3, 4)):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with patient(folder, seed=seed, faults=faults) as caller:
            night: list[Any] = []
            for _ in range(6):
                file_id = (await upload(caller, jsonl(lines(3)))).json["id"]
                while (made := await create(caller, file_id)).status != 200:
                    night.append(made.status)
                batch = await reaching(caller, made.json["id"])
                got = [one["custom_id"] for one in await results(caller, batch["output_file_id"])]
                night.append((batch["status"], got, batch["error_file_id"] == ""))
            nights.append(night)
    assert nights[0] == nights[1] != nights[2]
