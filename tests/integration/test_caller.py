"""Calls from `CallSpec` to `CallResult`, here and in another process; downloads until the URL expires."""

from __future__ import annotations

import asyncio
import os
import pickle
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pipeline.client.batch_client import BatchClient
from pipeline.client.request import Call, Upload
from pipeline.config.batch_rules import BatchRules
from pipeline.config.environment import EnvironmentVariable
from pipeline.config.load import DownloadRules
from pipeline.engine import caller as module
from pipeline.engine.caller import CallResult, CallSpec, LocalCaller, Target
from pipeline.engine.image_writer import FileNames
from pipeline.errors import DiskFull, DownloadRefused, Invalid, Moderated, NotSent, OutcomeUnknown, Unusable, UrlLost
from pipeline.ledger.queue import PaidUrl
from pipeline.storage import LocalStore
from tests.support.workbench import MODEL, PNG, PNG_BASE64, Body, answer_with, lab, vendor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.storage import StoredImage

NAMES = FileNames("job", "a", None)


def spec(base_url: str, folder: Path, *, taken: Sequence[int] = (), **more: Any) -> CallSpec:
    """Return a call for two images, whose key and one header come from the environment."""
    headers = {"X-Team": EnvironmentVariable("TEAM")}
    provider = lab(base_url, api_key_env="LAB_KEY", headers=headers, **more)
    params = {"prompt": "a cat", "n": 2, **MODEL}
    target = Target(provider, base_url, DownloadRules(), folder)
    return CallSpec(target, Call("generation", params), NAMES, frozenset(taken))


ENVIRONMENT = {"LAB_KEY": "sk-0123456789", "TEAM": "night"}


async def call(made: CallSpec, environment: dict[str, str] = ENVIRONMENT) -> tuple[CallResult, int]:
    """Make a call; return its result, and how often it was reported as sent."""
    reports: list[float] = []
    async with LocalCaller(made.target, LocalStore(made.target.images), environment) as caller:
        result = await caller.call(made, lambda: reports.append(time.time()))
    return result, len(reports)


def call_pickled(content: bytes) -> bytes:
    """Make a call in this process from a pickled spec; return the pickled process id and result."""
    result, reports = asyncio.run(call(pickle.loads(content)))  # noqa: S301 - our own bytes
    return pickle.dumps((os.getpid(), result, reports))


async def _two(_: Body) -> web.Response:
    return answer_with(
        {"b64_json": PNG_BASE64}, {"url": "/picture/a?se=2099-01-01T00:00:00Z"}, usage={"total_tokens": 7}
    )


async def test_the_limit_of_pixels_is_the_option(tmp_path: Path) -> None:
    async with vendor(_two) as base_url:
        made = spec(base_url, tmp_path)
        wide = replace(made, target=replace(made.target, download=DownloadRules(max_pixels=16 * 16)))
        narrow = replace(made, target=replace(made.target, download=DownloadRules(max_pixels=16 * 16 - 1)))
        assert len((await call(wide))[0].images) == 1
        assert (await call(narrow))[0].images == ()


async def test_a_result_has_everything_that_the_response_brought(tmp_path: Path) -> None:
    async with vendor(_two) as base_url:
        result, reports = await call(spec(base_url, tmp_path, taken=[1]))
    (image,), (url,) = result.images, result.urls
    assert (image.number, image.file, url.number) == (2, "images/a-2.png", 3)
    assert (tmp_path / "job" / image.file).read_bytes() == PNG
    assert (result.outcome, result.error, result.returned, result.usage) == ("answered", None, 2, {"total_tokens": 7})
    assert url.expires_at == pytest.approx(4070908800, abs=5)
    assert reports == 1
    assert result.sent_at is not None
    assert result.sent_at <= result.ended_at


