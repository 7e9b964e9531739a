"""The vendor's current SDK against the sandbox: requests are accepted, responses and errors are understood."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai.types import ImagesResponse

from tests.support.sandbox_client import Caller, calling, decoded, hole, png
from tests.support.workbench import sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # create_variation says so of itself

CAT = "a white siamese cat"
OLD: dict[str, Any] = {"model": "dall-e-2", "size": "256x256"}
NEW: dict[str, Any] = {"model": "gpt-image-2", "size": "1024x640", "quality": "low"}  # the fewest pixels it makes
NEWEST: dict[str, Any] = {**NEW, "model": "gpt-image-2.6-flare"}


def client_of(base_url: str, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(**{"base_url": base_url, "api_key": "sk-test", "max_retries": 0, **options})


@contextlib.asynccontextmanager
async def sdk(folder: Path, **settings: Any) -> AsyncIterator[tuple[openai.AsyncOpenAI, Caller]]:
    """Serve a sandbox and yield the SDK's client for it, and a caller for downloads and the request log."""
    async with calling(folder, **settings) as caller, client_of(caller.sandbox.base_url) as client:
        yield client, caller


def named(content: bytes, name: str) -> io.BytesIO:
    stream = io.BytesIO(content)
    stream.name = name
    return stream


def drawn(answer: ImagesResponse) -> list[Image.Image]:
    assert answer.data
    return [decoded(base64.b64decode(item.b64_json or "")) for item in answer.data]


def strictly(answer: ImagesResponse) -> ImagesResponse:
    """Check a response against the SDK's types, which it does not do itself, and for unknown fields."""
    ImagesResponse.model_validate(answer.to_dict(), strict=True)
    assert not answer.model_extra
    assert answer.data is not None
    assert not any(item.model_extra for item in answer.data)
    return answer


# Requests are accepted


async def test_dall_e_2_returns_urls_and_dall_e_3_a_revised_prompt_too(tmp_path: Path) -> None:
    async with sdk(tmp_path) as (client, caller):
        two = strictly(await client.images.generate(prompt=CAT, n=2, **OLD))
        three = strictly(
            await client.images.generate(
                prompt=CAT, model="dall-e-3", size="1792x1024", style="natural", quality="hd", user="someone"
            )
        )
        assert [item.b64_json for item in two.data or []] == [None, None]
        sizes = []
        for item in [*(two.data or []), *(three.data or [])]:
            assert item.url
            sizes.append(decoded((await caller.download(item.url)).content).size)
        assert sizes == [(256, 256), (256, 256), (1792, 1024)]
        assert CAT in ((three.data or [])[0].revised_prompt or "")
        assert (two.usage, two.size, two.quality) == (None, None, None)


async def test_dall_e_2_returns_base64_on_request(tmp_path: Path) -> None:
    async with sdk(tmp_path) as (client, _):
        answer = strictly(await client.images.generate(prompt=CAT, n=2, response_format="b64_json", **OLD))
    assert [image.size for image in drawn(answer)] == [(256, 256)] * 2
    assert [item.url for item in answer.data or []] == [None, None]


async def test_a_gpt_image_is_base64_with_its_settings_and_usage(tmp_path: Path) -> None:
    async with sdk(tmp_path) as (client, _):
        answer = strictly(
            await client.images.generate(
                prompt=CAT,
                model="gpt-image-2.5-sunburst",
                size="2048x1152",
                quality="xhigh",
                background="opaque",
                output_format="webp",
                output_compression=60,
                moderation="low",
                n=2,
                safety_identifier="someone",
            )
        )
    assert [(image.format, image.size) for image in drawn(answer)] == [("WEBP", (2048, 1152))] * 2
    assert (answer.output_format, answer.size, answer.quality) == ("webp", "2048x1152", "xhigh")
    assert (answer.background, answer.safety_identifier) == ("opaque", "someone")
    assert answer.usage
    assert answer.usage.output_tokens == 2 * 2511
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


