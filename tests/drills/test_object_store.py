"""Deaths in the middle of uploads: every image reaches the store with its hash, and none is bought for it."""

from __future__ import annotations

import hashlib
import random
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import pytest

from tests.support.object_server import CREDENTIALS, object_server
from tests.support.stage import finish

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.object_server import Action, ObjectServer
    from tests.support.stage import RunningCommand, Server, Stage

pytestmark = pytest.mark.skipif(
    find_spec("s3fs") is None or find_spec("moto") is None, reason="the extra [s3] or moto is not installed"
)

IMAGES = 40
MOST_STEPS = 8 * IMAGES  # that a run writes to disk, about


def _hangs(store: ObjectServer, number: int, how: Action) -> None:
    """The upload of this number hangs: before the server has it, or before its answer arrives."""
    left = iter(range(number))

    def rule(method: str, path: str) -> Action:
        is_next = method == "PUT" and "/images/" in path and next(left, None) is None
        return how if is_next else "pass"

    store.held.clear()
    store.rule = rule


def _killed_in_an_upload(stage: Stage, store: ObjectServer, draw: random.Random) -> None:
    """Kill a run while an upload hangs, or shortly after."""
    _hangs(store, draw.randrange(8), draw.choice(["hang", "hang after"]))
    process: RunningCommand = stage.start("run")
    while not store.held.wait(0.01) and process.poll() is None:
        pass
    time.sleep(draw.uniform(0, 0.1))
    process.kill()
    finish(process)


@pytest.mark.parametrize(
    ("kind", "kills"),
    [
        pytest.param("weed", 3, id="short"),
        pytest.param("weed", 20, id="long weed", marks=pytest.mark.long),
        pytest.param("moto", 20, id="long moto", marks=pytest.mark.long),
    ],
)
@pytest.mark.timeout(900)
def test_kill_9_in_uploads_loses_no_image_and_buys_none_twice(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Literal["moto", "weed"], kills: int
) -> None:
    draw = random.Random(kills)
    with object_server(kind, tmp_path) as store:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL_S3": store.url}.items():
            monkeypatch.setenv(name, value)
        stage.settings = {"images": "s3://bucket/nights"}
        server = stage.serve(rate_limit=None, latency_seconds=[0.02, 0.2], seed=1)
        stage.provider("lab", server, concurrency=4)
        stage.run("submit", stage.prompts("many", IMAGES))
        in_flight: set[object] = set()
        for kill in range(kills):
            if kill % 2:  # just before it writes to disk: a picture, a record, or a removal
                store.rule = lambda _method, _path: "pass"
                stage.run("run", exit_code=None, sabotage=f"die:{draw.randrange(20, MOST_STEPS // (kill + 1) + 30)}")
            else:
                _killed_in_an_upload(stage, store, draw)
            in_flight.update(stage.ask("SELECT pk FROM attempt WHERE outcome IS NULL"))
        store.rule = lambda _method, _path: "pass"
        stage.run("run")
        _check(stage, store, server, len(in_flight))
        stage.run("verify", "--deep")


def _check(stage: Stage, store: ObjectServer, server: Server, in_flight: int) -> None:
    """Check that the store has every image with its hash, and that only calls in flight were bought again."""
    images = [image for entry in stage.manifest("many") for image in entry["images"]]
    assert len(images) == IMAGES
    for image in images:
        content, kind = store.get(image["url"].removeprefix("s3://bucket/"))
        assert (hashlib.sha256(content).hexdigest(), kind) == (image["sha256"], "image/png")
    assert IMAGES <= server.charged() <= IMAGES + in_flight
    known = {image["sha256"] for image in images}
    left = list((stage.output / "many").glob("spool/*.png"))
    assert not known & {hashlib.sha256(path.read_bytes()).hexdigest() for path in left}, "nothing waits needlessly"
    assert len(left) <= in_flight, "of a call that died between the file and its record"
    assert stage.ask("SELECT count(*) FROM image WHERE spooled = 1") == [(0,)]
