"""Of the errors of many tasks, the one is raised that a user can act on."""

from __future__ import annotations

import pytest

from pipeline.errors import LedgerError, first_error

BUG, OTHER, OURS = KeyError("a"), ValueError("b"), LedgerError("the ledger is damaged")


@pytest.mark.parametrize(
    ("errors", "first"),
    [
        ([BUG, OURS], OURS),
        ([BUG, ExceptionGroup("", [OTHER, ExceptionGroup("", [OURS])])], OURS),
        ([ExceptionGroup("", [OTHER]), BUG], OTHER),
    ],
)
def test_an_error_of_the_program_goes_before_any_other(errors: list[Exception], first: Exception) -> None:
    assert first_error(ExceptionGroup("tasks", errors)) is first
