"""Read the variables of requests from .csv, .tsv, .jsonl and .txt files and from matrices, one mapping a request."""

from __future__ import annotations

import csv
import itertools
import json
import re
import sys
from typing import TYPE_CHECKING, Any

from pipeline.errors import JobError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

Variables = dict[str, Any]
"""The variables of one request; values of a text file are text, those of JSON keep their type."""

Row = tuple[int, Variables | str]
"""A row's line number, and its variables or what is wrong with it."""

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt")

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class _InvalidRow(ValueError):
    """A line of JSON that is not a row."""


def combinations(matrix: Mapping[str, Sequence[Any]]) -> Iterator[Variables]:
    """Yield every combination of the axes lazily, the last axis fastest."""
    for values in itertools.product(*matrix.values()):
        yield dict(zip(matrix, values, strict=True))


def read_rows(path: Path, location: str, name: str) -> Iterator[Row]:
    """Yield each row of the file called `name`, which the job names at `location`.

    Blank lines are skipped and a BOM is dropped. An empty cell is an empty text. The text of a cell is not changed.
    Raises JobError if the file as a whole cannot be read, has no rows or no usable header.
    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise JobError(
            [Problem(location, f"`{name:.80}` is not a rows file; its name must end in {', '.join(_SUFFIXES)}")]
        )
    try:
        with path.open(encoding="utf-8-sig", newline="" if suffix == ".csv" else "\n") as file:
            rows = _READERS[suffix](file, name)
            first = next(rows, None)
            if first is None:
                raise JobError([Problem(location, f"{name} has no rows")])
            yield from itertools.chain([first], rows)
    except UnicodeDecodeError:
        raise JobError([Problem(*_not_utf8(path, name))]) from None
    except (OSError, ValueError) as reason:  # ValueError: a name with a zero byte
        message = f"{name} cannot be read: {getattr(reason, 'strerror', None) or reason}"
        raise JobError([Problem(location, message)]) from None


def _read_txt(file: Iterator[str], _name: str) -> Iterator[Row]:
    for number, line in _lines(file):
        yield number, {"prompt": line}


def _read_tsv(file: Iterator[str], name: str) -> Iterator[Row]:
    lines = _lines(file)
    first = next(lines, None)
    if first is None:
        return
    header = _header(first[1].split("\t"), name, first[0])
    for number, line in lines:
        yield number, _row(header, line.split("\t"))


def _read_csv(file: Iterator[str], name: str) -> Iterator[Row]:
    reader = csv.reader(file, strict=True)
    header: list[str] | None = None
    number = before = 0
    try:
        for cells in reader:
            number, before = before + 1, reader.line_num
            if not cells or (len(cells) == 1 and not cells[0].strip()):
                continue
            if header is None:
                header = _header(cells, name, number)
            else:
                yield number, _row(header, cells)
    except csv.Error as reason:
        raise JobError([Problem(f"{name}, line {before + 1}", f"is not CSV: {reason}")]) from None


def _read_jsonl(file: Iterator[str], _name: str) -> Iterator[Row]:
    for number, line in _lines(file):
        try:
            yield number, _parse_row(line)
        except (ValueError, RecursionError) as reason:
            yield number, str(reason) if isinstance(reason, _InvalidRow) else f"is not JSON: {reason}"


def _parse_row(line: str) -> Variables:
    value = _DECODER.decode(line)
    if not isinstance(value, dict):
        raise _InvalidRow('must be one object, like {"prompt": "a cat"}')
    if _SURROGATE.search(line):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _InvalidRow("holds half a character (a lone surrogate); correct its encoding") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> Variables:
    value = {sys.intern(name): one for name, one in pairs}  # a hundred thousand rows have the same names
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise _InvalidRow(f"has `{duplicate}` twice")
    return value


def _finite(text: str) -> float:
    if abs(number := float(text)) == float("inf"):
        raise _InvalidRow(f"holds {text:.40}, a number that is too large")
    return number


def _no_constant(word: str) -> Any:
    raise _InvalidRow(f"holds {word}, which is not a JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_no_constant)
_READERS = {".txt": _read_txt, ".tsv": _read_tsv, ".csv": _read_csv, ".jsonl": _read_jsonl}


def _lines(file: Iterator[str]) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, without their line ends."""
    for number, raw in enumerate(file, 1):
        line = raw.removesuffix("\n").removesuffix("\r")
        if line.strip():
            yield number, line


def _header(cells: list[str], name: str, number: int) -> list[str]:
    header = [cell.strip() for cell in cells]
    for cell in header:
        if not cell:
            raise JobError([Problem(f"{name}, line {number}", "a column has no name in the header")])
        if header.count(cell) > 1:
            raise JobError([Problem(f"{name}, line {number}", f"column `{cell:.60}` is in the header twice")])
    return header


def _row(header: list[str], cells: list[str]) -> Variables | str:
    if len(cells) != len(header):
        return f"has {len(cells)} cells, but the header has {len(header)}"
    return dict(zip(header, cells, strict=True))


def _not_utf8(path: Path, name: str) -> tuple[str, str]:
    """Return (location, message) for the first byte that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as reason:
                return f"{name}, line {number}", f"is not UTF-8 ({reason.reason} at byte {reason.start} of the line)"
    return name, "is not UTF-8"
