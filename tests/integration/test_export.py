"""Exports of a job of 200 images, read by the tools that they are for: prompts, variables, files and hashes."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import json
import sqlite3
import tarfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.exports.kinds import KINDS
from tests.support.exports import Told, fill, make_job, png_with_note, stated
from tests.support.stage import staged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.stage import Stage

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries that read

FOLDERS = [kind for kind in KINDS if kind != "sidecar"]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A job of 200 images, which tests read and do not change."""
    with staged(tmp_path_factory.mktemp("export"), within=True) as stage:
        stage.provider("lab", stage.serve(rate_limit=None))
        stage.run("run", make_job(stage), exit_code=1)
        assert len(stated(stage.manifest("night"))) == 200
        yield stage


@pytest.fixture
def small(stage: Stage) -> Stage:
    """A job of three images, which tests may damage."""
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.prompts("small", 3))
    return stage


def _export(stage: Stage, kind: str, dest: Path, *options: object, job: str = "night") -> Path:
    shown = stage.run("export", job, "--to", kind, "--dest", dest, *options)
    assert shown.stdout == f"{dest}\n"
    assert list(dest.parent.glob(".*.part")) == []
    return dest


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}.items():
        monkeypatch.setenv(name, value)


def _load(kind: str, tmp_path: Path, **how: Any) -> Any:
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_dataset(kind, cache_dir=str(tmp_path / "cache"), split="train", **how)


def _typed(told: Told) -> Told:
    """Return what a reader of columns gets: a variable with several types is text."""
    variables = dict(told.variables)
    for name in {"style", "mixed"} & set(variables):
        value = variables[name]
        variables[name] = value if isinstance(value, str) else json.dumps(value)
    return told._replace(variables=variables)


def _without_none(variables: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in variables.items() if value is not None}


