"""What an export refuses, names and replaces: damage, destinations, options, libraries, picks; whole or not at all."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline import Batch, ExportOptions
from pipeline.errors import BrokenImage
from pipeline.exports.kinds import KINDS
from pipeline.exports.originals import DamagedImages
from tests.support.exports import stated
from tests.support.stage import staged
from tests.support.workbench import PNG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.stage import Stage

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries that write


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("export"), within=True) as stage:
        stage.provider("lab", stage.serve(rate_limit=None))
        stage.run("run", stage.prompts("small", 3))
        yield stage


@pytest.fixture
def small(made: Stage) -> Iterator[Stage]:
    """A job of three images, which a test may change; the next one has them again."""
    copy = made.folder / "copy"
    shutil.copytree(made.output, copy)
    yield made
    shutil.rmtree(made.output)
    copy.rename(made.output)


def _images(stage: Stage) -> list[Path]:
    return sorted((stage.output / "small" / "images").glob("*.png"))


def _refused(stage: Stage, *words: object, exit_code: int = 2) -> str:
    """Return the only line of an export that is refused."""
    shown = stage.run("export", "small", *words, exit_code=exit_code)
    assert shown.stdout == ""
    (line,) = shown.stderr.splitlines()
    return line


HARMS: dict[str, Callable[[Path], object]] = {
    "is missing": lambda path: path.unlink(),
    "bytes, recorded are": lambda path: path.write_bytes(PNG[:-3]),
    "another hash": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_images_are_named_and_nothing_stands_at_the_destination(
    small: Stage, tmp_path: Path, kind: str
) -> None:
    first, _, last = _images(small)
    harms = list(HARMS.items())
    for path, (_, harm) in zip((first, last), harms[KINDS.index(kind) % 2 :], strict=False):
        harm(path)
    dest = tmp_path / "dest"
    shown = small.run("export", "small", "--to", kind, "--dest", dest, exit_code=1)
    named = [line.partition(": ") for line in shown.stdout.splitlines()]
    assert [file for file, _, _ in named] == [f"small/images/{path.name}" for path in (first, last)]
    for (_, _, what), (said, _) in zip(named, harms[KINDS.index(kind) % 2 :], strict=False):
        assert said in what
    assert "verify small --repair" in shown.stderr
    assert list(tmp_path.iterdir()) == []
    assert list((small.output / "small" / "images").glob("*.json")) == []
    told = json.loads(small.run("export", "small", "--to", kind, "--dest", dest, "--json", exit_code=1).stdout)
    assert (told["path"], told["images"], len(told["damaged"])) == (None, 0, 2)
    with pytest.raises(BrokenImage, match="small/images/"):
        Batch.open(config=small.folder / "config.yaml").export("small", kind, dest)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sidecar"])
def test_the_default_destination_is_in_the_jobs_folder_and_what_is_there_is_replaced_by_force_alone(
    small: Stage, kind: str
) -> None:
    dest = small.output / "small" / f"export-{kind}"
    told = json.loads(small.run("export", "small", "--to", kind, "--json").stdout)
    assert told == {"job": "small", "kind": kind, "path": str(dest), "images": 3, "bytes": told["bytes"], "damaged": []}
    assert told["bytes"] == sum(path.stat().st_size for path in _images(small))
    assert dest.stat().st_mode & 0o077 == 0  # as the ledger and the manifest
    before = dest.stat().st_ino
    assert f"{dest} is there already: add --force" in _refused(small, "--to", kind)
    assert dest.stat().st_ino == before
    small.run("export", "small", "--to", kind, "--force")
    assert dest.stat().st_ino != before
    assert [path.name for path in dest.parent.glob(".*")] == []


def test_force_replaces_no_folder_that_is_not_an_export_and_no_file_of_the_output_folder(
    small: Stage, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    for kind, dest in (
        ("imagefolder", tmp_path / "mine"),
        ("csv", tmp_path / "mine"),
        ("csv", small.output / "ledger.sqlite3"),
        ("webdataset", small.output),
        ("batch", small.output / "small"),
        ("csv", small.output / "small" / "manifest.jsonl"),
    ):
        assert "is not an export" in _refused(small, "--to", kind, "--dest", dest, "--force")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    (tmp_path / "old.csv").write_text("mine, and meant")
    small.run("export", "small", "--to", "webdataset", "--dest", tmp_path / "empty", "--force")
    small.run("export", "small", "--to", "csv", "--dest", tmp_path / "old.csv", "--force")
    assert small.run("verify").stdout == ""


def test_a_destination_that_cannot_be_made_is_named(small: Stage, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written" in _refused(small, "--to", "csv", "--dest", tmp_path / "file" / "x.csv")
    assert _refused(small, "--to", "csv", "--dest", "/").startswith("error: / is there already")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to", "zip"), "no export of the kind `zip`: write one of imagefolder, webdataset"),
        (("--to", "csv", "--link"), "--link is for imagefolder and croissant, not for csv"),
        (("--to", "csv", "--embed"), "--embed is for parquet"),
        (("--to", "parquet", "--no-images"), "--no-images is for batch"),
        (("--to", "csv", "--picks", "none.jsonl"), "none.jsonl: does not exist; save it in the report"),
    ],
)
def test_options_that_do_not_fit_are_refused(small: Stage, words: tuple[str, ...], said: str) -> None:
    assert said in _refused(small, *words)


@pytest.mark.parametrize(("kind", "library"), [("parquet", "pyarrow"), ("croissant", "mlcroissant")])
def test_a_missing_library_is_one_line_with_what_installs_it(
    small: Stage, monkeypatch: pytest.MonkeyPatch, kind: str, library: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == library else real(name))
    line = _refused(small, "--to", kind)
    assert f'{library}, which is not installed: pip install "image-batch-pipeline[{kind}]"' in line


def test_a_job_without_images_has_nothing_to_export(small: Stage) -> None:
    small.run("submit", small.prompts("new", 2))
    shown = small.run("export", "new", "--to", "imagefolder", exit_code=2)
    assert "job `new` has no stored images" in shown.stderr
    assert "no job `none`" in small.run("export", "none", "--to", "csv", exit_code=2).stderr


def test_what_is_superseded_or_unfinished_is_not_exported(small: Stage, tmp_path: Path) -> None:
    path = small.prompts("small", 3)
    (small.folder / "small.txt").write_text("prompt number 1\nprompt number 2\nanother prompt\n")
    small.run("submit", path)
    dest = tmp_path / "batch"
    assert small.run("export", "small", "--to", "batch", "--dest", dest).stdout == f"{dest}\n"
    lines = [json.loads(line) for line in (dest / "output.jsonl").read_text().splitlines()]
    assert [line["custom_id"][:15] for line in lines] == ["prompt-number-1", "prompt-number-2"]
    assert (dest / "errors.jsonl").read_text() == ""
    small.run("export", "small", "--to", "imagefolder", "--dest", tmp_path / "set")
    assert len((tmp_path / "set" / "metadata.jsonl").read_text().splitlines()) == 2


def test_what_was_made_again_is_exported_in_place_of_what_it_replaces(small: Stage, tmp_path: Path) -> None:
    small.run("redo", "small", "--all", "--yes")
    names = set(stated(small.manifest("small")))
    assert all(len(entry["replaced"]) == 1 for entry in small.manifest("small"))
    small.run("export", "small", "--to", "imagefolder", "--dest", tmp_path / "set")
    assert {path.name for path in (tmp_path / "set" / "images").iterdir()} == names


def test_links_share_the_bytes_of_their_images(small: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small.run("export", "small", "--to", "imagefolder", "--dest", tmp_path / "set", "--link")
    links = sorted((tmp_path / "set" / "images").iterdir())
    assert [path.stat().st_ino for path in links] == [path.stat().st_ino for path in _images(small)]

    def refuse(*_: object) -> None:
        raise OSError(18, os.strerror(18))

    monkeypatch.setattr(os, "link", refuse)
    line = _refused(small, "--to", "croissant", "--dest", tmp_path / "other", "--link")
    assert "leave out --link, or choose a --dest on the same file system" in line
    assert not (tmp_path / "other").exists()


def _picks(stage: Stage, *marks: str, **changes: object) -> Path:
    """Write marks of the first images as the report saves them."""
    entries = stage.manifest("small")
    lines = [
        {"id": entry["id"], "file": image["file"], "sha256": image["sha256"], "mark": mark, **changes}
        for mark, entry in zip(marks, entries, strict=False)
        for image in entry["images"]
    ]
    path = stage.folder / "picks.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_only_picks_that_are_accepted_are_exported(small: Stage, tmp_path: Path, kind: str) -> None:
    picks = _picks(small, "accept", "reject")
    told = small.run("export", "small", "--to", kind, "--dest", tmp_path / "dest", "--picks", picks, "--json").stdout
    assert json.loads(told)["images"] == 1
    first, *_ = stated(small.manifest("small"))
    if kind == "imagefolder":
        assert [path.name for path in (tmp_path / "dest" / "images").iterdir()] == [first]


ACCEPTED = '{"file": "x", "sha256": "y", "mark": "accept"}'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "picks.jsonl, line 1: is not JSON"),
        ('\n{"file": "x", "mark": "accept"}\n', "line 2: sha256: is missing or not text"),
        ('{"file": "x", "sha256": "y", "mark": "good"}', "mark: is `good`; it must be one of accept, reject"),
        ('{"file": "x", "sha256": "y", "mark": "reject"}', "accept no image"),
        (
            '{"file": "images/x.png", "sha256": "y", "mark": "accept"}',
            "line 1: job `small` states no image images/x.png",
        ),
        (f"{ACCEPTED}\n{ACCEPTED.replace('accept', 'reject')}", "accept no image"),
        ("", "accept no image"),
    ],
)
def test_picks_that_are_wrong_are_refused(small: Stage, tmp_path: Path, text: str, said: str) -> None:
    (small.folder / "picks.jsonl").write_text(text)
    line = _refused(small, "--to", "csv", "--dest", tmp_path / "x.csv", "--picks", "picks.jsonl")
    assert said in line
    assert list(tmp_path.iterdir()) == []


def test_python_exports(small: Stage, tmp_path: Path) -> None:
    batch = Batch.open(config=small.folder / "config.yaml")
    counted: list[tuple[int, int]] = []
    found = batch.export("small", "webdataset", tmp_path / "shards", count=lambda *numbers: counted.append(numbers))
    assert (found.path, found.images) == (tmp_path / "shards", 3)
    assert counted == [(0, 3), (1, 3), (2, 3)]
    assert batch.export("small", "imagefolder", options=ExportOptions(link=True)).kind == "imagefolder"
    _images(small)[0].unlink()
    with pytest.raises(DamagedImages) as raised:
        batch.export("small", "csv")
    assert [one.what for one in raised.value.damaged] == ["is missing"]


def test_an_export_that_was_killed_before_the_job_changed_begins_anew(small: Stage, tmp_path: Path) -> None:
    left = tmp_path / ".set.part" / "content" / "images"
    left.mkdir(parents=True)
    (left / "old.png").write_bytes(b"of another job")
    (left.parents[1] / "fingerprint").write_text("of another job")
    small.run("export", "small", "--to", "imagefolder", "--dest", tmp_path / "set")
    assert sorted(path.name for path in (tmp_path / "set" / "images").iterdir()) == [one.name for one in _images(small)]


def test_an_export_that_is_at_work_is_not_disturbed(small: Stage, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / ".set.part").mkdir()
    with FileLock(tmp_path / ".set.part" / "lock"):
        shown = small.run("export", "small", "--to", "csv", "--dest", tmp_path / "set", exit_code=3)
    assert "another process is exporting" in shown.stderr


def test_a_force_that_was_killed_between_its_two_renames_is_completed(small: Stage, tmp_path: Path) -> None:
    dest = tmp_path / "night.csv"
    (tmp_path / ".night.csv.part").mkdir()
    (tmp_path / ".night.csv.part" / "old").write_text("the export before")
    small.run("export", "small", "--to", "csv", "--dest", dest)
    assert dest.read_text().startswith("file_name,")
    assert [path.name for path in tmp_path.iterdir()] == ["night.csv"]


def test_the_python_api_starts_without_the_libraries_of_images_and_exports() -> None:
    libraries = "PIL", "pyarrow", "mlcroissant", "aiohttp"
    code = f"import pipeline.batch, sys; sys.exit(str([one for one in {libraries} if one in sys.modules]))"
    assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, check=False).stderr == b"[]\n"


def test_what_was_to_be_replaced_stays_if_its_place_cannot_be_taken(
    small: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest, real = tmp_path / "old.csv", os.rename
    dest.write_text("the old one")

    def refuse(source: Path, target: Path) -> None:
        if source.name == "content":
            raise OSError(5, os.strerror(5))
        real(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    assert (
        "cannot be written"
        in small.run("export", "small", "--to", "csv", "--dest", dest, "--force", exit_code=3).stderr
    )
    assert dest.read_text() == "the old one"
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]


@pytest.mark.parametrize("number", range(18))
def test_a_kill_at_any_step_to_the_disk_is_completed_by_the_next_call(
    small: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    steps = iter(range(number))

    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **more: object) -> object:
            if next(steps, None) is None:
                raise Killed
            return real(*args, **more)

        return step

    dest, batch = tmp_path / "night.csv", Batch.open(config=small.folder / "config.yaml")
    with monkeypatch.context() as patched:
        for name in ("fsync", "rename", "replace", "unlink", "rmdir"):
            patched.setattr(os, name, dying(getattr(os, name)))
        with contextlib.suppress(Killed):
            batch.export("small", "csv", dest)
    assert batch.export("small", "csv", dest).images == 3
    assert len(dest.read_text().splitlines()) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["night.csv"]


class Killed(BaseException):
    """The end of a process, after which nothing is tidied up."""
