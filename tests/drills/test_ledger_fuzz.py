"""A ledger in any state, or with any damage, is worked to its end or refused with a sentence: never a traceback."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.load import Config
from pipeline.errors import PipelineError
from pipeline.ledger.backup import back_up
from pipeline.ledger.database import FILE_NAME, open_ledger, transaction, translated_errors
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.ledger.put_back import Selection, put_back
from pipeline.ledger.queue import next_requests
from pipeline.ledger.recovery import recover
from pipeline.reports.manifest import write_manifest
from pipeline.reports.report_data import read_report_data
from pipeline.reports.status import read_status
from pipeline.reports.verify import find_damage
from pipeline.result import read_outcomes
from tests.support.workbench import ALL, PNG_BASE64, answer_with, benched, lab, request, vendor

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from tests.support.workbench import Bench, Body

STATUSES = ["pending", "running", "succeeded", "partial", "failed", "cancelled"]
OUTCOMES = [None, "not_sent", "refused", "answered", "unknown"]
ERRORS = [None, "{}", '{"http_status": 400, "message": "no"}', '{"message": null, "kind": null, "code": null}']


def looks(bench: Bench) -> dict[str, Callable[[], Any]]:
    """Name everything that reads or mends a ledger."""
    connection, folder = bench.connection, bench.folder

    def mend_and_take() -> None:
        recover(connection)
        with transaction(connection):
            next_requests(connection, "lab", ALL, (), 10)

    return {
        "standing": lambda: read_status(folder, None),
        "accounts": lambda: read_job_summaries(connection),
        "manifest": lambda: write_manifest(connection, "job", folder),
        "outcomes": lambda: list(read_outcomes(Config(None, folder, None, {}), "job")),
        "verify": lambda: list(find_damage(connection, folder, bench.stores, None)),
        "report": lambda: json.dumps(read_report_data(connection, "job")),
        "copy": lambda: back_up(connection, folder),
        "run": mend_and_take,
        "resume": lambda: put_back(connection, Selection()),
    }


def look_everywhere(bench: Bench, *names: str) -> None:
    """Let everything look, or what is named; what it cannot read it says in a sentence."""
    said: dict[str, str] = {}
    every = looks(bench)
    for name, look in {name: every[name] for name in names or every}.items():
        try:
            with translated_errors(bench.folder / FILE_NAME):
                look()
        except PipelineError as error:
            said[name] = str(error)
        except sqlite3.IntegrityError:
            assert name in {"run", "resume"}, "what a damaged ledger refuses itself is no damage more"
    assert all(said.values())


def fill(bench: Bench, chance: random.Random) -> None:
    """Put the ledger into a state that its own rules allow, however senseless."""
    bench.submit(*(request(number, n=chance.randint(1, 3)) for number in range(6)))
    for pk in range(1, 7):
        bench.set(
            "UPDATE request SET status = ?, received = ?, moderated = ?, attempts = ?, maybe_paid = ?, error = ?,"
            " stated = ?, cost_usd = ?, wait_until = ?, finished_at = ?, stem = ? WHERE pk = ?",
            *(chance.choice(STATUSES), chance.randint(0, 4), chance.randint(0, 2), chance.randint(0, 3)),
            *(chance.randint(0, 3), chance.choice(ERRORS), chance.randint(1, 2), chance.choice([None, 0.5, -1.0])),
            *(chance.choice([None, 0.0, 5.0]), chance.choice([None, 0.0, 5.0, 4e9]), chance.choice([None, "x"]), pk),
        )
        for number in range(chance.randint(0, 2)):
            outcome = chance.choice(OUTCOMES)
            bench.set(
                "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome, usage)"
                " VALUES (?, ?, 1, ?, ?, ?, ?)",
                *(
                    pk,
                    chance.choice(["lab", "gone"]),
                    chance.choice([0.0, 1e10, -5.0]),
                    None if outcome is None else 1.0,
                ),
                *(outcome, chance.choice([None, "{}", '{"input_tokens": "many"}'])),
            )
            attempt = bench.one("SELECT max(pk) FROM attempt")
            state = chance.choice(["paid", "stored", "lost"])
            url = f"http://127.0.0.1:9/{pk}" if state == "paid" else None
            stored = (f"images/{pk}-{number}.png", "0" * 64, 5) if state == "stored" else (None, None, None)
            bench.set(
                "INSERT INTO image (request, attempt, job, number, state, url, expires_at, file, sha256, bytes)"
                " VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?, ?)",
                *(pk, attempt, number + 1, state, url, chance.choice([None, 0.0, 5.0]), *stored),
            )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_any_state_is_read_and_mended_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("state")
    with benched(folder) as bench:
        fill(bench, random.Random(seed))
        look_everywhere(bench)
    shutil.rmtree(folder)


@pytest.mark.parametrize("seed", range(12))
async def test_a_run_over_any_state_ends_and_leaves_nothing_running(bench: Bench, seed: int) -> None:
    fill(bench, random.Random(seed))

    async def answer(body: Body) -> web.StreamResponse:
        return answer_with(*[{"b64_json": PNG_BASE64}] * body["n"])

    async with vendor(answer) as base_url:
        await bench.run(lab(base_url))
    assert bench.one("SELECT count(*) FROM request WHERE status = 'running'") == 0
    assert bench.one("SELECT count(*) FROM attempt WHERE outcome IS NULL") == 0
    stated = "stated = (SELECT revision FROM job)"
    assert bench.one(f"SELECT count(*) FROM request WHERE status = 'pending' AND {stated}") == 0
    look_everywhere(bench)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(1, 400))
def test_any_damage_to_the_file_is_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, seed: int, bytes_changed: int
) -> None:
    folder, chance = tmp_path_factory.mktemp("damage"), random.Random(seed)
    with benched(folder) as bench:
        fill(bench, chance)
        bench.set("PRAGMA wal_checkpoint(TRUNCATE)")
    path = folder / FILE_NAME
    content = bytearray(path.read_bytes())
    for _ in range(bytes_changed):
        content[chance.randrange(len(content))] = chance.randrange(256)
    path.write_bytes(content[: chance.choice([len(content), chance.randrange(len(content))])])
    for end in ("-wal", "-shm"):
        path.with_name(f"{FILE_NAME}{end}").unlink(missing_ok=True)
    with contextlib.suppress(PipelineError):
        connection = open_ledger(folder)
        with contextlib.closing(connection):
            from tests.support.workbench import Bench

            look_everywhere(Bench(folder, connection), "standing", "accounts", "copy", "resume", "run")
    shutil.rmtree(folder)
