"""Each cause is made to happen at a server, and the command that is printed for it is typed after the mend."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from pipeline.engine import refusal_guard
from tests.support.workbench import PNG, PNG_BASE64

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.stage import Ended, Stage

HERE = {"b64_json": PNG_BASE64}
BAD = "prompt number 2"  # of which the servers of these tests do not approve


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits before a refusal is confirmed."""
    monkeypatch.setattr(refusal_guard, "SAME_WAIT", 0.02)
    monkeypatch.setattr(refusal_guard, "OTHER_WAIT", 0.02)
    monkeypatch.setattr("pipeline.engine.failed_calls.FIRST_WAIT", 0.02)


class Vendor:
    """An Images API in a thread; `odd` answers a call oddly, or returns None. `calls` are the prompts it was asked."""

    def __init__(self) -> None:
        self.odd: Callable[[str], web.StreamResponse | None] = lambda _: None
        self.seconds = 0.0  # that an odd answer takes
        self.there = True  # its images
        self.calls: list[str] = []
        self.base_url = ""

    async def call(self, http: web.Request) -> web.StreamResponse:
        """Answer a call."""
        prompt = (await http.json())["prompt"]
        self.calls.append(prompt)
        response = self.odd(prompt)
        if response is not None:
            await asyncio.sleep(self.seconds)
        return response or web.json_response({"created": 1, "data": [HERE]})

    async def picture(self, _http: web.Request) -> web.StreamResponse:
        """Answer a download."""
        return web.Response(body=PNG if self.there else b"no picture")


@pytest.fixture
def vendor(stage: Stage) -> Iterator[Vendor]:
    """A server that is the provider of the stage, and quick retries."""
    server = Vendor()
    started: SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = SimpleQueue()

    async def work() -> None:
        stop = asyncio.Event()
        app = web.Application()
        app.router.add_post("/v1/images/generations", server.call)
        app.router.add_get("/picture/{name}", server.picture)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        started.put((asyncio.get_running_loop(), stop))
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(work(),), daemon=True)
    thread.start()
    loop, stop = started.get(timeout=20)
    stage.settings.update(retry={"attempts": 2, "max_wait_seconds": 0.05}, download={"attempts": 2})
    stage.provider("lab", server.base_url, concurrency=2)
    with contextlib.ExitStack() as stack:
        stack.callback(thread.join)
        stack.callback(loop.call_soon_threadsafe, stop.set)
        yield server


def says(status: int, message: str, code: str | None = None) -> Callable[[str], web.StreamResponse | None]:
    """Refuse the bad prompt with this."""
    error = {"error": {"message": message, "type": None, "code": code, "param": None}}
    return lambda prompt: web.json_response(error, status=status) if BAD in prompt else None


def page(status: int, **headers: str) -> Callable[[str], web.StreamResponse | None]:
    """Answer the bad prompt with this status."""
    return lambda prompt: web.Response(status=status, headers=headers) if BAD in prompt else None


def data(*items: Any) -> Callable[[str], web.StreamResponse | None]:
    """Answer the bad prompt with these items."""
    return lambda prompt: web.json_response({"created": 1, "data": list(items)}) if BAD in prompt else None


REFUSED: dict[str, tuple[Callable[[str], web.StreamResponse | None], str]] = {
    "Moderated": (says(400, "refused by the safety system", "content_policy_violation"), "run"),
    "Invalid": (says(400, "bad size"), "run resume"),
    "KeyRefused": (says(403, "Forbidden"), "run resume"),
    "WrongAddress": (page(302, Location="https://status.example.org/"), "run resume"),
    "WrongPath": (page(404), "run resume"),
    "ModelUnknown": (says(404, "no such model", "model_not_found"), "run resume"),
    "ServerFault": (says(500, "broken"), "resume"),
    "OutcomeUnknown": (page(504), "resume"),
    "Unusable": (data({"b64_json": "bm8gcGljdHVyZQ=="}), "resume"),
}


def commands(ended: Ended) -> list[str]:
    """Return the commands that the summary prints, in order."""
    return [line.strip() for line in ended.stderr.splitlines() if line.startswith("    pipeline ")]


def typed(stage: Stage, line: str, exit_code: int = 0) -> Ended:
    """Type a printed command."""
    program, *words = shlex.split(line)
    assert program == "pipeline"
    return stage.run(*words, exit_code=exit_code)


def edit(stage: Stage) -> None:
    """Edit the prompt that is refused."""
    rows = stage.folder / "many.txt"
    rows.write_text(rows.read_text().replace(BAD, "another prompt"))


