"""Write text from outside so that a terminal or a log shows it and obeys none of it."""

from __future__ import annotations

import json
import re
from typing import Any

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters: C0, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # which turn the direction of the text around them
    "\u2028\u2029\ufeff\ufff9-\ufffb\ud800-\udfff]"  # line ends, marks, and halves of characters
)


def printable(text: object) -> str:
    """Return a text on one line, with every control character as an escape, as in Python.

    A byte of a file name that is not UTF-8 is written as that byte.
    """
    line = str(text)
    return line if line.isprintable() else _UNSAFE.sub(_escape, line)


def printable_lines(text: object) -> str:
    """Do the same for a text of our own of several lines, whose line ends stay."""
    return "\n".join(map(printable, str(text).split("\n")))


def printable_json(value: Any) -> str:
    """Return a value as one line of JSON for a terminal; its unsafe characters are escapes of JSON."""
    line = json.dumps(value, ensure_ascii=False)
    return line if line.isprintable() else _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if found[0] in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[found[0]]
    if 0xDC80 <= code <= 0xDCFF:  # how Python reads a byte that is not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
