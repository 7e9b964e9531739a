"""Writes a plan's input images as PNGs with their masks drawn over them, to be checked before paying."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.files import make_folder, write_whole
from pipeline.images.masks import draw_mask_overlay

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.planning.plan import Plan


def write_previews(plan: Plan, spool: Path, folder: Path) -> list[Path]:
    """Write `<id>.png` into `folder` for each request with input images, which are below `spool`; return the paths.

    It is the first image as it would be sent, with the editable area tinted and outlined. A request with the same image
    and mask as an earlier one shares its preview. Raises OSError.
    """
    made: dict[tuple[str, ...], Path] = {}
    for request in plan.requests:
        files = (request.operation, *(input_file.file for input_file in request.inputs))
        first = next((input_file for input_file in request.inputs if input_file.role == "image"), None)
        if first is None or files in made:
            continue
        mask = next((spool / input_file.file for input_file in request.inputs if input_file.role == "mask"), None)
        content, is_edit = (spool / first.file).read_bytes(), request.operation == "edit"
        drawn = draw_mask_overlay(content, mask.read_bytes() if mask else None, is_edit=is_edit)
        make_folder(folder)
        made[files] = folder / f"{request.id}.png"
        write_whole(made[files], drawn)
    return list(made.values())
