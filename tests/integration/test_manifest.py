"""The manifest: one object per request, what the job file states first, whole or not at all."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest

from pipeline.config.load import Config
from pipeline.errors import DiskFull
from pipeline.files import whole_file
from pipeline.ledger.database import open_for_reading
from pipeline.reports import manifest
from pipeline.reports.manifest import entries, write_manifest
from pipeline.result import read_outcomes
from tests.integration.test_worker import HERE, Vendor
from tests.support.workbench import answer_with, lab, request, vendor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from tests.support.workbench import Bench


def _entries(bench: Bench) -> list[Any]:
    return list(entries(bench.connection, "job"))


async def test_an_entry_says_what_was_asked_what_came_and_what_it_cost(bench: Bench) -> None:
    usage = {"input_tokens": 12, "details": {"text": 5}, "label": "x"}
    answers = [
        lambda _: answer_with(HERE, usage=usage),
        lambda _: answer_with({**HERE, "revised_prompt": "better"}, usage=usage),
    ]
    async with vendor(Vendor(*answers)) as base_url:
        bench.submit(request(1, id="pool", n=2))
        await bench.run(lab(base_url))
    (entry,) = _entries(bench)
    assert entry["params"] == {"model": "dall-e-2", "n": 2, "size": "256x256"}
    assert list(entry["params"])[:2] == ["model", "n"]
    assert (entry["status"], entry["attempts"], entry["error"], entry["endpoint"]) == ("succeeded", 2, None, base_url)
    assert entry["usage"] == {"input_tokens": 24, "details": {"text": 10}, "label": "x"}
    assert [(image["file"], image["revised_prompt"]) for image in entry["images"]] == [
        ("images/pool-1.png", None),
        ("images/pool-2.png", "better"),
    ]
    assert entry["cost_usd"] == pytest.approx(0.032)


async def test_attempts_and_images_are_read_for_many_requests_together(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with vendor(Vendor(lambda _: answer_with(HERE, usage={"input_tokens": 3}))) as base_url:
        bench.submit(*(request(number, id=f"r{number}") for number in range(5)))
        await bench.run(lab(base_url))
    whole = _entries(bench)
    statements: list[str] = []
    monkeypatch.setattr(manifest, "_AT_ONCE", 2)
    bench.connection.set_trace_callback(statements.append)
    assert _entries(bench) == whole
    bench.connection.set_trace_callback(None)
    assert [sum(f"FROM {table} " in one for one in statements) for table in ("attempt a", "image i WHERE request")] == [
        3,
        3,
    ]
    assert [(one["id"], len(one["images"]), one["usage"]) for one in whole] == [
        (f"r{number}", 1, {"input_tokens": 3}) for number in range(5)
    ]


async def test_a_failed_request_names_its_error_and_the_service_s_name_for_the_call(bench: Bench) -> None:
    from aiohttp import web

    error = {"error": {"message": "no", "type": "invalid_request_error", "code": "invalid_value"}}
    refusal = Vendor(lambda _: web.json_response(error, status=400, headers={"x-request-id": "req_7"}))
    async with vendor(refusal) as base_url:
        bench.submit(request(1))
        await bench.run(lab(base_url))
    (entry,) = _entries(bench)
    assert entry["error"] == {
        "http_status": 400,
        "type": "invalid_request_error",
        "code": "invalid_value",
        "message": "no",
        "kind": "Invalid",
    }
    assert (entry["status"], entry["request_id"], entry["images"], entry["usage"]) == ("failed", "req_7", [], None)


def test_what_the_file_states_comes_in_its_order_and_then_what_is_superseded(bench: Bench) -> None:
    bench.submit(*(request(number, id=str(number)) for number in (1, 2, 3, 4)))
    bench.submit(*(request(number, id=str(number)) for number in (4, 5, 2)))
    assert [(entry["id"], entry["status"]) for entry in _entries(bench)] == [
        ("4", "pending"),
        ("5", "pending"),
        ("2", "pending"),
        ("1", "superseded"),
        ("3", "superseded"),
    ]


def test_a_submit_under_way_is_not_shown(bench: Bench) -> None:
    bench.submit(request(1))
    bench.set("UPDATE request SET stated = 2")
    assert _entries(bench) == []


def test_it_is_one_moment_of_the_ledger_even_beside_a_writer(bench: Bench) -> None:
    bench.submit(request(1), request(2))
    found = entries(bench.connection, "job")
    next(found)
    bench.submit_beside(request(3))
    assert [entry["status"] for entry in found] == ["pending"]
    assert not bench.connection.in_transaction
    assert _entries(bench)[0]["prompt"] == "prompt 3"


def test_it_can_be_written_over_a_reading_connection_too(bench: Bench) -> None:
    bench.submit(request(1))
    reader = open_for_reading(bench.folder)
    assert reader is not None
    assert len(list(entries(reader, "job"))) == 1
    reader.close()


def test_it_is_written_whole_or_not_at_all_and_leaves_the_ledger_free(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.submit(request(1), request(2))
    path = write_manifest(bench.connection, "job", bench.folder)
    before = path.read_bytes()
    assert [json.loads(line)["prompt"] for line in before.splitlines()] == ["prompt 1", "prompt 2"]

    class Full:
        """A file that has room for one line."""

        def __init__(self) -> None:
            self.lines = 0

        def write(self, _line: bytes) -> None:
            self.lines += 1
            if self.lines == 2:
                raise OSError(28, "No space left on device")

    @contextlib.contextmanager
    def full(path: Path, mode: int) -> Iterator[Full]:
        with whole_file(path, mode):
            yield Full()

    monkeypatch.setattr(manifest, "whole_file", full)
    with pytest.raises(DiskFull) as raised:
        write_manifest(bench.connection, "job", bench.folder)
    assert raised.value.__context__ is not None, "which keeps the frames, and with them the question to the ledger"
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["manifest.jsonl"]
    assert not bench.connection.in_transaction


def test_text_that_is_no_unicode_does_not_keep_the_manifest_from_being_written(bench: Bench) -> None:
    bench.submit(request(1))
    bench.set("UPDATE request SET variables = ?", json.dumps({"x": "\ud800"}))
    assert b"?" in write_manifest(bench.connection, "job", bench.folder).read_bytes()


@pytest.mark.parametrize("batch_first", [True, False])
def test_an_entry_names_the_mode_and_the_batch_of_the_last_attempt_that_brought_images(
    bench: Bench, batch_first: bool
) -> None:
    bench.submit(request(1, id="pool", n=2))
    (entry,) = _entries(bench)
    assert (entry["mode"], entry["batch_id"]) == (None, None)
    attempts = [bench.send_batch(1, id="batch_7") if batch else None for batch in (batch_first, not batch_first)]
    if not batch_first:  # the line of the batch came first
        bench.set("DELETE FROM attempt")
    for number, batch in enumerate(attempts, 1):
        bench.set(
            "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome, batch)"
            " VALUES (1, 'lab', 1, 1, 2, 'answered', ?)",
            batch,
        )
        bench.set(
            "INSERT INTO image (request, attempt, job, number, state, file, sha256, bytes, width, height, format)"
            " VALUES (1, (SELECT max(pk) FROM attempt), 1, ?1, 'stored', 'i' || ?1, printf('%064d', 0), 1, 1, 1,"
            " 'png')",
            number,
        )
    bench.set(  # a later call that brought nothing
        "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome) VALUES (1, 'lab', 1, 1, 2, 'refused')"
    )
    (entry,) = _entries(bench)
    expected = ("realtime", None) if batch_first else ("batch", "batch_7")
    assert (entry["mode"], entry["batch_id"]) == expected
    (outcome,) = read_outcomes(Config(None, bench.folder, None, {}), "job")
    assert (outcome.mode, outcome.batch_id) == expected
