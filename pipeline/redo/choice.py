"""Choose the images of a job that are made again: by request, by the marks of a person, by flag, or all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import BadInput, Problem
from pipeline.ledger.image_flags import NO_FLAGS, read_flags
from pipeline.ledger.redo import read_made_images
from pipeline.ledger.request_history import check_ids
from pipeline.reports.picks import read_picks

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.ledger.redo import MadeImage


@dataclass(frozen=True, slots=True)
class Choice:
    """What a person asks for: requests by their ids, a file of marks, flags of images, or every image of the job."""

    ids: tuple[str, ...] = ()
    picks: Path | None = None
    flags: tuple[str, ...] = ()
    everything: bool = False

    def check(self) -> None:
        """Check that it asks in one way. Raises BadInput."""
        if sum(map(bool, (self.ids, self.picks, self.flags, self.everything))) != 1:
            raise BadInput("say which images are made again, in one way: --id ID, --picks FILE, --flag FLAG or --all")


def choose(connection: sqlite3.Connection, job: str, choice: Choice) -> list[MadeImage]:
    """Return the images of a job that a choice names: those on disk that count, in the order of the job file.

    What is made again already is among them, and its request is not asked for more than that; marks and flags are of
    images, and not of requests. Raises BadInput if there is none.
    """
    choice.check()
    made = read_made_images(connection, job)
    current = [image for image in made if not image.superseded and image.redo != "replaced"]
    if choice.picks is not None:
        return _picked(job, made, choice.picks)
    if choice.flags:
        found = read_flags(connection, job)
        return _or_refuse(
            [image for image in current if not set(choice.flags).isdisjoint(found.get(image.file, NO_FLAGS).flags)],
            f"no image of `{job}` has the flag {' or '.join(choice.flags)}",
        )
    chosen = _of_requests(connection, job, current, choice.ids) if choice.ids else current
    asked = {image.request_pk for image in chosen if image.redo == "asked"}
    chosen = [image for image in chosen if image.redo == "asked" or image.request_pk not in asked]
    return _or_refuse(chosen, f"nothing of `{job}` can be made again: it has no image yet")


def _or_refuse(images: list[MadeImage], otherwise: str) -> list[MadeImage]:
    if not images:
        raise BadInput(otherwise)
    return images


def _of_requests(
    connection: sqlite3.Connection, job: str, current: Sequence[MadeImage], ids: Sequence[str]
) -> list[MadeImage]:
    """Return the images of these requests. Raises BadInput for a request that has none."""
    check_ids(connection, [job], ids)
    wanted = {request_id.lower() for request_id in ids}
    found = [image for image in current if image.request_id.lower() in wanted]
    for request_id in ids:
        if not any(image.request_id.lower() == request_id.lower() for image in found):
            again = f"to try it again, type: pipeline resume {job} --id {request_id}"
            raise BadInput(f"request `{request_id}` of `{job}` has no image that can be made again; {again}")
    return found


def _picked(job: str, made: Sequence[MadeImage], path: Path) -> list[MadeImage]:
    """Return the images that a file marks as rejected; those that are replaced already are left out.

    Raises BadInput with every line that names no image of the job.
    """
    by_file = {made_image.file: made_image for made_image in made}
    chosen: dict[int, MadeImage] = {}
    problems, replaced = [], 0
    for pick in read_picks(path):
        image = by_file.get(pick.file)
        if pick.mark != "reject":
            continue
        if image is None:
            problems.append(Problem(pick.location, f"`{pick.file:.200}` is no image of `{job}`"))
        elif image.sha256 != pick.sha256:
            problems.append(Problem(pick.location, f"{image.file} is another image now; mark it in a new report"))
        elif image.superseded:
            problems.append(Problem(pick.location, f"{image.file} is of a request that has left the job"))
        elif image.redo == "replaced":
            replaced += 1
        else:
            chosen[image.image_pk] = image
    if problems:
        raise BadInput(problems)
    if not chosen:
        what = f"the {replaced:,} that it rejects are replaced already" if replaced else "it marks none as rejected"
        raise BadInput([Problem(str(path), f"no image is to be made again: {what}")])
    return sorted(chosen.values(), key=made.index)
