"""Files of rows and matrices become variables; what stands in a cell stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadInput, JobError
from pipeline.planning.rows import combinations, read_rows

if TYPE_CHECKING:
    from pathlib import Path


def rows(folder: Path, name: str, content: str | bytes) -> list[Any]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_rows(path, "job.yaml, line 3", name))


def refusal(folder: Path, name: str, content: str | bytes) -> str:
    with pytest.raises(JobError) as caught:
        rows(folder, name, content)
    return str(caught.value)


def test_a_matrix_is_every_combination_with_the_last_axis_fastest() -> None:
    found = list(combinations({"a": [1, 2], "b": ["x", "y"]}))
    assert found == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]
    assert list(combinations({})) == [{}]


def test_a_matrix_of_billions_begins_at_once() -> None:
    many = combinations({name: range(1000) for name in "abcdefgh"})
    assert next(many) == dict.fromkeys("abcdefgh", 0)


CELLS = "  two  spaces\u2028'single' \U0001f3a8 caf\u00e9 "


def test_a_txt_file_gives_a_prompt_a_line_as_it_stands(tmp_path: Path) -> None:
    content = f'\ufeffone, "quoted"\r\n\r\n \t \n{CELLS}\n#4\\n'
    assert rows(tmp_path, "p.txt", content) == [
        (1, {"prompt": 'one, "quoted"'}),
        (4, {"prompt": CELLS}),
        (5, {"prompt": "#4\\n"}),
    ]


def test_in_a_tsv_file_a_tab_separates_and_nothing_is_quoted(tmp_path: Path) -> None:
    content = f'\ufeffprompt\t size \r\n"a"\t1\r\n\r\n{CELLS}\t\r\n'
    assert rows(tmp_path, "p.tsv", content) == [
        (2, {"prompt": '"a"', "size": "1"}),
        (4, {"prompt": CELLS, "size": ""}),
    ]


def test_a_csv_file_is_quoted_as_usual_and_a_quoted_cell_may_span_lines(tmp_path: Path) -> None:
    content = f'\ufeffprompt,size\r\n"a ""cat"", big",1\r\n\r\n"two\r\nlines\nmore",2\r\n"{CELLS}",\r\n'
    assert rows(tmp_path, "p.csv", content) == [
        (2, {"prompt": 'a "cat", big', "size": "1"}),
        (4, {"prompt": "two\r\nlines\nmore", "size": "2"}),
        (7, {"prompt": CELLS, "size": ""}),
    ]


def test_json_values_keep_their_type(tmp_path: Path) -> None:
    content = (
        '\ufeff{"prompt": "a\\ttab", "n": 3, "flag": true, "x": null, "half": 0.5}\r\n\n{"prompt": "\\ud83c\\udfa8"}\n'
    )
    first, second = rows(tmp_path, "p.jsonl", content)
    assert first == (1, {"prompt": "a\ttab", "n": 3, "flag": True, "x": None, "half": 0.5})
    assert second == (3, {"prompt": "\U0001f3a8"})


def test_the_ending_may_be_in_capitals(tmp_path: Path) -> None:
    assert rows(tmp_path, "P.TXT", "a") == [(1, {"prompt": "a"})]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.txt", ""),
        ("p.txt", " \n\n"),
        ("p.csv", "prompt\n"),
        ("p.csv", ""),
        ("p.tsv", "prompt\tsize\n"),
        ("p.jsonl", "\n"),
    ],
)
def test_a_file_without_rows_is_an_error_at_the_job_line(tmp_path: Path, name: str, content: str) -> None:
    assert refusal(tmp_path, name, content) == f"job.yaml, line 3: {name} has no rows"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.xlsx", "a", "job.yaml, line 3: `p.xlsx` is not a rows file; its name must end in .csv, .tsv"),
        ("p.csv", "a,a\n1,2", "p.csv, line 1: column `a` is in the header twice"),
        ("p.tsv", "\na\t\n1\t2", "p.tsv, line 2: a column has no name"),
        ("p.csv", 'a\nfine\n"x"y\n', "p.csv, line 3: is not CSV"),
        ("p.csv", 'a\n"never\nclosed\n', "p.csv, line 2: is not CSV: unexpected end of data"),
        ("p.txt", b"a\nb\xffc\n", "p.txt, line 2: is not UTF-8 (invalid start byte at byte 1 of the line)"),
        ("p.csv", b"a\n" + b"x\n" * 20_000 + b"\xff\n", "p.csv, line 20002: is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_on_is_an_error_with_its_line(
    tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    assert words in refusal(tmp_path, name, content)


def test_a_missing_file_a_folder_and_an_impossible_name_are_errors_at_the_job_line(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name, words in [("no.csv", "No such file"), ("folder.csv", "directory"), ("a\0b.csv", "null byte")]:
        with pytest.raises(JobError, match=words) as caught:
            list(read_rows(tmp_path / name, "job.yaml, line 3", name))
        assert str(caught.value).startswith("job.yaml, line 3: ")


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        (
            "p.csv",
            "a,b\n1\n1,2,3\n1,2",
            [(2, "has 1 cells, but the header has 2"), (3, "has 3 cells, but the header has 2")],
        ),
        ("p.tsv", "a\tb\n1\nx\ty", [(2, "has 1 cells, but the header has 2")]),
        ("p.jsonl", '[1]\n{"a": 1}', [(1, 'must be one object, like {"prompt": "a cat"}')]),
        ("p.jsonl", '{"a": 1, "a": 2}\n{}', [(1, "has `a` twice")]),
        (
            "p.jsonl",
            '{"a": NaN}\n{"a": 1e999}\n{}',
            [(1, "holds NaN, which is not a JSON value"), (2, "holds 1e999, a number that is too large")],
        ),
        ("p.jsonl", '{"a": "\\ud800"}\n{}', [(1, "holds half a character (a lone surrogate); correct its encoding")]),
    ],
)
def test_every_row_that_is_wrong_is_named_and_the_rest_is_read(
    tmp_path: Path, name: str, content: str, wrong: list[tuple[int, str]]
) -> None:
    found = rows(tmp_path, name, content)
    assert [row for row in found if isinstance(row[1], str)] == wrong
    assert isinstance(found[-1][1], dict)


@pytest.mark.parametrize("line", ["{", "nonsense", "[" * 100_000, "9" * 10_000, '{"a": "\x01"}'])
def test_a_line_that_is_not_json_says_so(tmp_path: Path, line: str) -> None:
    ((number, said),) = rows(tmp_path, "p.jsonl", line)
    assert number == 1
    assert said.startswith("is not JSON: ")


LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), min_size=1, max_size=20)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.lists(LINE.filter(lambda text: bool(text.strip()) and text[0] != "\ufeff"), min_size=1, max_size=5))
def test_any_lines_come_back_byte_for_byte(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    found = rows(tmp_path_factory.getbasetemp(), "fuzz.txt", "\n".join(lines))
    assert [variables["prompt"] for _, variables in found] == lines


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.sampled_from(["f.csv", "f.tsv", "f.jsonl", "f.txt"]),
    st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")),
)
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes) -> None:
    try:
        found = rows(tmp_path_factory.getbasetemp(), name, content)
    except BadInput:
        return
    assert found
