"""`pipeline import` writes a job for images that other tools left, and that job plans as it is."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from pipeline.planning.identity import UniqueIds
from pipeline.planning.job import read_job
from tests.support.stage import staged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.stage import Stage

RED, WHITE, BLACK, CLEAR = (200, 30, 30, 255), (255, 255, 255, 255), (0, 0, 0, 255), (0, 0, 0, 0)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path, within=True) as stage:
        stage.provider("lab", "http://127.0.0.1:9/v1")
        (tmp_path / "shop").mkdir()
        yield stage


def draw(path: Path, colour: tuple[int, ...] = RED, hole: tuple[int, ...] | None = None, mode: str = "RGBA") -> None:
    """Draw an image of one colour, with a hole of another one in its middle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGBA", (64, 64), colour)
    if hole is not None:
        image.paste(hole, (16, 16, 48, 48))
    image.convert(mode).save(path)


def requests(file: Path) -> list[dict[str, Any]]:
    job = read_job(file)
    assert job.problems == ()
    return [{key: value for key, value in one.fields.items() if key not in {"model", "size"}} for one in job.entries]


def test_images_with_prompts_and_masks_beside_them_are_edits_and_others_are_variations(stage: Stage) -> None:
    shop = stage.folder / "shop"
    for name in ("a.png", "b.jpg", "c.webp", "d.png", "e.gif"):
        draw(shop / name, mode="RGB")
    (shop / "a.txt").write_bytes("\ufeff a felt toy\n\n".encode())
    (shop / "b.txt").write_text("a {{ brace }}: #1\n'two' \U0001f3a8\u2028lines")
    draw(shop / "a.mask.png", BLACK, WHITE, mode="L")
    draw(shop / "b.mask.png", WHITE, CLEAR)
    (shop / "c.txt").write_text(" \n")
    (shop / "notes.md").write_text("x")
    draw(shop / ".hidden.png")
    ended = stage.run("import", "folder", "shop")
    assert ended.stdout == "shop/job.yaml\n"
    assert "2 edits and 3 variations\n" in ended.stderr
    assert "to see what they cost, run: pipeline plan shop/job.yaml" in ended.stderr
    a, b = "a felt toy", "a {{ '{{' }} brace }}: #1\n'two' \U0001f3a8\u2028lines"
    masks = [{"image": "a.mask.png", "edit": "white"}, {"image": "b.mask.png", "edit": "alpha"}]
    assert [tuple(one.values())[1:] for one in requests(shop / "job.yaml")] == [
        ("a", "edit", "a.png", masks[0], a),
        ("b", "edit", "b.jpg", masks[1], b),
        ("c", "variation", "c.webp"),
        ("d", "variation", "d.png"),
        ("e", "variation", "e.gif", "pad"),
    ]
    shown = json.loads(stage.run("plan", "shop/job.yaml", "--json").stdout)
    assert (shown["job"], shown["requests"], shown["warnings"]) == ("shop", 5, [])
    assert shown["first"][1]["prompt"] == "a {{ brace }}: #1\n'two' \U0001f3a8\u2028lines"


def test_a_job_elsewhere_has_paths_to_the_images_and_the_name_of_its_file(stage: Stage) -> None:
    draw(stage.folder / "shop" / "a b.png")
    (stage.folder / "jobs").mkdir()
    stage.run("import", "folder", "shop", "--job", "jobs/spring.yaml", "--quiet")
    assert requests(stage.folder / "jobs" / "spring.yaml")[0]["image"] == "../shop/a b.png"
    assert requests(stage.folder / "jobs" / "spring.yaml")[0]["id"] == "a-b"
    assert json.loads(stage.run("plan", "jobs/spring.yaml", "--json").stdout)["job"] == "spring"


