"""Images in an object store: an S3 server of its own behind a proxy that refuses, delays, damages and hangs."""

from __future__ import annotations

import csv
import hashlib
import json
import signal
import tarfile
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from pipeline.config.load import load
from pipeline.stores import Stores
from pipeline.stores.object_store import MARKER
from pipeline.web.image_files import find_served_image
from tests.support.object_server import CREDENTIALS, descriptions_read_once, object_server
from tests.support.stage import finish, staged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.object_server import Action, ObjectServer
    from tests.support.stage import Stage

pytestmark = pytest.mark.skipif(
    find_spec("s3fs") is None or find_spec("moto") is None, reason="the extra [s3] or moto is not installed"
)

IMAGES = "/images/"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    with object_server("moto", tmp_path_factory.mktemp("moto")) as server, descriptions_read_once():
        yield server


@pytest.fixture
def store(servers: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL_S3": servers.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    servers.seen.clear()
    servers.held.clear()
    yield servers
    servers.rule = lambda _method, _path: "pass"


@pytest.fixture
def stage(tmp_path: Path, store: ObjectServer) -> Iterator[Stage]:
    assert store.url
    with staged(tmp_path, within=True) as made:
        made.settings = {"images": f"s3://bucket/{tmp_path.name}"}
        yield made


def check(stage: Stage, store: ObjectServer, job: str, images: int) -> None:
    """Check that the store has every image of a job with its hash, and that nothing of it waits on the disk."""
    found = [image for entry in stage.manifest(job) for image in entry["images"]]
    assert len(found) == images
    for image in found:
        root, _, key = image["url"].partition("://bucket/")
        content, kind = store.get(key)
        assert (root, kind) == ("s3", "image/png")
        assert (len(content), hashlib.sha256(content).hexdigest()) == (image["bytes"], image["sha256"])
    assert waiting(stage, job) == []
    assert stage.ask("SELECT count(*) FROM image WHERE spooled = 1") == [(0,)]


def waiting(stage: Stage, job: str) -> list[str]:
    return [path.name for path in (stage.output / job / "spool").glob("*")]


def is_image(method: str, path: str) -> bool:
    return method == "PUT" and IMAGES in path


def test_every_image_is_in_the_store_with_its_hash_and_nothing_is_left_on_the_disk(
    stage: Stage, store: ObjectServer
) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("run", stage.prompts("many", 6, n=2))
    check(stage, store, "many", 12)
    assert server.charged() == 12
    assert not (stage.output / "many" / "images").exists()
    assert len(list((stage.output / "many" / "thumbnails").glob("*.webp"))) == 12
    assert not [path for method, path in store.seen if method == "GET" and IMAGES in path], "no egress for thumbnails"
    stage.run("verify")
    assert not [path for method, path in store.seen if method == "GET" and IMAGES in path], "nor for verify"
    stage.run("verify", "--deep")
    assert len([path for method, path in store.seen if method == "GET" and IMAGES in path]) == 12
    stage.run("run")
    assert server.charged() == 12


def test_a_storm_of_503s_is_waited_out(stage: Stage, store: ObjectServer) -> None:
    answers = iter([(503, "SlowDown"), (507, "InsufficientStorage"), (500, "InternalError"), (429, "SlowDown")] * 8)
    store.rule = lambda method, path: next(answers, "pass") if is_image(method, path) else "pass"
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("run", stage.prompts("many", 12))
    check(stage, store, "many", 12)
    assert (server.charged(), next(answers, None)) == (12, None)


def test_cut_connections_and_damaged_bodies_are_tried_again(stage: Stage, store: ObjectServer) -> None:
    faults: list[Action] = ["drop", "damage", "damage in silence"]
    answers = iter(4 * faults)
    store.rule = lambda method, path: next(answers, "pass") if is_image(method, path) else "pass"
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("run", stage.prompts("many", 8))
    check(stage, store, "many", 8)
    assert all("-1.png" in one["file"] for entry in stage.manifest("many") for one in entry["images"])
    assert (server.charged(), next(answers, None)) == (8, None)


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "ExpiredToken"), (403, "AccessDenied"), (404, "NoSuchBucket"), (403, "InvalidAccessKeyId")],
)
def test_a_store_that_refuses_stops_the_run_and_what_is_paid_waits(
    stage: Stage, store: ObjectServer, status: int, code: str
) -> None:
    taken = iter(range(4))
    refused = (status, code)
    store.rule = lambda method, path: refused if is_image(method, path) and next(taken, None) is None else "pass"
    server = stage.serve(rate_limit=None, latency_seconds=[0.05, 0.1])
    stage.provider("lab", server, concurrency=2)
    ended = stage.run("run", stage.prompts("many", 30), exit_code=3)
    assert code in ended.stderr
    charged, left = server.charged(), waiting(stage, "many")
    assert 4 < charged < 30, "it stops at once"
    assert len(left) == charged - 4
    store.rule = lambda _method, _path: "pass"
    stage.run("run")
    check(stage, store, "many", 30)
    assert server.charged() == 30


