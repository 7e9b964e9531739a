"""The wheel and the sdist: reproducible, complete, and usable where nothing else is installed.

Nothing is downloaded: the empty environment gets the wheel, and links to the installed distributions that the wheel's
metadata asks for, directly or through another one, and to no others.
"""

from __future__ import annotations

import email
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterator

HOME = Path(__file__).parents[2]
SOURCES = (".ci", ".gitignore", "LICENSE", "README.md", "config.yaml", "jobs", "pipeline", "pyproject.toml", "tests")

PROGRAM = """
from pathlib import Path

from pipeline import Batch, ImageFile, RequestError, Result, make_job


def make(folder: Path) -> list[ImageFile]:
    job = make_job("cats", [{"prompt": "a cat", "model": "dall-e-2", "size": "256x256"}])
    batch = Batch.open(output=folder, provider="sandbox")
    result: Result = batch.run_sync([job])
    try:
        result.raise_for_error()
    except RequestError as error:
        print(error.http_status, error.error["code"])
    return [image for request in result.requests for image in request.images]
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this tree."""
    return _build(tmp_path_factory.mktemp("first"), age=0)


@pytest.fixture(scope="module")
def python(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel and what the wheel asks for."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    _run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index", "--no-deps", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in _needed(_metadata(wheel).get_all("Requires-Dist") or []):
        for top in {file.parts[0] for file in distribution(name).files or []} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(str(distribution(name).locate_file(top)))
    return python


def _build(folder: Path, *, age: int) -> Path:
    """Build from a copy of the tree whose files are `age` seconds older than they are."""
    tree = folder / "tree"
    for name in SOURCES:
        source = HOME / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            tree.mkdir(exist_ok=True)
            shutil.copy2(source, tree / name)
    for path in tree.rglob("*"):
        os.utime(path, (path.stat().st_mtime - age, path.stat().st_mtime - age))
    _run(sys.executable, "-m", "hatchling", "build", "-d", folder / "dist", cwd=tree)
    return folder / "dist"


def _run(*words: object, cwd: Path | None = None, exit_code: int = 0) -> str:
    hidden = {"PYTHONPATH", "PYTHONHOME", "PIPELINE_CONFIG", "SOURCE_DATE_EPOCH"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    ended = subprocess.run(
        list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=110
    )
    assert ended.returncode == exit_code, f"{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def _metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def _needed(requirements: list[str], extras: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the distributions that these requirements ask for, and what those ask for."""
    for requirement in map(Requirement, requirements):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            yield requirement.name
            below = distribution(requirement.name).requires or []
            yield from _needed(below, frozenset(requirement.extras))


def _without_limit(config: Path) -> None:
    """Take out the limit of the sandbox, for which the quick start waits most of its time."""
    limited, text = "    sandbox: true ", config.read_text()
    assert text.count(limited) == 1
    config.write_text(text.replace(limited, "    rate_limit: null\n    sandbox: {rate_limit: null} "))


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_two_builds_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    assert _digests(built) == _digests(_build(tmp_path, age=86_400))
    assert {path.suffix for path in built.iterdir()} == {".whl", ".gz"}


def test_the_wheel_has_the_package_its_data_and_the_licence_alone(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = {str(path.relative_to(HOME)) for path in (HOME / "pipeline").rglob("*") if path.is_file()}
    tracked = {name for name in tracked if "__pycache__" not in name}
    info = {name for name in names if ".dist-info/" in name}
    assert names - info == tracked | {"pipeline/cli/TROUBLESHOOTING.md"}
    assert {"pipeline/py.typed", "pipeline/ledger/schema.sql", "pipeline/models/models.yaml"} <= names
    assert any(name.endswith("/licenses/LICENSE") for name in info)
    metadata = _metadata(wheel)
    assert (metadata["License-Expression"], metadata["Author"]) == ("MIT", "the image-batch-pipeline authors")


def test_the_quickstart_runs_from_the_wheel_with_the_files_of_the_sdist(
    built: Path, python: Path, tmp_path: Path
) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    assert {path.name for path in tree.iterdir()} == {*SOURCES, "PKG-INFO"}
    assert (tree / "tests" / "data" / "ledger-v2" / "outputs" / "ledger.sqlite3").exists()
    shutil.rmtree(tree / "pipeline")
    place = json.loads(_run(python, "-c", "import json, pipeline; print(json.dumps(pipeline.__file__))", cwd=tree))
    assert Path(place).is_relative_to(python.parents[1])
    pipeline = python.with_name("pipeline")
    _run(pipeline, "plan", "jobs/quickstart.yaml", cwd=tree)
    _without_limit(tree / "config.yaml")
    _run(pipeline, "run", "jobs/quickstart.yaml", cwd=tree)
    manifest = (tree / "outputs" / "quickstart" / "manifest.jsonl").read_text().splitlines()
    assert {json.loads(line)["status"] for line in manifest} == {"succeeded"}
    assert (tree / "outputs" / "quickstart" / "report.html").stat().st_size > 50_000
    assert "401 or 403" in _run(pipeline, "help", "KeyRefused", cwd=tmp_path)
    said = _run(python.with_name("image-batch-pipeline"), "--version", cwd=tree)
    assert said.strip().endswith(str(_metadata(next(built.glob("*.whl")))["Version"]))


def test_init_from_the_wheel_names_the_schemas_that_are_installed_with_it(python: Path, tmp_path: Path) -> None:
    pipeline = python.with_name("pipeline")
    _run(pipeline, "init", cwd=tmp_path)
    for file, kind in (("config.yaml", "config"), ("first.yaml", "job")):
        named = Path((tmp_path / file).read_text().partition("$schema=")[2].partition("\n")[0])
        assert named.is_relative_to(python.parents[1])
        assert named.read_text() == _run(pipeline, "schema", kind, cwd=tmp_path)
    assert "complete -o" in _run(pipeline, "completion", "bash", cwd=tmp_path)
    assert "6 images" in _run(pipeline, "plan", "first.yaml", cwd=tmp_path)


def test_the_environment_of_the_wheel_has_nothing_that_the_wheel_does_not_ask_for(python: Path) -> None:
    for stranger in ("pytest", "hypothesis", "openai"):
        assert f"No module named '{stranger}'" in _run(
            python, "-c", f"try: import {stranger}\nexcept ImportError as reason: print(reason)"
        )


def test_a_user_s_mypy_sees_the_types_of_the_wheel(python: Path, tmp_path: Path) -> None:
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "--cache-dir", tmp_path / "cache"]
    (tmp_path / "right.py").write_text(PROGRAM)
    assert "Success" in _run(*mypy, "right.py", cwd=tmp_path)
    wrong = PROGRAM.replace("list[ImageFile]", "list[str]").replace('provider="sandbox"', "provider=5")
    (tmp_path / "wrong.py").write_text(wrong)
    said = _run(*mypy, "wrong.py", cwd=tmp_path, exit_code=1)
    assert 'Argument "provider" to "open" of "Batch" has incompatible type "int"' in said
    assert "List comprehension has incompatible type List[ImageFile]; expected List[str]" in said
