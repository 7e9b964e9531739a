"""Read the rows of a Parquet file, which needs the extra [parquet]."""

from __future__ import annotations

import datetime as dt
import decimal
import math
from typing import TYPE_CHECKING, Any

from pipeline.errors import JobError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

_BATCH = 1024
"""Rows that are in memory as Python values at a time."""

_INSTALL = 'pip install "image-batch-pipeline[parquet]"'


class _NoValue(ValueError):
    """A cell that cannot be a variable."""


def read_parquet(
    file: BinaryIO, location: str, name: str, warn: Callable[[int, str], None]
) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield each row of the file called `name`, numbered from 1. A column of bytes is no variable, and a warning.

    A row that cannot be read is a message.
    Null is an empty text; int, float and bool keep their type, as lists and structs do; dates and times become ISO
    text. Raises JobError if the file is not Parquet, and without the library.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        message = f"{name} needs a library that is not installed: {_INSTALL}"
        raise JobError([Problem(location, message)]) from None
    try:
        table = parquet.ParquetFile(file)
        columns = _columns(table.schema_arrow, name, warn)
        number = 0
        for batch in table.iter_batches(_BATCH, columns=columns):
            cells = [_coarse(column, pa).to_pylist() for column in batch.columns]
            for values in zip(*cells, strict=True):
                number += 1
                yield number, _row(batch.schema.names, values)
    except (pa.ArrowException, OSError) as reason:
        message = f"is not a Parquet file that can be read: {str(reason).splitlines()[0]:.200}"
        raise JobError([Problem(name, message)]) from None


def _columns(schema: Any, name: str, warn: Callable[[int, str], None]) -> list[str]:
    """Return the columns that can be variables."""
    columns = []
    for field in schema:
        if schema.names.count(field.name) > 1:
            raise JobError([Problem(name, f"has the column `{field.name:.60}` twice; rename one of them")])
        if _has_bytes(field.type):
            warn(1, f"column `{field.name:.60}` holds bytes, and is no variable")
        elif field.name.strip():
            columns.append(field.name)
    if not columns:
        raise JobError([Problem(name, "has no column that could be a variable")])
    return columns


def _has_bytes(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _has_bytes(kind.value_type)
    if types.is_nested(kind):
        return any(_has_bytes(kind.field(at).type) for at in range(kind.num_fields))
    return any(
        is_kind(kind)
        for is_kind in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    )


def _coarse(column: Any, pyarrow: Any) -> Any:
    """Return a column whose moments are in microseconds, the finest that Python has."""
    if pyarrow.types.is_timestamp(column.type) and column.type.unit == "ns":
        return column.cast(pyarrow.timestamp("us", column.type.tz), safe=False)
    if pyarrow.types.is_time64(column.type) or pyarrow.types.is_duration(column.type):
        kind = pyarrow.time64 if pyarrow.types.is_time64(column.type) else pyarrow.duration
        return column.cast(kind("us"), safe=False)
    return column


def _row(names: list[str], values: tuple[Any, ...]) -> dict[str, Any] | str:
    row = {}
    for name, value in zip(names, values, strict=True):
        try:
            row[name] = "" if value is None else _plain(value)
        except _NoValue as reason:
            return f"column `{name:.60}` {reason}"
    return row


def _plain(value: Any) -> Any:
    """Return a value as JSON has it. Raises _NoValue."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise _NoValue(f"holds {value}, which is not a number that can be sent")
            return value
        case dt.datetime() | dt.date() | dt.time():
            return value.isoformat()
        case decimal.Decimal() | dt.timedelta():
            return str(value)
        case dict():
            return {str(name): _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            raise _NoValue(f"holds a value of the type {type(value).__name__}, which cannot be a variable")