async def test_a_spec_and_its_result_are_pickled_and_the_call_is_made_in_another_process(tmp_path: Path) -> None:
    async with vendor(_two) as base_url:
        made = spec(base_url, tmp_path)
        content = pickle.dumps(made)
        assert b"sk-0123456789" not in content, "the key is named, never held"
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            answer = await asyncio.get_running_loop().run_in_executor(pool, call_pickled, content)
    process, result, reports = pickle.loads(answer)  # noqa: S301 - our own bytes
    assert process != os.getpid()
    assert reports == 1
    assert [image.file for image in result.images] == ["images/a-1.png"]
    assert (tmp_path / "job" / "images" / "a-1.png").read_bytes() == PNG
    assert [url.number for url in result.urls] == [2]


@pytest.mark.parametrize(
    ("status", "error", "kind", "outcome"),
    [
        (400, {"code": "moderation_blocked", "message": "no"}, Moderated, "refused"),
        (502, {"message": "bad gateway"}, OutcomeUnknown, "unknown"),
    ],
)
async def test_an_error_is_returned_with_its_outcome_and_can_be_pickled(
    tmp_path: Path, status: int, error: Body, kind: type[Exception], outcome: str
) -> None:
    async def refuse(_: Body) -> web.Response:
        return web.json_response({"error": error}, status=status)

    async with vendor(refuse) as base_url:
        result, reports = await call(spec(base_url, tmp_path))
    assert isinstance(result.error, kind)
    assert (result.outcome, reports) == (outcome, 1)
    again = pickle.loads(pickle.dumps(result))  # noqa: S301 - our own bytes
    assert type(again.error) is type(result.error)
    assert vars(again.error) == vars(result.error)


async def test_a_call_that_never_left_is_not_sent(tmp_path: Path) -> None:
    result, reports = await call(spec("http://127.0.0.1:9/v1", tmp_path))
    assert isinstance(result.error, NotSent)
    assert (result.outcome, result.sent_at, reports) == ("not_sent", None, 0)


async def test_an_upload_that_cannot_be_read_is_not_sent(tmp_path: Path) -> None:
    async with vendor(_two) as base_url:
        made = spec(base_url, tmp_path)
        gone = Call("edit", made.call.params, [Upload("image", tmp_path / "gone.png", "image/png")])
        result, reports = await call(CallSpec(made.target, gone, NAMES, frozenset()))
    assert isinstance(result.error, Invalid)
    assert (result.outcome, result.sent_at, reports) == ("not_sent", None, 0)


SIGNED = "/p?sig=secret&expires=9999999999"


class Host:
    """Answers with one status after another, the last for ever; 200 returns the image, 299 half of it."""

    def __init__(self, folder: Path, *statuses: int, retry_after: str = "") -> None:
        self.statuses = list(statuses)
        self.headers = {"Retry-After": retry_after} if retry_after else {}
        self.waits: list[float] = []
        self.folder = folder
        self.asked = 0

    async def _answer(self, _http: web.Request) -> web.Response:
        self.asked += 1
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if status == 299:
            return web.Response(body=PNG[:40])
        return web.Response(status=status, body=PNG if status == 200 else b"no", headers=self.headers)

    async def _sleep(self, _reason: Exception, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)

    async def fetch(self, *, lives: float = 3600, attempts: int = 3, path: str = SIGNED) -> StoredImage:
        """Serve, and download one URL that expires after this many seconds."""
        app = web.Application()
        app.router.add_get("/{name}", self._answer)
        async with TestServer(app) as server:
            base = str(server.make_url("/"))
            target = Target(lab(base), base, DownloadRules(attempts=attempts), self.folder)
            async with LocalCaller(target, LocalStore(self.folder), {}) as caller:
                url = PaidUrl(1, 1, path if "://" in path else base.rstrip("/") + path, time.time() + lives)
                return await caller.download(url, NAMES, time.monotonic() + lives, self._sleep)


async def test_an_image_is_downloaded(tmp_path: Path) -> None:
    stored = await Host(tmp_path, 200).fetch()
    assert (tmp_path / "job" / stored.file).read_bytes() == PNG


@pytest.mark.parametrize("statuses", [[503] * 12 + [200], [429] * 12 + [200], [404, 404, 503, 200], [299, 403, 200]])
async def test_a_hiccup_is_tried_again_for_as_long_as_the_url_lives(tmp_path: Path, statuses: Sequence[int]) -> None:
    host = Host(tmp_path, *statuses)
    await host.fetch()
    assert host.asked == len(statuses)


