"""Writes a job's report with thumbnails and its contact sheet, by command or at the end of a run."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from pipeline import ledger
from pipeline.errors import BadInput, DiskFull
from pipeline.files import disk_error
from pipeline.ledger.queries import read_recorded_images
from pipeline.ledger.submit import known_names
from pipeline.reports.html_report import write_report
from pipeline.reports.next_command import NextCommand
from pipeline.reports.thumbnails import make_thumbnails
from pipeline.storage import ImageStore

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.config.load import Config


def write_job_report(config: Config, name: str, sheet: Path | None = None) -> list[Path]:
    """Write a job's report, and its contact sheet if `sheet` names one, beside a working run too; return their paths.

    Raises BadInput for an unknown job, and DiskFull.
    """
    if sheet is not None:
        from pipeline.reports.contact_sheet import check_sheet, write_sheet

        check_sheet(sheet)
    images = ImageStore(config.images_folder)
    with ledger.reading(config.output, name) as connection:
        (name,) = known_names(connection, [name])
        written = [write_report(connection, name, config.output, NextCommand.here(config))]
        _make_thumbnails(connection, name, config.output, images)
        if sheet is not None:
            written += write_sheet(connection, name, config.output, images, sheet)
    return written


def write_reports(connection: sqlite3.Connection, config: Config, names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Write the reports of a run's jobs, without thumbnails, since a stop must be fast: (paths, what went wrong)."""
    written, unwritten = [], []
    for name in names:
        try:
            written.append(write_report(connection, name, config.output, NextCommand.here(config)))
        except DiskFull as reason:
            unwritten.append(f"the report of `{name}` was not written: {reason}")
    return written, unwritten


async def make_report_thumbnails(
    folder: Path, images: ImageStore, reports: Sequence[Path], seconds: float
) -> list[str]:
    """Make the thumbnails of these reports in threads, as many as `seconds` allow; return what went wrong.

    If one is missing, the page shows the image itself, and `pipeline report` makes it later. When cancelled, it ends
    after the images in hand.
    """
    stop = threading.Event()
    unwritten = []
    timer = asyncio.get_running_loop().call_later(seconds, stop.set)
    try:
        for report in reports:
            try:
                await asyncio.to_thread(_make_report_thumbnails, folder, images, report.parent.name, stop)
            except (BadInput, DiskFull) as reason:  # the ledger may be gone
                unwritten.append(f"the thumbnails of `{report.parent.name}` were not written: {reason}")
    finally:
        stop.set()
        timer.cancel()
    return unwritten


def _make_report_thumbnails(folder: Path, images: ImageStore, name: str, stop: threading.Event) -> None:
    with ledger.reading(folder, name) as connection:
        _make_thumbnails(connection, name, folder, images, stop)


def _make_thumbnails(
    connection: sqlite3.Connection, name: str, folder: Path, images: ImageStore, stop: threading.Event | None = None
) -> None:
    try:
        make_thumbnails(folder / name, images, read_recorded_images(connection, name), stop)
    except OSError as reason:
        raise disk_error(reason, folder) from None
