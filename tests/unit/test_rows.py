"""Files of rows become variables; what stands in a cell stays as it is."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadInput, JobError
from pipeline.planning.rows import read_rows

if TYPE_CHECKING:
    from pathlib import Path


def rows(folder: Path, name: str, content: str | bytes, warned: list[tuple[int, str]] | None = None) -> list[Any]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    warnings = [] if warned is None else warned
    return list(read_rows(path, "job.yaml, line 3", name, lambda line, message: warnings.append((line, message))))


def warned_lines(folder: Path, name: str, content: str) -> list[int]:
    """The lines of a file that something is said of."""
    warned: list[tuple[int, str]] = []
    rows(folder, name, content, warned)
    return [line for line, _ in warned]


def refusal(folder: Path, name: str, content: str | bytes) -> str:
    with pytest.raises(JobError) as caught:
        rows(folder, name, content)
    return str(caught.value)


CELLS = "  two  spaces\u2028'single' \U0001f3a8 caf\u00e9 "


def test_a_txt_file_gives_a_prompt_a_line_as_it_stands(tmp_path: Path) -> None:
    content = f'\ufeffone, "quoted"\r\n\r\n \t \n{CELLS}\n#4\\n'
    assert rows(tmp_path, "p.txt", content) == [
        (1, {"prompt": 'one, "quoted"'}),
        (4, {"prompt": CELLS}),
        (5, {"prompt": "#4\\n"}),
    ]


def test_in_a_tsv_file_a_tab_separates_and_nothing_else_does(tmp_path: Path) -> None:
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
        ("p.xlsx", "a", 'save it as "CSV UTF-8"'),
        ("p.tsv", "prompt;size\na;b\n", "p.tsv, line 1: is separated by `;`, not by tabs: name the file .csv"),
        ("p.csv", "prompt\na\n".encode("utf-16-le"), 'line 1: is UTF-16 without a BOM; save it as "CSV UTF-8" (Excel)'),
        ("p.tsv", "prompt\tsize\n".encode("utf-16-be"), "p.tsv, line 1: is UTF-16 without a BOM; save it as"),
        ("p.csv", "prompt\nabc\n".encode("utf-16")[:-1], "p.csv, line 2: is not UTF-16, since it ends within a"),
        ("p.csv", b"\xff\xfea\0\n\0\x00\xd8b\0", "p.csv, line 2: is not UTF-16 (illegal UTF-16 surrogate); save it as"),
        ("p.csv", b"a\nCaf\xc3", "p.csv, line 2: is not UTF-8, since it ends within a character; save it as"),
        ("p.txt", "A red kite\n".encode("utf-32"), "p.txt, line 1: is UTF-32; save it as"),
        ("p.csv", b"PK\x03\x04\x14\0\0\0", "p.csv, line 1: is an Excel workbook"),
        ("p.csv", "prompt\nCaf\xe9\n".encode("cp1252"), '; save it as "CSV UTF-8" (Excel), or as UTF-8 (an editor)'),
        ("p.csv", 'a\nfine\n"x"y\n', "p.csv, line 3: is not CSV"),
        ("p.csv", 'a\n"never\nclosed\n', "p.csv, line 2: is not CSV: a quote is opened here and never closed"),
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
            [
                (2, "has 1 cell, but the header has 2"),
                (3, "has 3 cells, but the header has 2; a cell that holds `,` needs quotes"),
            ],
        ),
        ("p.tsv", "a\tb\n1\nx\ty", [(2, "has 1 cell, but the header has 2")]),
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


def test_a_mistake_in_json_has_the_number_of_its_line_alone(tmp_path: Path) -> None:
    ((number, said),) = rows(tmp_path, "p.jsonl", '\n{"prompt": "b" "n": 2}\n')
    assert (number, said) == (2, "is not JSON: Expecting ',' delimiter, at column 16")


EXCEL = 'prompt\tsize\r\n"A red kite, high over the ""old"" pier"\t1x1\r\n"two\nlines and a\ttab"\t\r\nplain\t2x2\r\n'


def test_the_quotes_that_excel_puts_into_a_tsv_are_taken_away_and_it_is_said(tmp_path: Path) -> None:
    warned: list[tuple[int, str]] = []
    assert rows(tmp_path, "p.tsv", f"\ufeff{EXCEL}", warned) == [
        (2, {"prompt": 'A red kite, high over the "old" pier', "size": "1x1"}),
        (3, {"prompt": "two\nlines and a\ttab", "size": ""}),
        (5, {"prompt": "plain", "size": "2x2"}),
    ]
    assert [line for line, _ in warned] == [2, 3]
    assert {message for _, message in warned} == {
        'a quoted cell is read as Excel writes it: without the quotes around it, and "" as "'
    }


@pytest.mark.parametrize(
    ("content", "prompts", "lines"),
    [
        ('prompt\tn\n"one, two"\t1\nplain\t2\n', ["one, two", "plain"], [2]),  # quoted as Excel must
        ('"prompt"\t"n"\n"one"\t"1"\n', ["one"], [1, 2]),  # everything quoted: nobody calls a column `"prompt"`
        ('prompt\tn\r"one ""two"""\t1\rplain\t2\r', ['one "two"', "plain"], [2]),  # Excel on a Mac
        ('prompt\tn\n"one, two"\t1\na, b\t2\n', ['"one, two"', "a, b"], [2]),  # Excel quotes every comma
        ('prompt\tn\n"one"\t1\n', ['"one"'], [2]),  # Excel quotes nothing of that kind
        ('prompt\tn\n"a ""b"""\t1\n5" pipe\t2\n', ['"a ""b"""', '5" pipe'], [2]),  # Excel would quote the second
        ('prompt\tn\n5" pipe\t1\n6" pipe\t2\n', ['5" pipe', '6" pipe'], []),
        ('prompt\tn\n"quoted" and more\t1\n', ['"quoted" and more'], []),
    ],
)
def test_a_tsv_is_read_as_excel_writes_it_only_if_all_of_it_is_written_so(
    tmp_path: Path, content: str, prompts: list[str], lines: list[int]
) -> None:
    warned: list[tuple[int, str]] = []
    found = rows(tmp_path, "p.tsv", content, warned)
    assert [variables["prompt"] for _, variables in found] == prompts
    assert [line for line, _ in warned] == lines


