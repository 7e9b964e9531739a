"""A plan's input pictures → PNGs with the mask drawn over them, so that a person can look before paying."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.images.masks import draw_mask_overlay
from pipeline.storage import make_folder, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.planning.plan import Plan


def write_previews(plan: Plan, spool: Path, folder: Path) -> list[Path]:
    """Write `<id>.png` into `folder` for each request with pictures, which stand below `spool`; give the paths.

    It is the first picture as it would be sent, what may be edited tinted and outlined. A request that shares picture
    and mask with an earlier one shares its preview. Raises OSError.
    """
    made: dict[tuple[str, ...], Path] = {}
    for request in plan.requests:
        files = tuple(one.file for one in request.inputs)
        first = next((one for one in request.inputs if one.role == "image"), None)
        if first is None or files in made:
            continue
        mask = next((spool / one.file for one in request.inputs if one.role == "mask"), None)
        drawn = draw_mask_overlay((spool / first.file).read_bytes(), mask.read_bytes() if mask else None)
        make_folder(folder)
        made[files] = folder / f"{request.id}.png"
        write_whole(made[files], drawn)
    return list(made.values())
