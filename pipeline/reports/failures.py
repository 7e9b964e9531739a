"""The ledger → why requests failed: grouped by cause, each with an example and what to do about it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.ledger.database import FILE_NAME, named_errors, open_for_reading
from pipeline.reports.causes import advice_on, kind_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Sequence
    from pathlib import Path

_TO_EDIT = {"Moderated", "Invalid"}
"""What no second try can mend."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Requests of one job that ended for one reason: `kind` is the error's class, `id` and `message` an example."""

    job: str
    file: str | None  # the job file
    provider: str
    kind: str
    code: str | None
    http_status: int | None
    count: int
    id: str
    message: str

    @property
    def name(self) -> tuple[str, str | None, int | None]:
        """What makes causes of several jobs the same."""
        return self.kind, self.code, self.http_status

    @property
    def advice(self) -> str:
        """What to do about it."""
        return advice_on(self.kind)

    @property
    def command(self) -> tuple[str, ...]:
        """The command to type then, without the program's name."""
        if self.kind not in _TO_EDIT:
            return ("resume", self.job)
        if self.file is None:  # a job made in Python
            return ()
        rehearsal = ("--provider", self.provider) if self.job.endswith(f".{self.provider}") else ()
        return ("run", self.file, *rehearsal)


def read_causes(folder: Path, names: Collection[str]) -> list[Cause]:
    """Group what failed or came back partial of these jobs, the most frequent first. Raises LedgerError."""
    connection = open_for_reading(folder)
    if connection is None:
        return []
    with contextlib.closing(connection), named_errors(folder / FILE_NAME):
        return _causes(connection, json.dumps(list(names)))


def _causes(connection: sqlite3.Connection, names: str) -> list[Cause]:
    # With min(), SQLite takes the other columns from the row that has it: the first request of the job file.
    rows = connection.execute(
        "SELECT j.name, j.file, j.provider, json_extract(r.error, '$.kind') AS kind, json_extract(r.error, '$.code')"
        " AS code, json_extract(r.error, '$.http_status') AS http_status, count(*) AS number, r.id,"
        " json_extract(r.error, '$.message') AS message, min(r.position)"
        " FROM request r JOIN job j ON j.pk = r.job WHERE r.stated = j.revision AND r.status IN ('failed', 'partial')"
        " AND j.name IN (SELECT value FROM json_each(?)) GROUP BY j.pk, kind, code, http_status"
        " ORDER BY number DESC, j.pk, min(r.position)",
        (names,),
    )
    return [
        Cause(
            job=row["name"],
            file=row["file"],
            provider=row["provider"],
            kind=kind_of(dict(row)),
            code=row["code"],
            http_status=row["http_status"],
            count=row["number"],
            id=row["id"],
            message=row["message"] or "no reason was written down",
        )
        for row in rows
    ]


def causes_json(causes: Sequence[Cause]) -> list[dict[str, object]]:
    """Give the causes as `run --json` shows them in its summary."""
    return [
        {
            "job": cause.job,
            "kind": cause.kind,
            "code": cause.code,
            "http_status": cause.http_status,
            "count": cause.count,
            "example": {"id": cause.id, "message": cause.message},
            "advice": cause.advice,
        }
        for cause in causes
    ]
