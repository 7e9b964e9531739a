"""The ledger → `manifest.jsonl`: one object a request, in the order of the job file, for people and their scripts.

It is written whole or not at all, and never read back.
"""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.storage import disk_error, make_folder, whole_file

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Generator
    from pathlib import Path

FILE_NAME = "manifest.jsonl"


def write_manifest(connection: sqlite3.Connection, name: str, folder: Path) -> Path:
    """Write the manifest of a job into its folder below `folder`; give its path. Raises DiskFull."""
    path = folder / name / FILE_NAME
    try:
        make_folder(path.parent)
        with whole_file(path) as file, contextlib.closing(entries(connection, name)) as found:
            for entry in found:
                file.write(json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    except OSError as reason:
        raise disk_error(reason, folder) from None
    return path


def entries(connection: sqlite3.Connection, name: str) -> Generator[dict[str, Any]]:
    """Yield a job's requests as the manifest shows them: what the job file states, in its order, then the others."""
    connection.execute("BEGIN")  # one moment of the ledger, even beside a working run
    try:
        rows = connection.execute(
            "SELECT r.*, j.name AS job_name, j.provider, j.rehearsal, r.stated < j.revision AS superseded"
            " FROM request r JOIN job j ON j.pk = r.job WHERE j.name = ? AND r.stated <= j.revision"
            " ORDER BY superseded, CASE WHEN r.stated < j.revision THEN r.pk ELSE r.position END",
            (name,),
        )
        for row in rows:
            yield _entry(connection, row)
    finally:
        connection.execute("COMMIT")


def _entry(connection: sqlite3.Connection, row: sqlite3.Row) -> dict[str, Any]:
    last = connection.execute(
        "SELECT request_id, usage, settings FROM attempt WHERE request = ? AND outcome != 'not_sent' ORDER BY pk DESC",
        (row["pk"],),
    ).fetchall()
    return {
        "id": row["id"],
        "key": row["key"],
        "job": row["job_name"],
        "operation": row["operation"],
        "provider": row["provider"],
        "endpoint": row["endpoint"],
        "served_by": f"images/{row['served_by']}s",
        "prompt": row["prompt"],
        "params": show_params(row),
        "variables": json.loads(row["variables"]),
        "inputs": [
            {field: one[field] for field in ("role", "source", "file", "sha256")} for one in json.loads(row["inputs"])
        ],
        "status": "superseded" if row["superseded"] else row["status"],
        "attempts": row["attempts"],
        "maybe_paid": row["maybe_paid"],
        "error": None if row["error"] is None or row["status"] == "succeeded" else _error(row["error"]),
        "images": _images(connection, row["pk"]),
        "usage": _sum([json.loads(attempt["usage"]) for attempt in last if attempt["usage"] is not None]),
        "cost_usd": None if row["cost_usd"] is None else round(row["cost_usd"], 6),
        "settings": next((json.loads(attempt["settings"]) for attempt in last if attempt["settings"]), {}),
        "rehearsal": bool(row["rehearsal"]),
        "request_id": next((attempt["request_id"] for attempt in last if attempt["request_id"] is not None), None),
        "created_at": _time(row["created_at"]),
        "finished_at": _time(row["finished_at"]),
    }


def _error(written: str) -> dict[str, Any]:
    """Show an error in the four fields that scripts know; its class is for our own summary."""
    error = json.loads(written)
    return {name: error.get(name) for name in ("http_status", "type", "code", "message")}


def show_params(row: sqlite3.Row) -> dict[str, Any]:
    """Give a request's parameters as people read them: the model and n first."""
    params = json.loads(row["params"])
    model = {"model": params.pop("model")} if "model" in params else {}
    return {**model, "n": row["n"], **params}


def _images(connection: sqlite3.Connection, request: int) -> list[dict[str, Any]]:
    fields = "file, sha256, bytes, width, height, format, revised_prompt"
    rows = connection.execute(
        f"SELECT {fields} FROM image WHERE request = ? AND state = 'stored' ORDER BY number", (request,)
    )
    return [dict(row) for row in rows]


def _sum(usages: list[Any]) -> Any:
    """Add up the usage of a request's answers; the numbers of nested details too."""
    if len(usages) < 2:
        return usages[0] if usages else None
    total: dict[str, Any] = {}
    for usage in usages:
        for key, value in usage.items():
            if isinstance(value, dict):
                total[key] = _sum([total[key], value]) if isinstance(total.get(key), dict) else value
            elif isinstance(value, int | float) and isinstance(total.get(key, 0), int | float):
                total[key] = total.get(key, 0) + value
            else:
                total.setdefault(key, value)
    return total


def _time(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
