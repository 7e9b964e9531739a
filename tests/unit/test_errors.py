"""The exception tree in the docstring is the tree of the classes."""

from __future__ import annotations

import re

import pytest

from pipeline import errors
from pipeline.cli.help_command import read_sections
from pipeline.errors import GiveUp, PipelineError, RequestError, Stop, TryAgain

UNRAISED = {"PipelineError", "BadInput", "RequestError", "TryAgain", "GiveUp", "Stop"}
"""Classes that only group others, or that hold a sentence of the command line."""


def drawn() -> dict[str, str | None]:
    """Read the tree in the module's docstring: each name with its parent's."""
    parents: dict[str, str | None] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^((?:[│ ]|├── |└── )*)([A-Z]\w+)(?:\s{2,}|$)", line)
        if not found:
            continue
        depth = len(found[1])
        path = [(other, name) for other, name in path if other < depth]
        parents[found[2]] = path[-1][1] if path else None
        path.append((depth, found[2]))
    return parents


def subclasses(kind: type[PipelineError]) -> list[type[PipelineError]]:
    own = [one for one in kind.__subclasses__() if one.__module__ == errors.__name__]
    return [kind, *(below for one in own for below in subclasses(one))]


def test_the_tree_in_the_docstring_is_that_of_the_classes() -> None:
    classes = subclasses(PipelineError)
    real = {one.__name__: one.__base__.__name__ if one.__base__ else None for one in classes}
    assert drawn() == {**real, "PipelineError": None}
    assert len(classes) > 25


@pytest.mark.parametrize("kind", [one for one in subclasses(RequestError) if not one.__subclasses__()])
def test_every_failure_of_a_request_has_exactly_one_error_class(kind: type[RequestError]) -> None:
    assert sum(issubclass(kind, error_class) for error_class in (TryAgain, GiveUp, Stop)) == 1
    assert kind.outcome in {"not_sent", "refused", "unknown"}
    if issubclass(kind, Stop):
        assert kind.exit_code == 3
        assert not kind.counted


def test_every_class_says_what_it_means() -> None:
    assert all(one.__doc__ for one in subclasses(PipelineError))


def test_an_error_carries_the_api_s_error_body() -> None:
    error = errors.Invalid("no", type="t", code="c", param="p", http_status=400)
    assert error.error == {"message": "no", "type": "t", "param": "p", "code": "c"}
    assert str(error) == "no"


def test_every_error_that_people_meet_has_a_section_of_the_troubleshooting_page() -> None:
    classes = {one.__name__ for one in subclasses(PipelineError)} - UNRAISED
    sections = read_sections()
    assert set(sections) == classes
    for name, text in sections.items():
        starts = re.findall(r"^(What [a-z ]+): ", text, re.MULTILINE)
        assert starts == ["What happened", "What it cost", "What to type"], name
        assert max(map(len, text.splitlines())) <= 80, name