@pytest.mark.parametrize("answer", [(403, "AccessDenied"), (404, "NoSuchBucket"), (503, "SlowDown"), "drop"])
def test_a_store_that_fails_before_the_first_call_is_exit_2_and_nothing_is_bought(
    stage: Stage, store: ObjectServer, answer: tuple[int, str]
) -> None:
    store.rule = lambda _method, _path: answer
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    ended = stage.run("run", stage.prompts("many", 2), exit_code=2)
    assert "nothing is bought" in ended.stderr
    assert server.books() == []


def test_a_root_of_another_ledger_is_refused(stage: Stage, store: ObjectServer) -> None:
    store.put(f"{stage.folder.name}/{MARKER}", b"0123456789abcdef")
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    ended = stage.run("run", stage.prompts("many", 2), exit_code=2)
    assert "another ledger (0123456789abcdef)" in ended.stderr
    assert server.books() == []


def test_what_waits_is_uploaded_before_anything_is_bought(stage: Stage, store: ObjectServer) -> None:
    store.rule = lambda method, path: (403, "AccessDenied") if is_image(method, path) else "pass"
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server, concurrency=1)
    stage.run("run", stage.prompts("many", 9), exit_code=3)
    left, calls = set(waiting(stage, "many")), len(server.books())
    assert left
    seen: list[int] = []

    def note(method: str, path: str) -> Action:
        if is_image(method, path) and path.rpartition("/")[2] in left:
            seen.append(len(server.books()))
        return "pass"

    store.rule = note
    stage.run("run")
    check(stage, store, "many", 9)
    assert seen == [calls] * len(left)
    assert server.charged() == 9


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_within_ten_seconds_while_the_store_hangs(
    stage: Stage, store: ObjectServer, number: signal.Signals
) -> None:
    store.rule = lambda method, path: "hang" if is_image(method, path) else "pass"
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    process = stage.start("run", stage.prompts("many", 5))
    assert store.held.wait(30)
    began = time.monotonic()
    process.send_signal(number)
    ended = finish(process)
    assert time.monotonic() - began < 10
    assert ended.exit_code == 128 + number, ended.stderr
    store.rule = lambda _method, _path: "pass"
    stage.run("run")
    check(stage, store, "many", 5)
    assert server.charged() == 5


def test_no_call_is_made_while_the_spool_is_full_and_waiting_images_hold_no_place(
    stage: Stage, store: ObjectServer
) -> None:
    stage.settings["spool_bytes"] = 20_000  # a few images
    is_down = True
    store.rule = lambda method, path: (503, "SlowDown") if is_down and is_image(method, path) else "pass"
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server, concurrency=2)
    process = stage.start("run", stage.prompts("many", 30))
    until = time.monotonic() + 30
    while sum(path.stat().st_size for path in (stage.output / "many" / "spool").glob("*.png")) < 20_000:
        assert time.monotonic() < until
        time.sleep(0.05)
    time.sleep(1)  # nothing can be awaited that must not happen
    full = server.charged()
    time.sleep(1)
    assert server.charged() == full < 30
    assert full > 2, "more than `concurrency` wait"
    is_down = False
    assert finish(process).exit_code == 0
    check(stage, store, "many", 30)
    assert server.charged() == 30


def test_damaged_and_missing_objects_are_found_quarantined_and_made_again(stage: Stage, store: ObjectServer) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("run", stage.prompts("many", 4))
    keys = [image["url"].partition("://bucket/")[2] for entry in stage.manifest("many") for image in entry["images"]]
    short, changed, gone = keys[:3]
    store.put(short, b"short")
    content = bytearray(store.get(changed)[0])
    content[-20] ^= 1
    store.put(changed, bytes(content))
    store.delete(gone)
    ended = stage.run("verify", "--deep", exit_code=1)
    assert ("has 5 bytes" in ended.stdout, "another hash" in ended.stdout, "is missing" in ended.stdout) == (True,) * 3
    stage.run("verify", "--repair", "--deep", exit_code=1)
    assert store.get(short.replace(IMAGES, "/quarantine/"))[0] == b"short"
    stage.run("run")
    check(stage, store, "many", 4)
    stage.run("verify", "--deep")
    assert server.charged() == 7


