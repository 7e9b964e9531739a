"""How jobs are served, as the ledger remembers it: written when a job is submitted, changed by options of a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import JobError, Problem
from pipeline.ledger.database import transaction
from pipeline.models.batch_eligibility import batch_fault
from pipeline.planning.mode import ModeOptions, deadline_fault, no_batch_api

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterator, Mapping

    from pipeline.config.provider import Provider
    from pipeline.models.table import Models
    from pipeline.planning.mode_names import Mode

_UNFINISHED, _ENDED = ("pending", "running"), ("failed", "partial", "cancelled")


def write_mode(connection: sqlite3.Connection, job_pk: int, mode: Mode, deadline: float | None) -> None:
    """Write how a job is served. Another mode, or another deadline, ends its switch to realtime."""
    connection.execute(
        "UPDATE job SET mode = ?1, deadline = ?2,"
        " realtime_since = CASE WHEN mode = ?1 AND deadline IS ?2 THEN realtime_since END WHERE pk = ?3",
        (mode, deadline, job_pk),
    )


def unfinished_jobs(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the jobs that have requests to work on."""
    rows = connection.execute(
        "SELECT j.name FROM job j WHERE EXISTS (SELECT 1 FROM request r WHERE r.job = j.pk AND r.stated = j.revision"
        " AND r.status IN ('pending', 'running')) ORDER BY j.pk"
    )
    return [row[0] for row in rows]


@dataclass(frozen=True, slots=True)
class ModeChange:
    """A change of how jobs are served, checked before anything is changed. Without a mode, each keeps its own."""

    names: tuple[str, ...] = ()
    options: ModeOptions = ModeOptions()

    def check(
        self,
        connection: sqlite3.Connection,
        providers: Mapping[str, Provider],
        models: Models,
        *,
        is_put_back: bool,
    ) -> None:
        """Raise JobError with every job whose mode takes no deadline, or whose requests cannot go by batch.

        Those that have ended are to be worked on if they are put back.
        """
        statuses = (*_UNFINISHED, *_ENDED) if is_put_back else _UNFINISHED
        problems: list[Problem] = []
        for job in self._jobs(connection):
            mode = self.options.mode or job["mode"]
            if self.options.deadline is not None and mode != "auto":
                problems.append(Problem(f"job `{job['name']}`", deadline_fault(mode)))
            if self.options.mode == "batch" and (provider := providers.get(job["provider"])) is not None:
                problems += _batch_problems(connection, job, provider, models, statuses)
        if problems:
            raise JobError(problems)

    def apply(self, connection: sqlite3.Connection) -> None:
        """Write the change. A job that is in mode auto and stays in it keeps its deadline, unless another is given."""
        with transaction(connection):
            for job in self._jobs(connection):
                mode = self.options.mode or job["mode"]
                kept = job["deadline"] if mode == "auto" else None
                given = self.options.deadline
                write_mode(connection, job["pk"], mode, kept if given is None else given)

    def _jobs(self, connection: sqlite3.Connection) -> list[sqlite3.Row]:
        return connection.execute(
            "SELECT * FROM job WHERE name IN (SELECT value FROM json_each(?)) ORDER BY pk", (json.dumps(self.names),)
        ).fetchall()


def _batch_problems(
    connection: sqlite3.Connection, job: sqlite3.Row, provider: Provider, models: Models, statuses: Collection[str]
) -> Iterator[Problem]:
    """Yield why a job cannot go by batch: its provider, else each kind of request that cannot, with the first id."""
    name = f"job `{job['name']}`"
    if provider.batch is None:
        yield Problem(name, no_batch_api(provider.name))
        return
    rows = connection.execute(
        "SELECT json_extract(params, '$.model') AS model, served_by, id, min(position), count(*) AS requests"
        " FROM request WHERE job = ? AND stated = ? AND status IN (SELECT value FROM json_each(?))"
        " GROUP BY 1, 2 ORDER BY 4",
        (job["pk"], job["revision"], json.dumps(list(statuses))),
    )
    for row in rows:
        if fault := batch_fault(row["model"], models.find(row["model"]), row["served_by"], provider.batch):
            message = f"{fault}; use --mode auto, which makes it in realtime"
            yield Problem(f"{name}, request `{row['id']}`", message, row["requests"])
