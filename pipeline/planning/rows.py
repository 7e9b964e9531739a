"""Read the variables of requests from files of rows and from standard input, one mapping a row."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import os
import re
from typing import TYPE_CHECKING, Any

from pipeline.config.yaml_document import MAX_BYTES
from pipeline.errors import JobError, Problem
from pipeline.ordinary_file import open_ordinary
from pipeline.planning.json_rows import (
    MAX_LINE,
    STDIN_NAME,
    TOO_LONG,
    InvalidLine,
    no_rows,
    parse_object,
    read_stdin,
)
from pipeline.planning.paths import missing_hint, nearest_file_hint
from pipeline.planning.table_format import (
    NO_SEPARATOR,
    SAVE_AS,
    SEPARATORS,
    encoding_of,
    find_separator,
    find_tab_quotes,
    find_undecodable,
    most_frequent_separator,
    not_text,
    sep_line,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO, TextIO

    Warn = Callable[[int, str], None]
    """Takes the number of a line, and the message about it."""

MAX_ROWS_BYTES = 4 * 2**30
"""Maximum size of a rows file; it is read row by row."""

Variables = dict[str, Any]
"""The variables of one request; values of a text file are text, those of JSON and Parquet keep their type."""

Row = tuple[int, Variables | str]
"""A row's line number, and its variables or what is wrong with it."""

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".txt")
_SPREADSHEETS = frozenset({".xlsx", ".xlsm", ".xls", ".ods", ".numbers"})

_NO_COMMENT = (
    "begins like a comment, and is sent as a prompt: no line of a .txt file is a comment; delete it if it is not meant "
    "so (a .csv or .tsv file may have a column for notes)"
)
_ONE_COLUMN = "is the name of one column: `|` separates cells only after a first line `sep=|`"
_BETWEEN_CELLS = ",;\t\r\n "
_ONE_CELL = "is one cell with its commas: the header has one column"
_EXCEL_QUOTES = 'a quoted cell is read as Excel writes it: without the quotes around it, and "" as "'
_KEPT_QUOTES = "a cell keeps the quotes around it: in .tsv nothing is quoted; take them away, or save the table as .csv"
_QUOTED_CELL = re.compile(r'\s*"(?:[^"]|"")+"\s*')


class _BoundedLines(io.TextIOWrapper):
    """The text of a rows file, whose lines are limited, since one is read whole."""

    def __init__(self, binary: BinaryIO, name: str, encoding: str = "utf-8-sig") -> None:
        super().__init__(binary, encoding=encoding, newline="")
        self._file_name = name

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]  # a generator is faster than __next__
        number = 0
        while line := self.readline(MAX_LINE):
            number += 1
            if len(line) == MAX_LINE:
                raise JobError([Problem(f"{self._file_name}, line {number}", TOO_LONG.format(MAX_LINE))])
            yield line


