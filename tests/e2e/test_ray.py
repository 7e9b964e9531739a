"""`run --on ray` as people type it, on this machine."""

from __future__ import annotations

import importlib.util
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.stage import staged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.stage import Stage

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


def processes(marker: str) -> dict[int, str]:
    """Return the command lines of the processes whose environment or command line holds a text, by their ids."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
        except OSError:
            continue
        if marker.encode() in words and int(path.name) != os.getpid():
            found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def test_workers_make_the_calls_and_nothing_of_ray_is_left(stage: Stage) -> None:
    server = stage.serve(latency_seconds=[0.05, 0.1])
    stage.settings["workers"] = 2
    stage.provider("lab", server)
    stage.prompts("job", 12)
    stage.job("inline", [{"prompt": "a", "n": 2, "response_format": "b64_json"}])
    key = f"sk-{secrets.token_hex(16)}"
    ended = stage.run("run", "job.yaml", "inline.yaml", "--on", "ray", key=key)
    assert "▶ 2 workers ready, on 1 node" in ended.stderr
    assert (stage.check_files("job"), stage.check_files("inline"), server.charged()) == (12, 2, 14)
    assert stage.ask("SELECT count(*) FROM worker_lease") == [(0,)]
    log = (stage.output / "run.log").read_text()
    assert key not in log
    assert "Ray" not in ended.stderr.replace("on ray", "")
    assert processes(key) == {}
