"""Detect how a table of rows is written: its encoding, what separates its cells, and whether its quotes are Excel's."""

from __future__ import annotations

import codecs
import csv
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

SAVE_AS = 'save it as "CSV UTF-8" (Excel), or as UTF-8 (an editor)'

SEPARATORS = {",": "`,`", ";": "`;`", "|": "`|`", "\t": "a tab"}
"""What separates cells, and how messages name it."""

NO_SEPARATOR = "\0"
"""What separates the cells of a table of one column, for a reader that must have something."""

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_SIGNATURES = {
    b"\xff\xfe\x00\x00": "is UTF-32",
    b"\x00\x00\xfe\xff": "is UTF-32",
    b"PK\x03\x04": "is an Excel workbook, or another zip file, and not text",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook, and not text",
}
_MAX_HEADER = 100_000  # characters that are looked at; csv's own limit of a cell is 131,072
_SEP_LINE = re.compile(r'"?sep=([^\w"\s]|\t)"?', re.IGNORECASE)
_NAME = re.compile(r"[\w .#/-]*")

_MAX_RECORD = 50_000_000  # characters of a row whose quoted cells span lines; a longer one has a quote that never ends

_CELL = r'(?:"[^"]*+(?:""[^"]*+)*+"|[^"\t]*+)'
_RECORD = re.compile(rf"{_CELL}(?:\t{_CELL})*+")
_QUOTED = re.compile(r'(?:\A|(?<=\t))"([^"]*+(?:""[^"]*+)*+)"')


def not_text(head: bytes) -> str | None:
    """Return what a file is that begins with these bytes, None if it may be UTF-8, or UTF-16 with a BOM."""
    for signature, what in _SIGNATURES.items():
        if head.startswith(signature):
            return what
    if head.startswith(_UTF_16):
        return None
    return "is UTF-16 without a BOM" if head.count(0) * 3 > len(head) else None  # every other byte of Latin text is 0


def encoding_of(head: bytes) -> str:
    """Return the encoding of a text that begins with these bytes: UTF-16 if its BOM says so, else UTF-8."""
    return "utf-16" if head.startswith(_UTF_16) else "utf-8-sig"


def find_undecodable(file: BinaryIO) -> tuple[int, str]:
    """Return the line of the first bytes of a file that are no text in its encoding, and a message."""
    encoding = encoding_of(file.read(4))
    file.seek(0)
    decode = codecs.getincrementaldecoder(encoding)().decode
    number, name = 1, "UTF-16" if encoding == "utf-16" else "UTF-8"
    while line := file.readline(_MAX_RECORD):
        try:
            number += decode(line).count("\n")
        except UnicodeDecodeError as reason:
            number += reason.object[: reason.start].decode(reason.encoding, "ignore").count("\n")
            where = f" at byte {reason.start} of the line" if name == "UTF-8" else ""
            return number, f"is not {name} ({reason.reason}{where}); {SAVE_AS}"
    return number, f"is not {name}, since it ends within a character; {SAVE_AS}"


def sep_line(line: str) -> str | None:
    """Return the separator that Excel's first line `sep=;` states, None for any other line."""
    match = _SEP_LINE.fullmatch(line.rstrip("\r\n"))
    return match[1] if match else None


def most_frequent_separator(header: str) -> str:
    """Return which of comma, semicolon and tab is most frequent in a header outside quotes, `NO_SEPARATOR` if none is.

    A header whose last quote is open goes on in the next line; a comma is assumed then.
    """
    start = header[:_MAX_HEADER]
    outside = "".join(start.split('"')[::2])
    separator = max(",;\t", key=outside.count)
    return separator if separator in outside or start.count('"') % 2 else NO_SEPARATOR


def find_separator(header: str, expected: str) -> str:
    """Return what separates the cells of a header, which is not `expected` if that does not split it and another does.

    Raises ValueError with a sentence if the header could be read in more than one way.
    """
    start = header[:_MAX_HEADER]
    cells = {separator: next(csv.reader([start], delimiter=separator), []) for separator in SEPARATORS}
    others = [separator for separator in SEPARATORS if len(cells[separator]) > 1]
    if len(cells[expected]) > 1 or not others:
        return expected
    if len(others) == 1 and all(map(_NAME.fullmatch, cells[others[0]])):
        return others[0]
    found = " or ".join(SEPARATORS[separator] for separator in others)
    raise ValueError(
        f"looks separated by {found}, not by {SEPARATORS[expected]}: separate the cells by {SEPARATORS[expected]}, "
        f"say what separates them in a first line like `sep={others[0]}`, or put a column's name in quotes"
    )


@dataclass(slots=True)
class TabQuotes:
    """Whether the quotes of a tab-separated file are Excel's, and the lines on which a quoted cell begins a row."""

    is_excel: bool = False
    lines: list[int] = field(default_factory=list)


def find_tab_quotes(lines: Iterable[str]) -> TabQuotes:
    """Read a tab-separated file as Excel writes it, which quotes cells that hold a quote, a comma, a tab or a line end.

    The quotes are Excel's if every quote of the file fits that, and one cell proves it: it holds doubled quotes, a tab
    or a line end; or the header is quoted; or exactly the cells with commas are.
    """
    quotes = TabQuotes()
    is_proved = has_header = has_quoted_comma = has_plain_comma = has_needless = False
    for number, row in _records(lines):
        if '"' in row:
            if not _RECORD.fullmatch(row):
                return TabQuotes()
            cells = _QUOTED.findall(row)
            quotes.lines.append(number)
            is_proved = is_proved or not has_header or any(re.search(r'""|[\t\r\n]', cell) for cell in cells)
            has_quoted_comma = has_quoted_comma or any("," in cell for cell in cells)
            has_needless = has_needless or not all(re.search(r'[",\t\r\n]', cell) for cell in cells)
        has_plain_comma = has_plain_comma or "," in _QUOTED.sub("", row)
        has_header = has_header or bool(row.strip())
    quotes.is_excel = is_proved or (has_quoted_comma and not has_needless and not has_plain_comma)
    return quotes


def _records(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield (number of its first line, text) of each row, of which a quoted cell may span lines."""
    parts: list[str] = []
    is_open, start, length = False, 0, 0
    for number, raw in enumerate(lines, 1):
        is_open ^= bool(raw.count('"') % 2)
        start = start if parts else number
        parts.append(raw)
        length = length + len(raw) if len(parts) > 1 else len(raw)
        if not is_open or length > _MAX_RECORD:
            yield start, "".join(parts).rstrip("\r\n")
            parts.clear()
    if parts:
        yield start, "".join(parts)
