"""Read folders of images as other tools leave them: prompts and masks beside them, or a Hugging Face imagefolder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.errors import BadInput, BrokenImage, JobError, Problem
from pipeline.ordinary_file import open_ordinary
from pipeline.planning.rows import read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Kind = Literal["imagefolder", "folder"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")

_MASK = ".mask.png"
_PROMPTS = ("prompt", "text", "caption")
"""Columns of metadata that may hold the prompt, the first one first."""

_MAX_PROMPT = 1_000_000  # bytes of a file beside an image


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image with its prompt and its mask, if it has them; `edit` is which part of the mask is edited."""

    path: Path
    prompt: str | None = None
    mask: Path | None = None
    edit: Literal["white", "alpha"] = "white"


def read_folder(kind: Kind, folder: Path) -> list[FoundImage]:
    """Return the images of a folder in the order of their names, those of metadata in its order.

    Raises BadInput with every problem, also if there is none.
    """
    if not folder.is_dir():
        raise BadInput([Problem(str(folder), "is no folder" if os.path.lexists(folder) else "does not exist")])
    problems: list[Problem] = []
    try:
        found = list(_READERS[kind](folder, problems))
    except OSError as reason:
        raise BadInput([Problem(str(reason.filename or folder), f"cannot be read: {reason.strerror}")]) from None
    if problems:
        raise BadInput(problems)
    if not found:
        below = next((file for file in _files(folder) if _is_image(file)), None)
        hint = "" if below is None else f"; {below.parent} has: name that folder, or write `imagefolder`"
        raise BadInput([Problem(str(folder), f"has no images ({', '.join(SUFFIXES)}){hint}")])
    return found


def _read_plain_folder(folder: Path, problems: list[Problem]) -> Iterator[FoundImage]:
    """Yield the images of a folder with `x.txt`, the prompt, and `x.mask.png` beside them."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    images = [file for file in files if _is_image(file)]
    stems = {image.stem for image in images}
    masks = {file.name.removesuffix(_MASK): file for file in files if file.name.endswith(_MASK)}
    for stem, mask in masks.items():
        if stem not in stems:
            problems.append(Problem(str(mask), f"is the mask of no image: there is no {stem}{SUFFIXES[0]} or the like"))
    for image in images:
        prompt = _read_prompt(image.with_name(f"{image.stem}.txt"), problems)
        own = masks.get(image.stem)
        yield FoundImage(image, prompt, own, "white" if own is None else _edited_part(own, problems))


def _read_imagefolder(folder: Path, problems: list[Problem]) -> Iterator[FoundImage]:
    """Yield the images that metadata names, with its prompts; without metadata every image, in any folder below."""
    files = list(_files(folder))
    tables = [file for file in files if file.name in {"metadata.csv", "metadata.jsonl", "metadata.parquet"}]
    if not tables:
        yield from (FoundImage(file) for file in files if _is_image(file))
    for table in tables:
        try:
            for line, row in read_rows(table, str(table), str(table)):
                found = row if isinstance(row, str) else _of_row(table.parent, row, problems.append)
                if isinstance(found, str):
                    word = "row" if table.suffix == ".parquet" else "line"
                    problems.append(Problem(f"{table}, {word} {line}", found))
                else:
                    yield found
        except JobError as error:
            problems += error.problems


def _of_row(folder: Path, row: Mapping[str, object], add: Callable[[Problem], None]) -> FoundImage | str:
    """Return the image of a row of metadata, or what is wrong with the row."""
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        return "has no `file_name`, the path of an image beside this file"
    if not (folder / name).is_file():
        return f"`{name:.200}` does not exist"
    texts = (row.get(column) for column in _PROMPTS)
    text = next((value for value in texts if value is not None and value != ""), None)
    if text is not None and not isinstance(text, str):
        return f"has a prompt that is no text: {text!r:.60}"
    mask = row.get("mask_file_name")
    if not isinstance(mask, str) or not mask:
        return FoundImage(folder / name, text)
    if not (folder / mask).is_file():
        return f"`{mask:.200}` does not exist"
    problems: list[Problem] = []
    found = FoundImage(folder / name, text, folder / mask, _edited_part(folder / mask, problems))
    for problem in problems:
        add(problem)
    return found


_READERS: Mapping[Kind, Callable[[Path, list[Problem]], Iterable[FoundImage]]] = {
    "imagefolder": _read_imagefolder,
    "folder": _read_plain_folder,
}


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, hidden ones left out, in the order of their paths."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.endswith(_MASK)


def _read_prompt(path: Path, problems: list[Problem]) -> str | None:
    """Return the text of a file without the spaces and line ends around it; None if there is none."""
    if not path.is_file():
        return None
    with open_ordinary(path) as file:
        content = file.read(_MAX_PROMPT + 1)
    if len(content) > _MAX_PROMPT:
        problems.append(Problem(str(path), f"has more than {_MAX_PROMPT:,} bytes, and is no prompt"))
        return None
    try:
        return content.decode("utf-8-sig").strip() or None
    except UnicodeDecodeError as reason:
        line = content.count(b"\n", 0, reason.start) + 1
        problems.append(Problem(f"{path}, line {line}", "is not UTF-8; save it as UTF-8"))
        return None


def _edited_part(mask: Path, problems: list[Problem]) -> Literal["white", "alpha"]:
    """Return what a mask marks: what is transparent in it, or, if nothing is, what is white."""
    from pipeline.images.inspect import open_image

    try:
        _, image = open_image(mask.read_bytes())
    except BrokenImage as reason:
        problems.append(Problem(str(mask), str(reason)))
        return "white"
    if not image.has_transparency_data:
        return "white"
    extrema = image.convert("RGBA").getchannel("A").getextrema()
    return "alpha" if extrema[0] != 255 else "white"