def read_rows(path: Path, location: str, name: str, warn: Warn = lambda _line, _message: None) -> Iterator[Row]:
    """Yield each row of the file called `name`, which the job names at `location`.

    Blank lines, and rows that hold nothing but separators and spaces, are skipped; a BOM is dropped; columns without
    a name are left out. An empty cell is an empty text. The text of a cell is not changed, except for its quotes.
    `warn` is called for each line that is read otherwise than it is written, or that looks like something else.
    Raises JobError if the file as a whole cannot be read, has no rows or no usable header.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        hint = f"; {SAVE_AS}" if suffix in _SPREADSHEETS else ""
        message = f"`{name:.80}` is not a rows file; its name must end in {', '.join(SUFFIXES)}{hint}"
        raise JobError([Problem(location, message)])
    try:
        with open_ordinary(path) as binary:
            if (size := os.fstat(binary.fileno()).st_size) > MAX_ROWS_BYTES:
                message = f"{name} has {size / 2**30:,.1f} GB, more than {MAX_ROWS_BYTES // 2**30}; split it"
                raise JobError([Problem(location, message)])
            if suffix == ".parquet":
                from pipeline.planning.parquet_rows import read_parquet

                rows = read_parquet(binary, location, name, warn)
            else:
                rows = _text_rows(binary, suffix, name, warn)
            yield from _at_least_one(rows, location, name)
    except UnicodeDecodeError:
        raise JobError([_not_text(path, name)]) from None
    except (OSError, ValueError) as reason:  # ValueError: a name with a zero byte
        is_missing = isinstance(reason, FileNotFoundError)
        hint = (missing_hint(name) or nearest_file_hint(path, name)) if is_missing else ""
        message = f"{name} cannot be read: {getattr(reason, 'strerror', None) or reason}{hint}"
        raise JobError([Problem(location, message)]) from None


def read_stdin_rows(location: str, warn: Warn = lambda _line, _message: None) -> Iterator[Row]:
    """Yield each row of standard input, which has JSON lines. Raises JobError if there are none."""
    yield from _at_least_one(_read_jsonl(read_stdin(location), STDIN_NAME, warn), location, STDIN_NAME)


def _at_least_one(rows: Iterator[Row], location: str, name: str) -> Iterator[Row]:
    first = next(rows, None)
    if first is None:
        raise JobError([Problem(location, no_rows(name))])
    yield first
    yield from rows


def _text_rows(binary: BinaryIO, suffix: str, name: str, warn: Warn) -> Iterator[Row]:
    """Yield the rows of a file of text. Raises JobError for what is no text."""
    head = binary.read(4096)
    if what := not_text(head):
        raise JobError([Problem(f"{name}, line 1", f"{what}; {SAVE_AS}")])
    binary.seek(0)
    with _BoundedLines(binary, name, encoding_of(head)) as file:
        yield from _READERS[suffix](file, name, warn)


def _read_txt(file: TextIO, _name: str, warn: Warn) -> Iterator[Row]:
    is_first = True
    for number, line in _lines(file, warn):
        text = line.strip()
        if text.startswith(("#", "//")):
            warn(number, _NO_COMMENT)
        elif is_first and text.lower() == "prompt":
            warn(number, "is sent as a prompt: a .txt file has no header; delete the line, or name the file .csv")
        elif is_first and "\t" in text:
            warn(number, "holds tabs, and is one prompt: name the file .tsv to have columns, with a header")
        elif _QUOTED_CELL.fullmatch(text):
            warn(number, "keeps its quotes: a .txt file is sent as it stands; take them away, or name the file .csv")
        is_first = False
        yield number, {"prompt": line}


def _read_tsv(file: TextIO, name: str, warn: Warn) -> Iterator[Row]:
    quotes = find_tab_quotes(file)
    file.seek(0)
    if quotes.is_excel:
        for number in quotes.lines:
            warn(number, _EXCEL_QUOTES)
        yield from _read_table(file, name, warn, "\t")
        return
    lines = _lines(file, warn)
    first = next(lines, None)
    if first is not None and sep_line(first[1]) == "\t":
        first = next(lines, None)
    if first is None:
        return
    with contextlib.suppress(ValueError):
        if (separator := find_separator(first[1], "\t")) != "\t":
            message = f"is separated by {SEPARATORS[separator]}, not by tabs: name the file .csv"
            raise JobError([Problem(f"{name}, line {first[0]}", message)])
    header = _header(first[1].split("\t"), name, first[0])
    for number, line in lines:
        cells = line.split("\t")
        row = _row(header, cells)
        if any(map(_QUOTED_CELL.fullmatch, cells)):
            warn(number, _KEPT_QUOTES)
        if isinstance(row, str) and any(cell.startswith('"') or cell.endswith('"') for cell in cells):
            row += "; a quoted cell with tabs or line breaks belongs in a .csv file"
        yield number, row


def _read_csv(file: TextIO, name: str, warn: Warn) -> Iterator[Row]:
    yield from _read_table(file, name, warn, None)


def _read_table(file: TextIO, name: str, warn: Warn, separator: str | None) -> Iterator[Row]:
    """Yield the rows of a table with quoted cells; without `separator`, its header decides what separates them."""
    lines = iter(file)
    skipped, first = next(((number, line) for number, line in enumerate(lines) if _has_content(line)), (0, ""))
    if stated := sep_line(first):
        separator, skipped, first = stated, skipped + 1, ""
    elif separator is None:
        separator = most_frequent_separator(first)
        if separator == NO_SEPARATOR:
            lines = _one_cell_lines(lines, skipped + 2, warn)
            if "|" in first:
                warn(skipped + 1, _ONE_COLUMN)
        elif separator != ",":
            warn(skipped + 1, f"the cells are separated by {SEPARATORS[separator]}, not by `,`, and are read so")
    reader = csv.reader(itertools.chain([first] if first else [], lines), delimiter=separator, strict=True)
    header: list[str] | None = None
    before = skipped
    try:
        while (cells := _next_cells(reader)) is not None:
            number, before = before + 1, skipped + reader.line_num
            if not any(map(str.strip, cells)):
                continue
            if header is None:
                header = _header(cells, name, number)
                continue
            row = _row(header, cells)
            if isinstance(row, str) and separator == NO_SEPARATOR:
                row = f"`{header[0]:.60}` holds a control character, U+0000: delete it"
            elif isinstance(row, str) and len(cells) > len(header):
                row += f"; a cell that holds {SEPARATORS.get(separator, separator)} needs quotes"
            yield number, row
    except csv.Error as reason:
        what = "a quote is opened here and never closed" if str(reason) == "unexpected end of data" else reason
        raise JobError([Problem(f"{name}, line {before + 1}", f"is not CSV: {what}")]) from None


def _one_cell_lines(lines: Iterable[str], number: int, warn: Warn) -> Iterator[str]:
    """Yield the lines of a table of one column, the first of which has a number; warn of commas outside quotes.

    A line of separators alone is an empty one, as Excel writes it.
    """
    is_open = False
    for line in lines:
        is_empty = not is_open and not line.strip(_BETWEEN_CELLS)
        if not is_open and not is_empty and "," in line and not line.lstrip().startswith('"'):
            warn(number, _ONE_CELL)
        is_open ^= bool(line.count('"') % 2)
        number += 1
        yield "\n" if is_empty else line


def _next_cells(reader: Iterator[list[str]]) -> list[str] | None:
    """Return the next row, of which a cell may be as large as a file of YAML; the limit of other readers stays."""
    limit = csv.field_size_limit(MAX_BYTES)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(limit)


def _has_content(line: str) -> bool:
    return bool(line.strip(' \t\r\n\f\v",;|'))


def _read_jsonl(file: Iterable[str], _name: str, warn: Warn) -> Iterator[Row]:
    for number, line in _lines(file, warn):
        try:
            yield number, parse_object(line)
        except InvalidLine as reason:
            yield number, str(reason)


_READERS = {".txt": _read_txt, ".tsv": _read_tsv, ".csv": _read_csv, ".jsonl": _read_jsonl}


def _lines(file: Iterable[str], warn: Warn) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, without their line ends: LF, CRLF, or CR alone as on old Macs."""
    is_mixed = False
    lone: list[int] = []
    for number, raw in enumerate(file, 1):
        line = raw.removesuffix("\n").removesuffix("\r")
        if raw == "\r\n" and lone and lone[-1] == number - 1:  # CR CR LF is one line end, made on Windows
            lone.pop()
        elif line.strip() and raw.endswith("\r"):
            lone.append(number)
        is_mixed = is_mixed or raw.endswith("\n")
        if line.strip():
            yield number, line
    for number in lone if is_mixed else ():
        warn(number, "ends in a CR alone, unlike other lines, and is read as a line of its own")


def _header(cells: list[str], name: str, number: int) -> list[str]:
    """Return the names of the columns, empty for one without a name."""
    header = [cell.strip() for cell in cells]
    for cell in header:
        if cell and header.count(cell) > 1:
            raise JobError([Problem(f"{name}, line {number}", f"column `{cell:.60}` is in the header twice")])
    return header


def _row(header: list[str], cells: list[str]) -> Variables | str:
    """Return the cells of the columns that have a name; cells beyond the header may be there if they are empty."""
    missing, surplus = header[len(cells) :], cells[len(header) :]
    if any(missing) or any(map(str.strip, surplus)):
        count = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
        return f"has {count}, but the header has {len(header)}"
    return {name: cell for name, cell in zip(header, cells, strict=False) if name}


def _not_text(path: Path, name: str) -> Problem:
    with path.open("rb") as file:
        line, message = find_undecodable(file)
    return Problem(f"{name}, line {line}", message)
