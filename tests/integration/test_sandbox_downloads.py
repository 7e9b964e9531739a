"""Signed URLs and downloads over real sockets."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import aiohttp
import pytest
from yarl import URL

from tests.support.sandbox_client import Time, calling, decoded, hole, png

if TYPE_CHECKING:
    from pathlib import Path


async def test_an_expired_url_is_refused(tmp_path: Path) -> None:
    async with calling(tmp_path, url_ttl_seconds=3600) as caller:
        url = (await caller.generate()).json["data"][0]["url"]
        caller.time.now += 3599
        assert (await caller.download(url)).status == 200
        caller.time.now += 1
        expired = await caller.download(url)
        assert (expired.status, expired.headers["Content-Type"]) == (403, "application/xml")
        assert b"<Code>AuthenticationFailed</Code>" in expired.content
        for word in (b"Start [", b"Expiry [", b"Current ["):
            assert word in expired.content


async def test_urls_survive_a_restart_on_the_same_port(tmp_path: Path) -> None:
    time = Time()
    async with calling(tmp_path, time) as caller:
        files: list[tuple[str, bytes, str | None]] = [("image", png(), None), ("mask", hole(), None)]
        urls = [(await caller.generate()).json["data"][0]["url"]]
        urls += [(await caller.upload("/images/edits", files, prompt="x", size="256x256")).json["data"][0]["url"]]
        before = [(await caller.download(url)).content for url in urls]
        port = caller.sandbox.port
    async with calling(tmp_path, time, port=port) as caller:
        after = [await caller.download(url) for url in urls]
    assert [reply.status for reply in after] == [200, 200]
    assert [reply.content for reply in after] == before


async def test_a_url_whose_source_was_deleted_is_404(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        source = png()
        reply = await caller.upload("/images/variations", [("image", source, None)])
        (tmp_path / "uploads" / hashlib.sha256(source).hexdigest()).unlink()
        gone = await caller.download(reply.json["data"][0]["url"])
        assert gone.status == 404
        assert b"<Code>BlobNotFound</Code>" in gone.content


async def test_a_client_that_requotes_the_url_gets_403(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        url = (await caller.generate()).json["data"][0]["url"]
        requoted = await caller.download(URL(url))
        assert requoted.status == 403
        assert b"Expiry" not in requoted.content
        assert (await caller.download(url)).status == 200


async def test_a_url_without_its_query_is_409_and_an_altered_one_403(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        url = (await caller.generate()).json["data"][0]["url"]
        bare = await caller.download(url.partition("?")[0])
        assert bare.status == 409
        assert b"PublicAccessNotPermitted" in bare.content
        path, _, query = url.partition("?")
        for altered in (url[:-1], url.replace("sp=r", "sp=w"), f"{path[:-5]}A.png?{query}", f"{url}&x=1"):
            assert (await caller.download(altered)).status == 403


async def test_a_download_with_an_api_key_is_403(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        url = (await caller.generate()).json["data"][0]["url"]
        refused = await caller.download(url, Authorization="Bearer sk-test")
        assert refused.status == 403
        assert b"<Code>AuthenticationFailed</Code>" in refused.content


async def test_head_of_an_image_url_returns_the_length_only(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        url = (await caller.generate()).json["data"][0]["url"]
        whole = await caller.download(url)
        async with caller.session.head(URL(url, encoded=True)) as head:
            assert (head.status, await head.read()) == (200, b"")
            assert head.content_length == len(whole.content)


async def test_a_cut_download_ends_before_its_declared_length(tmp_path: Path) -> None:
    async with calling(tmp_path, faults={"cut_download": 1}) as caller:
        url = (await caller.generate()).json["data"][0]["url"]
        with pytest.raises(aiohttp.ClientPayloadError):
            await caller.download(url)
        (entry,) = caller.entries("download")
        assert (entry["status"], entry["fault"]) == (None, "cut_download")


async def test_a_wrong_download_is_alternately_html_and_half_an_image(tmp_path: Path) -> None:
    async with calling(tmp_path, faults={"wrong_download": 1}) as caller:
        url = (await caller.generate()).json["data"][0]["url"]
        first, second = await caller.download(url), await caller.download(url)
        assert (first.status, first.content[:15]) == (200, b"<!DOCTYPE html>")
        assert (second.status, second.content[:4]) == (200, b"\x89PNG")
        with pytest.raises(OSError, match="truncated"):
            decoded(second.content)
