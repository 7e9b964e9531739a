"""Write a job file for images of a folder: an edit for each with a prompt, a variation for each without one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pipeline.errors import BadInput, Problem
from pipeline.planning.identity import UniqueIds
from pipeline.planning.job import find_name_fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Literal

    from pipeline.planning.image_folders import FoundImage

_DEFAULTS = "defaults: {model: gpt-image-2, size: 1024x1024, quality: low}   # parameters of every request"
_AS_THEY_ARE = (".png", ".jpg", ".jpeg", ".webp")
"""What the model of the defaults takes; other formats are converted."""


@dataclass(frozen=True, slots=True)
class WrittenJob:
    """The text of a job file, and how many edits and variations it states; `left_out` are prompts and masks."""

    text: str
    edits: int
    variations: int
    left_out: int


def write_job(
    images: Sequence[FoundImage], folder: Path, file: Path, operation: Literal["edit", "variation"] | None
) -> WrittenJob:
    """Return the job of a folder's images, whose paths are relative to `file`; `operation` is that of all of them.

    Raises BadInput for an edit without a prompt, and for names of files that no job can state.
    """
    chosen = [operation or ("variation" if image.prompt is None and image.mask is None else "edit") for image in images]
    problems = [
        Problem(str(image.path), f"has no prompt: an edit needs one; {_where_prompt(image)}")
        for image, what in zip(images, chosen, strict=True)
        if what == "edit" and image.prompt is None
    ]
    problems += [
        Problem(_printable(image.path), "has a name that is not UTF-8; rename it")
        for image in images
        if not _is_utf8(image.path) or (image.mask is not None and not _is_utf8(image.mask))
    ]
    if problems:
        raise BadInput(problems)
    ids = UniqueIds()
    lines = [*_head(folder, file), "", "requests:"]
    for image, what in zip(images, chosen, strict=True):
        name = os.path.relpath(image.path.with_suffix(""), folder).replace(os.sep, "/")
        lines += _request(image, what, ids.of(name), file)
    variations = chosen.count("variation")
    left_out = sum(
        what == "variation" and (image.prompt is not None or image.mask is not None)
        for image, what in zip(images, chosen, strict=True)
    )
    return WrittenJob("\n".join(lines) + "\n", len(images) - variations, variations, left_out)


def _head(folder: Path, file: Path) -> Iterator[str]:
    yield "# Written by `pipeline import`; add `provider:` and `budget_usd:`, and change what you like."
    name = folder.absolute().name
    if file.stem == "job" and find_name_fault(name) is None:
        yield f"name: {_quoted(name)}"
    yield _DEFAULTS


def _request(image: FoundImage, operation: str, name: str, file: Path) -> Iterator[str]:
    yield f"  - id: {_quoted(name)}"
    yield f"    operation: {operation}"
    yield f"    image: {_path(image.path, file)}"
    if image.path.suffix.lower() not in _AS_THEY_ARE:
        yield "    fit: pad   # converts the format"
    if operation == "edit":
        if image.mask is not None:
            yield f"    mask: {{image: {_path(image.mask, file)}, edit: {image.edit}}}"
        yield f"    prompt: {_quoted(image.prompt or '')}"


def _path(path: Path, file: Path) -> str:
    """Return a path relative to the folder of the job file, with slashes."""
    start = file.absolute().parent
    try:
        relative = os.path.relpath(path.absolute(), start)
    except ValueError:  # another drive of Windows
        relative = str(path.absolute())
    return _quoted(Path(relative).as_posix())


def _quoted(text: str) -> str:
    """Return a text in double quotes, as YAML has it, whose braces are no template."""
    literal = text.replace("{{", "{{ '{{' }}")
    return str(yaml.safe_dump(literal, default_style='"', allow_unicode=True, width=2**31)).rstrip("\n")


def _where_prompt(image: FoundImage) -> str:
    return f"write it into {image.path.stem}.txt beside it, or into the metadata"


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()
