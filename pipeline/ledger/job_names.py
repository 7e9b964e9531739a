"""Finds a job by its name or by its file, and suggests the closest name for one that does not exist."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import yaml_document
from pipeline.errors import BadInput

if TYPE_CHECKING:
    import sqlite3

_MAX_NAMES = 20  # that a message lists
_SUFFIXES = (".yaml", ".yml", ".jsonl")


def has_jobs(connection: sqlite3.Connection) -> bool:
    """Return whether any job has been submitted."""
    return connection.execute("SELECT 1 FROM job WHERE revision > 0 LIMIT 1").fetchone() is not None


def known_hint(connection: sqlite3.Connection, name: str) -> str:
    """Return the closest name of a job, else the names that there are, for the end of a message."""
    known = read_names(connection)
    if not known:
        return "nothing has been submitted here yet"
    meant = Path(name).stem if name.endswith(_SUFFIXES) else name
    rehearsals = (candidate for candidate in known if candidate.lower().startswith(f"{meant.lower()}."))
    if close := yaml_document.nearest(meant, known) or next(rehearsals, None):
        return f"did you mean `{close}`?"
    more = f" and {len(known) - _MAX_NAMES:,} more" if len(known) > _MAX_NAMES else ""
    return f"known are {', '.join(known[:_MAX_NAMES])}{more}"


def find_job(connection: sqlite3.Connection, given: str, nothing_submitted: str) -> str:
    """Return the name of the job that is called `given`, or whose file it is, as the ledger spells it.

    `nothing_submitted` says which folder was looked at, for a ledger without jobs. Raises BadInput.
    """
    names = read_names(connection)
    if not names:
        raise BadInput(f"there is no job `{given}`: {nothing_submitted}")
    by_name = {name.lower(): name for name in names}
    if found := by_name.get(given.lower()):
        return found
    path = Path(given)
    if not (path.suffix in _SUFFIXES or path.is_file()):
        raise BadInput(f"there is no job `{given}`; {known_hint(connection, given)}")
    claims = read_names(connection, path.absolute())
    if len(claims) == 1:
        return claims[0]
    if not claims and not path.exists():
        raise BadInput(f"there is no job `{given}`, and no such file; {known_hint(connection, given)}")
    stated = _stated_name(path)
    name = by_name.get(stated.lower())
    if name is not None and (not claims or name in claims):
        return name
    if claims:
        raise BadInput(
            f"`{given}` is the file of {', '.join(f'`{claim}`' for claim in claims)}: write one of these names"
        )
    raise BadInput(f"job `{stated}` of {given} has not been submitted; {known_hint(connection, stated)}")


def read_names(connection: sqlite3.Connection, file: Path | None = None) -> list[str]:
    """Return the names of the submitted jobs: of all, or of those that belong to a file."""
    query = "SELECT name FROM job WHERE revision > 0 AND (?1 IS NULL OR file = ?1) ORDER BY name"
    return [row[0] for row in connection.execute(query, (file and str(file),))]


def _stated_name(path: Path) -> str:
    """Return the name that a job file states, else its stem; the rest of the file is not checked."""
    if not path.exists() or path.suffix.lower() == ".jsonl":
        return path.stem
    document = yaml_document.read(path, BadInput)
    name = document.value.get("name") if isinstance(document.value, dict) else None
    return path.stem if name is None else str(document.written.get(("name",), name))