def test_verify_repairs_nothing_while_the_store_cannot_answer(stage: Stage, store: ObjectServer) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("run", stage.prompts("many", 2))
    for answer in ((503, "SlowDown"), (403, "AccessDenied"), (404, "NoSuchBucket")):
        store.rule = lambda _method, _path, answer=answer: answer  # type: ignore[misc]
        stage.run("verify", "--repair", exit_code=2)
    store.rule = lambda _method, _path: "pass"
    stage.run("run")
    assert server.charged() == 2


def test_a_job_is_renamed_and_forgotten_in_the_store(stage: Stage, store: ObjectServer) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.prompts("many", 3))
    stage.run("rename", "many", "few")
    check(stage, store, "few", 3)
    stage.run("verify", "--deep")
    assert not [key for key in store.names() if key.startswith(f"{stage.folder.name}/many/")]
    stage.run("forget", "few", "--files", "--yes")
    assert [key for key in store.names() if key.startswith(stage.folder.name)] == [f"{stage.folder.name}/{MARKER}"]


def test_changed_images_hold_for_new_ones_and_the_old_stay_where_they_are(stage: Stage) -> None:
    root = stage.settings.pop("images")
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.prompts("first", 2))
    stage.settings |= {"images": root, "images_url": "https://cdn.example/night s"}
    stage.write_config()
    stage.run("run", stage.prompts("second", 2))
    stage.run("verify", "--deep")
    assert stage.check_files("first") == 2
    (url, *_) = [image["url"] for entry in stage.manifest("second") for image in entry["images"]]
    assert url.startswith("https://cdn.example/night s/second/images/")
    assert url in (stage.output / "second" / "report.html").read_text()
    assert "img-src 'self' file: data: https://cdn.example;" in (stage.output / "second" / "report.html").read_text()
    (pk,) = stage.ask("SELECT max(pk) FROM image")[0]
    config = load(stage.folder / "config.yaml")
    served = find_served_image(stage.output, Stores.of(config), pk)
    assert served is not None
    assert (served.path, served.content_type, served.content[:4]) == (None, "image/png", b"\x89PNG")


def test_an_object_of_another_content_is_not_replaced(stage: Stage, store: ObjectServer) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("plan", job := stage.prompts("many", 1))
    stage.run("run", job)
    (image,) = stage.manifest("many")[0]["images"]
    key = image["url"].partition("://bucket/")[2]
    store.put(key, b"paid in another life")
    stage.run("forget", "many", "--yes")
    stage.run("run", job)
    (again,) = stage.manifest("many")[0]["images"]
    assert (again["file"] != image["file"], again["sha256"][:8] in again["file"]) == (True, True)
    check(stage, store, "many", 1)
    assert store.get(key)[0] == b"paid in another life"