def test_a_large_tsv_with_one_quote_is_read_at_once(tmp_path: Path) -> None:
    content = 'prompt\n5" pipe\n' + "a cat\n" * 100_000
    assert len(rows(tmp_path, "p.tsv", content)) == 100_001


def test_a_quoted_cell_that_spans_lines_where_quotes_are_kept_says_where_it_belongs(tmp_path: Path) -> None:
    found = rows(tmp_path, "p.tsv", 'prompt\tn\n5" pipe\t1\n"two\nlines"\t2\n')
    assert found[1] == (3, found[1][1])
    assert found[1][1].endswith("; a quoted cell with tabs or line breaks belongs in a .csv file")


@pytest.mark.parametrize("name", ["p.csv", "p.tsv"])
def test_a_column_without_a_name_is_no_variable(tmp_path: Path, name: str) -> None:
    separator = "," if name == "p.csv" else "\t"
    content = ",prompt,size\n0,A red kite,1x1\n1,A blue kite,\n".replace(",", separator)
    assert rows(tmp_path, name, content) == [
        (2, {"prompt": "A red kite", "size": "1x1"}),
        (3, {"prompt": "A blue kite", "size": ""}),
    ]
    trailing = "prompt,size,,\na,1,,\nb,2\nc,3,note,\nd,4,,,,\n".replace(",", separator)
    assert [row for _, row in rows(tmp_path, name, trailing)] == [
        {"prompt": prompt, "size": size} for prompt, size in zip("abcd", "1234", strict=True)
    ]
    surplus = rows(tmp_path, name, "prompt,size\na,1,x\nb\nc,3,,\n".replace(",", separator))
    assert surplus == [
        (2, "has 3 cells, but the header has 2" + ("; a cell that holds `,` needs quotes" if name == "p.csv" else "")),
        (3, "has 1 cell, but the header has 2"),
        (4, {"prompt": "c", "size": "3"}),
    ]


