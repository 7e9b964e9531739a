"""The live page as people use it: in a real browser, beside a run that works."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.ledger.lock import run_lock
from pipeline.ledger.outages import Outage, record_outage
from tests.browser.test_report_page import HOSTILE
from tests.support.browser import pale_texts, wait_until
from tests.support.exhibits import asked, drawn, fail, hang
from tests.support.stage import finish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.browser import Viewer
    from tests.support.stage import Stage
    from tests.support.workbench import Bench

SEEN = "[...document.querySelectorAll('#newest img')].filter((one) => one.naturalWidth > 0).length"


def _serve(stage: Stage, bench: Bench | None = None, *arguments: object) -> str:
    folder = stage.output if bench is None else bench.folder
    process = stage.start("serve", "--port", 0, "--output", folder, *arguments)
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _night(bench: Bench) -> None:
    """Leave a job with two pictures, a failure, and two requests that wait."""
    bench.submit(*(asked(number, f"prompt {number} of the night") for number in range(5)))
    hang(bench, 0, drawn(0))
    hang(bench, 1, drawn(1))
    fail(bench, 2)


def test_pictures_are_seen_as_they_land_beside_a_working_run(stage: Stage, viewer: Viewer) -> None:
    stage.provider("lab", stage.serve(rate_limit=None, latency_seconds=[1, 1]), concurrency=2)
    page = viewer.open(_serve(stage))
    page.get_by_text("Nothing has been submitted yet.").wait_for()
    process = stage.start("run", stage.prompts("many", 8))
    wait_until(page, f"{SEEN} >= 2 && {SEEN} < 8")
    assert process.poll() is None, "seen while the run is working"
    assert "Working since" in page.locator("#run").inner_text()
    assert str(process.pid) in page.locator("#run").inner_text()
    wait_until(page, f"{SEEN} === 8")
    assert finish(process).exit_code == 0
    wait_until(page, "document.querySelector('#run').textContent.startsWith('No run is at work')")
    assert "8 of 8 done" in page.locator("#jobs").inner_text()
    assert page.get_by_role("progressbar").get_attribute("aria-valuenow") == "100"
    assert "prompt number" in (page.locator("#newest img").first.get_attribute("alt") or "")


def test_finished_jobs_are_folded_at_the_end_and_every_job_links_to_its_report(
    bench: Bench, stage: Stage, viewer: Viewer
) -> None:
    for number in range(13):
        bench.submit(asked(number), name=f"old-{number}")
        hang(bench, number, drawn(number), job=f"old-{number}")
    fail(bench, 12, job="old-12")
    bench.submit(*(asked(number) for number in range(20, 30)))
    hang(bench, 20, drawn(20))
    page = viewer.open(_serve(stage, bench))
    finished = page.locator("#finished")
    finished.wait_for()
    assert page.locator("#finished-title").inner_text() == "13 finished jobs, 1 request without all images"
    assert page.locator("#jobs > li").count() == 1
    assert page.locator("#jobs h3").inner_text().startswith("job")
    assert page.locator("#failures").is_hidden(), "what failed in a folded job is folded with it"
    assert page.locator("#finished-jobs > li").first.is_hidden()
    newest = page.locator("#newest").bounding_box()
    assert newest is not None
    assert newest["y"] < 800, "the images are seen without scrolling"
    page.locator("#finished-title").click()
    assert page.locator("#finished-jobs > li").count() == 13
    assert "content_policy_violation in old-12" in page.locator("#finished-causes").inner_text()
    assert "in the Python program" in page.locator("#finished-causes").inner_text()
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Report of old-3").click()
    report = opened.value
    wait_until(report, "document.querySelector('.tile img')?.naturalWidth > 0")
    assert report.locator("h1").inner_text() == "old-3"
    report.locator(".tile .open").first.click()
    large = (
        "document.querySelector('.pswp__item[aria-hidden=false] img:not(.pswp__img--placeholder)')?.naturalWidth > 0"
    )
    wait_until(report, large)


def test_the_newest_job_stays_in_sight_if_nothing_is_queued(bench: Bench, stage: Stage, viewer: Viewer) -> None:
    for name in ("one", "two"):
        bench.submit(asked(1), name=name)
        hang(bench, 1, drawn(1), job=name)
    page = viewer.open(_serve(stage, bench))
    page.locator("#finished").wait_for()
    assert page.locator("#jobs h3").all_inner_texts() == ["twolab"]
    assert page.locator("#finished-title").inner_text() == "1 finished job"
    assert page.title() == f"{bench.folder.name} · pipeline"
    bench.submit(asked(1), asked(2), name="one")
    page.get_by_text("1 of 2 done").wait_for()
    assert page.locator("#jobs h3").all_inner_texts() == ["onelab"]
    assert page.title() == f"stopped at 50 % · {bench.folder.name} · pipeline"


def test_a_full_bar_is_full_and_each_cause_has_its_command(bench: Bench, stage: Stage, viewer: Viewer) -> None:
    bench.submit(*(asked(number) for number in range(10)), name="whole")
    for number in range(10):
        hang(bench, number, drawn(number), job="whole")
    page = viewer.open(_serve(stage, bench), permissions=["clipboard-read", "clipboard-write"])
    page.get_by_text("10 of 10 done").wait_for()
    bar, green = page.locator("#jobs .bar").bounding_box(), page.locator("#jobs .bar .good").bounding_box()
    assert bar is not None
    assert green is not None
    assert green["width"] == bar["width"], "10 of 10 leave no gap"
    bench.set("UPDATE job SET file = '/whole.yaml'")
    fail(bench, 3, job="whole")
    fail(bench, 4, {"http_status": 500, "type": None, "code": None, "message": "It broke."}, job="whole")
    page.get_by_text("8 of 10 done").wait_for()
    ends = f" --output {bench.folder}"
    lines = page.locator("#causes .command code").all_inner_texts()
    assert [line.rpartition(" --output ")[0] for line in lines] == ["pipeline run /whole.yaml", "pipeline resume whole"]
    assert all(line.endswith(ends) for line in lines)
    page.locator("#causes").get_by_role("button", name="Copy").last.click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == lines[1]
    for width in range(340, 580, 24):
        page.set_viewport_size({"width": width, "height": 800})
        options = page.locator("#causes .command code span", has_text="--output")
        assert set(options.evaluate_all("all => all.map((one) => one.getClientRects().length)")) == {1}, (
            f"broken at {width} pixels"
        )
    assert page.locator("#jobs .button").first.bounding_box()["height"] < 45  # type: ignore[index]


def test_pauses_are_shown_with_a_clock_of_24_hours(bench: Bench, stage: Stage, viewer: Viewer) -> None:
    bench.submit(asked(1))
    until = time.time() + 86400
    bench.set("INSERT INTO provider (name, paused_until) VALUES ('lab', ?)", until)
    page = viewer.open(_serve(stage, bench))
    page.locator("#stops").wait_for()
    hours = page.evaluate("new Date().getHours()")
    text = page.locator("#stops").inner_text()
    assert re.search(r"lab asks for a pause until \d\d:\d\d$", text), text
    assert int(text[-5:-3]) in {hours, hours + 1}
    assert "AM" not in text + page.locator("body").inner_text()


def test_an_outage_that_a_run_at_work_has_met_is_shown(bench: Bench, stage: Stage, viewer: Viewer) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    bench.submit(asked(1))
    page = viewer.open(_serve(stage, bench))
    with run_lock(bench.folder, bench.images, bench.connection, lambda: None):
        page.locator("#run.working").wait_for()
        record_outage(bench.connection, "lab", Outage(time.time(), time.time() + 600, "no way"))
        page.get_by_text("provider `lab` is down since").wait_for()
        page.locator("#run.paused").wait_for()


def test_a_stop_is_shown_with_what_mends_it_before_the_command(bench: Bench, stage: Stage, viewer: Viewer) -> None:
    sources = "window.EventSource = class { addEventListener(name, hear) { (window.hear ||= {})[name] = hear; } }"
    page = viewer.open(_serve(stage, bench), script=sources)
    stop = {
        "kind": "QuotaSpent",
        "message": "429 insufficient_quota: <b>You exceeded</b> your quota",
        "reach": "provider `lab`",
        "at": 1_795_000_000.0,
        "advice": "top up the account at the provider, or raise its limit",
        "commands": ["pipeline run"],
    }
    state: dict[str, Any] = {
        "jobs": [],
        "run": None,
        "providers": [],
        "minutes_left": None,
        "spent": None,
        "command": "pipeline run",
    }
    page.evaluate("state => hear.state({ data: JSON.stringify(state) })", {**state, "stops": [stop]})
    text = page.locator("#stops").inner_text()
    parts = ("provider `lab`", "<b>You exceeded</b>", "top up the account", "pipeline run")
    assert [text.index(part) for part in parts] == sorted(text.index(part) for part in parts)
    page.evaluate("state => hear.state({ data: JSON.stringify(state) })", state)
    assert page.locator("#stops").is_hidden()


def test_a_provider_is_paused_and_limited_and_a_job_goes_first_after_a_question(
    bench: Bench, stage: Stage, viewer: Viewer
) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1", rate_limit={"images": 50, "per_seconds": 60})
    bench.submit(asked(1))
    page = viewer.open(_serve(stage, bench))
    pause, limit = (page.get_by_role("button", name=f"{one} lab").bounding_box() for one in ("Pause", "Limit"))
    assert pause is not None
    assert limit is not None
    assert limit["x"] - pause["x"] - pause["width"] >= 8, "two buttons have a gap"
    page.get_by_role("button", name="Pause lab").click()
    dialog = page.get_by_role("dialog")
    assert pale_texts(page) == []
    dialog.get_by_role("button", name="Pause lab").click()
    page.get_by_text("provider `lab` is paused since").wait_for()
    page.get_by_role("button", name="Limit lab").click()
    dialog.get_by_role("spinbutton").fill("51")
    dialog.get_by_role("button", name="Set the limit").click()
    assert dialog.is_visible(), "no more than is configured"
    dialog.get_by_role("spinbutton").fill("5")
    dialog.get_by_role("button", name="Set the limit").click()
    page.get_by_text("provider `lab` is throttled to 5 images").first.wait_for()
    page.get_by_role("button", name="Priority of job").click()
    dialog.get_by_role("spinbutton").fill("-3")
    dialog.get_by_role("button", name="Set the priority").click()
    page.get_by_role("button", name="Priority -3 of job").wait_for()
    page.get_by_role("button", name="Unpause lab").click()
    dialog.get_by_role("button", name="Unpause lab").click()
    page.get_by_role("button", name="Pause lab", exact=True).wait_for()
    assert bench.ask("SELECT held_since, throttle FROM provider") == [(None, 5)]


def test_cancel_and_resume_ask_before_they_do_what_the_commands_do(bench: Bench, stage: Stage, viewer: Viewer) -> None:
    bench.submit(*(asked(number) for number in range(6)))
    hang(bench, 0, drawn(0))
    fail(bench, 1)  # refused by the content policy
    for number in (2, 3):
        fail(bench, number, {"http_status": 500, "message": "busy", "kind": "ServerFault"})
    bench.set("UPDATE request SET estimate_usd = 0.25")
    page = viewer.open(_serve(stage, bench))
    cancel = page.get_by_role("button", name="Cancel 2 of job")
    cancel.focus()
    assert cancel.evaluate("one => getComputedStyle(one).outlineWidth") == "3px"
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Cancel job?")
    dialog.wait_for()
    assert "to put them back later, type: pipeline resume job" in dialog.inner_text()
    page.keyboard.press("Enter")  # the careful answer is the first
    dialog.wait_for(state="hidden")
    assert sorted(bench.statuses().values())[-3:] == ["pending", "pending", "succeeded"]
    cancel.click()
    assert pale_texts(page) == []
    dialog.get_by_role("button", name="Cancel 2 requests").click()
    cancel.wait_for(state="hidden")
    assert sorted(bench.statuses().values()) == ["cancelled"] * 2 + ["failed"] * 3 + ["succeeded"]
    assert "2 requests of `job` taken out of the queue" in page.locator("#said").inner_text()
    resume = page.get_by_role("button", name="Resume 2 of job")
    resume.click()
    dialog = page.get_by_role("dialog", name="Resume job?")
    dialog.wait_for()
    text = dialog.inner_text()
    assert "put back: 2 requests of `job`: 2 images, about $0.50" in text
    assert "left alone: 2 cancelled requests of `job`" in text
    assert "left alone: 1 request of `job` that the content policy refused" in text
    page.keyboard.press("Escape")
    assert "pending" not in bench.statuses().values()
    resume.click()
    dialog.get_by_role("button", name="Put 2 requests back").click()
    page.get_by_role("button", name="Cancel 2 of job").wait_for()
    assert sorted(bench.statuses().values()) == ["cancelled"] * 2 + ["failed", "pending", "pending", "succeeded"]
    assert "to start one, type: pipeline run" in page.locator("#said").inner_text()
    assert page.get_by_role("button", name="Resume").count() == 0


def test_batches_that_are_out_are_in_the_job_the_facts_and_the_title(
    bench: Bench, stage: Stage, viewer: Viewer
) -> None:
    bench.submit(*map(asked, range(4)))
    bench.send_batch(1, 2, 3, completed=2, sent_at=time.time(), expires_at=time.time() + 3600)
    page = viewer.open(_serve(stage, bench))
    page.locator(".batches").wait_for()
    assert re.fullmatch(r"0 %, in batch 2/3 · .*pipeline", page.title()), page.title()
    assert page.locator(".batches").inner_text().startswith("1 batch out: 2 of 3 lines made, sent ")
    assert "2 of 3" in page.locator("#facts").inner_text()
    page.get_by_role("button", name="Cancel 4 of job").click()
    dialog = page.get_by_role("dialog", name="Cancel job?")
    dialog.wait_for()
    assert "3 of them are out in batches: what is made until then is paid" in dialog.inner_text()
    dialog.get_by_role("button", name="Cancel 4 requests").click()
    page.locator("#said").get_by_text("pipeline cancel job").wait_for()
    page.locator(".batches").get_by_text("being cancelled").wait_for()
    assert page.get_by_role("button", name="Cancel").count() == 0


def test_a_newest_image_opens_large_in_the_report_of_its_job(bench: Bench, stage: Stage, viewer: Viewer) -> None:
    _night(bench)
    page = viewer.open(_serve(stage, bench))
    wait_until(page, f"{SEEN} === 2")
    with page.expect_popup() as opened:
        page.get_by_role("link", name="prompt 0 of the night, large in the report").click()
    report = opened.value
    report.locator(".pswp").wait_for()
    assert report.locator(".panel .prompt").inner_text() == "prompt 0 of the night"
    assert report.url.endswith("/jobs/job/report.html#images%2Fprompt-0-5feceb66-1.png")
    report.keyboard.press("Escape")
    report.locator(".pswp").wait_for(state="detached")
    assert report.locator(".tile").count() == 5


def test_failures_are_shown_with_their_cause(bench: Bench, stage: Stage, viewer: Viewer) -> None:
    _night(bench)
    page = viewer.open(_serve(stage, bench))
    page.locator("#failures").wait_for()
    text = page.locator("#failures").inner_text()
    assert "400 content_policy_violation in job" in text
    assert "Example: prompt 2 of the night" in text


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_every_text_is_readable_in_light_and_dark_and_on_a_telephone(
    bench: Bench, stage: Stage, viewer: Viewer, scheme: str, width: int
) -> None:
    _night(bench)
    page = viewer.open(_serve(stage, bench), scheme=scheme, width=width)
    wait_until(page, f"{SEEN} === 2")
    page.get_by_role("button", name="Cancel 2 of job").click()
    page.get_by_role("dialog").wait_for()
    assert pale_texts(page) == []
    page.get_by_role("button", name="Cancel 2 requests").click()
    page.locator("#said").wait_for()
    assert pale_texts(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_hostile_words_are_shown_as_words_and_run_nothing(bench: Bench, stage: Stage, viewer: Viewer) -> None:
    bench.submit(*(asked(at, text) for at, text in enumerate(HOSTILE)), asked(9, HOSTILE[0]))
    for at in range(len(HOSTILE)):
        hang(bench, at, drawn(at))
    fail(bench, 9, {"http_status": 400, "type": None, "code": HOSTILE[1], "message": HOSTILE[2]})
    bench.set("UPDATE job SET provider = ?", HOSTILE[1])
    page = viewer.open(_serve(stage, bench))
    wait_until(page, f"{SEEN} === {len(HOSTILE)}")
    assert page.locator("#newest .caption").first.text_content() == HOSTILE[-1]
    assert HOSTILE[2] in (page.locator("#failures").text_content() or "")
    assert page.evaluate("window.hurt") is None
    assert page.locator("#jobs img, #failures img, main script, main svg").count() == 0


def test_a_token_opens_the_page_once_and_the_cookie_from_then_on(bench: Bench, stage: Stage, viewer: Viewer) -> None:
    _night(bench)
    url = _serve(stage, bench, "--host", "0.0.0.0")  # noqa: S104 - ends with the test
    port, token = url.rpartition(":")[2].split("/")[0], url.rpartition("=")[2]
    home = f"http://127.0.0.1:{port}/"
    stranger = viewer.open(home)
    assert "the address that `pipeline serve` printed" in stranger.locator("body").inner_text()
    page = viewer.open(f"{home}?token={token}")
    wait_until(page, f"{SEEN} === 2")
    assert page.url == home, "the token does not stay in the address"
    assert page.evaluate("document.cookie") == ""
    page.goto(home)
    wait_until(page, f"{SEEN} === 2")
    page.get_by_role("button", name="Cancel 2 of job").click()
    page.get_by_role("button", name="Cancel 2 requests").click()
    page.get_by_text("2 requests of `job` taken out of the queue").wait_for()
    viewer.forgive("401")


class _Neighbour(http.server.BaseHTTPRequestHandler):
    """Another site on this machine."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>neighbour</title>")

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def _neighbour() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Neighbour) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_another_sites_page_can_neither_see_nor_order_anything(bench: Bench, stage: Stage, viewer: Viewer) -> None:
    _night(bench)
    url = _serve(stage, bench)
    with _neighbour() as elsewhere:
        page = viewer.open(elsewhere)
        told = page.evaluate(
            """async (url) => {
              const picture = new Promise((done) => {
                const image = new Image();
                image.onload = () => done("seen");
                image.onerror = () => done("refused");
                image.src = url + "images/1";
              });
              const body = new URLSearchParams({ action: "cancel", job: "job" });
              await fetch(url + "actions", { method: "POST", mode: "no-cors", body }).catch(() => null);
              const read = await fetch(url).then(() => "read", () => "refused");
              const events = await new Promise((done) => {
                const source = new EventSource(url + "events");
                source.onopen = () => done("heard");
                source.onerror = () => { source.close(); done("refused"); };
              });
              return [await picture, read, events];
            }""",
            url,
        )
    assert told == ["refused", "refused", "refused"]
    assert sorted(bench.statuses().values()) == ["failed", "pending", "pending", "succeeded", "succeeded"]
    viewer.trouble.clear()


def test_it_finds_its_server_again(bench: Bench, stage: Stage, viewer: Viewer) -> None:
    _night(bench)
    process = stage.start("serve", "--port", 0, "--output", bench.folder)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    page = viewer.open(url)
    wait_until(page, f"{SEEN} === 2")
    process.terminate()
    finish(process)
    page.get_by_text("reconnecting").wait_for()
    hang(bench, 3, drawn(3))
    again = stage.start("serve", "--port", url.rpartition(":")[2].strip("/"), "--output", bench.folder)
    wait_until(page, f"{SEEN} === 3")
    page.get_by_role("button", name="Cancel 1 of job").click()
    page.get_by_text("reload it").wait_for()
    assert again.poll() is None
    for what in ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "403"):
        viewer.forgive(what)
