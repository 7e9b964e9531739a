"""A job of the ledger → its report with thumbnails, and its contact sheet: by command, or at the end of a run."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

from pipeline.errors import BadInput, DiskFull
from pipeline.ledger.database import FILE_NAME, named_errors, open_for_reading
from pipeline.ledger.submit import known_names
from pipeline.reports.html_report import write_report
from pipeline.reports.next_command import commands
from pipeline.reports.thumbnails import make_thumbnails, stored_pictures
from pipeline.storage import disk_error

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pipeline.config.load import Config


def write_job_report(config: Config, name: str, sheet: Path | None = None) -> list[Path]:
    """Write a job's report, and its contact sheet where one is wanted, beside a working run too; give their paths.

    Raises BadInput for an unknown job, and DiskFull.
    """
    if sheet is not None:
        from pipeline.reports.contact_sheet import check_sheet, write_sheet

        check_sheet(sheet)
    with _reading(config.output, name) as connection:
        (name,) = known_names(connection, [name])
        written = [write_report(connection, name, config.output, commands(config))]
        _make_thumbnails(connection, name, config.output)
        if sheet is not None:
            written += write_sheet(connection, name, config.output, sheet)
    return written


def write_reports(connection: sqlite3.Connection, config: Config, names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Write the reports of a run's jobs, without thumbnails yet, since it may be in haste: (paths, what went wrong)."""
    written, unwritten = [], []
    for name in names:
        try:
            written.append(write_report(connection, name, config.output, commands(config)))
        except DiskFull as reason:
            unwritten.append(f"the report of `{name}` was not written: {reason}")
    return written, unwritten


async def make_report_thumbnails(folder: Path, reports: Sequence[Path], seconds: float) -> list[str]:
    """Make the thumbnails that these reports show, in threads, as many as `seconds` allow; give what went wrong.

    Where one is missing the page shows the picture itself, and `pipeline report` makes the rest. When cancelled, it
    ends soon.
    """
    stop = threading.Event()
    unwritten = []
    timer = asyncio.get_running_loop().call_later(seconds, stop.set)
    try:
        for report in reports:
            try:
                await asyncio.to_thread(_make_report_thumbnails, folder, report.parent.name, stop)
            except DiskFull as reason:
                unwritten.append(f"the thumbnails of `{report.parent.name}` were not written: {reason}")
    finally:
        stop.set()
        timer.cancel()
    return unwritten


def _make_report_thumbnails(folder: Path, name: str, stop: threading.Event) -> None:
    with _reading(folder, name) as connection:
        _make_thumbnails(connection, name, folder, stop)


@contextlib.contextmanager
def _reading(folder: Path, name: str) -> Iterator[sqlite3.Connection]:
    connection = open_for_reading(folder)
    if connection is None:
        raise BadInput(f"there is no job `{name}`; nothing has been submitted to {folder} yet")
    with contextlib.closing(connection), named_errors(folder / FILE_NAME):
        yield connection


def _make_thumbnails(
    connection: sqlite3.Connection, name: str, folder: Path, stop: threading.Event | None = None
) -> None:
    try:
        make_thumbnails(folder / name, stored_pictures(connection, name), stop)
    except OSError as reason:
        raise disk_error(reason, folder) from None