async def test_none_is_the_default_in_json_and_in_a_form(tmp_path: Path) -> None:
    async with sdk(tmp_path) as (client, _):
        made = await client.images.generate(
            prompt=CAT, model="gpt-image-1", n=None, size=None, quality=None, background=None, stream=None
        )
        assert (made.size, made.quality) == ("1024x1024", "medium")
        edited = await client.images.edit(
            image=("x.png", png()), prompt=CAT, model="gpt-image-1", n=None, size=None, output_format=None
        )
        assert (edited.size, edited.output_format) == ("1024x1024", "png")


@pytest.mark.parametrize("kind", ["bytes", "stream", "named", "file", "path", "tuple"])
async def test_dall_e_2_edits_an_image_in_every_form_of_the_sdk(tmp_path: Path, kind: str) -> None:
    (tmp_path / "image.png").write_bytes(png())
    (tmp_path / "mask.png").write_bytes(hole())
    with (tmp_path / "image.png").open("rb") as image_file, (tmp_path / "mask.png").open("rb") as mask_file:
        forms: dict[str, tuple[Any, Any]] = {
            "bytes": (png(), hole()),
            "stream": (io.BytesIO(png()), io.BytesIO(hole())),
            "named": (named(png(), "image.png"), named(hole(), "mask.png")),
            "file": (image_file, mask_file),
            "path": (tmp_path / "image.png", tmp_path / "mask.png"),
            "tuple": (("image.png", png(), "image/png"), ("mask.png", hole(), "image/png")),
        }
        image, mask = forms[kind]
        async with sdk(tmp_path) as (client, caller):
            answer = strictly(await client.images.edit(image=image, mask=mask, prompt=CAT, n=2, **OLD))
            assert answer.data
            for item in answer.data:
                edited = decoded((await caller.download(item.url or "")).content).convert("RGB")
                assert edited.crop((0, 0, 120, 200)).getcolors() == [(120 * 200, (0xC0, 0x49, 0x6B))]


@pytest.mark.parametrize("image", [png("RGB"), ("image.png", png("RGB"), "image/png"), io.BytesIO(png("RGB"))])
async def test_a_variation_is_returned_as_url_and_as_base64(tmp_path: Path, image: Any) -> None:
    async with sdk(tmp_path) as (client, caller):
        linked = strictly(await client.images.create_variation(image=image, n=2, size="256x256"))
        assert [(await caller.download(item.url or "")).status for item in linked.data or []] == [200, 200]
        if isinstance(image, io.BytesIO):
            image.seek(0)
        packed = await client.images.create_variation(image=image, size="256x256", response_format="b64_json")
        assert [image.size for image in drawn(strictly(packed))] == [(256, 256)]


