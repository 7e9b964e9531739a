"""The sandbox over real sockets: endpoints, limit, URLs, faults, and the process."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from PIL import Image
from yarl import URL

from pipeline.sandbox.server import RunningSandbox, serve
from pipeline.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

CAT = {"prompt": "a white siamese cat", "size": "256x256"}


@dataclass
class Time:
    """A clock and a monotonic clock that move only when a test says so."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Reply:
    status: int
    headers: Any
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def error(self) -> Any:
        error = self.json["error"]
        assert error.keys() >= {"message", "type", "param", "code"}
        return error


@dataclass
class Caller:
    sandbox: RunningSandbox
    session: aiohttp.ClientSession
    time: Time
    books: Path
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": "Bearer sk-test"})

    async def call(self, method: str, path: str, **options: Any) -> Reply:
        options.setdefault("headers", self.headers)
        async with self.session.request(method, f"{self.sandbox.base_url}{path}", **options) as response:
            return Reply(response.status, response.headers, await response.read())

    async def generate(self, **parameters: Any) -> Reply:
        return await self.call("POST", "/images/generations", json={**CAT, **parameters})

    async def upload(self, path: str, files: Sequence[tuple[str, bytes, str | None]], **fields: str) -> Reply:
        form = aiohttp.FormData()
        for name, value in fields.items():
            form.add_field(name, value)
        for name, content, mime in files:
            form.add_field(name, content, filename=f"{name}.png", content_type=mime)
        return await self.call("POST", path, data=form)

    async def download(self, url: str | URL, **headers: str) -> Reply:
        url = url if isinstance(url, URL) else URL(url, encoded=True)
        async with self.session.get(url, headers=headers) as response:
            return Reply(response.status, response.headers, await response.read())

    def entries(self, kind: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.books.read_text().splitlines()]
        return [line for line in lines if line["type"] == kind]


@contextlib.asynccontextmanager
async def calling(folder: Path, time: Time | None = None, *, port: int = 0, **settings: Any) -> AsyncIterator[Caller]:
    """Serve a sandbox whose spool and books lie in `folder`, and give a caller with a good key."""
    time = time or Time()
    books = folder / "books.jsonl"
    async with (
        serve(
            SandboxSettings.from_mapping(settings),
            port=port,
            request_log=books,
            upload_folder=folder / "uploads",
            clock=time,
            monotonic=time,
        ) as sandbox,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30), connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        yield Caller(sandbox, session, time, books)


def png(mode: str = "RGBA", size: tuple[int, int] = (64, 64), kind: str = "PNG", colour: str = "#c0496b") -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", size, colour).convert(mode).save(file, kind)
    return file.getvalue()


