"""The books are shut: pictures on disk, ledger, manifest, status and the servers' own books → do they agree?

Every drill ends here. The ledger is read by the audit's own SQL and the money is added up from what the servers say
that they charged, so that no mistake of the program's own reading can hide one of its writing.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import urllib.request
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from tests.support.stage import KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.stage import Stage

Entry = dict[str, Any]
Row = dict[str, Any]

AT_ONCE = 4  # batches that a run sends
_COUNTED = "(SELECT count(*) FROM attempt a WHERE a.request = r.pk AND a.outcome {})"


@dataclass(frozen=True)
class Found:
    """What the audit added up. `paid_again` are pictures that were charged and that no row has: all are named, as
    attempts of unknown outcome; `lost` are those whose URL died.
    """

    pictures: int
    charged: int
    paid_again: int
    lost: int
    maybe_paid: int
    unowned: int


def audit(stage: Stage, books: Sequence[Entry], *, limit: tuple[int, float] | None = None) -> Found:
    """Hold everything that a folder has against everything that its servers say. No run may be at work.

    `books` are the entries of all servers that the folder ever called; `limit` is (images, seconds).
    """
    with FileLock(stage.output / "run.lock").acquire(blocking=False):
        rows = _Ledger(stage)
    calls = [entry for entry in books if entry["type"] == "call"]
    rows.check_itself()
    standings = stage.standings()
    for job in rows.jobs:
        _check_manifest(stage, rows, job)
        _check_standing(stage, rows, job, standings[job["name"]])
    unowned = _check_files(stage, rows)
    _check_secrets(stage)
    paid_again = _check_money(rows, calls)
    _check_hour(rows, calls)
    lines = [entry for entry in books if entry["type"] == "batch_line"]
    paid_again += _check_batches(rows, [entry for entry in books if entry["type"] == "batch"], lines)
    if limit is not None:
        check_window(calls, *limit)
    charged = sum(entry["charged"] for entry in (*calls, *lines))
    states = Counter(image["state"] for image in rows.images)
    assert charged == states["stored"] + states["lost"] + states["paid"] + paid_again
    return Found(states["stored"], charged, paid_again, states["lost"], len(rows.unknown), unowned)


class _Ledger:
    """The ledger as plain rows, read once."""

    def __init__(self, stage: Stage) -> None:
        with contextlib.closing(sqlite3.connect(stage.output / "ledger.sqlite3", timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            self.faults = [tuple(row) for row in connection.execute("PRAGMA integrity_check")]
            self.orphans = connection.execute("PRAGMA foreign_key_check").fetchall()

            def ask(question: str) -> list[Row]:
                return [dict(row) for row in connection.execute(question)]

            self.jobs = ask("SELECT * FROM job WHERE revision > 0")
            self.attempts = ask("SELECT a.*, r.prompt FROM attempt a JOIN request r ON r.pk = a.request ORDER BY a.pk")
            self.images = ask("SELECT i.*, j.name FROM image i JOIN job j ON j.pk = i.job")
            self.batches = ask("SELECT * FROM batch")
            self.requests = ask(
                "SELECT r.*, j.revision,"
                f" {_COUNTED.format('IS NOT ' + repr('not_sent'))} AS sent,"
                f" {_COUNTED.format('IS ' + repr('unknown') + ' AND a.settled IS NULL')} AS unknown,"
                " (SELECT count(*) FROM image i WHERE i.request = r.pk AND i.state = 'stored'"
                " AND i.redo IS NULL) AS stored,"
                " (SELECT sum(cost_usd) FROM attempt a WHERE a.request = r.pk) AS cost"
                " FROM request r JOIN job j ON j.pk = r.job WHERE r.stated <= j.revision"
            )
        self.unknown = [one for one in self.attempts if one["outcome"] == "unknown" and one["settled"] is None]

    def check_itself(self) -> None:
        """Nothing is running, nothing is open, and each request's own sums are those of its rows."""
        assert self.faults == [("ok",)]
        assert not self.orphans
        assert all(attempt["outcome"] is not None for attempt in self.attempts)
        for request in self.requests:
            assert request["status"] != "running"
            assert (request["attempts"], request["maybe_paid"]) == (request["sent"], request["unknown"]), request
            assert request["received"] == request["stored"], request
            assert (request["status"] == "succeeded") == (request["received"] >= request["n"]), request