async def test_a_gpt_image_edit_accepts_paths_names_and_types_together(tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(png("RGB", kind="JPEG"))
    images: list[Any] = [
        tmp_path / "one.jpg",
        named(png(), "two.png"),
        ("three", png(kind="WEBP"), "image/webp"),
        ("four.png", io.BytesIO(png())),
    ]
    async with sdk(tmp_path) as (client, _):
        answer = strictly(
            await client.images.edit(
                image=images,
                mask=("mask.png", png(colour="#00000000"), "image/png"),
                prompt=CAT,
                model="gpt-image-1.5",
                size="1536x1024",
                quality="low",
                input_fidelity="high",
                output_format="jpeg",
                output_compression=80,
                n=2,
            )
        )
        assert [(image.format, image.size) for image in drawn(answer)] == [("JPEG", (1536, 1024))] * 2
        assert answer.usage
        assert answer.usage.input_tokens_details.image_tokens == 5 * 4, "four images and the mask"
        assert answer.usage.output_tokens == 2 * 400


async def test_a_gpt_image_edit_accepts_up_to_sixteen_images(tmp_path: Path) -> None:
    images = [(f"{number}.png", png(), "image/png") for number in range(17)]
    async with sdk(tmp_path) as (client, _):
        strictly(await client.images.edit(image=images[:16], prompt=CAT, **NEW))
        with pytest.raises(openai.BadRequestError) as refused:
            await client.images.edit(image=images, prompt=CAT, **NEW)
    assert refused.value.code == "array_above_max_length"


async def test_the_newest_model_makes_animations_and_svg_and_accepts_markup(tmp_path: Path) -> None:
    image = ("image.png", png(), "image/png")
    async with sdk(tmp_path) as (client, _):
        film = strictly(
            await client.images.generate(
                prompt=CAT, output_format="gif", frame_count=3, frame_duration_ms=100, complexity="low", **NEWEST
            )
        )
        assert [getattr(image, "n_frames", 1) for image in drawn(film)] == [3]
        svg: Any = {"model": "some-author", "reasoning": {"effort": "high"}}
        drawing = strictly(await client.images.generate(prompt=CAT, output_format="svg", svg=svg, **NEWEST))
        assert base64.b64decode((drawing.data or [])[0].b64_json or "").startswith(b"<svg")
        edited = strictly(await client.images.edit(image=image, prompt=CAT, output_format="svg", svg=svg, **NEWEST))
        for answer in (drawing, edited):
            assert answer.svg_usage
            assert (answer.svg_usage.model, answer.svg_usage.reasoning_tokens) == ("some-author", 2000)
        marked = await client.images.edit(image=image, markup=("m.png", hole(), "image/png"), prompt=CAT, **NEWEST)
        assert strictly(marked).usage


async def test_models_have_shutdown_dates(tmp_path: Path) -> None:
    async with sdk(tmp_path) as (client, _):
        dates = {model.id: model.shutdown_date async for model in client.models.list()}
        assert (dates["dall-e-2"], dates["gpt-image-1-mini"]) == ("2026-05-12", "2026-12-01")
        assert dates["gpt-image-2.6-flare"] is None
        assert (await client.models.retrieve("gpt-image-1")).shutdown_date == "2026-10-23"
    async with sdk(tmp_path, today="2026-11-22") as (client, _):
        assert {"dall-e-2", "gpt-image-1"}.isdisjoint({model.id async for model in client.models.list()})
        with pytest.raises(openai.NotFoundError) as gone:
            await client.images.create_variation(image=png(), model="dall-e-2")
        assert gone.value.code == "model_not_found"


async def test_the_raw_response_has_the_services_headers(tmp_path: Path) -> None:
    async with sdk(tmp_path) as (client, caller):
        raw = await client.images.with_raw_response.generate(prompt=CAT, **OLD)
        assert raw.headers["openai-version"] == "2020-10-01"
        assert raw.headers["openai-organization"]
        assert int(raw.headers["openai-processing-ms"]) >= 1
        assert raw.headers["content-type"] == "application/json"
        assert raw.request_id
        assert raw.request_id.startswith("req_")
        answer = raw.parse()
        assert answer.data
        assert answer._request_id == raw.request_id
        (entry,) = caller.entries("call")
        assert entry["request_id"] == raw.request_id


# Streams


@pytest.mark.parametrize("operation", ["generate", "edit"])
@pytest.mark.parametrize(("n", "partials"), [(1, 0), (1, 3), (2, 1), (3, 2)])
async def test_a_stream_is_read_to_its_end(tmp_path: Path, operation: str, n: int, partials: int) -> None:
    sources = {"image": ("x.png", png(), "image/png")} if operation == "edit" else {}
    async with sdk(tmp_path) as (client, _):
        call = getattr(client.images, operation)
        stream = await call(
            prompt=CAT, n=n, stream=True, partial_images=partials, safety_identifier="someone", **sources, **NEW
        )
        events = [event async for event in stream]
    kind = "image_edit" if operation == "edit" else "image_generation"
    one = [f"{kind}.partial_image"] * partials + [f"{kind}.completed"]
    assert [event.type for event in events] == one * n
    assert [event.partial_image_index for event in events if "partial" in event.type] == [*range(partials)] * n
    whole = [event for event in events if "completed" in event.type]
    assert [event.usage.output_tokens for event in whole] == [107 + 100 * partials] * n, "each partial image costs"
    for event in events:
        type(event).model_validate(event.to_dict(), strict=True)
        assert not event.model_extra
        assert (event.size, event.quality, event.output_format) == ("1024x640", "low", "png")
        assert decoded(base64.b64decode(event.b64_json)).size == (1024, 640)
    assert {event.safety_identifier for event in whole} == {"someone"}


async def test_a_stream_is_read_by_the_synchronous_client(tmp_path: Path) -> None:
    def read(base_url: str) -> list[str]:
        with openai.OpenAI(base_url=base_url, api_key="sk-test", max_retries=0) as client:
            stream = client.images.generate(prompt=CAT, stream=True, partial_images=2, **NEW)
            edits = client.images.edit(image=("x.png", png(), "image/png"), prompt=CAT, stream=True, **NEW)
            return [event.type for event in stream] + [event.type for event in edits]

    async with calling(tmp_path) as caller:
        kinds = await asyncio.to_thread(read, caller.sandbox.base_url)
    partial = "image_generation.partial_image"
    assert kinds == [partial, partial, "image_generation.completed", "image_edit.completed"]


# Errors: an exception class for each status


@pytest.mark.parametrize(
    ("asked", "code", "param", "words"),
    [
        ({**OLD, "size": "500x500"}, "invalid_value", "size", "'256x256', '512x512', and '1024x1024'"),
        ({**NEW, "size": "1000x1000"}, "invalid_value", "size", "divisible by 16"),
        ({**NEW, "size": "512x512"}, "invalid_value", "size", "number of pixels"),
        ({**NEW, "response_format": "url"}, "unknown_parameter", "response_format", "Unknown parameter"),
        ({**OLD, "n": 11}, "integer_above_max_value", "n", "<= 10"),
        ({**OLD, "quality": "hd"}, "invalid_value", "quality", "'standard'"),
    ],
)
async def test_an_invalid_parameter_is_a_bad_request(
    tmp_path: Path, asked: dict[str, Any], code: str, param: str, words: str
) -> None:
    async with sdk(tmp_path) as (client, caller):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.images.generate(prompt=CAT, **asked)
        (entry,) = caller.entries("call")
    error = caught.value
    assert (error.status_code, error.code, error.param, error.type) == (400, code, param, "invalid_request_error")
    assert words in error.message
    assert error.request_id == entry["request_id"]
    assert error.response.json() == {"error": error.body}, "the SDK takes an error without its envelope, too"


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (png(), "unsupported_file_mimetype"),
        (io.BytesIO(png()), "unsupported_file_mimetype"),
        (("image.png", png(), "application/octet-stream"), "unsupported_file_mimetype"),
        (named(png(), "image.gif"), "unsupported_file_mimetype"),
        (("image.png", b"no picture"), "invalid_image"),
    ],
)
async def test_a_file_without_an_image_type_is_a_bad_request_for_gpt_image(
    tmp_path: Path, image: Any, code: str
) -> None:
    async with sdk(tmp_path) as (client, _):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.images.edit(image=image, prompt=CAT, **NEW)
    assert (caught.value.code, caught.value.param) == (code, "image")


