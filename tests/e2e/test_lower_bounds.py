"""The core of the suite passes with the oldest releases that pyproject.toml admits; they are downloaded."""

from __future__ import annotations

import os
import subprocess
import venv
from typing import TYPE_CHECKING

import pytest

from tests.support.readme import HOME
from tests.unit.test_dependencies import declared

if TYPE_CHECKING:
    from pathlib import Path

TOOLS = ("pytest>=9", "pytest-asyncio", "pytest-timeout", "pytest-xdist", "hypothesis", "pyte", "playwright")
CORE = (
    *(
        "unit/test_secrets.py",
        "unit/test_response_limits.py",
        "unit/test_limits.py",
        "unit/test_response.py",
        "unit/test_response_forms.py",
    ),
    *("unit/test_config.py", "unit/test_database.py", "unit/test_storage.py", "unit/test_lock.py", "unit/test_png.py"),
    *("unit/test_inspect.py", "unit/test_prepare.py", "unit/test_templates.py", "unit/test_job.py"),
    *("unit/test_throttle.py", "unit/test_retry.py", "integration/test_client.py", "integration/test_download.py"),
    *("integration/test_caller.py", "integration/test_worker.py", "integration/test_sandbox_process.py"),
    *("e2e/test_cli.py", "e2e/test_summary.py"),
)


def _run(words: list[object], timeout: float) -> str:
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    ended = subprocess.run(
        list(map(str, words)), cwd=HOME, env=environment, capture_output=True, text=True, check=False, timeout=timeout
    )
    assert ended.returncode == 0, f"{ended.stdout[-8000:]}\n{ended.stderr[-2000:]}"
    return ended.stdout


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_core_of_the_suite_passes_with_the_lower_bounds(tmp_path: Path) -> None:
    lowest = [f"{one.name}=={next(iter(one.specifier)).version}" for one in declared().values()]
    venv.create(tmp_path / "venv", symlinks=True, with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    _run([python, "-m", "pip", "install", "-q", "--only-binary", ":all:", *lowest, *TOOLS], 600)
    installed = _run([python, "-m", "pip", "freeze"], 60).lower()
    assert f"aiohttp=={next(iter(declared()['aiohttp'].specifier)).version}\n" in installed
    options = ["-q", "-n", "2", "-p", "no:cacheprovider", "-o", "addopts=", "-m", "not long"]
    for name in ("test_python_m_pipeline_is_the_command", "test_short_flags_are_the_long_ones"):
        options += ["--deselect", f"tests/e2e/test_cli.py::{name}"]  # they ask for the installed version
    passed = _run([python, "-m", "pytest", *options, *(HOME / "tests" / name for name in CORE)], 900)
    assert " passed" in passed