async def test_the_waits_grow_and_have_an_end(tmp_path: Path) -> None:
    host = Host(tmp_path, *[503] * 14, 200)
    await host.fetch()
    for number, wait in enumerate(host.waits):
        full = min(module._FIRST_WAIT * 2**number, module._LONGEST_WAIT)
        assert full / 2 <= wait <= full


@pytest.mark.parametrize(
    ("asked", "lives", "least", "most"),
    [
        ("120", 3600, 120, 120),
        ("86400", 9_999_999, 3600, 3600),
        ("3001", 2000, 990, 1000),  # half of what is left: the URL would expire meanwhile
        ("soon", 3600, 0, module._LONGEST_WAIT),
    ],
)
async def test_a_host_that_asks_to_wait_is_obeyed_while_the_url_lives(
    tmp_path: Path, asked: str, lives: float, least: float, most: float
) -> None:
    host = Host(tmp_path, 429, 503, 200, retry_after=asked)
    await host.fetch(lives=lives)
    assert all(least <= wait <= most for wait in host.waits)
    assert len(host.waits) == 2


@pytest.mark.parametrize("status", [403, 404, 401, 451])
async def test_a_live_url_is_tried_until_it_expires_whatever_it_answers(tmp_path: Path, status: int) -> None:
    host = Host(tmp_path, *[status] * 30, 200)
    await host.fetch(attempts=3)
    assert host.asked == 31


async def test_an_assumed_expiry_that_no_image_of_the_host_confirms_loses_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path, 403)
    with pytest.raises(DownloadRefused, match="`pipeline resume` downloads it without paying") as refused:
        await host.fetch(lives=0.1, path="/p")
    assert not refused.value.deterministic


async def test_an_image_that_is_never_valid_ends_its_url_and_stays_paid(tmp_path: Path) -> None:
    host = Host(tmp_path, 299)
    with pytest.raises(DownloadRefused, match=r"cut off.*`pipeline resume` downloads it without paying") as refused:
        await host.fetch()
    assert (host.asked, refused.value.deterministic) == (3, True)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("status", [503, 403, 299])
async def test_a_dead_url_that_brings_nothing_is_lost(tmp_path: Path, status: int) -> None:
    host = Host(tmp_path, status)
    with pytest.raises(UrlLost):
        await host.fetch(lives=-1)
    assert host.asked == 1, "it is asked once, since our clock may be wrong"


@pytest.mark.parametrize("jump", [7200.0, -7200.0])
async def test_a_clock_that_jumps_meanwhile_neither_kills_a_url_nor_keeps_one_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    real, host = time.time, Host(tmp_path, *[503] * 5, 200)
    monkeypatch.setattr(time, "time", lambda: real() + (jump if host.asked else 0.0))
    await host.fetch()
    host = Host(tmp_path, 503)
    with pytest.raises(UrlLost):
        await host.fetch(lives=0.1)


async def test_a_wait_does_not_outlast_the_url(tmp_path: Path) -> None:
    host = Host(tmp_path, 503)
    with pytest.raises(UrlLost):
        await host.fetch(lives=0.1)
    assert all(wait <= 0.1 for wait in host.waits)


async def test_a_url_into_a_private_network_is_refused_at_once(tmp_path: Path) -> None:
    host = Host(tmp_path, 200)
    with pytest.raises(DownloadRefused, match=r"192\.168\.0\.1"):
        await host.fetch(path="http://192.168.0.1/p")
    assert host.waits == []


async def test_a_full_disk_goes_through(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "images").touch()
    with pytest.raises(DiskFull):
        await Host(tmp_path, 200).fetch()


