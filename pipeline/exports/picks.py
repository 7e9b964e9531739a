"""The images that a person has accepted in the report, of those that an export finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import BadInput, Problem
from pipeline.reports.picks import read_picks

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.storage import StoredImage


class Picks:
    """The accepted images of a file of picks, by file and hash; `take` notes which are found."""

    def __init__(self, accepted: dict[tuple[str, str], str]) -> None:
        self._lines = accepted  # that mark them, by image
        self._missing = set(accepted)

    def take(self, image: StoredImage) -> bool:
        """Return whether an image is accepted."""
        self._missing.discard((image.file, image.sha256))
        return (image.file, image.sha256) in self._lines

    def check_all_found(self, job: str) -> None:
        """Check that every accepted image was found. Raises BadInput that names those that were not."""
        if self._missing:
            raise BadInput(
                Problem(
                    self._lines[pick],
                    f"job `{job}` states no image {pick[0]} with this hash: mark it again in the job's report",
                )
                for pick in self._lines
                if pick in self._missing
            )


def read_accepted(path: Path) -> Picks:
    """Return the images that a file of picks accepts. Raises BadInput."""
    accepted = {(pick.file, pick.sha256): pick.location for pick in read_picks(path) if pick.mark == "accept"}
    if not accepted:
        raise BadInput(f"the picks {path} accept no image: press `a` on some in the job's report, and save them again")
    return Picks(accepted)
