"""How mistakes in the input are printed: bounded by kind, with the lines of the rest, and their number last."""

from __future__ import annotations

from pipeline.cli.mistakes import MAX_OF_A_KIND, mistake_lines
from pipeline.errors import Problem


def test_one_mistake_stands_alone_and_several_are_counted() -> None:
    first, second = Problem("a.yaml, line 3, name", "is wrong"), Problem("p.csv, line 2", "is ragged", 5)
    assert list(mistake_lines([first])) == ["a.yaml, line 3, name: is wrong"]
    assert list(mistake_lines([first, second]))[-1] == "6 mistakes in a.yaml and p.csv"
    assert list(mistake_lines([Problem("", "one"), Problem("", "two")]))[-1] == "2 mistakes"


def test_a_kind_that_stands_in_many_places_is_bounded_and_hides_no_other_kind() -> None:
    many = [Problem(f"a.yaml, line {line}, requests[{line}].size", f"is `{line}x1`; write auto") for line in range(60)]
    other = Problem("a.yaml, line 99, requests[99].model", "is unknown")
    *said, rest, last = mistake_lines([*many, other])
    assert said == [*map(str, many[:MAX_OF_A_KIND]), str(other)]
    lines = ", ".join(map(str, range(20, 30)))
    assert rest == f"a.yaml: 40 more like this, in lines {lines} and 30 more: is `20x1`; write auto"
    assert last == "61 mistakes in a.yaml"