def _check_manifest(stage: Stage, rows: _Ledger, job: Row) -> None:
    """The manifest has each request once, as the ledger has it."""
    entries = {entry["key"]: entry for entry in stage.manifest(job["name"])}
    requests = [request for request in rows.requests if request["job"] == job["pk"]]
    assert sorted(entries) == sorted(request["key"] for request in requests)
    for request in requests:
        entry = entries[request["key"]]
        superseded = request["stated"] < request["revision"]
        assert entry["status"] == ("superseded" if superseded else request["status"])
        for field in ("id", "attempts", "maybe_paid", "prompt"):
            assert entry[field] == request[field]
        assert (entry["cost_usd"] or 0.0) == round(request["cost"] or 0.0, 6)
        images = [image for image in rows.images if image["request"] == request["pk"] and image["state"] == "stored"]
        fields = ("file", "sha256", "bytes", "width", "height", "format")
        images.sort(key=lambda one: one["number"])
        for name, is_replaced in (("images", False), ("replaced", True)):
            recorded = [
                tuple(image[field] for field in fields)
                for image in images
                if (image["redo"] == "replaced") == is_replaced
            ]
            assert [tuple(image[field] for field in fields) for image in entry[name]] == recorded
    assert stage.check_files(job["name"]) == sum(request["stored"] for request in requests)


def _check_standing(stage: Stage, rows: _Ledger, job: Row, standing: Row) -> None:
    """`status` counts what the ledger has, and names the calls that may have been paid."""
    requests = [request for request in rows.requests if request["job"] == job["pk"]]
    counts = Counter("superseded" if one["stated"] < one["revision"] else one["status"] for one in requests)
    assert {status: number for status, number in standing["counts"].items() if number} == counts
    assert standing["images"] == sum(request["stored"] for request in requests)
    assert standing["maybe_paid"] == sum(entry["maybe_paid"] for entry in stage.manifest(job["name"]))
    assert standing["maybe_paid"] == sum(request["unknown"] for request in requests)


def _check_files(stage: Stage, rows: _Ledger) -> int:
    """Every picture on disk has a row; or, where a death came between the file and the row, the call is unknown."""
    owned = {stage.output / image["name"] / image["file"] for image in rows.images if image["state"] == "stored"}
    on_disk = {path for path in stage.output.glob("*/images/*") if path.is_file()}
    assert owned <= on_disk
    assert not [path.name for path in on_disk if path.suffix == ".part"], "half a picture is left behind"
    unowned = len(on_disk - owned)
    assert unowned <= sum(attempt["n"] for attempt in rows.unknown)
    return unowned


def _check_secrets(stage: Stage) -> None:
    """The key is in no file, and no URL's signature in the log."""
    for path in stage.output.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert KEY.encode() not in content, path
        assert not (path.name.startswith("run.log") and b"sig=" in content), path


def _check_money(rows: _Ledger, calls: Sequence[Entry]) -> int:
    """Every call that a server saw is an attempt of the ledger, and what it charged is owned or named.

    What a replay brings was charged for an earlier call with its key. Gives the pictures that were charged for calls of
    unknown outcome.
    """
    attempts = [attempt for attempt in rows.attempts if attempt["batch"] is None]
    named = {attempt["request_id"]: attempt for attempt in attempts if attempt["request_id"]}
    images = Counter(image["attempt"] for image in rows.images)
    seen = {call["request_id"]: call for call in calls}
    unnamed: Counter[str] = Counter(
        attempt["prompt"]
        for attempt in attempts
        if attempt["outcome"] == "unknown" and attempt["request_id"] not in seen
    )
    brought = {one["idempotency_key"]: images[one["pk"]] for one in attempts if one["is_replay"] and images[one["pk"]]}
    paid_again = 0
    for call in calls:
        attempt = named.get(call["request_id"])
        if attempt is None:  # its answer never arrived
            unnamed[call["prompt"]] -= 1
            assert unnamed[call["prompt"]] >= 0, f"the ledger knows nothing of {call}"
            paid_again += _not_brought(call, brought)
        elif attempt["outcome"] == "answered" and not attempt["is_replay"]:
            assert call["charged"] == images[attempt["pk"]], (call, attempt)
        elif attempt["outcome"] == "unknown":
            paid_again += _not_brought(call, brought)
        elif attempt["is_replay"]:
            assert call["charged"] == 0, (call, attempt)
        else:
            assert (attempt["outcome"], call["charged"]) == ("refused", 0), (call, attempt)
    for attempt in attempts:
        assert attempt["outcome"] != "answered" or attempt["request_id"] in seen, f"no server made {attempt}"
        assert attempt["outcome"] == "answered" or not images[attempt["pk"]], attempt
    return paid_again


