"""Flags of images: blank, a duplicate of an earlier one of the job, of another size or format than was asked for.

A flag refuses nothing: it is shown, and `redo` may choose by it. Blank images and near copies are told by fingerprints,
which are recorded when the thumbnails are made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

from pipeline.ledger.database import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from pipeline.images.fingerprint import Fingerprint

FLAGS = ("blank", "duplicate", "wrong_size", "wrong_format")

_MOST_BITS = 3  # of the difference hash, in which a duplicate may differ
_MOST_COLOUR = 16  # of 255, in which its mean colour may
_BLOCKS = 4  # one more than those bits: two hashes that are near are equal in one of them
_BLOCK_BITS = 32
_ROWS_AT_ONCE = 1000  # of a transaction: some 10 ms
_HASH_DIGITS = _BLOCKS * _BLOCK_BITS // 4
_SIZE = re.compile(r"[1-9][0-9]*x[1-9][0-9]*")


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


def record_fingerprints(connection: sqlite3.Connection, found: Mapping[int, Fingerprint]) -> None:
    """Record fingerprints by the primary keys of their images, in short transactions, since a run may be at work."""
    rows = [(*fingerprint, pk) for pk, fingerprint in found.items()]
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        with transaction(connection):
            connection.executemany(
                "UPDATE image SET difference_hash = ?, is_blank = ? WHERE pk = ?", rows[begin : begin + _ROWS_AT_ONCE]
            )


def _flags(row: _Row, earlier: _EarlierImages) -> ImageFlags:
    duplicate_of = earlier.find_and_add(row) if row.counts and not row.is_blank else None
    marks = (row.is_blank, duplicate_of is not None, _is_wrong_size(row), _is_wrong_format(row))
    return ImageFlags(tuple(compress(FLAGS, marks)), duplicate_of) if any(marks) else NO_FLAGS


def _is_wrong_size(row: _Row) -> bool:
    if not isinstance(row.size, str) or row.width is None or row.height is None:
        return False
    return row.size != f"{row.width}x{row.height}" and _SIZE.fullmatch(row.size) is not None


def _is_wrong_format(row: _Row) -> bool:
    if not isinstance(row.output_format, str) or row.format is None:
        return False
    return row.format != {"jpg": "jpeg"}.get(row.output_format, row.output_format)


class _Hash(NamedTuple):
    """A difference hash, and the first file that has it."""

    bits: int
    colour: bytes
    file: str

    def is_near(self, other: _Hash) -> bool:
        return (self.bits ^ other.bits).bit_count() <= _MOST_BITS and all(
            abs(own - another) <= _MOST_COLOUR for own, another in zip(self.colour, other.colour, strict=True)
        )


class _EarlierImages:
    """The images of a job until now, by their hashes and by parts of their difference hashes."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}  # SHA-256 → the first file
        self._first: dict[str, str] = {}  # difference hash → the first file
        self._groups: dict[tuple[int, int], dict[int, list[_Hash]]] = {}  # by a block, then by the number of set bits

    def find_and_add(self, row: _Row) -> str | None:
        """Return the first file of which an image is a duplicate, and keep the image for later ones."""
        same = self._files.setdefault(row.sha256, row.file)
        found = None if same == row.file else same
        text = row.difference_hash
        if text is None or len(text) < _HASH_DIGITS:
            return found
        if text in self._first:
            return found or self._first[text]
        self._first[text] = row.file
        own = _Hash(int(text[:_HASH_DIGITS], 16), bytes.fromhex(text[_HASH_DIGITS:]), row.file)
        count = own.bits.bit_count()
        groups = [self._groups.setdefault(block, {}) for block in _blocks(own.bits)]
        found = found or _near(own, count, groups)
        for group in groups:
            group.setdefault(count, []).append(own)
        return found


def _near(own: _Hash, count: int, groups: Sequence[Mapping[int, Sequence[_Hash]]]) -> str | None:
    """Return a file whose hash is near; such hashes have about as many set bits, and a block in common."""
    for group in filter(None, groups):
        for near in range(count - _MOST_BITS, count + _MOST_BITS + 1):
            for other in group.get(near, ()):
                if own.is_near(other):
                    return other.file
    return None


def _blocks(bits: int) -> list[tuple[int, int]]:
    """Return the place and the value of each block of a hash."""
    return [(place, bits >> (place * _BLOCK_BITS) & (1 << _BLOCK_BITS) - 1) for place in range(_BLOCKS)]
