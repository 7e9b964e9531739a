"""A check: what was examined, how it stands, and what to do if it is not well; for people and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Status = Literal["ok", "warning", "problem"]


_NOT_CHECKED = "not checked "  # so begins the message of a check that could not be made, in JSON


@dataclass(frozen=True, slots=True)
class Check:
    """One examined fact. `do` is how to fix it; None if nothing is to be done."""

    name: str
    status: Status
    message: str
    do: str | None = None


def well(name: str, message: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(name, "ok", message)


def not_checked(name: str, why: str) -> Check:
    """Return a check that could not be made; that is no fault."""
    return Check(name, "ok", f"{_NOT_CHECKED}({why})")


def warning(name: str, message: str, do: str) -> Check:
    """Return a check that found what may harm the run."""
    return Check(name, "warning", message, do)


def problem(name: str, message: str, do: str) -> Check:
    """Return a check that found what would make the run fail."""
    return Check(name, "problem", message, do)


def check_line(check: Check) -> str:
    """Return a check as one line for people; one that could not be made does not read as passed."""
    if check.message.startswith(_NOT_CHECKED):
        return f"{check.name}: skipped: {check.message.removeprefix(_NOT_CHECKED)[1:-1]}"
    advice = "" if check.do is None else f"; to fix it: {check.do}"
    return f"{check.name}: {check.status}: {check.message}{advice}"


def checks_json(checks: Sequence[Check]) -> dict[str, Any]:
    """Return the checks as `doctor --json` shows them."""
    return {
        "checks": [
            {"name": check.name, "status": check.status, "message": check.message, "do": check.do} for check in checks
        ]
    }


def exit_code(checks: Sequence[Check], *, strict: bool) -> int:
    """Return 2 if there is a problem, 1 for a warning if these are `strict`, else 0."""
    found = {check.status for check in checks}
    return 2 if "problem" in found else int(strict and "warning" in found)
