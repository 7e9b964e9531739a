"""Flags of images: blank, a duplicate of an earlier one of the job, of another size or format than was asked for.

A flag refuses nothing: it is shown, and `redo` may choose by it. Blank images and near copies are told by fingerprints,
which are recorded when the thumbnails are made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pipeline.ledger.database import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping

    from pipeline.images.fingerprint import Fingerprint

FLAGS = ("blank", "duplicate", "wrong_size", "wrong_format")

_MOST_BITS = 3  # of the difference hash, in which a duplicate may differ
_MOST_COLOUR = 16  # of 255, in which its mean colour may
_BLOCKS = 4  # one more than those bits: two hashes that are near are equal in one of them
_BLOCK_BITS = 32
_ROWS_AT_ONCE = 1000  # of a transaction: some 10 ms
_HASH_DIGITS = _BLOCKS * _BLOCK_BITS // 4
_SIZE = re.compile(r"([1-9][0-9]*)x([1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class ImageFlags:
    """The flags of one image, in the order of `FLAGS`, and the file of which it is a duplicate."""

    flags: tuple[str, ...] = ()
    duplicate_of: str | None = None


NO_FLAGS = ImageFlags()


class _Row(NamedTuple):
    file: str
    sha256: str
    difference_hash: str | None
    is_blank: int
    width: int | None
    height: int | None
    format: str | None
    size: object
    output_format: object
    counts: int


def read_flags(connection: sqlite3.Connection, job: str) -> dict[str, ImageFlags]:
    """Return the flags of a job's images that have any, by their files.

    Only what counts is a duplicate, or has one: no superseded request, and no image that another one replaces.
    """
    rows = connection.execute(
        "SELECT i.file, i.sha256, i.difference_hash, i.is_blank, i.width, i.height, i.format,"
        " json_extract(r.params, '$.size'), json_extract(r.params, '$.output_format'),"
        " r.stated = j.revision AND i.redo IS NOT 'replaced'"
        " FROM image i JOIN request r ON r.pk = i.request JOIN job j ON j.pk = i.job"
        " WHERE j.name = ? AND i.state = 'stored' ORDER BY i.pk",
        (job,),
    )
    earlier = _EarlierImages()
    found = {row.file: _flags(row, earlier) for row in map(_Row._make, rows)}
    return {file: flags for file, flags in found.items() if flags.flags}


def images_without_fingerprint(connection: sqlite3.Connection, job: str) -> dict[int, str]:
    """Return the images on disk of a job whose fingerprint is not recorded: their SHA-256 by their primary keys."""
    rows = connection.execute(
        "SELECT i.pk, i.sha256 FROM image i JOIN job j ON j.pk = i.job WHERE j.name = ? AND i.state = 'stored'"
        " AND i.difference_hash IS NULL AND i.format != 'svg'",
        (job,),
    )
    return dict(rows.fetchall())


def record_fingerprints(connection: sqlite3.Connection, job: str, found: Mapping[str, Fingerprint]) -> None:
    """Record fingerprints by the SHA-256 of their images, in short transactions, since a run may be at work."""
    missing = images_without_fingerprint(connection, job).items()
    rows = [(*found[sha256], pk) for pk, sha256 in missing if sha256 in found]
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        with transaction(connection):
            connection.executemany(
                "UPDATE image SET difference_hash = ?, is_blank = ? WHERE pk = ?", rows[begin : begin + _ROWS_AT_ONCE]
            )


def _flags(row: _Row, earlier: _EarlierImages) -> ImageFlags:
    duplicate_of = earlier.find_and_add(row) if row.counts and not row.is_blank else None
    marks = {
        "blank": row.is_blank,
        "duplicate": duplicate_of is not None,
        "wrong_size": _is_wrong_size(row),
        "wrong_format": _is_wrong_format(row),
    }
    return ImageFlags(tuple(name for name in FLAGS if marks[name]), duplicate_of)


def _is_wrong_size(row: _Row) -> bool:
    size = _SIZE.fullmatch(row.size) if isinstance(row.size, str) else None
    return (
        size is not None
        and None not in {row.width, row.height}
        and (row.width, row.height)
        != (
            int(size[1]),
            int(size[2]),
        )
    )


def _is_wrong_format(row: _Row) -> bool:
    if not isinstance(row.output_format, str) or row.format is None:
        return False
    return row.format != {"jpg": "jpeg"}.get(row.output_format, row.output_format)


class _EarlierImages:
    """The images of a job until now, by their hashes and by parts of their difference hashes."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}  # SHA-256 → the first file
        self._first: dict[str, str] = {}  # difference hash → the first file
        self._blocks: dict[tuple[int, int], list[str]] = {}  # place and value of a part → difference hashes

    def find_and_add(self, row: _Row) -> str | None:
        """Return the first file of which an image is a duplicate, and keep the image for later ones."""
        near = [file for file in (self._files.setdefault(row.sha256, row.file),) if file != row.file]
        if row.difference_hash is None or len(row.difference_hash) < _HASH_DIGITS:
            return near[0] if near else None
        near += [self._first[other] for other in self._near(row.difference_hash)]
        if row.difference_hash not in self._first:
            self._first[row.difference_hash] = row.file
            for block in _blocks(row.difference_hash):
                self._blocks.setdefault(block, []).append(row.difference_hash)
        return near[0] if near else None

    def _near(self, wanted: str) -> Iterator[str]:
        if wanted in self._first:
            yield wanted
            return
        for block in _blocks(wanted):
            for other in self._blocks.get(block, ()):
                if _is_near(wanted, other):
                    yield other
                    return


def _blocks(difference_hash: str) -> Iterator[tuple[int, int]]:
    bits = int(difference_hash[:_HASH_DIGITS], 16)
    for place in range(_BLOCKS):
        yield place, bits >> (place * _BLOCK_BITS) & (1 << _BLOCK_BITS) - 1


def _is_near(one: str, other: str) -> bool:
    bits = int(one[:_HASH_DIGITS], 16) ^ int(other[:_HASH_DIGITS], 16)
    if bits.bit_count() > _MOST_BITS:
        return False
    colours = (bytes.fromhex(text[_HASH_DIGITS:]) for text in (one, other))
    return all(abs(a - b) <= _MOST_COLOUR for a, b in zip(*colours, strict=True))
