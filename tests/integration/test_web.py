"""The live page's server: its events, its images, its actions, and its access control."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pipeline.batch import Batch
from pipeline.config.load import Config, Provider, RateLimit
from pipeline.ledger.controls import ControlFacts
from pipeline.ledger.database import open_ledger
from pipeline.ledger.lock import LockOwner, find_owner, run_lock
from pipeline.ledger.queries import read_newest_images
from pipeline.web import event_stream
from pipeline.web.access import AccessControl
from pipeline.web.image_files import find_served_image
from pipeline.web.server import Site, make_runner
from pipeline.web.snapshot import read_snapshot
from tests.support.exhibits import asked, drawn, fail, hang
from tests.support.stage import finish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.stage import RunningCommand, Stage
    from tests.support.workbench import Bench

LIMITED = Provider("lab", "http://127.0.0.1:9/v1", rate_limit=RateLimit(50, 60.0))


@contextlib.asynccontextmanager
async def _open(bench: Bench, host: str = "127.0.0.1") -> AsyncIterator[tuple[aiohttp.ClientSession, AccessControl]]:
    """Serve this folder as if on `host`, with a client on loopback."""
    batch = Batch(Config(None, bench.folder, None, {"lab": LIMITED}))
    access = AccessControl.of(host)
    async with TestServer(Site(batch, access).application()) as server:
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(base_url=server.make_url("/"), cookie_jar=jar) as client:
            yield client, access


async def _events(answer: aiohttp.ClientResponse, many: int) -> list[tuple[str, Any]]:
    """Return the next `many` events."""
    found: list[tuple[str, Any]] = []
    name = ""
    while len(found) < many:
        line = (await answer.content.readline()).decode().rstrip("\n")
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            found.append((name, json.loads(line[6:])))
    return found


async def _snapshot_with(answer: aiohttp.ClientResponse, having: str) -> dict[str, Any]:
    """Return the first snapshot that has something under this name."""
    while True:
        ((name, snapshot),) = await _events(answer, 1)
        if name == "state" and snapshot.get(having):
            return dict(snapshot)


def _beat(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.01) -> None:
    monkeypatch.setattr(event_stream, "POLL_SECONDS", seconds)
    monkeypatch.setattr(event_stream, "_SHARE", 0)


def test_the_snapshot_has_the_status_of_every_job(bench: Bench) -> None:
    bench.submit(asked(1), asked(2), asked(3), asked(4))
    bench.submit(asked(9), name="other")
    hang(bench, 1, drawn(1))
    fail(bench, 2)
    fail(bench, 3)
    bench.set("UPDATE attempt SET sent_at = 995, ended_at = 1000")
    config = Config(None, bench.folder, None, {"lab": LIMITED})
    snapshot = read_snapshot(bench.connection, config, None, 1030.0)
    job, other = snapshot["jobs"]
    assert (job["name"], job["images"], job["missing"], job["can_resume"], job["can_cancel"]) == ("job", 1, 1, 0, 1)
    assert (job["causes"][0]["count"], job["causes"][0]["example"]) == (2, "prompt 2")
    assert job["causes"][0]["commands"] == [], "a job made in Python has no file, and the policy refuses it again"
    assert (other["name"], other["causes"]) == ("other", [])
    assert job["facts"] == [
        ["1", "pending"],
        ["2", "failed"],
        ["1", "image"],
        ["$0.016", "spent"],
        ["unknown", "cost to come"],
    ]
    (provider,) = snapshot["providers"]
    assert provider == {
        "name": "lab",
        "per_minute": pytest.approx(60 / 35),
        "limit_per_minute": 50,
        "in_flight": 0,
        "paused_until": None,
        "down_since": None,
    }
    assert snapshot["spent"] == "$0.016"
    assert snapshot["minutes_left"] is None, "nothing is at work"
    assert snapshot["stops"] == []
    working = read_snapshot(bench.connection, config, LockOwner("process 7", 995.0), 1030.0)
    assert working["minutes_left"] == pytest.approx(2 / (60 / 35))
    young = read_snapshot(bench.connection, config, LockOwner("process 1", 1000.0 - 1), 1001.0)
    assert young["providers"][0]["per_minute"] == 30, "of the two seconds that the run is old"


def test_a_picture_that_lands_late_is_new_although_its_row_is_old(bench: Bench) -> None:
    bench.submit(asked(1), asked(2))
    hang(bench, 1, drawn(1))
    hang(bench, 2, drawn(2))
    bench.set("UPDATE image SET state = 'paid', url = 'http://x', file = NULL WHERE pk = 1")
    assert read_newest_images(bench.connection, 10) == [2]
    bench.set("UPDATE image SET state = 'stored', url = NULL, file = 'images/late.png' WHERE pk = 1")
    assert read_newest_images(bench.connection, 10) == [1, 2]


async def test_whoever_looks_is_told_how_things_are_and_then_what_changes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _beat(monkeypatch)
    bench.submit(asked(1), asked(2), asked(3))
    hang(bench, 1, drawn(1))
    async with _open(bench) as (client, _), client.get("/events") as answer:
        assert answer.content_type == "text/event-stream"
        (state, snapshot), (name, pictures) = await _events(answer, 2)
        assert (state, name) == ("state", "images")
        assert snapshot["jobs"][0]["counts"]["succeeded"] == 1
        assert [one["prompt"] for one in pictures] == ["prompt 1"]
        hang(bench, 2, drawn(2))
        (state, snapshot), (name, pictures) = await _events(answer, 2)
        assert snapshot["jobs"][0]["counts"]["succeeded"] == 2
        assert [one["prompt"] for one in pictures] == ["prompt 2"]
        async with client.get("/events") as late:
            _, (_, pictures) = await _events(late, 2)
            assert [one["prompt"] for one in pictures] == ["prompt 1", "prompt 2"]


async def test_a_ledger_that_comes_later_goes_or_breaks_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _beat(monkeypatch)
    bench.connection.close()
    for path in bench.folder.glob("ledger*"):
        path.unlink()
    async with _open(bench) as (client, _), client.get("/events") as answer:
        ((_, snapshot),) = await _events(answer, 1)
        assert snapshot == {
            "jobs": [],
            "run": None,
            "providers": [],
            "minutes_left": None,
            "spent": None,
            "stops": [],
            "command": f"pipeline run --output {bench.folder}",
        }
        bench.connection = open_ledger(bench.folder)
        bench.submit(asked(1))
        assert (await _snapshot_with(answer, "jobs"))["jobs"][0]["name"] == "job"
        bench.connection.close()
        for path in bench.folder.glob("ledger*"):
            path.unlink()
        (bench.folder / "ledger.sqlite3").write_bytes(b"no database at all" * 1000)
        assert "damaged" in (await _snapshot_with(answer, "trouble"))["trouble"]


async def test_a_silent_ledger_has_a_heartbeat(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.web.server.HEARTBEAT_SECONDS", 0.01)
    async with _open(bench) as (client, _), client.get("/events") as answer:
        while (await answer.content.readline()) != b": heartbeat\n":
            pass


async def test_one_who_is_too_slow_is_let_go_and_holds_up_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "_MOST_QUEUED", 2)
    followed = event_stream.EventStream(Config(None, bench.folder, None, {}))
    with followed.listening() as slow, followed.listening() as quick:
        for number in range(5):
            followed._tell(b"%d" % number)
            assert await quick.get() == b"%d" % number
        told = [slow.get_nowait() for _ in range(slow.qsize())]
    assert told == [b"0", b"1", b"2", b""]


async def test_a_report_is_served_as_the_ledger_stands_with_its_files(bench: Bench) -> None:
    file = "inputs/a b.png"
    bench.submit(asked(1), name="night 1")
    hang(bench, 1, drawn(1), job="night 1", inputs=json.dumps([{"role": "image", "file": file}]))
    (bench.folder / "night 1" / "inputs").mkdir()
    (bench.folder / "night 1" / file).write_bytes(drawn(2))
    (bench.folder / "night 1" / "inputs" / "other.png").write_bytes(drawn(3))
    ((image, sha256),) = bench.ask("SELECT file, sha256 FROM image")
    async with _open(bench) as (client, _):
        async with client.get("/jobs/NIGHT%201/report.html") as answer:
            page = await answer.text()
            assert (answer.status, answer.content_type) == (200, "text/html")
            assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'; script-src 'sha256-" in page
        for path, content in ((image, drawn(1)), ("inputs/a%20b.png", drawn(2))):
            async with client.get(f"/jobs/night%201/{path}") as answer:
                assert (answer.status, answer.content_type) == (200, "image/png")
                assert await answer.read() == content
                assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        async with client.get(f"/jobs/night%201/thumbnails/{sha256}.webp") as answer:
            assert (answer.status, answer.content_type) == (200, "image/webp")
        for path in (
            *("night%201/inputs/other.png", "night%201/images/..%2F..%2Fledger.sqlite3", f"other/{image}"),
            *("other/report.html", "night%201/manifest.jsonl", "..%2Fnight%201/inputs/a%20b.png"),
            f"night%201/thumbnails/{'0' * 64}.webp",
        ):
            async with client.get(f"/jobs/{path}") as answer:
                assert answer.status == 404, path


async def test_pictures_are_given_by_their_row_and_small_ones_are_made(bench: Bench) -> None:
    bench.submit(asked(1), asked(2))
    hang(bench, 1, drawn(1, (640, 400)))
    hang(bench, 2, b"<svg xmlns='http://www.w3.org/2000/svg'/>", format="svg")
    async with _open(bench) as (client, _):
        async with client.get("/images/1") as answer:
            assert (answer.status, answer.content_type) == (200, "image/png")
            assert await answer.read() == drawn(1, (640, 400))
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        async with client.get("/thumbnails/1") as answer:
            assert (answer.status, answer.content_type) == (200, "image/webp")
        assert len(list((bench.folder / "job" / "thumbnails").iterdir())) == 1
        async with client.get("/thumbnails/2") as answer:
            assert answer.content_type == "image/svg+xml"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path",
    ["/images/99", "/images/../ledger.sqlite3", "/images/job/images/x.png", "/images/-1", "/ledger.sqlite3"],
)
async def test_no_address_names_any_other_file(bench: Bench, path: str) -> None:
    bench.submit(asked(1))
    hang(bench, 1, drawn(1))
    async with _open(bench) as (client, _), client.get(path) as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    "file", ["../../secret.png", "images/../../../secret.png", "images/link.png", "thumbnails/x.png"]
)
def test_a_row_that_points_elsewhere_gives_nothing(bench: Bench, tmp_path: Path, file: str) -> None:
    bench.submit(asked(1))
    hang(bench, 1, drawn(1))
    for place in (tmp_path / "secret.png", tmp_path.parent / "secret.png", tmp_path / "job" / "thumbnails" / "x.png"):
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(drawn(7))
    (tmp_path / "job" / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    assert find_served_image(bench.folder, bench.stores, 1) is not None
    bench.set("UPDATE image SET file = ?", file)
    assert find_served_image(bench.folder, bench.stores, 1) is None
    assert find_served_image(bench.folder, bench.stores, 1, small=True) is None


def test_a_job_whose_name_leads_out_of_the_folder_gives_nothing(bench: Bench, tmp_path: Path) -> None:
    bench.submit(asked(1))
    hang(bench, 1, drawn(1))
    bench.folder = tmp_path / "outputs"
    bench.folder.mkdir()
    for path in tmp_path.glob("ledger*"):
        (bench.folder / path.name).write_bytes(path.read_bytes())
    assert find_served_image(bench.folder, bench.stores, 1) is None, "its job's folder is not here"
    bench.connection.close()
    bench.connection = open_ledger(bench.folder)
    bench.set("UPDATE job SET name = '../job'")
    assert (bench.folder / "../job/images").is_dir()
    assert find_served_image(bench.folder, bench.stores, 1) is None


async def _post(
    client: aiohttp.ClientSession,
    access: AccessControl,
    action: str,
    job: str = "job",
    headers: Any = None,
    **more: str,
) -> tuple[int, Any]:
    """Return the status and the body of the response to a button; `more` are fields of the form."""
    form = {"form_token": access.form_token, "action": action, "job": job, **more}
    async with client.post("/actions", data=form, headers=headers) as answer:
        text = await answer.text()
        return answer.status, json.loads(text) if answer.status == 200 else text


BUSY = {"http_status": 500, "type": None, "code": None, "message": "busy", "kind": "ServerFault"}


async def test_resume_puts_back_what_the_nameless_command_does_and_says_the_cost_before(bench: Bench) -> None:
    bench.submit(*(asked(number) for number in range(4)))
    for number, error in enumerate((BUSY, BUSY, None)):
        fail(bench, number, error)
    bench.set("UPDATE request SET status = 'cancelled' WHERE status = 'pending'")
    bench.set("UPDATE request SET estimate_usd = 0.25")
    options = f"--output {bench.folder}"
    lines = [
        "put back: 2 requests of `job`: 2 images, about $0.50",
        f"left alone: 1 cancelled request of `job`; to put back, type: pipeline resume job {options}",
        (
            "left alone: 1 request of `job` that the content policy refused; change the prompt and run the job file,"
            f" or type: pipeline resume job {options}"
        ),
    ]
    before = bench.statuses()
    async with _open(bench) as (client, access):
        asked_first = {"lines": lines, "yes": "Put 2 requests back", "no": "Leave as it is", "number": None}
        assert await _post(client, access, "resume", "JOB", ask="1") == (200, asked_first)
        assert bench.statuses() == before, "a question changes nothing"
        done = {"lines": [*lines, "no run is at work; to start one, type"], "command": f"pipeline run {options}"}
        assert await _post(client, access, "resume") == (200, done)
        assert sorted(bench.statuses().values()) == ["cancelled", "failed", "pending", "pending"]
        nothing = ["nothing to put back", *lines[1:]]
        assert await _post(client, access, "resume") == (200, {"lines": nothing, "command": None})
        question = (await _post(client, access, "resume", ask="1"))[1]
        assert (question["lines"], question["yes"]) == (nothing, None)


async def test_cancel_says_before_how_it_is_undone(bench: Bench) -> None:
    bench.submit(asked(1), asked(2))
    again = f"pipeline resume job --output {bench.folder}"
    async with _open(bench) as (client, access):
        question = (await _post(client, access, "cancel", ask="1"))[1]
        assert question["lines"][-1] == f"to put them back later, type: {again}"
        assert (question["yes"], question["no"]) == ("Cancel 2 requests", "Keep them")
        assert set(bench.statuses().values()) == {"pending"}
        lines = ["2 requests of `job` taken out of the queue", "to put them back, type"]
        assert await _post(client, access, "cancel") == (200, {"lines": lines, "command": again})
        assert set(bench.statuses().values()) == {"cancelled"}
        assert (await _post(client, access, "cancel", ask="1"))[1]["yes"] is None
        assert (await _post(client, access, "cancel"))[1]["lines"] == ["nothing of `job` was queued"]


async def test_a_provider_is_paused_and_throttled_and_a_job_gets_a_priority(bench: Bench) -> None:
    bench.submit(asked(1), provider=LIMITED)
    async with _open(bench) as (client, access):

        async def press(action: str, **form: str) -> tuple[int, Any]:
            about = {"job": "job"} if action == "priority" else {"provider": "lab"}
            fields = {"form_token": access.form_token, "action": action, **about, **form}
            async with client.post("/actions", data=fields) as answer:
                return answer.status, await (answer.json() if answer.status == 200 else answer.text())

        asked_for = {"pause": None, "unpause": None, "throttle": [1, 50, 50], "priority": [-1_000_000, 1_000_000, 0]}
        for action, number in asked_for.items():
            status, question = await press(action, ask="1")
            assert (status, bool(question["yes"]), question["number"]) == (200, True, number)
        config = Config(None, bench.folder, None, {"lab": LIMITED})
        controls = Batch(config).controls
        assert controls.read().facts == ControlFacts(), "a question changes nothing"
        assert (await press("pause"))[1]["lines"] == ["provider `lab` is paused"]
        assert (await press("throttle", value="5"))[1]["lines"][0].startswith("provider `lab` is throttled to 5 images")
        assert (await press("priority", value="-3"))[1]["lines"] == ["job `job` has priority -3"]
        facts = controls.read().facts
        assert (facts.of("lab").throttle, facts.of("lab").held_since is not None) == (5, True)
        assert [one.priority for one in facts.priorities] == [-3]
        snapshot = read_snapshot(bench.connection, config, None, 1030.0)
        assert (snapshot["controls"]["providers"][0]["paused"], len(snapshot["controls"]["lines"])) == (True, 3)
        assert (await press("throttle", value="50"))[1]["lines"] == ["provider `lab` is not throttled"]
        assert (await press("unpause"))[1]["lines"] == ["provider `lab` is not paused any more"]
        for wrong in ("0", "51", "x", ""):
            assert (await press("throttle", value=wrong))[0] == 404
        wrong_form = {"form_token": ""}
        assert (await press("pause", **wrong_form))[0] == 403
        assert (await press("pause", provider="lob"))[0] == 404
        assert controls.read().facts.providers == {}


@pytest.mark.parametrize("more", [{}, {"ask": "1"}])
async def test_an_unknown_job_or_action_is_refused(bench: Bench, more: dict[str, str]) -> None:
    bench.submit(asked(1))
    async with _open(bench) as (client, access):
        assert (await _post(client, access, "resume", "unknown", **more))[0] == 404
        assert (await _post(client, access, "delete", **more))[0] == 400


async def test_cancel_of_a_job_with_batches_records_the_wish_and_says_who_carries_it_out(bench: Bench) -> None:
    bench.submit(asked(1), asked(2), asked(3))
    bench.send_batch(2)
    bench.send_batch(3, completed=1)
    (job,) = read_snapshot(bench.connection, Config(None, bench.folder, None, {}), None, 1.0)["jobs"]
    assert (job["can_cancel"], job["in_batch"]) == (3, [1, 2])
    assert job["batches"].startswith("2 batches out: 1 of 2 lines made")
    assert job["facts"][:2] == [["1", "pending"], ["2", "in batch"]]
    async with _open(bench) as (client, access):
        said = (await _post(client, access, "cancel"))[1]
        assert said["lines"] == [
            "1 request of `job` taken out of the queue",
            "the 2 batches of `job` will be cancelled at the service, and what is made until then is collected:",
            "by the next run, or now if you type",
        ]
        assert said["command"] == f"pipeline cancel job --output {bench.folder}"
        assert bench.one("SELECT cancel_since FROM job") is not None
        assert sorted(bench.statuses().values()) == ["cancelled", "running", "running"]
        with run_lock(bench.folder, bench.images, bench.connection, lambda: None):
            said = (await _post(client, access, "cancel"))[1]
    assert "the run at work (" in said["lines"][-1]
    assert said["command"] is None
    (job,) = read_snapshot(bench.connection, Config(None, bench.folder, None, {}), None, 1.0)["jobs"]
    assert (job["can_cancel"], job["batches"][:17]) == (0, "being cancelled; ")


async def test_resume_beside_a_run_says_who_takes_it_up(bench: Bench) -> None:
    bench.submit(asked(1), now=5)
    fail(bench, 1, BUSY)
    with run_lock(bench.folder, bench.images, bench.connection, lambda: None):
        async with _open(bench) as (client, access):
            result = (await _post(client, access, "resume"))[1]
    assert re.fullmatch(
        r"queued: job, 1 request; the run at work \(process \d+ on .*\) takes it up", result["lines"][-1]
    )
    assert result["command"] is None
    assert bench.one("SELECT submitted_at FROM job") > 5, "a run that was given other jobs takes it up, too"


def test_a_holder_is_one_that_lives_and_holds_the_lock(bench: Bench) -> None:
    assert find_owner(bench.folder, bench.connection) is None
    with run_lock(bench.folder, bench.images, bench.connection, lambda: None):
        owner = find_owner(bench.folder, bench.connection)
    assert owner is not None
    assert socket.gethostname() in owner.who
    assert find_owner(bench.folder, bench.connection) is None, "alive, but it has let go"
    bench.set("UPDATE holder SET pid = 2147483646")
    with run_lock(bench.folder, bench.images, bench.connection, lambda: None):
        bench.set("UPDATE holder SET pid = 2147483646")
        assert find_owner(bench.folder, bench.connection) is None, "dead, so the lock is not even tried"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_orders_of_other_sites_pages_are_refused(bench: Bench, headers: dict[str, str]) -> None:
    bench.submit(asked(1))
    async with _open(bench) as (client, access):
        assert (await _post(client, access, "cancel", headers=headers))[0] == 403
    assert set(bench.statuses().values()) == {"pending"}


@pytest.mark.parametrize("token", ["", "wrong", None])
async def test_orders_without_the_page_s_own_token_are_refused(bench: Bench, token: str | None) -> None:
    bench.submit(asked(1))
    form = {"action": "cancel", "job": "job", **({} if token is None else {"form_token": token})}
    async with _open(bench) as (client, _), client.post("/actions", data=form) as answer:
        assert answer.status == 403
    assert set(bench.statuses().values()) == {"pending"}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.1:1", 200),
        ("LOCALHOST:99", 200),
        ("[::1]:5", 200),
        ("", 403),
    ],
)
async def test_a_name_that_somebody_else_points_here_is_not_answered(bench: Bench, host: str, status: int) -> None:
    async with _open(bench) as (client, _), client.get("/", headers={"Host": host}) as answer:
        assert answer.status == status
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_anywhere_but_on_loopback_a_token_is_asked_for_and_kept_in_a_cookie(bench: Bench) -> None:
    bench.submit(asked(1))
    hang(bench, 1, drawn(1))
    async with _open(bench, "0.0.0.0") as (client, access):  # noqa: S104 - a door that is made as if
        assert access.token is not None
        for path in (
            "/",
            "/?token=",
            f"/?token={access.token}x",
            "/events",
            "/images/1",
            "/live.js",
            f"/images/1?token={access.token}",
        ):
            async with client.get(path) as answer:
                assert (answer.status, path) == (401, path)
        assert (await _post(client, access, "cancel"))[0] == 401
        async with client.get("/", params={"token": access.token}) as answer:
            assert answer.status == 200
            cookie = answer.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie
        for path in ("/", "/images/1", "/live.js"):
            async with client.get(path) as answer:
                assert (answer.status, path) == (200, path)
        async with client.get("/", headers={"Host": "evil.example"}) as answer:
            assert answer.status == 403
        async with client.get("/", headers={"Host": "192.168.1.7:8787"}) as answer:
            assert answer.status == 200


async def test_where_no_thumbnail_can_be_written_the_page_is_told_so(bench: Bench) -> None:
    bench.submit(asked(1))
    hang(bench, 1, drawn(1))
    (bench.folder / "job" / "thumbnails").write_text("in the way")
    async with _open(bench) as (client, _):
        async with client.get("/thumbnails/1") as answer:
            assert answer.status == 503
        async with client.get("/images/1") as answer:
            assert answer.status == 200


def test_every_start_has_its_own_token_and_loopback_has_none() -> None:
    assert AccessControl.of("10.0.0.5").token != AccessControl.of("10.0.0.5").token
    assert [AccessControl.of(host).token for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8")] == [None] * 4


async def test_the_page_shows_the_folder_as_text_and_may_load_only_its_own(bench: Bench) -> None:
    async with _open(bench) as (client, access), client.get("/") as answer:
        text = await answer.text()
        assert access.form_token in text
        assert str(bench.folder) in text
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def _served(stage: Stage, *arguments: object) -> tuple[RunningCommand, str]:
    process = stage.start("serve", "--port", 0, *arguments)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_serve_says_where_and_a_signal_ends_it_even_while_somebody_looks(stage: Stage, number: int, code: int) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    process, url = _served(stage)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)

    async def look() -> None:
        async with aiohttp.ClientSession() as client, client.get(url + "events") as answer:
            await _events(answer, 1)
            process.send_signal(number)
            await answer.content.read()

    asyncio.run(look())
    ended = finish(process)
    assert (ended.exit_code, ended.stderr) == (code, "")
    assert not stage.output.exists(), "looking makes nothing"


def test_a_port_that_is_taken_is_exit_2_with_a_sentence(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = stage.run("serve", "--port", taken.getsockname()[1], exit_code=2)
    assert "choose another --port" in ended.stderr


def test_any_other_host_prints_a_token_once(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    process, url = _served(stage, "--host", "0.0.0.0")  # noqa: S104 - ends with the test
    process.terminate()
    assert re.search(r"/\?token=[\w-]{43}$", url)
    ended = finish(process)
    assert ended.stdout + ended.stderr == ""


FORM = {"Content-Type": "application/x-www-form-urlencoded"}
HOSTILE_POSTS: list[tuple[dict[str, str], bytes, int]] = [
    ({"Content-Type": "multipart/form-data"}, b"x", 415),
    ({"Content-Type": "multipart/form-data; boundary=a"}, b"--a\r\nbroken", 415),
    ({"Content-Type": "application/x-www-form-urlencoded; charset=no-such"}, b"job=a", 403),
    ({"Content-Type": "/;=;charset"}, b"job=a", 415),
    ({"Content-Type": ""}, b"job=a", 415),
    ({**FORM, "Content-Encoding": "gzip"}, b"no gzip", 400),
    ({**FORM, "Content-Encoding": "deflate"}, b"no deflate", 400),
    ({**FORM, "Content-Encoding": "br"}, b"no brotli", 400),
    ({**FORM, "Content-Encoding": "no-such"}, b"job=a", 403),
    ({**FORM, "Transfer-Encoding": "chunked"}, b"ZZ\r\n", 400),
    ({**FORM, "Origin": "http://["}, b"job=a", 403),
    (FORM, b"\xff\xfe%ff%00=%ed%a0%80&&&=&;", 403),
    (FORM, b"a=" + b"x" * 5000, 413),
]


async def _send_raw(port: int, headers: dict[str, str], body: bytes) -> bytes:
    """Send one request as it stands, without a client that would correct it; return the status line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{name}: {value}" for name, value in {"Host": f"127.0.0.1:{port}", **headers}.items()]
    if "Transfer-Encoding" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    writer.write("\r\n".join(["POST /actions HTTP/1.1", *lines, "Connection: close", "", ""]).encode() + body)
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n")[0]


async def test_no_form_however_it_is_sent_makes_a_traceback(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    batch = Batch(Config(None, bench.folder, None, {"lab": LIMITED}))
    runner = make_runner(Site(batch, AccessControl.of("127.0.0.1")))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        for headers, body, status in HOSTILE_POSTS:
            answer = await _send_raw(runner.addresses[0][1], headers, body)
            assert answer.split()[1] == str(status).encode(), (headers, body, answer)
    finally:
        await runner.cleanup()
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("name", ["If-Modified-Since", "If-Unmodified-Since", "If-Range"])
async def test_a_date_out_of_range_makes_no_traceback(
    bench: Bench, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench.submit(asked(1))
    hang(bench, 1, drawn(1))
    async with _open(bench) as (client, _):
        headers = {name: "Wed, 21 Oct 99999999999 07:28:00 GMT", "Range": "bytes=0-1"}
        async with client.get("/images/1", headers=headers) as answer:
            assert answer.status == 400
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
