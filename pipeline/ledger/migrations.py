"""The versions of the ledger: each function changes the ledger of one version into that of the next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

_SCHEMA = Path(__file__).with_name("schema.sql")


def _create(connection: sqlite3.Connection) -> None:
    for statement in _SCHEMA.read_text(encoding="utf-8").split(";\n"):
        connection.execute(statement)


def _add_wait(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE request ADD COLUMN wait_until REAL")  # by the server's wish


def _add_quarantine(connection: sqlite3.Connection) -> None:
    """Add bytes that a provider returned as an image and that are not valid; `file` is relative to the job's folder.
    Add remarks on images that deviate from their format and are valid.
    """
    connection.execute(
        "CREATE TABLE quarantine (pk INTEGER PRIMARY KEY, request INTEGER NOT NULL REFERENCES request (pk),"
        " file TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, reason TEXT NOT NULL,"
        " UNIQUE (request, sha256)) STRICT"
    )
    connection.execute("ALTER TABLE image ADD COLUMN remark TEXT")


def _add_stops(connection: sqlite3.Connection) -> None:
    """Add what stopped jobs and providers last, and changes of folders that a kill must not leave half done."""
    connection.execute(
        "CREATE TABLE stop (pk INTEGER PRIMARY KEY, provider TEXT, job INTEGER REFERENCES job (pk), model TEXT,"
        " served_by TEXT, kind TEXT NOT NULL, message TEXT NOT NULL, http_status INTEGER, stopped_at REAL NOT NULL,"
        " last_attempt INTEGER NOT NULL) STRICT"  # that was recorded before it
    )
    connection.execute(  # from `folder`, a job's, to `target`; deleted if that is NULL
        "CREATE TABLE folder_change (pk INTEGER PRIMARY KEY, folder TEXT NOT NULL, target TEXT) STRICT"
    )


def _add_batches(connection: sqlite3.Connection) -> None:
    """Add batches of the Batch API, and how each job wants to be served.

    A batch is living until `ended_at` is set: collected, failed, or given up. `status` is the service's word in lower
    case, NULL before it is known; `tokens` is the estimate that counts against the service's queue.
    """
    for column in (
        "mode TEXT NOT NULL DEFAULT 'realtime' CHECK (mode IN ('realtime', 'batch', 'auto'))",
        "deadline REAL",  # of mode auto
        "realtime_since REAL",  # of mode auto: when its deadline came near; it stays in realtime
        "cancel_since REAL",  # its living batches are to be cancelled, and nothing is sent again
    ):
        connection.execute(f"ALTER TABLE job ADD COLUMN {column}")
    connection.execute(
        "CREATE TABLE batch (pk INTEGER PRIMARY KEY, job INTEGER NOT NULL REFERENCES job (pk), provider TEXT NOT NULL,"
        " served_by TEXT NOT NULL, model TEXT,"
        " token TEXT NOT NULL UNIQUE,"  # in the batch's metadata and in the name of its input file
        " requests INTEGER NOT NULL, tokens INTEGER NOT NULL, input_file_id TEXT,"
        " create_sent_at REAL,"  # written before the call that creates it
        " looks INTEGER NOT NULL DEFAULT 0,"  # at the service's list since then, in vain
        " id TEXT, status TEXT, completed INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,"
        " is_valid INTEGER NOT NULL DEFAULT 0,"  # it has passed the service's validation
        " output_file_id TEXT, error_file_id TEXT,"
        " created_at REAL NOT NULL, sent_at REAL, expires_at REAL, cancelled_at REAL, ended_at REAL) STRICT"
    )
    connection.execute("CREATE INDEX batch_living ON batch (provider) WHERE ended_at IS NULL")
    connection.execute("CREATE INDEX batch_job ON batch (job)")
    connection.execute("ALTER TABLE attempt ADD COLUMN batch INTEGER REFERENCES batch (pk)")
    connection.execute("CREATE INDEX attempt_batch ON attempt (batch) WHERE batch IS NOT NULL")
    connection.execute(  # a file at the service; without an id its upload is in progress, or its answer was lost
        "CREATE TABLE uploaded_file (pk INTEGER PRIMARY KEY, provider TEXT NOT NULL,"
        " name TEXT NOT NULL, sha256 TEXT NOT NULL, id TEXT, expires_at REAL, created_at REAL NOT NULL,"
        " UNIQUE (provider, sha256)) STRICT"
    )


def _add_roots(connection: sqlite3.Connection) -> None:
    """Add where each image is, and the id by which an object store knows this ledger.

    `root` is the URL of the folder or the bucket; NULL is the output folder. An image that is `spooled` waits in the
    job's `spool/` until the store at `root` has it.
    """
    connection.execute("ALTER TABLE image ADD COLUMN root TEXT")
    connection.execute("ALTER TABLE image ADD COLUMN spooled INTEGER NOT NULL DEFAULT 0 CHECK (spooled IN (0, 1))")
    connection.execute("CREATE INDEX image_spooled ON image (pk) WHERE spooled = 1")
    connection.execute("ALTER TABLE folder_change ADD COLUMN root TEXT")  # NULL: the local folders
    connection.execute("CREATE TABLE identity (id TEXT NOT NULL) STRICT")
    connection.execute("INSERT INTO identity VALUES (lower(hex(randomblob(16))))")


def _add_routes(connection: sqlite3.Connection) -> None:
    """Add routes: the providers that serve a job, if it names a route; other keys by which a request is known, as that
    of a route for what was bought under a provider's name; and the home of requests that are alike.
    """
    connection.execute("ALTER TABLE job ADD COLUMN members TEXT CHECK (members IS NULL OR json_valid(members))")
    connection.execute(
        "CREATE TABLE other_key (job INTEGER NOT NULL REFERENCES job (pk), key TEXT NOT NULL,"
        " request INTEGER NOT NULL REFERENCES request (pk), PRIMARY KEY (job, key)) STRICT, WITHOUT ROWID"
    )
    connection.execute("CREATE INDEX other_key_request ON other_key (request)")
    connection.execute(  # `alike` are the values of the variables that the route names, as JSON
        "CREATE TABLE home (job INTEGER NOT NULL REFERENCES job (pk), alike TEXT NOT NULL, provider TEXT NOT NULL,"
        " PRIMARY KEY (job, alike)) STRICT, WITHOUT ROWID"
    )


def _add_custom_ids(connection: sqlite3.Connection) -> None:
    """Add the custom_id of requests that come from an input file of the Batch API."""
    connection.execute("ALTER TABLE request ADD COLUMN custom_id TEXT")


def _add_controls(connection: sqlite3.Connection) -> None:
    """Add what people set for a provider or a job while a run may be at work: a pause, a lower limit, a priority."""
    connection.execute("ALTER TABLE provider ADD COLUMN held_since REAL")  # NULL: calls may be sent
    connection.execute("ALTER TABLE provider ADD COLUMN throttle INTEGER CHECK (throttle >= 1)")  # images per window
    connection.execute("ALTER TABLE job ADD COLUMN priority INTEGER NOT NULL DEFAULT 0")  # higher first


def _add_purchases(connection: sqlite3.Connection) -> None:
    """Add the idempotency keys of calls, and what settles calls of unknown outcome.

    `body` is the digest of what was sent; `is_replay` says that the response was one to an earlier call of the key.
    Of an attempt that is settled, `cost_usd` is what it cost: nothing, unless it was charged.
    """
    for column in (
        "idempotency_key TEXT",
        "body TEXT",
        "is_replay INTEGER NOT NULL DEFAULT 0 CHECK (is_replay IN (0, 1))",
        "settled TEXT CHECK (settled IN ('replayed', 'charged', 'not_charged'))",
    ):
        connection.execute(f"ALTER TABLE attempt ADD COLUMN {column}")
    connection.execute(  # calls that the death of the last run cut off, until the next call or `resume`
        "ALTER TABLE request ADD COLUMN cut_off INTEGER NOT NULL DEFAULT 0 CHECK (cut_off >= 0)"
    )


def _add_reconciliations(connection: sqlite3.Connection) -> None:
    """Add until when the calls of each provider are compared with what it charged, and settled."""
    connection.execute(
        "CREATE TABLE reconciliation (provider TEXT PRIMARY KEY, complete_until REAL NOT NULL) STRICT, WITHOUT ROWID"
    )


def _add_redo(connection: sqlite3.Connection) -> None:
    """Add which images are made again: `asked` until another one is here, then `replaced`. Both are on disk."""
    connection.execute("ALTER TABLE image ADD COLUMN redo TEXT CHECK (redo IN ('asked', 'replaced'))")
    connection.execute("CREATE INDEX image_redo ON image (request) WHERE redo = 'asked'")


def _add_fingerprints(connection: sqlite3.Connection) -> None:
    """Add what tells near copies and blank images: see `images/fingerprint`."""
    connection.execute("ALTER TABLE image ADD COLUMN difference_hash TEXT")
    connection.execute("ALTER TABLE image ADD COLUMN is_blank INTEGER NOT NULL DEFAULT 0 CHECK (is_blank IN (0, 1))")


def _add_workers(connection: sqlite3.Connection) -> None:
    """Add the workers of a run on other machines, and until when they may send calls."""
    connection.execute(
        "CREATE TABLE worker (id INTEGER PRIMARY KEY, node TEXT NOT NULL, pid INTEGER NOT NULL,"
        " calls INTEGER NOT NULL, images INTEGER NOT NULL) STRICT"
    )
    connection.execute("CREATE TABLE worker_lease (until REAL NOT NULL) STRICT")


def _add_calls_in_flight(connection: sqlite3.Connection) -> None:
    """Add how many calls a server without a stated limit seems to serve at once; NULL if nothing was found."""
    connection.execute("ALTER TABLE provider ADD COLUMN calls_in_flight INTEGER CHECK (calls_in_flight >= 1)")


def _add_withheld(connection: sqlite3.Connection) -> None:
    """Add how many images the content policy withheld in each response."""
    connection.execute("ALTER TABLE attempt ADD COLUMN withheld INTEGER NOT NULL DEFAULT 0 CHECK (withheld >= 0)")


def _add_input_uploads(connection: sqlite3.Connection) -> None:
    """Add when the input file of each batch was sent, until its id is known; NULL if it is, or if there is none."""
    connection.execute("ALTER TABLE batch ADD COLUMN input_sent_at REAL")


def _add_cancelled_calls(connection: sqlite3.Connection) -> None:
    """Add whether the job of a running request was cancelled: the call in flight ends, and no other one follows."""
    connection.execute(
        "ALTER TABLE request ADD COLUMN cancel_asked INTEGER NOT NULL DEFAULT 0 CHECK (cancel_asked IN (0, 1))"
    )


def _add_outages(connection: sqlite3.Connection) -> None:
    """Add since when a provider is down, until when it is tried again, and why; NULL while it is up."""
    for column in ("down_since REAL", "down_until REAL", "down_reason TEXT"):
        connection.execute(f"ALTER TABLE provider ADD COLUMN {column}")


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [
    _create,
    _add_wait,
    _add_quarantine,
    _add_stops,
    _add_batches,
    _add_roots,
    _add_routes,
    _add_custom_ids,
    _add_controls,
    _add_purchases,
    _add_reconciliations,
    _add_redo,
    _add_fingerprints,
    _add_workers,
    _add_calls_in_flight,
    _add_withheld,
    _add_input_uploads,
    _add_cancelled_calls,
    _add_outages,
]
"""Each brings the ledger from version k to k + 1; `PRAGMA user_version` counts them. Only ever append."""
