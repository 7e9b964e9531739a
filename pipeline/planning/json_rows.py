"""Read JSON lines: one object a line, with its mistakes, from a file or from standard input."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

from pipeline.errors import JobError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

STDIN = "-"
"""The `rows:` of an entry whose rows are JSON lines on standard input."""

STDIN_NAME = "standard input"

STDIN_TWICE = "reads standard input, as another entry does, and only one can: save the lines as a .jsonl file"

MAX_LINE = 50_000_000
"""Maximum length of a line, in characters."""

TOO_LONG = "is longer than {:,} characters; a row belongs on a line of its own"

_PIPE = "pipe JSON lines into the command, as in `cat prompts.jsonl | pipeline plan job.yaml`"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class InvalidLine(ValueError):
    """A line that is not one JSON object; the message is for the person who wrote it."""


def parse_object(line: str) -> dict[str, Any]:
    """Parse one line. Raises InvalidLine."""
    try:
        value = _DECODER.decode(line)
    except InvalidLine:
        raise
    except json.JSONDecodeError as reason:
        raise InvalidLine(f"is not JSON: {reason.msg}, at column {reason.colno}") from None
    except (ValueError, RecursionError) as reason:
        raise InvalidLine(f"is not JSON: {reason}") from None
    if not isinstance(value, dict):
        raise InvalidLine('must be one object, like {"prompt": "a cat"}')
    if _SURROGATE.search(line):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InvalidLine("holds half a character (a lone surrogate); correct its encoding") from None
    return value


def read_stdin(location: str) -> Iterator[str]:
    """Yield the lines of standard input, which the job names at `location`.

    Raises JobError if it is a terminal or closed, and for a line that is too long or not UTF-8.
    """
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        what = "is a terminal" if sys.stdin is not None and not sys.stdin.closed else "is closed"
        raise JobError([Problem(location, f"{STDIN_NAME} {what}; {_PIPE}")])
    for _, line in decoded_lines(sys.stdin.buffer, STDIN_NAME, MAX_LINE):
        yield line


def decoded_lines(file: BinaryIO, name: str, longest: int) -> Iterator[tuple[int, str]]:
    """Yield each line of a file called `name` with its number. Raises JobError for a line too long, or not UTF-8."""
    number = 0
    while raw := file.readline(longest):
        number += 1
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as reason:
            message = f"is not UTF-8 ({reason.reason} at byte {reason.start} of the line)"
            raise JobError([Problem(f"{name}, line {number}", message)]) from None
        if len(raw) == longest:
            raise JobError([Problem(f"{name}, line {number}", TOO_LONG.format(longest))])
        yield number, text


def no_rows(name: str) -> str:
    """Return the message for a source without rows."""
    return f"{name} has no rows" + (f"; {_PIPE}" if name == STDIN_NAME else "")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = {sys.intern(name): item for name, item in pairs}  # a hundred thousand rows have the same names
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise InvalidLine(f"has `{duplicate}` twice")
    return value


def _finite(text: str) -> float:
    if abs(number := float(text)) == float("inf"):
        raise InvalidLine(f"holds {text:.40}, a number that is too large")
    return number


def _no_constant(word: str) -> Any:
    raise InvalidLine(f"holds {word}, which is not a JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_no_constant)
