""".csv .tsv .jsonl .txt and matrices → variables, one mapping a request."""

from __future__ import annotations

import csv
import itertools
import json
from typing import TYPE_CHECKING, Any

from pipeline.errors import JobError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

Variables = dict[str, Any]
"""Names and values that a request's templates may use; those of a text file are text, those of JSON keep their type."""

KINDS = (".csv", ".tsv", ".jsonl", ".txt")


def combinations(matrix: Mapping[str, Sequence[Any]]) -> Iterator[Variables]:
    """Yield every combination of the axes, the last axis fastest."""
    for values in itertools.product(*matrix.values()):
        yield dict(zip(matrix, values, strict=True))


def read_rows(path: Path, name: str) -> Iterator[tuple[int, Variables]]:
    """Yield (line number, variables) for each row of the file called `name` in the job. Raises JobError.

    Blank lines are skipped and a BOM is dropped. An empty cell is an empty text. What stands in a cell stays as it is.
    """
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise JobError([Problem(name, f"`rows` takes a file that ends in {', '.join(KINDS)}")])
    empty = True
    try:
        with path.open(encoding="utf-8-sig", newline="" if kind == ".csv" else "\n") as file:
            for row in _READERS[kind](file, name):
                empty = False
                yield row
    except OSError as reason:
        raise JobError([Problem(name, f"cannot be read: {reason.strerror or reason}")]) from None
    except UnicodeDecodeError as reason:
        raise JobError([Problem(name, f"is not UTF-8 ({reason.reason} at byte {reason.start} of a block)")]) from None
    if empty:
        raise JobError([Problem(name, "has no rows")])


def _text(file: Iterator[str], _name: str) -> Iterator[tuple[int, Variables]]:
    for number, line in _lines(file):
        yield number, {"prompt": line}


def _tabbed(file: Iterator[str], name: str) -> Iterator[tuple[int, Variables]]:
    lines = _lines(file)
    first = next(lines, None)
    if first is None:
        return
    header = _header(first[1].split("\t"), name, first[0])
    for number, line in lines:
        yield number, _row(header, line.split("\t"), name, number)


def _quoted(file: Iterator[str], name: str) -> Iterator[tuple[int, Variables]]:
    reader = csv.reader(file, strict=True)
    try:
        header: list[str] | None = None
        before = 0
        for cells in reader:
            number, before = before + 1, reader.line_num
            if not cells or (len(cells) == 1 and not cells[0].strip()):
                continue
            if header is None:
                header = _header(cells, name, number)
            else:
                yield number, _row(header, cells, name, number)
    except csv.Error as reason:
        raise JobError([Problem(f"{name}, line {reader.line_num}", f"is not CSV: {reason}")]) from None


def _json_lines(file: Iterator[str], name: str) -> Iterator[tuple[int, Variables]]:
    for number, line in _lines(file):
        try:
            value = json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError) as reason:
            raise JobError([Problem(f"{name}, line {number}", f"is not JSON: {reason}")]) from None
        if not isinstance(value, dict):
            raise JobError([Problem(f"{name}, line {number}", 'must be one object, like {"prompt": "a cat"}')])
        yield number, value


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
        if header.count(cell) > 1:
            raise JobError([Problem(f"{name}, line {number}", f"column `{cell}` stands twice in the header")])
    return header


def _row(header: list[str], cells: list[str], name: str, number: int) -> Variables:
    if len(cells) != len(header):
        what = f"has {len(cells)} cells where the header has {len(header)}"
        raise JobError([Problem(f"{name}, line {number}", what)])
    return dict(zip(header, cells, strict=True))


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON value")