@pytest.mark.parametrize("kind", REFUSED)
def test_the_command_beside_a_failed_request_mends_it(stage: Stage, vendor: Vendor, kind: str) -> None:
    vendor.odd, words = REFUSED[kind]
    ended = stage.run("run", stage.prompts("many", 8), exit_code=1)
    (failed,) = [entry for entry in stage.manifest("many") if entry["status"] == "failed"]
    assert (failed["error"]["kind"], failed["prompt"]) == (kind, BAD), ended.stderr
    found = commands(ended)
    assert [line.split()[1] for line in found] == words.split()
    resume = found[-1] if "resume" in words else None
    made = len(vendor.calls)
    if "run" in words:
        typed(stage, found[0], exit_code=1)
        assert len(vendor.calls) == made, "without an edit nothing is bought"
        edit(stage)
        typed(stage, found[0])
        assert vendor.calls[made:] == ["another prompt"], "the edited request is new, and alone is made"
    if "run" in words and resume is not None:
        stage.run("run", stage.prompts("many", 8), exit_code=1)  # as it was
        made = len(vendor.calls)
    if resume is not None:
        vendor.odd = lambda _: None
        typed(stage, resume)
        assert vendor.calls[made:] == [BAD]
    assert stage.standing("many")["counts"]["succeeded"] == 8


def test_what_came_instead_of_an_image_lies_where_the_advice_says(stage: Stage, vendor: Vendor) -> None:
    vendor.odd = data({"b64_json": "bm8gcGljdHVyZQ=="})
    ended = stage.run("run", stage.prompts("many", 5), exit_code=1)
    place = ended.stderr.partition("what came instead is kept beside the images, in ")[2].split()[0].rstrip(":")
    assert (stage.output / place).read_bytes() == b"no picture"


def test_a_paid_image_that_waits_is_resumed_at_no_cost(stage: Stage, vendor: Vendor) -> None:
    vendor.there = False
    vendor.odd = data({"url": vendor.base_url.replace("/v1", "/picture/1.png")})
    ended = stage.run("run", stage.prompts("many", 5), exit_code=1)
    assert "1 image paid and not downloaded yet" in ended.stderr
    assert stage.standing("many")["paid_waiting"] == 1
    assert "downloads the image at no cost" in ended.stderr
    vendor.there = True
    typed(stage, commands(ended)[-1])
    assert len(vendor.calls) == 5
    assert stage.standing("many")["paid_waiting"] == 0


def test_an_option_that_allows_an_image_is_named_and_helps(stage: Stage, vendor: Vendor) -> None:
    port = vendor.base_url.rpartition(":")[2].removesuffix("/v1")
    vendor.odd = data({"url": f"http://localhost:{port}/picture/1.png"})
    ended = stage.run("run", stage.prompts("many", 5), exit_code=1)
    assert "`picture_hosts: [localhost]`" in ended.stderr
    stage.provider("lab", vendor.base_url, concurrency=2, picture_hosts=["localhost"])
    typed(stage, commands(ended)[-1])
    assert len(vendor.calls) == 5


def test_a_gateway_that_cuts_slow_calls_is_named_with_what_it_cost_and_either_command_helps(
    stage: Stage, vendor: Vendor
) -> None:
    vendor.odd, vendor.seconds = page(524), 0.3
    stage.settings["retry"]["attempts"] = 4
    stage.write_config()
    ended = stage.run("run", stage.prompts("many", 5), exit_code=1)
    assert "such as a gateway, cuts calls after about 0.3" in ended.stderr
    assert "3 calls ended so, and each may have been paid, for $0.0" in ended.stderr
    run, resume = commands(ended)
    assert (run.split()[1], resume.split()[1]) == ("run", "resume")
    edit(stage)
    typed(stage, run)
    assert vendor.calls.count("another prompt") == 1


STOPS: dict[str, tuple[Callable[[str], web.StreamResponse | None], str]] = {
    "KeyRefused": (lambda _: web.json_response({"error": {"message": "no"}}, status=401), "check the provider's key"),
    "QuotaSpent": (lambda _: web.Response(status=402), "top up the account"),
    "WrongAddress": (
        lambda _: web.Response(text="<!doctype html><html></html>", content_type="text/html"),
        "`base_url`",
    ),
    "WrongPath": (lambda _: web.Response(status=404), "`base_url`"),
    "ModelUnknown": (
        lambda _: web.json_response({"error": {"message": "no", "code": "model_not_found"}}, status=404),
        "correct `model` in the job file",
    ),
    "RepeatedRefusal": (lambda _: web.json_response({"error": {"message": "no"}}, status=400), "in the account"),
    "NotDelivered": (
        lambda _: web.json_response({"created": 1, "data": [{"b64_json": "bm8gcGljdHVyZQ=="}]}),
        "the way to the images",
    ),
}


@pytest.mark.parametrize("kind", STOPS)
@pytest.mark.parametrize("again", ["run", "resume"])
def test_a_stop_names_what_mends_it_and_the_command_then_goes_on(
    stage: Stage, vendor: Vendor, kind: str, again: str
) -> None:
    vendor.odd, fix = STOPS[kind]
    job = stage.prompts("many", 8)
    if again == "resume":
        stage.run("submit", job)
    ended = stage.run(again, job if again == "run" else "many", exit_code=3)
    mend = ended.stderr.index("to fix it: ")
    assert fix in ended.stderr[mend:].partition("\n")[0]
    assert mend < ended.stderr.index("to continue, run:")
    vendor.odd = lambda _: None
    typed(stage, commands(ended)[-1])
    assert stage.standing("many")["counts"]["succeeded"] == 8
