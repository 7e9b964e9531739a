"""Parts of exports: types of variables, cells, shards, the order of a listing, and the bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pipeline.cli.work_line import bar
from pipeline.exports import webdataset
from pipeline.exports.batch_output import _line
from pipeline.exports.imagefolder import _file_name
from pipeline.exports.listing import ListedRequest, Listing
from pipeline.exports.rows import row
from pipeline.exports.tables import _cell, _columns
from pipeline.exports.variables import VariableTypes
from pipeline.storage import StoredImage

if TYPE_CHECKING:
    from collections.abc import Iterator


def _image(name: str, size: int = 100) -> StoredImage:
    return StoredImage(1, f"images/{name}", "0" * 64, size, 16, 16, "png", None)


def _entry(number: int, prompt: str | None = "a", **variables: Any) -> dict[str, Any]:
    names = ("job", "operation", "provider", "endpoint", "settings", "request_id", "finished_at")
    fields = dict.fromkeys(names)
    return {**fields, "id": f"r{number}", "key": str(number), "prompt": prompt, "params": {}, "variables": variables}


def _listing(*requests: ListedRequest) -> Listing:
    listing = Listing("job")
    for request in requests:
        listing.add(request)
    return listing


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([1, 2, None], [1, 2, None]),
        ([1, 2.5], [1.0, 2.5]),
        ([True, 1], ["true", "1"]),
        (["a", 1, None, True], ["a", "1", None, "true"]),
        ([{"b": "ü"}, [1]], ['{"b": "ü"}', "[1]"]),
        ([2**63, 1], [str(2**63), "1"]),
        ([None], [None]),
    ],
)
def test_a_variable_has_one_type_in_all_rows(values: list[Any], shown: list[Any]) -> None:
    types = VariableTypes()
    for value in values:
        types.add({"x": value})
    assert [types.shown({"x": value})["x"] for value in values] == shown
    assert {type(value) for value in shown if value is not None} <= {
        {"integer": int, "number": float, "boolean": bool, "text": str}[types.types()["x"]]
    }


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "  =", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_a_cell_that_a_spreadsheet_would_run_is_text(start: str) -> None:
    assert _cell(f"{start}cmd") == f"'{start}cmd"
    assert _cell(f"a{start}cmd") == f"a{start}cmd"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("a-test-cat-1.png", "a-test+-cat-1.png"),
        ("train.png", "train+.png"),
        ("my_Validation_set-train-1.jpg", "my_Validation+_set-train+-1.jpg"),
        ("2dev2-1.png", "2dev+2-1.png"),
        ("contest-1.png", "contest-1.png"),
        ("tested-1.png", "tested-1.png"),
    ],
)
def test_no_word_of_a_file_name_is_taken_for_a_split(name: str, written: str) -> None:
    assert _file_name(_image(name)) == written


def _shards(listing: Listing) -> Iterator[tuple[int, str]]:
    return ((member.shard, member.key) for member in webdataset._members(listing))


def test_shards_end_at_a_number_of_images_or_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a.b-1.png", "a_b-1.png", "c-1.png", "c-2.png", "d-1.png"]
    monkeypatch.setattr(webdataset, "MOST_IMAGES", 2)
    with _listing(*(ListedRequest(_entry(1), (_image(name),)) for name in names)) as listing:
        assert list(_shards(listing)) == [(0, "a_b-1"), (0, "a_b-1_"), (1, "c-1"), (1, "c-2"), (2, "d-1")]
    monkeypatch.setattr(webdataset, "MOST_BYTES", 100_000)
    with _listing(*(ListedRequest(_entry(1), (_image(f"{size}.png", size),)) for size in (90_000, 900, 99_999))) as one:
        assert [shard for shard, _ in _shards(one)] == [0, 1, 2]


def test_what_makes_a_column_known_comes_first_if_it_is_far_from_the_beginning() -> None:
    many = (ListedRequest(_entry(number, "x" * 10_000), (_image(f"{number}.png"),)) for number in range(120))
    late = ListedRequest(_entry(120, animal="cat", count=None), (_image("late.png"),))
    later = ListedRequest(_entry(121, animal="dog", count=1), (_image("later.png"),))
    with _listing(*many, late, later, later) as listing:
        files = [image.file for _, image in listing.iter_images(exemplars_first=True)]
        assert files[:3] == ["images/late.png", "images/later.png", "images/0.png"]
        assert files[-1] == "images/later.png"
        assert len(files) == 123
        assert next(listing.iter_images())[1].file == "images/0.png"


def test_a_custom_id_stands_in_place_of_the_id_in_batch_output_and_beside_it_in_tables() -> None:
    request = ListedRequest({**_entry(1), "custom_id": "their id"}, (_image("a.png"),))
    assert row(request, request.images[0], "a.png", {})["custom_id"] == "their id"
    assert _line(request.entry, None, None)["custom_id"] == "their id"
    assert _line(_entry(2), None, None)["custom_id"] == "r2"
    with _listing(request, ListedRequest(_entry(2), ())) as mixed, _listing(ListedRequest(_entry(2), ())) as plain:
        assert (_columns(mixed)[-1], _columns(plain)[-1]) == ("custom_id", "id")


@pytest.mark.parametrize(("done", "full"), [(0, 0), (499, 9), (500, 10), (999, 19), (1000, 20)])
def test_the_bar_of_an_export_is_full_at_its_end(done: int, full: int) -> None:
    assert bar(done, 1000) == "━" * full + "─" * (20 - full) + " "