def hole(size: tuple[int, int] = (64, 64)) -> bytes:
    """A mask that is transparent in its right half."""
    mask = Image.new("RGBA", size, "black")
    mask.paste((0, 0, 0, 0), (size[0] // 2, 0, size[0], size[1]))
    file = io.BytesIO()
    mask.save(file, "PNG")
    return file.getvalue()


def picture(content: bytes) -> Image.Image:
    opened = Image.open(io.BytesIO(content))
    opened.load()
    return opened


# Generations, edits, variations, models


async def test_a_generation_answers_urls_that_give_pictures_of_the_asked_size(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        reply = await caller.generate(n=3)
        assert reply.status == 200
        urls = [item["url"] for item in reply.json["data"]]
        assert len(set(urls)) == 3
        contents = [(await caller.download(url)).content for url in urls]
        assert len(set(contents)) == 3, "n pictures are n different ones"
        assert {picture(content).size for content in contents} == {(256, 256)}
        assert reply.headers["x-request-id"].startswith("req_")
        assert reply.headers["openai-version"] == "2020-10-01"
        assert int(reply.headers["openai-processing-ms"]) >= 1


async def test_the_same_prompt_gives_the_same_picture_and_another_gives_another(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        one, same, other = [
            (await caller.generate(response_format="b64_json", prompt=prompt)).json["data"]
            for prompt in ("a cat", "a cat", "a dog")
        ]
        assert one == same != other


async def test_dall_e_3_tells_its_revised_prompt_and_dall_e_2_none(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        third = await caller.generate(model="dall-e-3", size="1792x1024", style="natural", quality="hd")
        assert "a white siamese cat" in third.json["data"][0]["revised_prompt"]
        assert "revised_prompt" not in (await caller.generate()).json["data"][0]


@pytest.mark.parametrize(("output_format", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
async def test_a_gpt_image_answers_bytes_of_the_asked_format_and_its_bill(
    tmp_path: Path, output_format: str, kind: str
) -> None:
    async with calling(tmp_path) as caller:
        reply = await caller.generate(model="gpt-image-2", size="1024x1024", quality="low", output_format=output_format)
        answer = reply.json
        content = picture(base64.b64decode(answer["data"][0]["b64_json"]))
        assert (content.format, content.size) == (kind, (1024, 1024))
        assert "url" not in answer["data"][0]
        assert answer["usage"]["output_tokens"] == 196
        assert answer["usage"]["total_tokens"] == 196 + answer["usage"]["input_tokens"]
        echo = {key: answer[key] for key in ("background", "output_format", "quality", "size")}
        assert echo == {
            "background": "opaque",
            "output_format": output_format,
            "quality": "low",
            "size": "1024x1024",
        }


async def test_a_transparent_background_is_transparent(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        reply = await caller.generate(model="gpt-image-1", size="1024x1024", background="transparent")
        content = picture(base64.b64decode(reply.json["data"][0]["b64_json"]))
        assert content.getchannel("A").getextrema() == (0, 255)
        assert reply.json["background"] == "transparent"


async def test_a_stream_brings_its_partial_images_and_then_the_whole_one(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        reply = await caller.generate(model="gpt-image-1", size="1024x1024", stream=True, partial_images=2)
        assert reply.headers["Content-Type"] == "text/event-stream"
        events = [json.loads(line[6:]) for line in reply.content.splitlines() if line.startswith(b"data: ")]
        kinds = [event["type"].partition(".") for event in events]
        assert kinds == [
            ("image_generation", ".", "partial_image"),
            ("image_generation", ".", "partial_image"),
            ("image_generation", ".", "completed"),
        ]
        assert [event.get("partial_image_index") for event in events] == [0, 1, None]
        assert events[-1]["usage"]["output_tokens"] == 1056 + 2 * 100
        assert {picture(base64.b64decode(event["b64_json"])).size for event in events} == {(1024, 1024)}


async def test_an_edit_changes_what_the_mask_opens_and_keeps_the_rest(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        files = [("image", png(), "image/png"), ("mask", hole(), "image/png")]
        reply = await caller.upload("/images/edits", files, prompt="a pool", size="256x256", n="2")
        assert len(reply.json["data"]) == 2
        edited = picture((await caller.download(reply.json["data"][0]["url"])).content).convert("RGB")
        left, right = edited.crop((0, 0, 120, 200)), edited.crop((136, 0, 256, 200))
        assert left.getcolors() == [(120 * 200, (0xC0, 0x49, 0x6B))]
        assert (right.getcolors(100_000) or []) != [(120 * 200, (0xC0, 0x49, 0x6B))]


async def test_a_gpt_image_edit_takes_many_images_and_bills_them(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        files: list[tuple[str, bytes, str | None]] = [
            ("image[]", png(), "image/png"),
            ("image[]", png("RGB", kind="JPEG"), "image/jpeg"),
            ("image[]", png(kind="WEBP"), "image/webp"),
        ]
        reply = await caller.upload("/images/edits", files, prompt="a gift basket", model="gpt-image-1.5")
        assert reply.status == 200
        assert reply.json["usage"]["input_tokens_details"]["image_tokens"] == 3 * 4
        assert reply.json["size"] == "1024x1024"


async def test_a_json_edit_takes_data_urls_and_streams(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        url = f"data:image/png;base64,{base64.b64encode(png(size=(96, 64))).decode()}"
        body = {"prompt": "x", "images": [{"image_url": url}], "model": "gpt-image-2", "stream": True}
        reply = await caller.call("POST", "/images/edits", json=body)
        event = json.loads(reply.content.partition(b"data: ")[2])
        assert event["type"] == "image_edit.completed"
        assert event["size"] == "1536x1024", "auto follows the shape of the first picture"


async def test_a_variation_keeps_the_colours_of_its_source(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        source = png("RGB", colour="#205080")
        reply = await caller.upload("/images/variations", [("image", source, None)], size="256x256")
        varied = picture((await caller.download(reply.json["data"][0]["url"])).content).convert("RGB")
        red, _, blue = varied.resize((1, 1)).getpixel((0, 0))  # type: ignore[misc] # an RGB pixel is three numbers
        assert red < 60
        assert blue > 100


async def test_models_are_listed_and_shown_and_an_unknown_one_is_404(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        listed = (await caller.call("GET", "/models")).json["data"]
        assert {"dall-e-2", "gpt-image-2.6-flare"} <= {model["id"] for model in listed}
        assert (await caller.call("GET", "/models/gpt-image-2")).json["object"] == "model"
        unknown = await caller.call("GET", "/models/dall-e-9")
        assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")


async def test_a_model_tells_its_shutdown_date_and_is_gone_from_that_day_on(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        dates = {model["id"]: model["shutdown_date"] for model in (await caller.call("GET", "/models")).json["data"]}
        assert (dates["dall-e-2"], dates["gpt-image-1"], dates["chatgpt-image-latest"], dates["gpt-image-2"]) == (
            "2026-05-12",
            "2026-10-23",
            "2026-12-01",
            None,
        )
    async with calling(tmp_path, today="2026-12-01") as caller:
        alive = {model["id"] for model in (await caller.call("GET", "/models")).json["data"]}
        assert alive == {name for name, day in dates.items() if day is None}
        for gone in (await caller.call("GET", "/models/gpt-image-1.5"), await caller.generate(model="gpt-image-1.5")):
            assert (gone.status, gone.error["code"]) == (404, "model_not_found")


async def test_an_organization_that_is_not_verified_is_403(tmp_path: Path) -> None:
    async with calling(tmp_path, verified=False) as caller:
        refused = await caller.generate(model="gpt-image-2", size="1024x1024")
        assert (refused.status, refused.error["code"]) == (403, None)
        assert (await caller.generate()).status == 200


# Refusals that need a server


async def test_a_missing_a_bad_and_an_empty_key_are_401(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        for headers, code in (
            ({}, None),
            ({"Authorization": "Bearer "}, None),
            ({"Authorization": "Bearer bad-key"}, "invalid_api_key"),
        ):
            reply = await caller.call("POST", "/images/generations", json=CAT, headers=headers)
            assert (reply.status, reply.error["code"]) == (401, code)
        assert "bad-key" not in reply.error["message"]


async def test_a_sandbox_that_requires_no_key_takes_calls_without_one(tmp_path: Path) -> None:
    async with calling(tmp_path, require_key=False) as caller:
        assert (await caller.call("POST", "/images/generations", json=CAT, headers={})).status == 200


async def test_a_wrong_path_or_method_gets_the_envelope(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        wrong = await caller.call("POST", "/images/generation", json=CAT)
        assert (wrong.status, wrong.error["message"]) == (404, "Invalid URL (POST /v1/images/generation)")
        method = await caller.call("GET", "/images/generations")
        assert (method.status, method.headers["Allow"]) == (405, "POST")
        assert method.error["type"] == "invalid_request_error"


async def test_the_policy_refuses_each_family_in_its_own_way(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        old = (await caller.generate(prompt="Forbidden fruit")).error
        assert (old["type"], old["code"]) == ("invalid_request_error", "content_policy_violation")
        new = (await caller.generate(prompt="FORBIDDEN", model="gpt-image-2", size="auto")).error
        assert (new["type"], new["code"]) == ("image_generation_user_error", "moderation_blocked")
        assert new["moderation_details"]["moderation_stage"] == "input"


async def test_the_quota_once_spent_refuses_every_call(tmp_path: Path) -> None:
    async with calling(tmp_path, quota_images=3) as caller:
        assert (await caller.generate(n=3)).status == 200
        refused = await caller.generate()
        assert (refused.status, refused.error["type"]) == (429, "insufficient_quota")
        assert refused.error["code"] == "insufficient_quota"
        assert "Retry-After" not in refused.headers


# The limit


async def test_the_fifty_first_image_of_a_minute_is_refused_and_passes_exactly_when_it_was_told(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        for _ in range(5):
            assert (await caller.generate(n=10)).status == 200
        caller.time.now += 10.5
        refused = await caller.generate()
        assert refused.status == 429
        assert refused.error["code"] == "rate_limit_exceeded"
        assert refused.error["type"] == "requests"
        assert "Limit: 50/1min. Current: 51/1min. Please try again in 49.5s." in refused.error["message"]
        assert refused.headers["Retry-After"] == "50"
        assert refused.headers["retry-after-ms"] == "49500"
        assert refused.headers["x-ratelimit-limit-images"] == "50"
        assert refused.headers["x-ratelimit-remaining-images"] == "0"
        assert refused.headers["x-ratelimit-reset-images"] == "49.5s"
        caller.time.now += 49.499
        assert (await caller.generate()).status == 429
        caller.time.now += 0.001
        assert (await caller.generate()).status == 200


async def test_a_refused_call_takes_no_place_and_a_wrong_one_does(tmp_path: Path) -> None:
    async with calling(tmp_path, rate_limit={"images": 3, "per_seconds": 60}) as caller:
        assert (await caller.generate(n=4)).status == 429, "four never pass where three are allowed"
        assert (await caller.generate(size="1x1")).status == 400
        assert (await caller.generate(prompt="forbidden")).status == 400
        assert (await caller.generate()).status == 200
        assert (await caller.generate()).status == 429


async def test_an_edit_is_refused_in_the_words_of_input_images(tmp_path: Path) -> None:
    async with calling(tmp_path, rate_limit={"images": 0, "per_seconds": 60}) as caller:
        refused = await caller.upload("/images/edits", [("image", png(), "image/png")], prompt="x")
        assert (refused.status, refused.error["type"]) == (429, "input-images")


async def test_calls_at_the_same_moment_never_exceed_the_window(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        replies = await asyncio.gather(*(caller.generate(n=1 + k % 3) for k in range(60)))
        assert Counter(reply.status for reply in replies)[429] > 0
        accepted = [entry["n"] for entry in caller.entries("call") if entry["status"] == 200]
        assert 48 <= sum(accepted) <= 50


# URLs


async def test_a_url_is_refused_once_it_has_died(tmp_path: Path) -> None:
    async with calling(tmp_path, url_ttl_seconds=3600) as caller:
        url = (await caller.generate()).json["data"][0]["url"]
        caller.time.now += 3599
        assert (await caller.download(url)).status == 200
        caller.time.now += 1
        dead = await caller.download(url)
        assert (dead.status, dead.headers["Content-Type"]) == (403, "application/xml")
        assert b"<Code>AuthenticationFailed</Code>" in dead.content
        for word in (b"Start [", b"Expiry [", b"Current ["):
            assert word in dead.content


async def test_a_url_survives_a_restart_on_the_same_port_also_that_of_an_edit(tmp_path: Path) -> None:
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


async def test_a_url_whose_source_has_left_the_spool_is_404(tmp_path: Path) -> None:
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


async def test_a_key_shown_to_the_picture_host_is_403(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        url = (await caller.generate()).json["data"][0]["url"]
        refused = await caller.download(url, Authorization="Bearer sk-test")
        assert refused.status == 403
        assert b"<Code>AuthenticationFailed</Code>" in refused.content


async def test_head_tells_the_length_without_the_picture(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        url = (await caller.generate()).json["data"][0]["url"]
        whole = await caller.download(url)
        async with caller.session.head(URL(url, encoded=True)) as head:
            assert (head.status, await head.read()) == (200, b"")
            assert head.content_length == len(whole.content)


# Faults


@pytest.mark.parametrize(
    ("fault", "status", "charged"), [("http_429", 429, 0), ("http_500", 500, 0), ("http_503", 503, 0)]
)
async def test_a_json_fault_is_an_envelope_and_is_in_the_books(
    tmp_path: Path, fault: str, status: int, charged: int
) -> None:
    async with calling(tmp_path, faults={fault: 1}) as caller:
        reply = await caller.generate()
        assert (reply.status, reply.error["message"] != "") == (status, True)
        (entry,) = caller.entries("call")
        assert (entry["fault"], entry["status"], entry["charged"]) == (fault, status, charged)
        assert entry["request_id"] == reply.headers["x-request-id"]
        if fault == "http_429":
            assert 50 <= int(reply.headers["retry-after-ms"]) <= 300


async def test_a_proxy_answers_502_in_html(tmp_path: Path) -> None:
    async with calling(tmp_path, faults={"html_502": 1}) as caller:
        reply = await caller.generate()
        assert (reply.status, reply.headers["Content-Type"]) == (502, "text/html")
        assert b"<html>" in reply.content


@pytest.mark.parametrize(("fault", "charged"), [("drop_before", 0), ("drop_after", 2)])
async def test_a_dropped_call_has_no_status_in_the_books_and_is_charged_only_after(
    tmp_path: Path, fault: str, charged: int
) -> None:
    async with calling(tmp_path, faults={fault: 1}) as caller:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await caller.generate(n=2)
        (entry,) = caller.entries("call")
        assert (entry["status"], entry["charged"], entry["fault"]) == (None, charged, fault)
        assert (entry["n"], entry["prompt"], entry["operation"]) == (2, CAT["prompt"], "generation")


async def test_broken_json_is_charged_and_an_empty_answer_is_not(tmp_path: Path) -> None:
    async with calling(tmp_path, faults={"broken_json": 1}) as caller:
        reply = await caller.generate()
        assert reply.status == 200
        with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
            _ = reply.json
    async with calling(tmp_path, faults={"empty": 1}) as caller:
        assert (await caller.generate()).json["data"] == []
        assert [entry["charged"] for entry in caller.entries("call")] == [1, 0]


async def test_a_slow_answer_comes_in_drips_and_is_right(tmp_path: Path) -> None:
    async with calling(tmp_path, faults={"slow": 1}) as caller:
        loop = asyncio.get_running_loop()
        start = loop.time()
        reply = await caller.generate(response_format="b64_json")
        assert loop.time() - start > 1.5
        assert picture(base64.b64decode(reply.json["data"][0]["b64_json"])).size == (256, 256)


async def test_a_cut_download_ends_before_its_declared_length(tmp_path: Path) -> None:
    async with calling(tmp_path, faults={"cut_download": 1}) as caller:
        url = (await caller.generate()).json["data"][0]["url"]
        with pytest.raises(aiohttp.ClientPayloadError):
            await caller.download(url)
        (entry,) = caller.entries("download")
        assert (entry["status"], entry["fault"]) == (None, "cut_download")


async def test_a_wrong_download_is_by_turns_html_and_half_a_picture(tmp_path: Path) -> None:
    async with calling(tmp_path, faults={"wrong_download": 1}) as caller:
        url = (await caller.generate()).json["data"][0]["url"]
        first, second = await caller.download(url), await caller.download(url)
        assert (first.status, first.content[:15]) == (200, b"<!DOCTYPE html>")
        assert (second.status, second.content[:4]) == (200, b"\x89PNG")
        with pytest.raises(OSError, match="truncated"):
            picture(second.content)


async def test_hundreds_of_calls_in_flight_take_the_latency_of_one(tmp_path: Path) -> None:
    async with calling(tmp_path, rate_limit=None, latency_seconds=[0.5, 0.5]) as caller:
        loop = asyncio.get_running_loop()
        start = loop.time()
        replies = await asyncio.gather(*(caller.generate() for _ in range(400)))
        assert {reply.status for reply in replies} == {200}
        assert 0.5 <= loop.time() - start < 5
        ids = [reply.headers["x-request-id"] for reply in replies]
        assert len(set(ids)) == 400


# The process


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipeline.sandbox", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_process_says_where_it_listens_and_ends_with_its_stdin() -> None:
    with start("--with-stdin") as process:
        assert process.stdout
        line = json.loads(process.stdout.readline())
        assert line == {
            "base_url": f"http://127.0.0.1:{line['port']}/v1",
            "port": line["port"],
            "pid": process.pid,
        }
        with socket.create_connection(("127.0.0.1", line["port"])):
            out, err = process.communicate(timeout=20)  # closes stdin
        assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_process_quietly_also_with_a_call_open(number: signal.Signals) -> None:
    with start("--settings", json.dumps({"latency_seconds": [60, 60]})) as process:
        assert process.stdout
        port = json.loads(process.stdout.readline())["port"]
        with socket.create_connection(("127.0.0.1", port)) as call:
            body = json.dumps(CAT).encode()
            head = (
                f"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n"
                f"Expect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            call.sendall(head.encode())
            assert call.recv(100).startswith(b"HTTP/1.1 100"), "the call has arrived"
            call.sendall(body)
            os.kill(process.pid, number)
            out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "", "")


def test_a_taken_port_is_exit_3_with_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with start("--port", str(taken.getsockname()[1])) as process:
            out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (3, "")
    assert "address already in use" in err
    assert len(err.splitlines()) == 1


def test_wrong_settings_are_exit_2_with_one_sentence() -> None:
    with start("--settings", '{"fault": {}}') as process:
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (2, "settings: fault: unknown key; did you mean 'faults'?\n")


def test_a_stdin_that_was_closed_from_the_start_has_ended() -> None:
    command = [sys.executable, "-m", "pipeline.sandbox", "--with-stdin"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["port"] > 0


async def test_bytes_that_are_not_http_disturb_nobody(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        for garbage in (b"\x16\x03\x01\x00", b"GET\r\n\r\n", b"POST /v1 HTTP/1.1\r\nContent-Length: -1\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", caller.sandbox.port)
            writer.write(garbage)
            writer.write_eof()
            assert (await reader.read())[:12] in {b"", b"HTTP/1.0 400", b"HTTP/1.1 400"}
            writer.close()
            await writer.wait_closed()
        assert (await caller.generate()).status == 200


# The books


async def test_the_books_hold_every_call_in_the_order_of_the_pace(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        await asyncio.gather(*(caller.generate() for _ in range(20)))
        arrivals = [entry["mono"] for entry in caller.entries("call")]
        assert len(arrivals) == 20
        assert all(early <= late for early, late in pairwise(arrivals))
