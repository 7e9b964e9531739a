""".csv .tsv .jsonl .txt and matrices → variables, one mapping a request."""

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
"""Names and values that a request's templates may use; those of a text file are text, those of JSON keep their type."""

Row = tuple[int, Variables | str]
"""A row's line number, and its variables or what is wrong with it."""

KINDS = (".csv", ".tsv", ".jsonl", ".txt")

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class _NoObject(ValueError):
    """A line that is JSON, and yet no row."""


def combinations(matrix: Mapping[str, Sequence[Any]]) -> Iterator[Variables]:
    """Yield every combination of the axes, the last axis fastest; they are never held all at once."""
    for values in itertools.product(*matrix.values()):
        yield dict(zip(matrix, values, strict=True))


def read_rows(path: Path, where: str, name: str) -> Iterator[Row]:
    """Yield each row of the file called `name`, which the job names at `where`.

    Blank lines are skipped and a BOM is dropped. An empty cell is an empty text. What stands in a cell stays as it is.
    Raises JobError where the file as a whole cannot be read, has no rows or no usable header.
    """
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise JobError(
            [Problem(where, f"`{name:.80}` is no such file; rows stand in one that ends in {', '.join(KINDS)}")]
        )
    try:
        with path.open(encoding="utf-8-sig", newline="" if kind == ".csv" else "\n") as file:
            rows = _READERS[kind](file, name)
            first = next(rows, None)
            if first is None:
                raise JobError([Problem(where, f"{name} has no rows")])
            yield from itertools.chain([first], rows)
    except UnicodeDecodeError:
        raise JobError([Problem(*_not_utf8(path, name))]) from None
    except (OSError, ValueError) as reason:  # ValueError: a name with a zero byte
        what = f"{name} cannot be read: {getattr(reason, 'strerror', None) or reason}"
        raise JobError([Problem(where, what)]) from None


def _text(file: Iterator[str], _name: str) -> Iterator[Row]:
    for number, line in _lines(file):
        yield number, {"prompt": line}


def _tabbed(file: Iterator[str], name: str) -> Iterator[Row]:
    lines = _lines(file)
    first = next(lines, None)
    if first is None:
        return
    header = _header(first[1].split("\t"), name, first[0])
    for number, line in lines:
        yield number, _row(header, line.split("\t"))


def _quoted(file: Iterator[str], name: str) -> Iterator[Row]:
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


def _json_lines(file: Iterator[str], _name: str) -> Iterator[Row]:
    for number, line in _lines(file):
        try:
            yield number, _object(line)
        except (ValueError, RecursionError) as reason:
            yield number, str(reason) if isinstance(reason, _NoObject) else f"is not JSON: {reason}"


def _object(line: str) -> Variables:
    value = _DECODER.decode(line)
    if not isinstance(value, dict):
        raise _NoObject('must be one object, like {"prompt": "a cat"}')
    if _SURROGATE.search(line):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _NoObject("holds half a character (a lone surrogate); mend its encoding") from None
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> Variables:
    value = {sys.intern(name): one for name, one in pairs}  # a hundred thousand rows share their names
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _NoObject(f"has `{twice}` twice")
    return value


def _finite(text: str) -> float:
    if abs(number := float(text)) == float("inf"):
        raise _NoObject(f"holds {text:.40}, which is too large a number")
    return number


def _no_constant(word: str) -> Any:
    raise _NoObject(f"holds {word}, which is no JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=_finite, parse_constant=_no_constant)
_READERS = {".txt": _text, ".tsv": _tabbed, ".csv": _quoted, ".jsonl": _json_lines}


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
            raise JobError([Problem(f"{name}, line {number}", f"column `{cell:.60}` stands twice in the header")])
    return header


def _row(header: list[str], cells: list[str]) -> Variables | str:
    if len(cells) != len(header):
        return f"has {len(cells)} cells where the header has {len(header)}"
    return dict(zip(header, cells, strict=True))


def _not_utf8(path: Path, name: str) -> tuple[str, str]:
    """Find the line with the first byte that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as reason:
                return f"{name}, line {number}", f"is not UTF-8 ({reason.reason} at byte {reason.start} of the line)"
    return name, "is not UTF-8"
