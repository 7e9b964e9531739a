"""Exports of many images: killed at any moment, completed by the next call, and within a bound of memory."""

from __future__ import annotations

import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.exports import fill
from tests.support.readme import HOME
from tests.support.stage import Stage, finish, staged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MOST_MB = 300
KINDS = ["imagefolder", "webdataset", "parquet", "csv", "croissant", "batch", "sidecar"]
SHORT = ["imagefolder", "webdataset", "parquet", "batch"]
MEASURED = """
import sys
from pipeline.cli.main import main
try:
    main(sys.argv[1:])
finally:
    (peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(peak.split()[1], file=sys.stderr)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Return the folder with a job of so many images; it is made once."""
    made: dict[int, Path] = {}

    def folder(count: int) -> Path:
        if count not in made:
            made[count] = tmp_path_factory.mktemp("many")
            fill(made[count] / "outputs", count)
            settings = {"output": "outputs", "providers": {"lab": {"base_url": "http://127.0.0.1:9/v1"}}}
            (made[count] / "config.yaml").write_text(yaml.safe_dump(settings))
        return made[count]

    return folder


CASES = [
    *(pytest.param(kind, 2_500, 1, id=f"{kind} short") for kind in SHORT),
    *(pytest.param(kind, 100_000, 10, id=f"{kind} long", marks=pytest.mark.long) for kind in KINDS),
]


@pytest.mark.parametrize(("kind", "count", "kills"), CASES)
@pytest.mark.timeout(3600)
def test_an_export_is_killed_and_completed_within_a_bound_of_memory(
    folders: Callable[[int], Path], tmp_path: Path, kind: str, count: int, kills: int
) -> None:
    draw = random.Random(f"{kind} {kills}")
    dest = tmp_path / "dest"
    words = ["export", "big", "--to", kind, "--dest", str(dest), *(["--embed"] if kind == "parquet" else [])]
    images = folders(count) / "outputs" / "big" / "images"
    with staged(folders(count)) as stage:
        for kill in range(kills):
            steps = (f"die_reading:{draw.randrange(1, count)}", f"die:{draw.randrange(1, 30)}")
            code = stage.run(*words, exit_code=None, sabotage=steps[kill % 2]).exit_code
            assert code in {0, -signal.SIGKILL}
            if code == 0:  # the end came first
                _remove(dest, images)
            assert not dest.exists() or (dest.parent / ".dest.part" / "whole").exists()  # killed after the last rename
        peak = _complete(stage, words)
    print(f"{kind} of {count:,} images: {peak} MB of memory")
    assert peak < MOST_MB
    assert _count(kind, images if kind == "sidecar" else dest) == count
    assert [one.name for one in tmp_path.iterdir()] == ([] if kind == "sidecar" else ["dest"])
    _remove(dest, images)


def _complete(stage: Stage, words: list[str]) -> int:
    """Export to the end; return the most memory that the process had, in MB."""
    process = subprocess.Popen(
        [sys.executable, "-c", MEASURED, *words],
        cwd=stage.folder,
        env={"PYTHONPATH": str(HOME), "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ended = finish(process)
    assert ended.exit_code == 0, ended.stderr
    return int(ended.stderr.split()[-1]) // 1024


def _remove(dest: Path, images: Path) -> None:
    if dest.is_dir():
        shutil.rmtree(dest)
    dest.unlink(missing_ok=True)
    for path in images.glob("*.json"):
        path.unlink()


def _count(kind: str, dest: Path) -> int:
    """Return how many images an export has, each whole: by the number of a line, or of a file that is not empty."""
    match kind:
        case "imagefolder" | "croissant":
            rows = [json.loads(line) for line in (dest / "metadata.jsonl").read_text().splitlines()]
            assert len(rows) == len(list((dest / "images").iterdir()))
            return len({row["sha256"] for row in rows if (dest / row["file_name"]).stat().st_size})
        case "webdataset":
            assert {path.suffix for path in dest.iterdir()} == {".tar"}
            return sum(_count_in_shard(path) for path in dest.iterdir())
        case "parquet":
            import pyarrow.parquet as pq

            return len(set(pq.read_table(dest, columns=["sha256"])["sha256"].to_pylist()))
        case "csv":
            with dest.open(newline="", encoding="utf-8") as file:
                return len({row["sha256"] for row in csv.DictReader(file)})
        case "batch":
            assert (dest / "errors.jsonl").read_text() == ""
            with (dest / "output.jsonl").open() as lines:
                return len({json.loads(line)["response"]["body"]["data"][0]["b64_json"] for line in lines})
        case _:
            return len({json.loads(path.read_text())["sha256"] for path in dest.glob("*.json")})


def _count_in_shard(path: Path) -> int:
    with tarfile.open(path) as tar:
        names = tar.getnames()
    assert len(names) % 3 == 0
    assert len(names) <= 30_000
    return len(names) // 3