def test_a_row_that_holds_nothing_is_a_blank_line_also_before_the_header(tmp_path: Path) -> None:
    content = ',,\r\nprompt,size,n\r\nA red kite,1x1,2\r\n,,\r\n , ,\t\r\n"","",""\r\nB,,\r\n,,\r\n'
    assert rows(tmp_path, "p.csv", content) == [
        (3, {"prompt": "A red kite", "size": "1x1", "n": "2"}),
        (7, {"prompt": "B", "size": "", "n": ""}),
    ]
    assert len(rows(tmp_path, "p.tsv", "prompt\tsize\na\tb\n\t\n \t \n")) == 1
    assert refusal(tmp_path, "p.csv", "prompt,size\n,\n,\n") == "job.yaml, line 3: p.csv has no rows"


@pytest.mark.parametrize(("separator", "named"), [(";", "`;`"), ("\t", "a tab")])
def test_what_separates_the_cells_of_a_csv_is_seen_in_its_header_and_said(
    tmp_path: Path, separator: str, named: str
) -> None:
    warned: list[tuple[int, str]] = []
    content = '\ufeffprompt;size\r\n"Two cups; one, saucer";1x1\r\nRed, blue;2x2\r\n'
    content = content.replace(";", separator)
    assert rows(tmp_path, "p.csv", content, warned) == [
        (2, {"prompt": f"Two cups{separator} one, saucer", "size": "1x1"}),
        (3, {"prompt": "Red, blue", "size": "2x2"}),
    ]
    assert warned == [(1, f"the cells are separated by {named}, not by `,`, and are read so")]


@pytest.mark.parametrize("separator", [";", "|", "\t", "^"])
def test_a_first_line_that_states_the_separator_is_obeyed(tmp_path: Path, separator: str) -> None:
    warned: list[tuple[int, str]] = []
    content = f"\ufeffsep={separator}\r\nprompt{separator}size\r\nA, B{separator}1x1\r\n"
    assert rows(tmp_path, "p.csv", content, warned) == [(3, {"prompt": "A, B", "size": "1x1"})]
    assert warned == []


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("a;b,c,d", ","),
        ("a,b;c;d", ";"),
        ("a,b\tc\td", "\t"),
        ("a,b;c", ","),
        ("a;b\tc", ";"),
        ('"a,b,c";d', ";"),
        ('"a;""b;;",c,d;e', ","),
        ("a|b", ","),
    ],
)
def test_the_most_frequent_separator_outside_quotes_counts(tmp_path: Path, header: str, separator: str) -> None:
    columns = next(csv.reader([header], delimiter=separator))
    ((_, row),) = rows(tmp_path, "p.csv", f"{header}\n{separator.join(map(str, range(len(columns))))}\n")
    assert row == {name: str(number) for number, name in enumerate(columns)}


def test_a_bar_in_a_header_separates_nothing_and_is_pointed_out(tmp_path: Path) -> None:
    warned: list[tuple[int, str]] = []
    assert rows(tmp_path, "p.csv", "prompt|size\na|b\n", warned) == [(2, {"prompt|size": "a|b"})]
    assert warned == [(1, "is the name of one column: `|` separates cells only after a first line `sep=|`")]


def test_a_header_without_a_separator_is_one_column_whatever_its_cells_hold(tmp_path: Path) -> None:
    warned: list[tuple[int, str]] = []
    content = 'prompt\r\na cat, on a mat; grey\r\n"a dog, ""Rex"",\r\nasleep, by the fire"\r\na 5" kite\r\n\r\n'
    assert rows(tmp_path, "p.csv", content, warned) == [
        (2, {"prompt": "a cat, on a mat; grey"}),
        (3, {"prompt": 'a dog, "Rex",\r\nasleep, by the fire'}),
        (5, {"prompt": 'a 5" kite'}),
    ]
    assert warned == [(2, "is one cell with its commas: the header has one column")]
    assert rows(tmp_path, "p.csv", '"two\nlines",b\n1,2\n') == [(3, {"two\nlines": "1", "b": "2"})]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.txt", "p.jsonl"])
