"""Faults of calls over real sockets."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.sandbox_client import CAT, calling, decoded

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("fault", "status", "charged"), [("http_429", 429, 0), ("http_500", 500, 0), ("http_503", 503, 0)]
)
async def test_a_json_fault_is_an_envelope_and_is_logged(tmp_path: Path, fault: str, status: int, charged: int) -> None:
    async with calling(tmp_path, faults={fault: 1}) as caller:
        reply = await caller.generate()
        assert (reply.status, reply.error["message"] != "") == (status, True)
        (entry,) = caller.entries("call")
        assert (entry["fault"], entry["status"], entry["charged"]) == (fault, status, charged)
        assert entry["request_id"] == reply.headers["x-request-id"]
        if fault == "http_429":
            assert 50 <= int(reply.headers["retry-after-ms"]) <= 300


async def test_the_429_fault_has_no_latency(tmp_path: Path) -> None:
    async with calling(tmp_path, faults={"http_429": 1}, latency_seconds=[60, 60]) as caller:
        assert (await caller.generate()).status == 429


async def test_the_502_fault_is_html(tmp_path: Path) -> None:
    async with calling(tmp_path, faults={"html_502": 1}) as caller:
        reply = await caller.generate()
        assert (reply.status, reply.headers["Content-Type"]) == (502, "text/html")
        assert b"<html>" in reply.content


@pytest.mark.parametrize(("fault", "charged"), [("drop_before", 0), ("drop_after", 2)])
async def test_a_dropped_call_is_logged_without_a_status_and_charged_only_after(
    tmp_path: Path, fault: str, charged: int
) -> None:
    async with calling(tmp_path, faults={fault: 1}) as caller:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await caller.generate(n=2)
        (entry,) = caller.entries("call")
        assert (entry["status"], entry["charged"], entry["fault"]) == (None, charged, fault)
        assert (entry["n"], entry["prompt"], entry["operation"]) == (2, CAT["prompt"], "generation")


async def test_broken_json_is_charged_and_an_empty_response_is_not(tmp_path: Path) -> None:
    async with calling(tmp_path, faults={"broken_json": 1}) as caller:
        reply = await caller.generate()
        assert reply.status == 200
        with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
            _ = reply.json
    async with calling(tmp_path, faults={"empty": 1}) as caller:
        assert (await caller.generate()).json["data"] == []
        assert [entry["charged"] for entry in caller.entries("call")] == [1, 0]


async def test_a_slow_response_is_complete(tmp_path: Path) -> None:
    async with calling(tmp_path, faults={"slow": 1}, slow_seconds=0.4) as caller:
        loop = asyncio.get_running_loop()
        start = loop.time()
        reply = await caller.generate(response_format="b64_json")
        assert loop.time() - start > 0.3
        assert decoded(base64.b64decode(reply.json["data"][0]["b64_json"])).size == (256, 256)