def test_datasets_loads_an_imagefolder(night: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _offline(monkeypatch, tmp_path)
    dest = _export(night, "imagefolder", tmp_path / "set")
    rows = [json.loads(line) for line in (dest / "metadata.jsonl").read_text().splitlines()]
    expected = {told.sha256: _typed(told) for told in stated(night.manifest("night")).values()}
    assert {row["sha256"]: Told(row["prompt"], row["variables"], row["sha256"]) for row in rows} == expected
    for row in rows:
        assert _sha256((dest / row["file_name"]).read_bytes()) == row["sha256"]
        assert row["model"] == "dall-e-2"
        assert row["request_id"].startswith("req_")
    loaded = _load("imagefolder", tmp_path, data_dir=str(dest))
    found = {one["sha256"]: Told(one["prompt"], _without_none(one["variables"]), one["sha256"]) for one in loaded}
    assert found == expected
    assert {one["image"].size for one in loaded} == {(256, 256)}


def test_webdataset_reads_shards(night: Stage, tmp_path: Path) -> None:
    import webdataset

    dest = _export(night, "webdataset", tmp_path / "shards")
    read = list(webdataset.WebDataset(str(dest / "shard-00000.tar"), shardshuffle=False))
    expected = stated(night.manifest("night"))
    assert {one["__key__"] for one in read} >= {"train_set-1", "train_set-1_"}  # of `train.set-1` and `train_set-1`
    found = {}
    for one in read:
        described = json.loads(one["json"])
        assert described["sha256"] == _sha256(one["png"])
        assert one["txt"].decode() == (described["prompt"] or "")
        found[described["sha256"]] = Told(described["prompt"], described["variables"], described["sha256"])
    assert found == {told.sha256: told for told in expected.values()}


def test_webdataset_makes_the_same_bytes_again(night: Stage, tmp_path: Path) -> None:
    first, second = (_export(night, "webdataset", tmp_path / name) / "shard-00000.tar" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as tar:
        assert {(one.mtime, one.uid, one.gid, one.uname) for one in tar} == {(0, 0, 0, "")}


@pytest.mark.parametrize("embed", [False, True])
def test_pyarrow_and_datasets_read_parquet(
    night: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, embed: bool
) -> None:
    import pyarrow.parquet as pq

    _offline(monkeypatch, tmp_path)
    dest = _export(night, "parquet", tmp_path / "night.parquet", *(["--embed"] if embed else []))
    rows = pq.read_table(dest).to_pylist()
    assert {Path(row["file_name"]).name: _told(row) for row in rows} == stated(night.manifest("night"))
    for row in rows:
        content = row["image"]["bytes"] if embed else (dest.parent / row["file_name"]).read_bytes()
        assert _sha256(content) == row["sha256"]
    loaded = _load("parquet", tmp_path, data_files=str(dest))
    assert len(loaded) == 200
    if embed:
        assert loaded[0]["image"].size == (256, 256)


def _told(row: dict[str, Any]) -> Told:
    return Told(row["prompt"], json.loads(row["variables"]), row["sha256"])


def test_csv_has_the_same_columns_and_no_cell_that_a_spreadsheet_runs(night: Stage, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    dest = _export(night, "csv", tmp_path / "night.csv")
    with dest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == pq.read_schema(_export(night, "parquet", tmp_path / "night.parquet")).names
    expected = stated(night.manifest("night"))
    for row in rows:
        told = expected[Path(row["file_name"]).name]
        prompt = told.prompt or ""
        assert row["prompt"] == (f"'{prompt}" if prompt[:1] in {"=", "-", "+"} else prompt)
        assert (json.loads(row["variables"]), row["sha256"]) == (told.variables, told.sha256)
        assert _sha256((dest.parent / row["file_name"]).read_bytes()) == row["sha256"]
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row.values())
    assert len(rows) == 200


def test_mlcroissant_validates_and_reads_a_croissant(night: Stage, tmp_path: Path) -> None:
    import mlcroissant

    dest = _export(night, "croissant", tmp_path / "set")
    with contextlib.redirect_stderr(None), warnings.catch_warnings():
        read = mlcroissant.Dataset(jsonld=str(dest / "croissant.json"))
        assert not read.metadata.ctx.issues.errors
        records = list(read.records("images"))
    found = {}
    for record in records:
        plain = {name.rpartition("/")[2]: value for name, value in record.items()}
        file, sha256 = plain["file_name"].decode(), plain["sha256"].decode()
        assert _sha256((dest / file).read_bytes()) == sha256
        assert plain["image"].size == (256, 256)
        variables = {name.rpartition("/")[2]: value for name, value in plain["variables"].items()}
        texts = {name: one.decode() if isinstance(one, bytes) else one for name, one in variables.items()}
        prompt = None if plain["prompt"] is None else plain["prompt"].decode()
        found[sha256] = Told(prompt, _without_none(texts), sha256)
    assert found == {told.sha256: _typed(told) for told in stated(night.manifest("night")).values()}


@pytest.mark.parametrize("images", [True, False])
def test_batch_output_has_the_form_of_the_service(night: Stage, tmp_path: Path, *, images: bool) -> None:
    dest = _export(night, "batch", tmp_path / "batch", *([] if images else ["--no-images"]))
    entries = {entry["id"]: entry for entry in night.manifest("night")}
    lines = [json.loads(line) for line in (dest / "output.jsonl").read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == [entry["id"] for entry in entries.values() if entry["images"]]
    for line in lines:
        entry, response = entries[line["custom_id"]], line["response"]
        assert (line["error"], response["status_code"]) == (None, 200)
        assert response["request_id"] == entry["request_id"]
        hashes = [_sha256(base64.b64decode(one["b64_json"])) for one in response["body"]["data"] if images]
        assert hashes == [image["sha256"] for image in entry["images"] if images]
        assert images or response["body"]["data"] == [{} for _ in entry["images"]]
    (failed,) = {json.dumps(entry["error"]) for entry in entries.values() if entry["status"] == "failed"}
    errors = [json.loads(line) for line in (dest / "errors.jsonl").read_text().splitlines()]
    assert len(errors) == 3
    for line in errors:
        assert line["response"]["status_code"] == 400
        assert line["response"]["body"]["error"]["code"] == json.loads(failed)["code"]


def test_sidecars_stand_beside_their_images(small: Stage) -> None:
    shown = small.run("export", "small", "--to", "sidecar", "--dest", "ignored", "--json")
    assert json.loads(shown.stdout)["path"] == str(small.output / "small" / "images")
    for path in (small.output / "small" / "images").glob("*.png"):
        described = json.loads(path.with_suffix(".json").read_text())
        assert described["sha256"] == _sha256(path.read_bytes())
        assert described["prompt"].startswith("prompt number")
    assert shown.stderr.startswith("warning: --dest changes nothing for sidecar")
    assert not (small.folder / "ignored").exists()
    assert small.run("verify").stdout == ""
    assert "not in the ledger" not in small.run("verify").stderr
    assert "there already" in small.run("export", "small", "--to", "sidecar", exit_code=2).stderr
    (lost, changed, _) = sorted((small.output / "small" / "images").glob("*.json"))
    kept = lost.read_bytes()
    lost.unlink()
    small.run("export", "small", "--to", "sidecar")
    assert lost.read_bytes() == kept
    changed.write_text("mine")
    assert changed.name in small.run("export", "small", "--to", "sidecar", exit_code=2).stderr
    assert changed.read_text() == "mine"
    small.run("export", "small", "--to", "sidecar", "--force")
    assert changed.read_text() != "mine"


def test_provenance_marks_are_counted_by_verify_and_survive_in_every_export(stage: Stage, tmp_path: Path) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    fill(stage.output, 3, "marked")
    first, second, _ = sorted((stage.output / "marked" / "images").iterdir())
    marked = png_with_note(b"a manifest of C2PA", b"caBX", b"")
    for path in (first, second):
        path.write_bytes(marked)
        with contextlib.closing(sqlite3.connect(stage.output / "ledger.sqlite3", isolation_level=None)) as ledger:
            row = (_sha256(marked), len(marked), f"images/{path.name}")
            ledger.execute("UPDATE image SET sha256 = ?, bytes = ? WHERE file = ?", row)
    assert "2 of 3 images have a C2PA mark" in stage.run("verify").stderr
    assert "C2PA" not in stage.run("verify", "--quiet").stderr
    for kind, options in (("imagefolder", ()), ("webdataset", ()), ("parquet", ("--embed",))):
        dest = _export(stage, kind, tmp_path / kind, *options, job="marked")
        files = [path for path in dest.rglob("*") if path.is_file()] if dest.is_dir() else [dest]
        assert sum(path.read_bytes().count(marked) for path in files) == 2
    output = (_export(stage, "batch", tmp_path / "batch", job="marked") / "output.jsonl").read_text()
    assert output.count(base64.b64encode(marked).decode()) == 2
