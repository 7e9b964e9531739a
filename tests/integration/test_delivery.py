"""Delivery to a real server or command, with a second try; errors do not contain the address."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pipeline.notifications import delivery
from pipeline.notifications.delivery import DeliveryError, deliver, post, run_command
from pipeline.notifications.message import end_message
from tests.support.workbench import until
from tests.unit.test_from_events import summary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from typing import Any

NOTICE = end_message(0, [summary("lounge")], [], None, "pipeline run")


class Hook:
    """Responds with one status after another, the last forever, and keeps what it received."""

    def __init__(self, *statuses: int, to: str = "") -> None:
        self.statuses = list(statuses)
        self.to = to
        self.told: list[tuple[str, Any, str | None]] = []

    async def _answer(self, http: web.Request) -> web.Response:
        self.told.append((http.path_qs, await http.json(), http.headers.get("X-Key")))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if status == 0:
            await asyncio.Event().wait()
        return web.Response(status=status, headers={"Location": self.to} if self.to and status < 400 else {})

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/{tail:.*}", self._answer)
        async with TestServer(app) as server:
            yield str(server.make_url("")).rstrip("/")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "BETWEEN_SECONDS", 0.01)


async def test_a_webhook_is_posted_json_with_the_headers() -> None:
    hook = Hook(204)
    async with hook.at_work() as url:
        await post(f"{url}/secret?a=b", "json", {"X-Key": "k"}, NOTICE)
    assert hook.told == [("/secret?a=b", json.loads(json.dumps(dict(NOTICE.facts))), "k")]


@pytest.mark.parametrize(("path", "asked"), [("/night", "/"), ("/night/", "/"), ("/n/night?auth=x", "/n?auth=x")])
async def test_ntfy_is_posted_at_its_root_and_told_the_topic(path: str, asked: str) -> None:
    hook = Hook(200)
    async with hook.at_work() as url:
        await post(f"{url}{path}", "ntfy", {}, NOTICE)
    ((where, body, _),) = hook.told
    assert (where, body["topic"], body["title"]) == (asked, "night", NOTICE.title)


async def test_a_failure_is_tried_again_once() -> None:
    hook = Hook(500, 200)
    async with hook.at_work() as url:
        await deliver(partial(post, url, "json", {}, NOTICE))
        assert len(hook.told) == 2
        hook.statuses = [503]
        with pytest.raises(DeliveryError, match=r"^127\.0\.0\.1 responded with status 503$"):
            await deliver(partial(post, f"{url}/secret", "json", {}, NOTICE))
        assert len(hook.told) == 4


async def test_a_server_that_never_answers_costs_two_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "SECONDS", 0.1)
    hook = Hook(0)
    began = time.monotonic()
    async with hook.at_work() as url:
        with pytest.raises(DeliveryError, match="longer than"):
            await deliver(partial(post, url, "json", {}, NOTICE))
        assert len(hook.told) == 2
    assert time.monotonic() - began < 60


async def test_what_cannot_be_reached_says_its_host_and_no_more() -> None:
    for address in ("http://127.0.0.1:9/secret", "http://user:secret@127.0.0.1:9/"):
        with pytest.raises(DeliveryError, match=r"127\.0\.0\.1 cannot be reached") as caught:
            await post(address, "json", {}, NOTICE)
        assert "secret" not in str(caught.value)


async def test_a_redirect_is_followed_on_the_same_host_and_nowhere_else() -> None:
    target = Hook(200)
    hook = Hook(307, 200, to="/there")
    async with hook.at_work() as url, target.at_work() as elsewhere:
        await post(url, "json", {}, NOTICE)
        assert [where for where, *_ in hook.told] == ["/", "/there"]
        assert hook.told[1][1]["title"] == NOTICE.title
        hook.statuses, hook.to = [307], elsewhere.replace("127.0.0.1", "localhost")
        with pytest.raises(DeliveryError, match="redirects to another host"):
            await post(url, "json", {}, NOTICE)
        hook.to = "/again"
        with pytest.raises(DeliveryError, match="in a circle"):
            await post(url, "json", {}, NOTICE)
    assert target.told == []


def _script(folder: Path, *lines: str) -> tuple[str, ...]:
    path = folder / "tell.py"
    path.write_text("\n".join(["import json, os, sys, time", *lines]))
    return sys.executable, str(path), "; touch shell"


async def test_a_command_gets_the_facts_on_its_stdin_and_no_shell_reads_its_words(tmp_path: Path) -> None:
    words = _script(
        tmp_path,
        f"json.dump([json.load(sys.stdin), sys.argv[1:], dict(os.environ)], open({str(tmp_path / 'told')!r}, 'w'))",
        "print('not a result')",
    )
    await run_command(words, {"A": "b"}, NOTICE)
    facts, arguments, environment = json.loads((tmp_path / "told").read_text())
    assert facts == json.loads(json.dumps(dict(NOTICE.facts)))
    assert arguments == ["; touch shell"]
    assert environment.get("A") == "b"
    assert "HOME" not in environment


async def test_a_command_that_fails_says_how(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match=r"exited with 3: no bell$"):
        await run_command(_script(tmp_path, "sys.exit(print('first\\nno bell', file=sys.stderr) or 3)"), {}, NOTICE)
    with pytest.raises(DeliveryError, match="nothing-here: No such file"):
        await run_command(("nothing-here",), {}, NOTICE)
    await run_command((sys.executable, "-c", "pass"), {}, NOTICE)  # which does not read its stdin


async def test_of_a_command_that_writes_without_end_the_last_line_is_kept_and_no_more(tmp_path: Path) -> None:
    endless = "for _ in range(300): sys.stderr.write('x' * 2**20)\nsys.exit('\\nno bell')"
    tracemalloc.start()
    try:
        with pytest.raises(DeliveryError, match="exited with 1: no bell"):
            await run_command(_script(tmp_path, endless), {}, NOTICE)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


async def test_a_command_that_hangs_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "SECONDS", 3.0)
    pids = tmp_path / "pids"
    words = _script(tmp_path, "os.fork()", f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')", "time.sleep(1000)")
    with pytest.raises(DeliveryError, match="longer than"):
        await deliver(partial(run_command, words, dict(os.environ), NOTICE))
    started = pids.read_text().split()
    assert len(started) == 4
    await until(lambda: not any(_is_at_work(pid) for pid in started))


def _is_at_work(pid: str) -> bool:
    """Whether a process is running; one that has ended and is not reaped yet is not."""
    ps = shutil.which("ps")
    assert ps is not None
    said = subprocess.run([ps, "-o", "stat=", "-p", pid], check=False, capture_output=True, text=True).stdout
    return bool(said.strip()) and not said.startswith("Z")
