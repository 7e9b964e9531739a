"""Exports the stored images of a job: checks what is asked for, lists them, and writes them whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import ledger
from pipeline.exports.kinds import ExportOptions, check_kind
from pipeline.exports.listing import make_listing
from pipeline.exports.originals import Originals
from pipeline.exports.picks import read_accepted
from pipeline.exports.staging import check_destination, finish, is_inside, is_left, staged
from pipeline.files import disk_error
from pipeline.ledger.database import file_mode
from pipeline.ledger.submit import known_names
from pipeline.stores import Stores

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.config.load import Config
    from pipeline.exports.listing import Listing


@dataclass(frozen=True, slots=True)
class Export:
    """An export that is whole at `path`, with its number of images and their bytes."""

    job: str
    kind: str
    path: Path | str  # the URL of an object store if sidecars are there
    images: int
    bytes: int


def export_job(
    config: Config,
    name: str,
    kind: str,
    dest: Path | str | None = None,
    options: ExportOptions = ExportOptions(),
    count: Callable[[int, int], object] | None = None,
) -> Export:
    """Export a job; `count` is called with how many images are done, of how many.

    Raises BadInput before anything is written, DamagedImages if images are not as recorded, FolderBusy and DiskFull.
    """
    check_kind(kind, options)
    picks = None if options.picks is None else read_accepted(options.picks)
    with ledger.reading(config.output, name) as connection:
        (job,) = known_names(connection, [name])
        path = Path(dest or config.output / job / f"export-{kind}").absolute()
        if kind != "sidecar" and (options.force or not is_left(path)):
            check_destination(path, config.output, force=options.force)
        listing = make_listing(connection, job, picks, with_failures=kind == "batch")
    stores = Stores.of(config)
    with listing:
        originals = Originals(stores, job, listing.images, count)
        try:
            if kind == "sidecar":
                from pipeline.exports.sidecar import write_sidecars

                write_sidecars(listing, originals, force=options.force, mode=file_mode(config.output))
                place = stores.new.job_folder(job) if stores.remote is None else f"{stores.remote.root}/{job}/images"
                return Export(job, kind, place, listing.images, listing.bytes)
            _write_staged(path, kind, listing, originals, options, config)
        except OSError as reason:
            raise disk_error(reason, path.parent) from None
        return Export(job, kind, path, listing.images, listing.bytes)


def _write_staged(
    path: Path, kind: str, listing: Listing, originals: Originals, options: ExportOptions, config: Config
) -> None:
    fingerprint = f"{kind} {options.link} {options.embed} {options.no_images} {listing.fingerprint}"
    private = is_inside(path, config.output) and file_mode(config.output) & 0o077 == 0
    if not options.force:
        if finish(path, fingerprint):
            return
        check_destination(path, config.output, force=False)
    with staged(path, fingerprint, force=options.force, private=private) as target:
        _write(target, kind, listing, originals, options, path.parent)
        originals.check_none_damaged()


def _write(
    target: Path, kind: str, listing: Listing, originals: Originals, options: ExportOptions, folder: Path
) -> None:
    """Write an export under `target`, which will be moved into `folder`."""
    from pipeline.exports import batch_output, imagefolder, tables, webdataset

    match kind:
        case "imagefolder":
            imagefolder.write_imagefolder(target, listing, originals, link=options.link)
        case "croissant":
            from pipeline.exports.croissant import write_croissant

            imagefolder.write_imagefolder(target, listing, originals, link=options.link)
            originals.check_none_damaged()
            write_croissant(target, listing)
        case "webdataset":
            webdataset.write_webdataset(target, listing, originals)
        case "parquet":
            tables.write_parquet(target, listing, originals, folder, embed=options.embed)
        case "csv":
            tables.write_csv(target, listing, originals, folder)
        case "batch":
            batch_output.write_batch_output(target, listing, originals, no_images=options.no_images)