@pytest.mark.parametrize("broken", ["AAAA", PNG_BASE64[:60], "null", ""])
async def test_of_several_forms_of_an_image_the_one_that_is_valid_is_taken(tmp_path: Path, broken: str) -> None:
    async def answer(_: Body) -> web.Response:
        return answer_with(
            {"b64_json": broken, "url": "/picture/a"},
            {"b64_json": broken, "image_base64": PNG_BASE64, "url": "/picture/b"},
            {"b64_json": PNG_BASE64, "url": "/picture/c"},
        )

    async with vendor(answer) as base_url:
        result, _ = await call(spec(base_url, tmp_path))
    assert result.error is None
    assert [url.url.rpartition("/")[2] for url in result.urls] == ["a"]
    assert (len(result.images), result.quarantined, result.returned) == (2, (), 3)
    assert {image.number for image in result.images} | {url.number for url in result.urls} == {1, 2, 3}


async def test_where_no_form_of_an_image_is_valid_the_first_is_put_aside(tmp_path: Path) -> None:
    async with vendor(lambda _: _answer({"b64_json": "AAAA", "image_base64": "QUJD"})) as base_url:
        result, _ = await call(spec(base_url, tmp_path))
    assert isinstance(result.error, Unusable)
    assert len(result.quarantined) == 1


async def _answer(*items: Body, **more: Any) -> web.Response:
    return answer_with(*items, **more)


async def test_a_response_is_bounded_by_what_its_call_asks_for(tmp_path: Path) -> None:
    """Of the same two megabytes, a call for ten images takes what a call for one refuses."""
    async with vendor(lambda _: _answer({"b64_json": PNG_BASE64}, rest="x" * 2 * 2**20)) as base_url:
        made = spec(base_url, tmp_path)
        target = replace(made.target, download=DownloadRules(max_bytes=200_000))
        results = []
        for n in (1, 10):
            asked = Call("generation", {**made.call.params, "size": "auto", "n": n})
            results.append((await call(replace(made, target=target, call=asked)))[0])
    assert isinstance(results[0].error, Unusable)
    assert "`download.max_bytes`" in results[0].error.message
    assert (results[1].error, len(results[1].images)) == (None, 1)


async def test_a_key_in_a_url_is_not_stored_and_the_image_is_downloaded_all_the_same(tmp_path: Path) -> None:
    key = ENVIRONMENT["LAB_KEY"]
    async with vendor(lambda _: _answer({"url": f"/picture/a?k={key}"})) as base_url:
        made = spec(base_url, tmp_path)
        async with LocalCaller(made.target, LocalStore(made.target.images), ENVIRONMENT) as caller:
            result = await caller.call(made, lambda: None)
        (url,) = result.urls
        assert key not in repr(result)
        async with LocalCaller(made.target, LocalStore(made.target.images), ENVIRONMENT) as later:  # in another run
            paid = PaidUrl(1, 1, url.url, url.expires_at)
            stored = await later.download(paid, NAMES, time.monotonic() + 9, _no_wait)
    assert (tmp_path / "job" / stored.file).read_bytes() == PNG


async def _no_wait(reason: Exception, _seconds: float) -> None:
    raise AssertionError(reason)


async def test_no_call_waits_for_a_download_of_the_same_session(tmp_path: Path) -> None:
    asked, made = asyncio.Event(), asyncio.Event()

    async def pour(_: web.Request) -> web.StreamResponse:
        asked.set()
        await made.wait()
        return web.Response(body=b"text")

    async def generate(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"b64_json": PNG_BASE64}]})

    app = web.Application()
    app.router.add_get("/files/{id}/content", pour)
    app.router.add_post("/images/generations", generate)
    async with TestServer(app) as server:
        one = spec(str(server.make_url("/")), tmp_path, concurrency=1, batch=BatchRules())
        async with LocalCaller(one.target, LocalStore(tmp_path), ENVIRONMENT) as caller, asyncio.TaskGroup() as group:
            client = BatchClient(caller.session, one.target.provider.dialect)
            for number in range(8):
                path = tmp_path / f"{number}.jsonl"
                group.create_task(client.download(f"file-{number}", path, None, idle_seconds=20))
            await asked.wait()
            result = await asyncio.wait_for(caller.call(one, lambda: None), 10)
            made.set()
    assert len(result.images) == 1
    assert all((tmp_path / f"{number}.jsonl").read_bytes() == b"text" for number in range(8))
