"""A paid URL is tried until its picture is here or it is dead, and given up only where the host says so."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pipeline.client.download import Downloader
from pipeline.engine import fetch as module
from pipeline.engine.fetch import fetch
from pipeline.engine.image_writer import check, store
from pipeline.errors import DiskFull, DownloadRefused, UrlLost
from pipeline.ledger.queue import PaidUrl
from tests.support.workbench import PNG

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.storage import StoredImage


class Host:
    """Answers with one status after another, the last for ever; 200 brings the picture, 299 half of it."""

    def __init__(self, folder: Path, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.waits: list[float] = []
        self.folder = folder
        self.asked = 0

    async def _answer(self, _http: web.Request) -> web.Response:
        self.asked += 1
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if status == 299:
            return web.Response(body=PNG[:40])
        return web.Response(status=status, body=PNG if status == 200 else b"no")

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)

    async def _keep(self, content: bytes) -> StoredImage:
        return store(check(content, {}), self.folder, "a", 1, None)

    async def fetch(self, *, lives: float = 3600, attempts: int = 3, path: str = "/p?sig=secret") -> StoredImage:
        """Serve, and fetch one URL that lives so long."""
        app = web.Application()
        app.router.add_get("/{name}", self._answer)
        async with TestServer(app) as server:
            base = str(server.make_url("/"))
            async with Downloader(base_url=base, allow_hosts=(), most_bytes=10**6, connections=4) as downloader:
                url = PaidUrl(1, 1, path if "://" in path else base.rstrip("/") + path, time.time() + lives)
                return await fetch(url, time.monotonic() + lives, downloader, self._keep, self._sleep, attempts)


async def test_a_picture_comes_home(tmp_path: Path) -> None:
    stored = await Host(tmp_path, 200).fetch()
    assert (tmp_path / stored.file).read_bytes() == PNG


@pytest.mark.parametrize("statuses", [[503] * 12 + [200], [429] * 12 + [200], [404, 404, 503, 200], [299, 403, 200]])
async def test_a_hiccup_is_tried_again_for_as_long_as_the_url_lives(tmp_path: Path, statuses: Sequence[int]) -> None:
    host = Host(tmp_path, *statuses)
    await host.fetch()
    assert host.asked == len(statuses)


async def test_the_waits_grow_and_have_an_end(tmp_path: Path) -> None:
    host = Host(tmp_path, *[503] * 14, 200)
    await host.fetch()
    for number, wait in enumerate(host.waits):
        full = min(module.FIRST_WAIT * 2**number, module.LONGEST_WAIT)
        assert full / 2 <= wait <= full


@pytest.mark.parametrize("status", [403, 299])
async def test_definite_refusals_of_a_live_url_end_it_and_it_stays_paid(tmp_path: Path, status: int) -> None:
    host = Host(tmp_path, status)
    with pytest.raises(DownloadRefused, match=r"3 times.*`pipeline resume` tries again for nothing") as refused:
        await host.fetch()
    assert host.asked == 3
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
    (tmp_path / "images").touch()
    with pytest.raises(DiskFull):
        await Host(tmp_path, 200).fetch()
