"""Writes one file with a row for each image: parquet, with the images in it if asked for, or csv for a spreadsheet."""

from __future__ import annotations

import codecs
import csv
from typing import TYPE_CHECKING, Any

from pipeline.exports.rows import COLUMNS, json_bytes, plain_name, reference, row
from pipeline.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

    from pipeline.exports.listing import Listing
    from pipeline.exports.originals import Originals

_RUN = (
    *("=", "+", "-", "@", "\t", "\r", "\n", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}"),
    *("\N{FULLWIDTH HYPHEN-MINUS}", "\N{FULLWIDTH COMMERCIAL AT}"),
)
"""How a cell begins that a spreadsheet takes for a formula, or may after it has removed such signs."""

_GROUP_ROWS, _GROUP_BYTES = 5_000, 2**24
"""Rows and bytes of one row group, at most: they are in memory until it is written."""


def write_csv(target: Path, listing: Listing, originals: Originals, folder: Path) -> None:
    """Write a csv file in UTF-8; paths are relative to `folder`, in which it will be. Raises OSError."""
    with whole_file(target) as file:
        writer = csv.writer(codecs.getwriter("utf-8")(file, "replace"))
        columns = _columns(listing)
        writer.writerow(columns)
        for found, _ in _rows(listing, originals, folder):
            writer.writerow([_cell(found.get(name)) for name in columns])


def _cell(value: str | None) -> str:
    """Return a cell that no spreadsheet runs: an apostrophe makes it text."""
    if value is None:
        return ""
    return f"'{value}" if value.startswith(_RUN) or value.lstrip().startswith(_RUN) else value


def write_parquet(target: Path, listing: Listing, originals: Originals, folder: Path, *, embed: bool = False) -> None:
    """Write a parquet file; with `embed` the images are in it, as a column `image` in the form of Hugging Face.

    Without, paths are relative to `folder`, in which it will be. Raises OSError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = _columns(listing)
    schema = _schema(pa, texts, embed=embed)
    packed = {**dict.fromkeys(texts, "zstd"), **dict.fromkeys(("image.bytes", "image.path") if embed else (), "none")}
    how = {"compression": packed, "use_dictionary": False, "write_statistics": texts}  # those of bytes are bytes again
    with whole_file(target) as file, pq.ParquetWriter(file, schema, **how) as writer:
        for rows in _groups(_rows(listing, originals, folder, embed=embed)):
            writer.write_table(pa.Table.from_pylist(rows, schema))


def _schema(pa: Any, columns: list[str], *, embed: bool) -> pa.Schema:
    fields = [pa.field(name, pa.string()) for name in columns]
    if not embed:
        return pa.schema(fields)
    image = pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    features = {name: {"dtype": "string", "_type": "Value"} for name in columns}
    told = {"info": {"features": {"image": {"_type": "Image"}, **features}}}
    return pa.schema([image, *fields], {"huggingface": json_bytes(told)})


def _columns(listing: Listing) -> list[str]:
    return [*COLUMNS, *(["custom_id"] if listing.has("custom_id") else [])]


def _rows(
    listing: Listing, originals: Originals, folder: Path, *, embed: bool = False
) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the row of each image, and about how many bytes it has; images that are not embedded are checked."""
    work = originals.read if embed else originals.check
    for request, image, content in originals.each(listing.iter_images(), work):
        name = plain_name(image) if embed else reference(originals, image, folder)
        variables = json_bytes(request.entry["variables"]).decode()
        found = row(request, image, name, variables)
        if content is not None:
            found["image"] = {"bytes": content, "path": name}
        yield found, sum(len(value) for value in (found["prompt"], variables, content) if value)


def _groups(rows: Iterator[tuple[dict[str, Any], int]]) -> Iterator[list[dict[str, Any]]]:
    """Yield rows in groups that fit the memory."""
    group: list[dict[str, Any]] = []
    size = 0
    for found, length in rows:
        group.append(found)
        size += length
        if len(group) == _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
