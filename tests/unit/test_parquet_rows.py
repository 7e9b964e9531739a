"""Rows of Parquet files: null is an empty cell, numbers keep their type, and dates become text."""

from __future__ import annotations

import datetime as dt
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.config.provider import Provider
from pipeline.errors import JobError
from pipeline.models.table import Models
from pipeline.planning.planner import make_plan
from pipeline.planning.python_job import make_job
from pipeline.planning.rows import read_rows

if TYPE_CHECKING:
    from pathlib import Path


def rows(folder: Path, columns: dict[str, Any], warned: list[tuple[int, str]] | None = None) -> list[Any]:
    """The rows of a table of these columns."""
    parquet.write_table(pa.table(columns), folder / "t.parquet")
    warnings = [] if warned is None else warned
    found = read_rows(
        folder / "t.parquet", "job.yaml, line 3", "t.parquet", lambda line, message: warnings.append((line, message))
    )
    return list(found)


def refusal(path: Path) -> str:
    with pytest.raises(JobError) as caught:
        list(read_rows(path, "job.yaml, line 3", path.name))
    return str(caught.value)


def test_numbers_and_flags_keep_their_type_and_null_is_an_empty_cell(tmp_path: Path) -> None:
    columns = {
        "prompt": ["a  cat\u2028", None, "x"],
        "n": pa.array([1, None, 2**62], pa.int64()),
        "weight": [0.5, None, 1.0],
        "is_good": [True, None, False],
    }
    assert rows(tmp_path, columns) == [
        (1, {"prompt": "a  cat\u2028", "n": 1, "weight": 0.5, "is_good": True}),
        (2, {"prompt": "", "n": "", "weight": "", "is_good": ""}),
        (3, {"prompt": "x", "n": 2**62, "weight": 1.0, "is_good": False}),
    ]
    kinds = [[type(one) for one in row.values()] for _, row in rows(tmp_path, columns)]
    assert kinds[0] == [str, int, float, bool]


MOMENT = dt.datetime(2026, 11, 28, 13, 5, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("cell", "kind", "value"),
    [
        (MOMENT.date(), None, "2026-11-28"),
        (MOMENT.date(), pa.date64(), "2026-11-28"),
        (MOMENT, pa.timestamp("us", "UTC"), "2026-11-28T13:05:00+00:00"),
        (MOMENT.replace(tzinfo=None), pa.timestamp("s"), "2026-11-28T13:05:00"),
        (1_000_000_001, pa.timestamp("ns"), "1970-01-01T00:00:01"),
        (1_000_000_001, pa.time64("ns"), "00:00:01"),
        (1_000_000_001, pa.duration("ns"), "0:00:01"),
        (Decimal("1.50"), None, "1.50"),
        ("a", pa.dictionary(pa.int32(), pa.string()), "a"),
        ("a", pa.large_string(), "a"),
        ([1, None], None, [1, None]),
        ({"a": [MOMENT.date()], "b": None}, None, {"a": ["2026-11-28"], "b": None}),
    ],
)
def test_dates_become_iso_text_and_other_values_what_json_has(
    tmp_path: Path, cell: Any, kind: pa.DataType | None, value: Any
) -> None:
    assert rows(tmp_path, {"x": pa.array([cell], kind)}) == [(1, {"x": value})]


def test_a_column_of_bytes_is_no_variable_and_a_number_that_is_none_is_a_wrong_row(tmp_path: Path) -> None:
    warned: list[tuple[int, str]] = []
    images = pa.array([{"bytes": b"\x89PNG", "path": "a.png"}] * 2)
    found = rows(tmp_path, {"image": images, "prompt": ["a", "b"], "": [1, 2], "x": [float("nan"), 1.0]}, warned)
    wrong = "column `x` holds nan, which is not a number that can be sent"
    assert found == [(1, wrong), (2, {"prompt": "b", "x": 1.0})]
    assert warned == [(1, "column `image` holds bytes, and is no variable")]


def test_many_rows_are_numbered_through_their_groups(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"i": list(range(5000))}), tmp_path / "t.parquet", row_group_size=700)
    found = list(read_rows(tmp_path / "t.parquet", "", "t.parquet"))
    assert found == [(i + 1, {"i": i}) for i in range(5000)]


def test_what_is_no_table_of_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    for content in (b"", b"prompt\na cat\n", b"PAR1" * 40):
        path.write_bytes(content)
        assert refusal(path).startswith("t.parquet: is not a Parquet file that can be read: ")
    parquet.write_table(pa.table({"a": [1] * 3000}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:10] + b"\xff" * 20 + whole[30:])
    assert "t.parquet" in refusal(path)
    parquet.write_table(pa.table({"a": pa.array([], pa.string())}), path)
    assert refusal(path) == "job.yaml, line 3: t.parquet has no rows"
    parquet.write_table(pa.table([[1], [2]], names=["a", "a"]), path)
    assert refusal(path) == "t.parquet: has the column `a` twice; rename one of them"
    parquet.write_table(pa.table({"image": [b"x"]}), path)
    assert refusal(path) == "t.parquet: has no column that could be a variable"


def test_without_the_library_one_line_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert refusal(tmp_path / "t.parquet") == (
        'job.yaml, line 3: t.parquet needs a library that is not installed: pip install "image-batch-pipeline[parquet]"'
    )


def test_a_mistake_is_named_with_the_number_of_its_row(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"prompt": ["a", "b"], "size": ["256x256", "1x1"]}), tmp_path / "t.parquet")
    entry = {"prompt": "{{ prompt }}", "size": "{{ size }}", "model": "dall-e-2", "rows": "t.parquet"}
    with pytest.raises(JobError, match=r"size \(t\.parquet, row 2\)"):
        make_plan(make_job("a", [entry], folder=tmp_path), Provider("sandbox", None, sandbox={}), Models.load())