def _not_brought(call: Entry, brought: dict[str, int]) -> int:
    """Pictures that were charged for a call of unknown outcome and that no replay has brought since."""
    if call["charged"] and call.get("idempotency_key") in brought:
        assert call["charged"] == brought.pop(call["idempotency_key"]), call
        return 0
    return int(call["charged"])


def _check_batches(rows: _Ledger, batches: Sequence[Entry], lines: Sequence[Entry]) -> int:
    """Every batch that a server ran is one of the ledger, bought once; each of its lines is an attempt, booked once.

    Gives the pictures that were charged for lines of unknown outcome.
    """
    tokens = {batch["token"]: batch for batch in rows.batches}
    owners = {batch["batch"]: batch["metadata"]["pipeline"] for batch in batches}
    assert set(owners.values()) <= set(tokens), "a server has a batch that the ledger does not know"
    ran = Counter(owners[batch] for batch in {line["batch"] for line in lines})
    assert all(times == 1 for times in ran.values()), f"bought twice: {ran}"
    assert all(batch["ended_at"] is not None for batch in rows.batches)
    attempts = {f"{tokens_of(rows)[one['batch']]}-{one['pk']}": one for one in rows.attempts if one["batch"]}
    images = Counter(image["attempt"] for image in rows.images)
    worked = Counter(line["custom_id"] for line in lines)
    assert all(times == 1 for times in worked.values()), "a line was run twice"
    paid_again = 0
    for line in lines:
        attempt = attempts[line["custom_id"]]
        assert owners[line["batch"]] == tokens_of(rows)[attempt["batch"]]
        assert (line["prompt"], line["n"]) == (attempt["prompt"], attempt["n"])
        if attempt["outcome"] == "answered":
            assert line["charged"] == images[attempt["pk"]], (line, attempt)
            assert abs(line["cost_usd"] - attempt["cost_usd"]) < 1e-6, (line, attempt)
        elif attempt["outcome"] == "unknown":
            paid_again += line["charged"]
        else:
            assert (attempt["outcome"], line["charged"]) == ("refused", 0), (line, attempt)
    for name, attempt in attempts.items():
        assert attempt["outcome"] != "answered" or name in worked, f"no server ran {attempt}"
    return paid_again


def tokens_of(rows: _Ledger) -> dict[int, str]:
    """Return the tokens of the batches by primary key."""
    return {batch["pk"]: batch["token"] for batch in rows.batches}


def check_uploads(base_url: str, books: Sequence[Entry], *, deaths: int = 0) -> None:
    """Each input image was uploaded once, and no more files are left at the service than deaths can explain.

    A death may leave the files whose record or whose deletion it has prevented, at most those of the batches that were
    being sent at once; such files expire.
    """
    pictures = Counter(entry["sha256"] for entry in books if entry["type"] == "upload" and entry["purpose"] == "vision")
    assert all(times == 1 for times in pictures.values()), f"uploaded again: {pictures}"
    headers = {"Authorization": f"Bearer {KEY}"}
    with urllib.request.urlopen(urllib.request.Request(f"{base_url}/files", headers=headers)) as answer:  # noqa: S310
        left = [file for file in json.load(answer)["data"] if file["purpose"] != "batch_output"]
    assert len(left) <= AT_ONCE * deaths, left


def _check_hour(rows: _Ledger, calls: Sequence[Entry]) -> None:
    """A URL that was given up had died: by the server's clock, nothing is asked for again before that."""
    seen = {call["request_id"]: call for call in calls}
    for image in rows.images:
        if image["state"] == "lost":
            attempts = [attempt for attempt in rows.attempts if attempt["request"] == image["request"]]
            first = next(seen[attempt["request_id"]] for attempt in attempts if attempt["pk"] == image["attempt"])
            later = [seen[one["request_id"]] for one in attempts if one["request_id"] in seen]
            death = first["at"] + first["life"] - 1.0  # a signature speaks of whole seconds
            assert all(call["at"] >= death for call in later if call["at"] > first["at"]), (image, first)


def check_window(calls: Sequence[Entry], images: int, seconds: float) -> None:
    """In no half-open window of so many seconds do more images arrive, whatever became of the calls.

    What is promised is when they are sent: a drill sets a `margin` that a busy machine's delays do not exceed.
    """
    arrivals = sorted((call["mono"], call["n"]) for call in calls)
    begin, used = 0, 0
    for moment, number in arrivals:
        used += number
        while arrivals[begin][0] <= moment - seconds:
            used -= arrivals[begin][1]
            begin += 1
        assert used <= images, f"{used} images within {seconds} s"