async def test_an_image_that_dall_e_2_refuses_is_a_bad_request(tmp_path: Path) -> None:
    async with sdk(tmp_path) as (client, _):
        for image in (png(size=(64, 32)), png() + b"\0" * 4 * 1024 * 1024, png("RGB")):
            with pytest.raises(openai.BadRequestError) as caught:
                await client.images.edit(image=image, prompt=CAT, **OLD)
            assert caught.value.code == "invalid_image"


async def test_the_content_policy_error_differs_by_model_family(tmp_path: Path) -> None:
    async with sdk(tmp_path) as (client, _):
        with pytest.raises(openai.BadRequestError) as old:
            await client.images.generate(prompt="a forbidden cat", **OLD)
        with pytest.raises(openai.BadRequestError) as new:
            await client.images.edit(image=("x.png", png()), prompt="a forbidden cat", **NEW)
    assert (old.value.type, old.value.code) == ("invalid_request_error", "content_policy_violation")
    assert (new.value.type, new.value.code) == ("image_generation_user_error", "moderation_blocked")
    assert isinstance(new.value.body, dict)
    assert new.value.body["moderation_details"]["categories"]


async def test_refused_keys_permissions_models_and_paths_have_their_classes(tmp_path: Path) -> None:
    async with sdk(tmp_path, verified=False) as (client, _):
        with pytest.raises(openai.AuthenticationError) as key:
            await client.with_options(api_key="bad-key").images.generate(prompt=CAT, **OLD)
        with pytest.raises(openai.PermissionDeniedError) as right:
            await client.images.generate(prompt=CAT, **NEW)
        with pytest.raises(openai.NotFoundError) as model:
            await client.images.generate(prompt=CAT, model="dall-e-9")
        with pytest.raises(openai.NotFoundError) as path:
            await client.get("/image", cast_to=object)
    assert (key.value.status_code, key.value.code) == (401, "invalid_api_key")
    assert (right.value.status_code, right.value.code, right.value.type) == (403, None, "invalid_request_error")
    assert "must be verified" in right.value.message
    assert (model.value.status_code, model.value.code) == (404, "model_not_found")
    assert path.value.code == "unknown_url"
    assert all(error.value.request_id for error in (key, right, model, path))


