"""`run --on ray` as people type it, on this machine."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import secrets
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.ray.guard import children
from tests.support.ray_nodes import processes
from tests.support.stage import finish, staged
from tests.support.workbench import PNG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.stage import Ended, Stage

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


def _check_nothing_is_left(stage: Stage, ended: Ended, key: str) -> None:
    """Check that a run with this key has left nothing of Ray, has told nobody its key, and nobody of Ray."""
    assert stage.ask("SELECT count(*) FROM worker_lease") == [(0,)]
    assert key not in (stage.output / "run.log").read_text()
    assert "Ray" not in ended.stderr.replace("on ray", "")
    assert processes(key) == {}


def _raylet(key: str) -> tuple[int, Path]:
    """Return the process of the node that a run with this key has started, and the folder of its Ray."""
    for pid, line in processes(key).items():
        if found := re.search(r"--raylet_socket_name=(/tmp/ray-\w+)/", line):
            return pid, Path(found[1])
    raise AssertionError("there is no raylet")


_MAPPED = "0" * 16 + "FFFF00000100007F"  # ::ffff:127.0.0.1


def _listening(pids: set[int]) -> Iterator[str]:
    """Yield the addresses at which processes listen, as the kernel writes them."""
    sockets = {
        str(link.readlink())
        for pid in pids
        for link in Path(f"/proc/{pid}/fd").glob("*")
        if link.is_symlink() and os.path.lexists(link)
    }
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                yield words[1].partition(":")[0]


def _command(pid: int) -> bytes:
    """Return the command line of a process, empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_run_that_is_killed_leaves_no_process_and_no_folder_and_the_next_one_goes_on(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[30, 30])
    stage.settings["workers"] = 2
    stage.provider("lab", server)
    key = f"sk-{secrets.token_hex(16)}"
    process = stage.start("run", stage.prompts("job", 4), "--on", "ray", key=key)
    while len(stage.ask("SELECT 1 FROM attempt")) < 4:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raylet, folder = _raylet(key)
    helpers = children(raylet)
    assert {*_listening({*processes(key), *helpers} - {process.pid})} <= {"0100007F", _MAPPED, "0" * 24 + "01000000"}
    assert len(helpers) >= 4, "two workers, and helpers of the node"
    killed_at = time.monotonic()
    process.kill()
    process.communicate()
    assert time.monotonic() - killed_at < 5, "nothing that is left keeps the pipes of the run open"
    while processes(key) or any(_command(pid) for pid in helpers) or folder.exists():
        assert time.monotonic() - killed_at < 15
        time.sleep(0.1)
    server.stop()
    stage.serve(rate_limit=None, port=server.port)
    ended = stage.run("run", "--on", "local")
    assert stage.ask("SELECT count(*) FROM attempt WHERE outcome = 'unknown'") == [(4,)]
    assert stage.check_files("job") == 4, ended.stderr


@pytest.mark.long
def test_workers_put_images_into_an_object_store_and_what_it_refuses_goes_through_the_spool(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("s3fs", reason="the extra [s3] is not installed")
    from tests.support.object_server import CREDENTIALS, object_server

    with object_server("weed", tmp_path) as store:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL_S3": store.url}.items():
            monkeypatch.setenv(name, value)
        busy = iter(range(3))
        store.rule = lambda method, path: (
            (503, "SlowDown") if method == "PUT" and "/images/" in path and next(busy, None) is not None else "pass"
        )
        stage.settings |= {"workers": 2, "images": "s3://bucket/nights"}
        server = stage.serve(rate_limit=None)
        stage.provider("lab", server)
        (stage.folder / "cat.png").write_bytes(PNG)
        copies = [{"operation": "variation", "image": "cat.png"} for _ in range(2)]
        inline = stage.job("inline", [{"prompt": "a", "n": 2, "response_format": "b64_json"}])
        key = f"sk-{secrets.token_hex(16)}"
        ended = stage.run("run", stage.prompts("job", 8), stage.job("copies", copies), inline, "--on", "ray", key=key)
        _check_nothing_is_left(stage, ended, key)
        assert next(busy, None) is None, "the store refused three uploads"
        jobs = ("job", "copies", "inline")
        images = [image for job in jobs for entry in stage.manifest(job) for image in entry["images"]]
        assert len(images) == server.charged() == 12
        for job in jobs:
            for entry in stage.manifest(job):
                for image in entry["images"]:
                    content, kind = store.get(f"nights/{job}/{image['file']}")
                    assert hashlib.sha256(content).hexdigest() == image["sha256"]
                    assert kind == f"image/{image['format']}"
        puts = [path for method, path in store.seen if method == "PUT" and "/inputs/" in path]
        assert len(puts) == 1, "the input of two requests is put there once"
    assert list(stage.output.glob("*/spool/*")) == []


def test_the_first_signal_lets_calls_of_workers_finish_and_nothing_of_ray_is_left(stage: Stage) -> None:
    server, key = stage.serve(rate_limit=None, latency_seconds=[0.5, 1.0]), f"sk-{secrets.token_hex(16)}"
    stage.settings["workers"] = 2
    stage.provider("lab", server, concurrency=3)
    inline = stage.job("inline", [{"prompt": "a", "n": 2, "response_format": "b64_json"}])
    process = stage.start("run", inline, stage.prompts("many", 200), "--on", "ray", key=key)
    answered = (
        "SELECT count(DISTINCT r.job) FROM attempt a JOIN request r ON r.pk = a.request WHERE a.outcome = 'answered'"
    )
    while stage.ask(answered) != [(2,)] or stage.ask("SELECT count(*) FROM worker") != [(2,)]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert ended.exit_code == 128 + signal.SIGTERM, ended.stderr
    assert "▶ 2 workers ready, on 1 node" in ended.stderr
    _check_nothing_is_left(stage, ended, key)
    standings = stage.standings()
    assert [(one["counts"]["running"], one["maybe_paid"]) for one in standings.values()] == [(0, 0)] * 2
    images = {job: one["images"] for job, one in standings.items()}
    assert images == {job: stage.check_files(job) for job in ("inline", "many")}
    assert images["inline"] == 2
    assert sum(images.values()) == server.charged() < 202
