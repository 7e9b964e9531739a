"""Resolve backslashes in the paths of a job, and describe paths that cannot name a file of this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pipeline.config.yaml_document import nearest

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_CONTROL = re.compile(r"[\x00-\x1f]")


def with_slashes(path: str, folder: Path) -> str:
    """Return a path with slashes for backslashes, if nothing has the name as it stands and something has that one."""
    if "\\" not in path or os.sep == "\\":
        return path
    changed = path.replace("\\", "/")
    return changed if not _exists(folder / path) and _exists(folder / changed) else path


def not_a_path(path: str) -> str | None:
    """Return what to do about a text that names no file of this machine, None for any other."""
    if not path.strip():
        return "is empty: write the name of a file"
    if path[:5].lower() == "data:":
        return "is an image in text: save it as a file, and write its name"
    if path[:7].lower() == "file://":
        return "is a URL: write the path alone, without `file://`"
    return "is a URL: download it first, and write the file's name" if _URL.match(path) else None


def missing_hint(path: str) -> str:
    """Return what may be wrong with a path that does not exist, for the end of a message; empty if nothing shows."""
    if path.startswith("~"):
        return "; `~` is not replaced here: write the whole path"
    if "*" in path:
        return "; `*` is not expanded here: name each file, in a list or as rows"
    if _CONTROL.search(path):
        return "; it holds a tab or a line break: in double quotes YAML reads `\\t` and `\\n` so; write slashes"
    if os.sep == "\\" or not ("\\" in path or _DRIVE.match(path)):
        return ""
    if _DRIVE.match(path):
        return "; it is a path of Windows: write it as it is on this machine, with slashes"
    return f"; its backslashes are no folders here: write `{path.replace(chr(92), '/')}`"


def nearest_file_hint(path: Path, name: str) -> str:
    """Return which file of the same folder may be meant by a missing one, called `name`, for the end of a message."""
    try:
        close = nearest(path.name, [file.name for file in path.parent.iterdir()])
    except OSError:
        return ""
    return f"; did you mean `{Path(name).with_name(close)}`?" if close else ""


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