def test_a_library_that_is_missing_is_one_sentence(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.within = False  # its imports are those of a process
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    (stage.folder / "s3fs.py").write_text("raise ImportError('gone')\n")
    monkeypatch.chdir(stage.folder)
    ended = stage.run("run", stage.prompts("many", 1), exit_code=2)
    assert 'pip install "image-batch-pipeline[s3]"' in ended.stderr
    assert server.books() == []


def _paid_and_waiting(stage: Stage, store: ObjectServer) -> list[Path]:
    """Make images that the store refuses; return their files in the spool."""
    store.rule = lambda method, path: (403, "AccessDenied") if is_image(method, path) else "pass"
    stage.run("run", stage.prompts("many", 5), exit_code=3)
    store.rule = lambda _method, _path: "pass"
    files = sorted((stage.output / "many" / "spool").glob("*.png"))
    assert len(files) >= 2
    return files


def test_what_is_lost_or_damaged_while_it_waits_is_named_and_made_again_once(stage: Stage, store: ObjectServer) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    lost, damaged, *_ = _paid_and_waiting(stage, store)
    lost.unlink()
    damaged.write_bytes(b"damaged")
    ended = stage.run("run", exit_code=3)
    assert "pipeline verify --repair" in ended.stderr
    found = stage.run("verify", "--repair", exit_code=1).stdout
    assert ("is missing" in found, "has 7 bytes" in found) == (True, True)
    stage.run("run")
    check(stage, store, "many", 5)
    assert server.charged() == 7


def test_what_an_older_ledger_believes_to_wait_is_found_in_the_store(stage: Stage, store: ObjectServer) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    for path in _paid_and_waiting(stage, store):
        store.put(f"{stage.folder.name}/many/images/{path.name}", path.read_bytes())
        path.unlink()
    store.rule = lambda method, path: (403, "AccessDenied") if method == "GET" and IMAGES in path else "pass"
    assert "AccessDenied" in stage.run("run", exit_code=3).stderr
    store.rule = lambda _method, _path: "pass"
    stage.run("run")
    stage.run("verify", "--deep")
    assert server.charged() == len(stage.manifest("many")) == 5


def test_what_waits_goes_to_its_own_store_although_images_has_changed(stage: Stage, store: ObjectServer) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    files = _paid_and_waiting(stage, store)
    assert stage.run("verify").stderr.startswith(f"{len(files)} of {len(files)}")
    root = stage.settings.pop("images")
    stage.write_config()
    stage.run("run")
    images = [image for entry in stage.manifest("many") for image in entry["images"]]
    assert {image["url"] for image in images if image["url"]} == {f"{root}/many/images/{one.name}" for one in files}
    assert (len(images), waiting(stage, "many"), server.charged()) == (5, [], 5)
    stage.run("verify", "--deep")


def test_a_store_that_does_not_answer_for_too_long_stops_the_run(stage: Stage, store: ObjectServer) -> None:
    stage.settings["retry"] = {"outage_hours": 0.0003}
    store.rule = lambda method, path: (503, "SlowDown") if is_image(method, path) else "pass"
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    ended = stage.run("run", stage.prompts("many", 3), exit_code=3)
    assert "for 0.0003 hours; paid images wait" in ended.stderr
    store.rule = lambda _method, _path: "pass"
    stage.run("run")
    check(stage, store, "many", 3)
    assert server.charged() == 3


@pytest.mark.filterwarnings("ignore")  # of the libraries that write exports
def test_exports_read_their_originals_from_the_store(stage: Stage, store: ObjectServer, tmp_path: Path) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.prompts("many", 20))
    entries = [image for entry in stage.manifest("many") for image in entry["images"]]
    hashes = {image["sha256"] for image in entries}
    for kind in ("imagefolder", "webdataset", "batch"):
        stage.run("export", "many", "--to", kind, "--dest", tmp_path / kind)
    copied = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "imagefolder" / "images").iterdir()}
    assert copied == hashes
    with tarfile.open(tmp_path / "webdataset" / "shard-00000.tar") as tar:
        contents = [tar.extractfile(member) for member in tar if member.name.endswith(".png")]
        assert {hashlib.sha256(one.read()).hexdigest() for one in contents if one is not None} == hashes
    store.seen.clear()
    stage.run("export", "many", "--to", "csv", "--dest", tmp_path / "csv")
    assert not [path for method, path in store.seen if method == "GET" and IMAGES in path], "no egress for a table"
    with (tmp_path / "csv").open(newline="", encoding="utf-8") as file:
        assert [row["file_name"] for row in csv.DictReader(file)] == [image["url"] for image in entries]
    refused = stage.run("export", "many", "--to", "imagefolder", "--link", exit_code=2)
    assert "is in an object store and cannot be linked" in refused.stderr


def test_sidecars_stand_in_the_store_beside_their_images(stage: Stage, store: ObjectServer) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.prompts("many", 3))
    shown = stage.run("export", "many", "--to", "sidecar")
    (image, *_) = [image for entry in stage.manifest("many") for image in entry["images"]]
    key = image["url"].partition("://bucket/")[2]
    assert shown.stdout == f"s3://bucket/{key.rpartition('/')[0]}\n"
    content, kind = store.get(f"{key.removesuffix('.png')}.json")
    assert kind == "application/json"
    assert json.loads(content)["sha256"] == image["sha256"]
    assert "not in the ledger" not in stage.run("verify").stderr
    assert "there already" in stage.run("export", "many", "--to", "sidecar", exit_code=2).stderr


def test_what_is_damaged_in_the_store_is_named_and_not_exported(
    stage: Stage, store: ObjectServer, tmp_path: Path
) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.prompts("many", 20))
    urls = [image["url"].partition("://bucket/")[2] for entry in stage.manifest("many") for image in entry["images"]]
    store.put(urls[1], b"damaged")
    store.delete(urls[18])
    for kind in ("webdataset", "csv", "sidecar"):
        shown = stage.run("export", "many", "--to", kind, "--dest", tmp_path / "dest", exit_code=1)
        first, last = shown.stdout.splitlines()
        assert "bytes, recorded are" in first
        assert last.endswith(f"{urls[18].rpartition('/')[2]}: is missing")
    assert not (tmp_path / "dest").exists()