def test_utf_8_and_utf_16_with_its_mark_are_read_alike(tmp_path: Path, name: str, encoding: str) -> None:
    cell = "Café, 雨 \U0001f3a8"
    content = {"p.jsonl": f'{{"prompt": "{cell}"}}\n', "p.txt": f"{cell}\n"}.get(name, f'prompt\n"{cell}"\n')
    content = content.replace('"', "") if name == "p.tsv" else content
    assert [row for _, row in rows(tmp_path, name, content.encode(encoding))] == [{"prompt": cell}]


@pytest.mark.parametrize("header", ["prompt", '"prompt;size"', "prompt,size;n", "sep,prompt"])
def test_a_header_that_commas_separate_or_that_is_one_column_stays_so(tmp_path: Path, header: str) -> None:
    columns = header.replace('"', "").split(",")
    ((_, row),) = rows(tmp_path, "p.csv", f"{header}\n{','.join('x;y|z' for _ in columns)}\n")
    assert row == dict.fromkeys(columns, "x;y|z")


@pytest.mark.parametrize("name", ["p.txt", "p.csv", "p.tsv", "p.jsonl"])
def test_a_carriage_return_alone_ends_a_line(tmp_path: Path, name: str) -> None:
    lines = ['{"prompt": "a"}', '{"prompt": "b"}'] if name == "p.jsonl" else ["a", "b"]
    header = ["prompt"] if name in {"p.csv", "p.tsv"} else []
    found = rows(tmp_path, name, "\r".join([*header, *lines, ""]))
    assert [row["prompt"] for _, row in found] == ["a", "b"]
    assert [line for line, _ in found] == [1 + len(header), 2 + len(header)]


def test_line_ends_of_several_kinds_are_read_and_said(tmp_path: Path) -> None:
    warned: list[tuple[int, str]] = []
    found = rows(tmp_path, "p.txt", "a\rb\nc\r\n", warned)
    assert [row["prompt"] for _, row in found] == ["a", "b", "c"]
    assert warned == [(1, "ends in a CR alone, unlike other lines, and is read as a line of its own")]
    assert warned_lines(tmp_path, "p.txt", "a\r\r\nb\r\r\n") == [], "each is one line end, made on Windows"


def test_a_cell_may_be_large_and_other_readers_keep_their_limit(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    large = "x" * (before + 1)
    ((_, row),) = rows(tmp_path, "p.csv", f'prompt,notes\na,"{large}"\n')
    assert row == {"prompt": "a", "notes": large}
    assert rows(tmp_path, "q.csv", f"{large}\na\n") == [(2, {large: "a"})]
    reading = read_rows(tmp_path / "p.csv", "", "p.csv")
    next(reading)
    assert csv.field_size_limit() == before


def test_a_cell_beyond_the_size_of_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.planning.rows.MAX_BYTES", 10)
    assert "p.csv, line 2: is not CSV: field larger than field limit (10)" in refusal(
        tmp_path, "p.csv", f"prompt\n{'x' * 11}\n"
    )


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("# autumn set\nA red kite\n", 1, "no line of a .txt file is a comment; delete it"),
        ("A red kite\n  // later\n", 2, "no line of a .txt file is a comment; delete it"),
        ("prompt\nA red kite\n", 1, "a .txt file has no header; delete the line"),
        ("prompt\tsize\nA red kite\t1x1\n", 1, "name the file .tsv"),
        ('A red kite\n"high over the ""old"" pier"\n', 2, "keeps its quotes"),
    ],
)
def test_a_line_of_text_that_looks_like_something_else_is_a_prompt_and_it_is_said(
    tmp_path: Path, content: str, line: int, words: str
) -> None:
    warned: list[tuple[int, str]] = []
    assert [row["prompt"] for _, row in rows(tmp_path, "p.txt", content, warned)] == content.splitlines()
    ((number, message),) = warned
    assert number == line
    assert words in message


LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), min_size=1, max_size=20)


@settings(deadline=None, derandomize=True, max_examples=75)
@given(st.lists(LINE.filter(lambda text: bool(text.strip()) and text[0] != "\ufeff"), min_size=1, max_size=5))
def test_any_lines_come_back_byte_for_byte(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    found = rows(tmp_path_factory.getbasetemp(), "fuzz.txt", "\n".join(lines))
    assert [variables["prompt"] for _, variables in found] == lines


@settings(deadline=None, derandomize=True, max_examples=100)
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