def write_metadata(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    if name.endswith(".parquet"):
        parquet.write_table(pa.Table.from_pylist(rows), folder / name)
    elif name.endswith(".csv"):
        lines = [",".join(rows[0]), *(",".join(str(one) for one in row.values()) for row in rows)]
        (folder / name).write_text("\n".join(lines))
    else:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.parquet"])
@pytest.mark.parametrize("column", ["prompt", "text", "caption"])
def test_an_imagefolder_has_its_prompts_in_its_metadata(stage: Stage, name: str, column: str) -> None:
    shop = stage.folder / "shop"
    for image in ("train/a.png", "train/b.png", "train/unlisted.png"):
        draw(shop / image)
    rows = [{"file_name": "b.png", column: "a boat", "x": 1}, {"file_name": "a.png", column: "", "x": 2}]
    write_metadata(shop / "train", name, rows)
    stage.run("import", "imagefolder", "shop")
    one, two = requests(shop / "job.yaml")
    assert (one["id"], one["operation"], one["image"], one["prompt"]) == (
        "train-b",
        "edit",
        "train/b.png",
        "a boat",
    )
    assert (two["id"], two["operation"], "prompt" in two) == ("train-a", "variation", False)


def test_an_imagefolder_without_metadata_is_all_images_of_its_classes(stage: Stage) -> None:
    shop = stage.folder / "shop"
    for image in ("cat/1.png", "dog/1.png", "dog/2.jpg"):
        draw(shop / image, mode="RGB")
    stage.run("import", "imagefolder", "shop")
    found = requests(shop / "job.yaml")
    assert [one["id"] for one in found] == ["cat-1", "dog-1", "dog-2"]
    assert {one["operation"] for one in found} == {"variation"}


def test_a_mask_of_metadata_is_used(stage: Stage) -> None:
    shop = stage.folder / "shop"
    draw(shop / "a.png")
    draw(shop / "masks" / "a.png", BLACK, WHITE)
    write_metadata(shop, "metadata.jsonl", [{"file_name": "a.png", "prompt": "x", "mask_file_name": "masks/a.png"}])
    stage.run("import", "imagefolder", "shop")
    assert requests(shop / "job.yaml")[0]["mask"] == {"image": "masks/a.png", "edit": "white"}


def test_the_operation_of_all_images_may_be_asked_for(stage: Stage) -> None:
    shop = stage.folder / "shop"
    draw(shop / "a.png")
    draw(shop / "b.png")
    (shop / "a.txt").write_text("a toy")
    said = stage.run("import", "folder", "shop", "--operation", "variation").stderr
    assert "0 edits and 2 variations (1 with a prompt or a mask, which are left out)" in said
    assert [one.get("prompt") for one in requests(shop / "job.yaml")] == [None, None]
    (shop / "job.yaml").unlink()
    said = stage.run("import", "folder", "shop", "--operation", "edit", exit_code=2).stderr
    assert "shop/b.png: has no prompt: an edit needs one; write it into b.txt beside it" in said
    (shop / "b.txt").write_text("a boat")
    stage.run("import", "folder", "shop", "--operation", "edit")
    assert [one["prompt"] for one in requests(shop / "job.yaml")] == ["a toy", "a boat"]


@pytest.mark.parametrize("is_link", [False, True])
def test_a_job_that_is_there_is_not_replaced(stage: Stage, is_link: bool) -> None:
    draw(stage.folder / "shop" / "a.png")
    file = stage.folder / "shop" / "job.yaml"
    if is_link:
        file.symlink_to("nothing.yaml")
    else:
        file.write_text("mine")
    said = stage.run("import", "folder", "shop", exit_code=2).stderr
    assert "shop/job.yaml: is there already, and is not replaced; name another file with --job" in said
    assert is_link or file.read_text() == "mine"
    assert not (stage.folder / "shop" / "nothing.yaml").exists()


def wrong(stage: Stage, *words: str) -> str:
    ended = stage.run("import", *words, exit_code=2)
    assert not (stage.folder / "shop" / "job.yaml").exists()
    return ended.stderr


def test_what_is_wrong_in_a_folder_is_named_and_nothing_is_written(stage: Stage) -> None:
    shop = stage.folder / "shop"
    assert "shop: has no images (.png, .jpg" in wrong(stage, "folder", "shop")
    draw(shop / "below" / "x.png")
    assert "shop/below has: name that folder, or write `imagefolder`" in wrong(stage, "folder", "shop")
    draw(shop / "a.png")
    draw(shop / "lost.mask.png")
    (shop / "a.txt").write_bytes(b"fine\nCaf\xe9\n")
    said = wrong(stage, "folder", "shop")
    assert "lost.mask.png: is the mask of no image: there is no lost.png" in said
    assert "a.txt, line 2: is not UTF-8; save it as UTF-8" in said
    (shop / "lost.mask.png").unlink()
    (shop / "a.txt").write_text(" ")
    (shop / "a.mask.png").write_bytes(b"no image")
    assert "a.mask.png: " in wrong(stage, "folder", "shop")
    draw(shop / "a.mask.png", BLACK, WHITE)
    assert "a.png: has no prompt: an edit needs one" in wrong(stage, "folder", "shop"), "a mask is for an edit"
    (shop / "a.txt").write_text("x" * 1_000_001)
    assert "a.txt: has more than 1,000,000 bytes, and is no prompt" in wrong(stage, "folder", "shop")
    assert "nowhere: does not exist" in wrong(stage, "folder", "nowhere")
    assert "a.png: is no folder" in wrong(stage, "folder", "shop/a.png")
    shutil.rmtree(shop / "below")
    (shop / "a.txt").write_text("x")
    said = wrong(stage, "folder", "shop", "--job", "no/job.yaml")
    assert "no/job.yaml: cannot be written: No such file or directory" in said


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "x"}, "metadata.jsonl, line 1: has no `file_name`"),
        ({"file_name": "b.png"}, "metadata.jsonl, line 1: `b.png` does not exist"),
        ({"file_name": "a.png", "prompt": [1]}, "metadata.jsonl, line 1: has a prompt that is no text: [1]"),
        ({"file_name": "a.png", "mask_file_name": "m.png"}, "metadata.jsonl, line 1: `m.png` does not exist"),
    ],
)
def test_a_row_of_metadata_that_is_wrong_is_named(stage: Stage, row: dict[str, Any], words: str) -> None:
    draw(stage.folder / "shop" / "a.png")
    write_metadata(stage.folder / "shop", "metadata.jsonl", [row])
    assert words in wrong(stage, "imagefolder", "shop")


def test_a_name_that_is_not_utf_8_is_named(stage: Stage) -> None:
    draw(stage.folder / "shop" / "a.png")
    (stage.folder / "shop" / "a.png").rename(os.fsdecode(os.fsencode(stage.folder) + b"/shop/caf\xe9.png"))
    assert "has a name that is not UTF-8; rename it" in wrong(stage, "folder", "shop")


def test_ids_of_equal_texts_are_unique() -> None:
    ids = UniqueIds()
    found = [ids.of(text) for text in ("a", "A", "a", "a", "é")]
    assert found[0] == "a"
    assert len({one.lower() for one in found}) == 5
    assert found[4] == "-"
