"""Writes a job's report with thumbnails and its contact sheet, by command or at the end of a run."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import ledger
from pipeline.errors import ConfigError, DiskFull, PipelineError
from pipeline.files import disk_error
from pipeline.ledger.database import change_counter
from pipeline.ledger.image_flags import images_without_fingerprint, read_flags, record_fingerprints
from pipeline.ledger.queries import read_recorded_images
from pipeline.ledger.submit import known_names
from pipeline.reports.facts import counted
from pipeline.reports.html_report import write_report
from pipeline.reports.manifest import write_manifest
from pipeline.reports.next_command import NextCommand
from pipeline.reports.thumbnails import make_thumbnails
from pipeline.stores import Addresses, Stores

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.config.load import Config
    from pipeline.images.fingerprint import Fingerprint

_COUNT_SECONDS = 0.2  # between two reports of how many thumbnails there are
_MOST_WRITES = 3  # a run that is still at work writes them at its end


@dataclass(slots=True)
class ThumbnailWork:
    """Makes the thumbnails of one job after another, and records the fingerprints of their images.

    `stop` ends it after the images in hand. `count` is called now and then with a job, how many of its missing
    thumbnails were tried, and how many there are. What went wrong, or is left, is in `unwritten`.
    """

    config: Config
    count: Callable[[str, int, int], object] = lambda _job, _tried, _missing: None
    stop: threading.Event = field(default_factory=threading.Event)
    unwritten: list[str] = field(default_factory=list)
    _counted_at: float = 0.0

    def make(self, connection: sqlite3.Connection, name: str) -> None:
        """Make the missing thumbnails of a job; write its manifest and report again if flags are found then.

        Raises DiskFull and LedgerError.
        """
        tried = missing = 0

        def count(*numbers: int) -> None:
            nonlocal tried, missing
            tried, missing = numbers
            if tried == missing or time.monotonic() - self._counted_at >= _COUNT_SECONDS:
                self._counted_at = time.monotonic()
                self.count(name, tried, missing)

        folder, stores = self.config.output, Stores.of(self.config)
        try:
            recorded = read_recorded_images(connection, name)
            unread = images_without_fingerprint(connection, name)
            found = make_thumbnails(folder / name, stores, recorded, set(unread.values()), self.stop, count)
        except OSError as reason:
            raise disk_error(reason, folder) from None
        except ConfigError as error:
            self.unwritten.append(f"thumbnails of `{name}` were not made: {error}")
            return
        if tried < missing:
            left, line = counted(missing - tried, "thumbnail"), NextCommand.here(self.config).line("report", name)
            self.unwritten.append(f"{left} of `{name}` not made yet; to make them, run: {line}")
        if found:
            self._record(connection, name, {pk: found[sha256] for pk, sha256 in unread.items() if sha256 in found})

    def _record(self, connection: sqlite3.Connection, name: str, found: Mapping[int, Fingerprint]) -> None:
        before = read_flags(connection, name)
        with ledger.writing(self.config.output, name, shared=self.config.shared) as writer:
            record_fingerprints(writer, found)
        if read_flags(connection, name) != before:
            self._write_again(connection, name)

    def _write_again(self, connection: sqlite3.Connection, name: str) -> None:
        """Write a job's manifest and report; once more if a run at work, which writes them too, recorded something."""
        for _ in range(_MOST_WRITES):
            counter = change_counter(connection)
            write_manifest(connection, name, self.config.output, Addresses.of(self.config))
            _write(connection, self.config, name)
            if change_counter(connection) == counter:
                break


def write_job_report(
    config: Config, name: str, sheet: Path | str | None = None, work: ThumbnailWork | None = None
) -> list[Path]:
    """Write a job's report, and its contact sheet if `sheet` names one, beside a working run too; return their paths.

    Raises BadInput for an unknown job, and DiskFull.
    """
    if sheet is not None:
        from pipeline.reports.contact_sheet import check_sheet, write_sheet

        sheet = Path(sheet)
        check_sheet(sheet)
    with ledger.reading(config.output, name) as connection:
        (name,) = known_names(connection, [name])
        written = [_write(connection, config, name)]
        (work or ThumbnailWork(config)).make(connection, name)
        if sheet is not None:
            written += write_sheet(connection, name, config.output, Stores.of(config), sheet)
    return written


def _write(connection: sqlite3.Connection, config: Config, name: str) -> Path:
    return write_report(connection, name, config.output, NextCommand.here(config), addresses=Addresses.of(config))


def write_reports(connection: sqlite3.Connection, config: Config, names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Write the reports of a run's jobs, without thumbnails, since a stop must be fast: (paths, what went wrong)."""
    written, unwritten = [], []
    for name in names:
        try:
            written.append(_write(connection, config, name))
        except DiskFull as reason:
            unwritten.append(f"the report of `{name}` was not written: {reason}")
    return written, unwritten


async def make_report_thumbnails(work: ThumbnailWork, reports: Sequence[Path], seconds: float | None = None) -> None:
    """Make the thumbnails of these reports in threads, for at most `seconds` if they are given.

    If one is missing, the page shows the image itself. When cancelled, it ends after the images in hand.
    """
    timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, work.stop.set)
    try:
        for report in reports:
            try:
                await asyncio.to_thread(_make_report_thumbnails, work, report.parent.name)
            except PipelineError as reason:  # the ledger may be gone
                work.unwritten.append(f"the thumbnails of `{report.parent.name}` were not written: {reason}")
    finally:
        work.stop.set()
        if timer is not None:
            timer.cancel()


def _make_report_thumbnails(work: ThumbnailWork, name: str) -> None:
    with ledger.reading(work.config.output, name) as connection:
        work.make(connection, name)
