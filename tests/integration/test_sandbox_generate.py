"""Generations, edits, variations, models and errors over real sockets."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING

import pytest

from tests.support.sandbox_client import CAT, calling, decoded, hole, png

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_generation_returns_urls_of_images_of_the_requested_size(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        reply = await caller.generate(n=3)
        assert reply.status == 200
        urls = [item["url"] for item in reply.json["data"]]
        assert len(set(urls)) == 3
        contents = [(await caller.download(url)).content for url in urls]
        assert len(set(contents)) == 3, "n images differ from each other"
        assert {decoded(content).size for content in contents} == {(256, 256)}
        assert reply.headers["x-request-id"].startswith("req_")
        assert reply.headers["openai-version"] == "2020-10-01"
        assert int(reply.headers["openai-processing-ms"]) >= 1


async def test_images_are_equal_for_equal_prompts_and_differ_for_others(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        one, same, other = [
            (await caller.generate(response_format="b64_json", prompt=prompt)).json["data"]
            for prompt in ("a cat", "a cat", "a dog")
        ]
        assert one == same != other


async def test_dall_e_3_returns_a_revised_prompt_and_dall_e_2_none(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        third = await caller.generate(model="dall-e-3", size="1792x1024", style="natural", quality="hd")
        assert "a white siamese cat" in third.json["data"][0]["revised_prompt"]
        assert "revised_prompt" not in (await caller.generate()).json["data"][0]


@pytest.mark.parametrize(("output_format", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
async def test_a_gpt_image_is_base64_in_the_requested_format_with_usage(
    tmp_path: Path, output_format: str, kind: str
) -> None:
    async with calling(tmp_path) as caller:
        reply = await caller.generate(model="gpt-image-2", size="1024x1024", quality="low", output_format=output_format)
        answer = reply.json
        content = decoded(base64.b64decode(answer["data"][0]["b64_json"]))
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
        content = decoded(base64.b64decode(reply.json["data"][0]["b64_json"]))
        assert content.getchannel("A").getextrema() == (0, 255)
        assert reply.json["background"] == "transparent"


async def test_a_stream_sends_partial_images_and_then_the_final_one(tmp_path: Path) -> None:
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
        assert {decoded(base64.b64decode(event["b64_json"])).size for event in events} == {(1024, 1024)}


async def test_an_edit_changes_the_masked_area_only(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        files = [("image", png(), "image/png"), ("mask", hole(), "image/png")]
        reply = await caller.upload("/images/edits", files, prompt="a pool", size="256x256", n="2")
        assert len(reply.json["data"]) == 2
        edited = decoded((await caller.download(reply.json["data"][0]["url"])).content).convert("RGB")
        left, right = edited.crop((0, 0, 120, 200)), edited.crop((136, 0, 256, 200))
        assert left.getcolors() == [(120 * 200, (0xC0, 0x49, 0x6B))]
        assert (right.getcolors(100_000) or []) != [(120 * 200, (0xC0, 0x49, 0x6B))]


async def test_a_gpt_image_edit_accepts_several_images_and_counts_their_tokens(tmp_path: Path) -> None:
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


async def test_a_json_edit_accepts_data_urls_and_streams(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        url = f"data:image/png;base64,{base64.b64encode(png(size=(96, 64))).decode()}"
        body = {"prompt": "x", "images": [{"image_url": url}], "model": "gpt-image-2", "stream": True}
        reply = await caller.call("POST", "/images/edits", json=body)
        event = json.loads(reply.content.partition(b"data: ")[2])
        assert event["type"] == "image_edit.completed"
        assert event["size"] == "1536x1024", "auto follows the shape of the first image"


async def test_a_variation_keeps_the_colours_of_its_source(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        source = png("RGB", colour="#205080")
        reply = await caller.upload("/images/variations", [("image", source, None)], size="256x256")
        varied = decoded((await caller.download(reply.json["data"][0]["url"])).content).convert("RGB")
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


async def test_a_model_has_a_shutdown_date_and_is_unavailable_from_then_on(tmp_path: Path) -> None:
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


async def test_a_dialect_that_returns_no_image_is_a_success_without_data(tmp_path: Path) -> None:
    async with calling(tmp_path, dialect={"most_images": 0}) as caller:
        for parameters in ({}, {"response_format": "b64_json"}, {"model": "gpt-image-2", "size": "auto"}):
            reply = await caller.generate(**parameters)
            assert (reply.status, reply.json["data"]) == (200, [])
        assert [entry["charged"] for entry in caller.entries("call")] == [0, 0, 0]


async def test_an_organization_that_is_not_verified_is_403(tmp_path: Path) -> None:
    async with calling(tmp_path, verified=False) as caller:
        refused = await caller.generate(model="gpt-image-2", size="1024x1024")
        assert (refused.status, refused.error["code"]) == (403, None)
        assert (await caller.generate()).status == 200


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


async def test_without_require_key_calls_need_no_key(tmp_path: Path) -> None:
    async with calling(tmp_path, require_key=False) as caller:
        assert (await caller.call("POST", "/images/generations", json=CAT, headers={})).status == 200


async def test_a_wrong_path_or_method_is_answered_with_the_error_envelope(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        wrong = await caller.call("POST", "/images/generation", json=CAT)
        assert (wrong.status, wrong.error["message"]) == (404, "Invalid URL (POST /v1/images/generation)")
        method = await caller.call("GET", "/images/generations")
        assert (method.status, method.headers["Allow"]) == (405, "POST")
        assert method.error["type"] == "invalid_request_error"
        models = await caller.call("POST", "/models")
        assert (models.status, models.headers["Allow"]) == (405, "GET, HEAD")


async def test_the_content_policy_error_differs_by_model_family(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        old = (await caller.generate(prompt="Forbidden fruit")).error
        assert (old["type"], old["code"]) == ("invalid_request_error", "content_policy_violation")
        new = (await caller.generate(prompt="FORBIDDEN", model="gpt-image-2", size="auto")).error
        assert (new["type"], new["code"]) == ("image_generation_user_error", "moderation_blocked")
        assert new["moderation_details"]["moderation_stage"] == "input"


async def test_invalid_http_does_not_affect_other_connections(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        for garbage in (b"\x16\x03\x01\x00", b"GET\r\n\r\n", b"POST /v1 HTTP/1.1\r\nContent-Length: -1\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", caller.sandbox.port)
            writer.write(garbage)
            writer.write_eof()
            assert (await reader.read())[:12] in {b"", b"HTTP/1.0 400", b"HTTP/1.1 400"}
            writer.close()
            await writer.wait_closed()
        assert (await caller.generate()).status == 200
