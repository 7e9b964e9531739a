"""Decides whether a plan may have a job's name, and counts the requests that would leave the job by it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import JobError, Problem
from pipeline.ledger.spooled_images import ledger_id

if TYPE_CHECKING:
    from pipeline.planning.plan import ImageRequest, Plan

MIN_LOSS = 10
"""Requests that a job must lose, besides more than half of what is unfinished, for a submit to be refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job's name as the ledger spells it, the file that it belongs to, and what a plan changes, in requests."""

    name: str
    file: str | None = None
    stated: int = 0  # by the job, as the ledger has it now
    leaving: int = 0  # stated now, and not by the plan
    entering: int = 0  # stated by the plan, and not now
    unfinished: int = 0  # of those stated now
    unfinished_leaving: int = 0
    edited: int = field(default=0, compare=False)  # of those leaving: their id stays, with another request
    remade: tuple[ImageRequest, ...] = field(default=(), compare=False)  # what has such an id, and is to be made
    known: int = field(default=0, compare=False)  # stated by the plan, and in the ledger, now or earlier
    made: int = field(default=0, compare=False)  # of those known: all their images are here
    queued: int = field(default=0, compare=False)  # of those known: to be worked on
    part_of: int | None = field(default=None, compare=False)  # unfinished requests besides a plan that is a part

    @property
    def loses_most(self) -> bool:
        """Whether the list has shrunk so that most of what is unfinished leaves, with nothing in its place."""
        loss = self.unfinished_leaving - self.entering
        return loss >= MIN_LOSS and loss * 2 > self.unfinished

    @property
    def has_replacements(self) -> bool:
        """Whether as many requests enter as leave."""
        return self.entering >= self.leaving

    @property
    def is_same_list(self) -> bool:
        """Whether most of what is stated now stays; for a part of a job, whether most of it is stated now."""
        if self.part_of is not None:
            return self.known > self.entering
        return self.leaving * 2 < self.stated


def check_claim(connection: sqlite3.Connection, plan: Plan, *, allow_shrink: bool = False) -> Claim:
    """Return the plan's claim to the job's name.

    Raises JobError if the name belongs to another file that still exists. Raises it without `allow_shrink`, too, if
    it belongs to one that is gone while its requests are unfinished, unless the plan states mostly the same; and if
    the job would lose most of its queue.
    """
    claim = compare(connection, plan)
    is_moved = False
    if plan.file is not None and claim.file is not None:
        known = Path(claim.file)
        is_moved = not _is_same(plan.file, known) and not _is_of_copied_project(connection, plan.file, known)
    if is_moved and Path(claim.file or "").exists():
        what = f"the name `{claim.name}` belongs to {claim.file}; give this job another name with `name:`"
        raise JobError([Problem(str(plan.file), what)])
    if allow_shrink:
        return claim
    location = str(plan.file or f"job `{claim.name}`")
    numbers = f"{claim.unfinished_leaving:,} of the {claim.unfinished:,} unfinished requests of `{claim.name}`"
    if is_moved and claim.unfinished and not claim.is_same_list:
        what = (
            f"the name `{claim.name}` belongs to {claim.file}, which is not there any more, and {numbers} are not in "
            "this file: give this job another name with `name:`, put that file back, or add --allow-shrink to have "
            "this one in its place"
        )
        raise JobError([Problem(location, what)])
    if claim.loses_most:
        what = (
            f"{numbers} would leave the queue, since only {len(plan.requests):,} are stated now; if that is intended, "
            "add --allow-shrink, else put them back into the list"
        )
        raise JobError([Problem(location, what)])
    return claim


def _is_same(file: Path, other: Path) -> bool:
    """Return whether two paths are of one file: one of them may lead through a link, a mount or `..`."""
    try:
        return file == other or file.samefile(other)
    except OSError:
        return False


def _is_of_copied_project(connection: sqlite3.Connection, file: Path, known: Path) -> bool:
    """Return whether this ledger was copied together with the job file, of which `known` is the original.

    Then the original of the ledger lies to `known` as this one does to the file, and has the same id.
    """
    here = Path(connection.execute("PRAGMA database_list").fetchone()["file"])
    there = Path(os.path.normpath(known.parent / os.path.relpath(here, file.parent)))
    if file.name != known.name or not there.is_file() or there.samefile(here):
        return False
    own = ledger_id(connection)
    return any(_read_id(there, mode) == own for mode in ("immutable=1", "mode=ro"))  # the second while it is new


def _read_id(path: Path, mode: str) -> str | None:
    """Return the id of another ledger, None if it cannot be read in this mode of SQLite."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True)) as other:
            return str(other.execute("SELECT id FROM identity").fetchone()[0])
    except sqlite3.Error:
        return None


def compare(connection: sqlite3.Connection, plan: Plan) -> Claim:
    """Return how a plan differs from what the job of its name states now."""
    job = connection.execute(
        "SELECT pk, name, file, revision FROM job WHERE name = ? AND revision > 0", (plan.name,)
    ).fetchone()
    if job is None:
        return Claim(name=plan.name, entering=len(plan.requests))
    planned = {request.key for request in plan.requests}
    stated = leaving = unfinished = unfinished_leaving = known = made = queued = 0
    left_ids, kept, whole = set(), set(), set()  # ids of what leaves, keys of what stays, and of what is made
    for key, request_id, is_stated, is_unfinished, is_whole in connection.execute(
        "SELECT key, id, stated = ?2, status IN ('pending', 'running'), received >= n FROM request"
        " WHERE job = ?1 AND stated <= ?2",
        (job["pk"], job["revision"]),
    ):
        if key in planned:
            known += 1
            made += is_whole
            queued += is_unfinished and not is_whole
            if is_stated:
                kept.add(key)
            if is_whole:
                whole.add(key)
        else:
            leaving += is_stated
            unfinished_leaving += is_stated and is_unfinished
            if is_stated:
                left_ids.add(request_id.lower())
        stated += is_stated
        unfinished += is_stated and is_unfinished
    entering = len(planned) - (stated - leaving)
    part_of = None
    if plan.is_part:
        leaving, unfinished_leaving, part_of = 0, 0, unfinished_leaving
        left_ids.clear()
    edited = [request for request in plan.requests if request.id.lower() in left_ids and request.key not in kept]
    return Claim(
        name=job["name"],
        file=job["file"],
        stated=stated,
        leaving=leaving,
        entering=entering,
        unfinished=unfinished,
        unfinished_leaving=unfinished_leaving,
        edited=len(edited),
        remade=tuple(request for request in edited if request.key not in whole),
        known=known,
        made=made,
        queued=queued,
        part_of=part_of,
    )