async def test_a_rate_limit_error_has_the_time_of_the_retry(tmp_path: Path) -> None:
    async with sdk(tmp_path, rate_limit={"images": 3, "per_seconds": 60}) as (client, caller):
        await client.images.generate(prompt=CAT, n=3, **OLD)
        caller.time.now += 20
        with pytest.raises(openai.RateLimitError) as caught:
            await client.images.generate(prompt=CAT, **OLD)
    error, headers = caught.value, caught.value.response.headers
    assert (error.status_code, error.code, error.type) == (429, "rate_limit_exceeded", "requests")
    assert "Please try again in 40s" in error.message
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("40", "40000")
    assert (headers["x-ratelimit-limit-images"], headers["x-ratelimit-remaining-images"]) == ("3", "0")
    assert headers["x-ratelimit-reset-images"] == "40s"


async def test_a_spent_quota_is_a_rate_limit_error_with_its_own_code(tmp_path: Path) -> None:
    async with sdk(tmp_path, quota_images=1) as (client, _):
        await client.images.generate(prompt=CAT, **OLD)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.images.generate(prompt=CAT, **OLD)
    assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")
    assert "retry-after" not in caught.value.response.headers


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [("http_500", 500, "server_error"), ("http_503", 503, "service_unavailable_error"), ("html_502", 502, None)],
)
async def test_a_failing_server_is_an_internal_server_error(
    tmp_path: Path, fault: str, status: int, kind: str | None
) -> None:
    async with sdk(tmp_path, faults={fault: 1}) as (client, _):
        with pytest.raises(openai.InternalServerError) as caught:
            await client.images.generate(prompt=CAT, **OLD)
    assert (caught.value.status_code, caught.value.type) == (status, kind)


@pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
async def test_a_dropped_connection_is_a_connection_error(tmp_path: Path, fault: str) -> None:
    async with sdk(tmp_path, faults={fault: 1}) as (client, _):
        with pytest.raises(openai.APIConnectionError):
            await client.images.generate(prompt=CAT, **OLD)


async def test_a_missing_response_is_a_timeout() -> None:
    async with sandbox(latency_seconds=[30, 30]) as base_url, client_of(base_url, timeout=0.3) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.images.generate(prompt=CAT, **OLD)


async def test_the_sdk_waits_for_retry_after_and_succeeds() -> None:
    limit = {"images": 1, "per_seconds": 0.8}
    async with sandbox(rate_limit=limit) as base_url, client_of(base_url, max_retries=2) as client:
        loop = asyncio.get_running_loop()
        await client.images.generate(prompt=CAT, **OLD)
        start = loop.time()
        assert (await client.images.generate(prompt=CAT, **OLD)).data
        assert 0.5 < loop.time() - start < 30
