"""Servers that deviate from OpenAI's API: with its entry in the config each is served whole, and without it is not."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from pipeline.client.request import to_dialect
from pipeline.config.dialect import Dialect, Uploads

if TYPE_CHECKING:
    from tests.support.stage import Ended, Server, Stage

GPT = {"model": "gpt-image-2", "size": "1024x1024", "quality": "low"}
GENERATION: dict[str, Any] = {"prompt": "a white siamese cat", "n": 2}
EDIT: dict[str, Any] = {"operation": "edit", "image": "a.png", "prompt": "a pool", **GPT}
MASKED: dict[str, Any] = {**EDIT, "mask": "m.png"}
SEVERAL: dict[str, Any] = {**EDIT, "image": ["a.png", "b.png"], "prompt": "both"}
VARIATION: dict[str, Any] = {"operation": "variation", "image": "a.png"}
EDITS = [EDIT, MASKED, SEVERAL]
DATA_URLS: dict[str, Any] = {"encoding": "json", "image": "image_url", "images": "reference_images"}
KEY_HEADER: dict[str, Any] = {"auth": {"header": "api-key"}}
VERSION: dict[str, Any] = {"query": {"api-version": "2025-04-01-preview"}}


def _picture(colour: str, *, hole: bool = False) -> bytes:
    picture = Image.new("RGBA", (256, 256), colour)
    if hole:
        picture.paste((0, 0, 0, 0), (64, 64, 192, 192))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def _run(stage: Stage, server: Server, requests: list[dict[str, Any]], options: dict[str, Any]) -> Ended:
    stage.provider("lab", server, **options)
    (stage.folder / "a.png").write_bytes(_picture("#c0496b"))
    (stage.folder / "b.png").write_bytes(_picture("#205080"))
    (stage.folder / "m.png").write_bytes(_picture("#000000", hole=True))
    return stage.run(
        "run", stage.job("job", requests), "--output", stage.folder / f"out-{len(options)}", exit_code=None
    )


@pytest.mark.parametrize(
    ("deviation", "options", "requests"),
    [
        pytest.param(KEY_HEADER, KEY_HEADER, [GENERATION], id="the key in a header of its own (Azure)"),
        pytest.param(
            {"auth": {"header": "Authorization", "scheme": "Key"}},
            {"auth": {"scheme": "Key"}},
            [GENERATION],
            id="another scheme",
        ),
        pytest.param(VERSION, VERSION, [GENERATION], id="a query on every address (Azure)"),
        pytest.param(
            {"body": {"response_format": "b64_json"}},
            {"body": {"response_format": "b64_json"}},
            [GENERATION, VARIATION],
            id="a field that every call needs (SGLang, Xinference)",
        ),
        pytest.param({"serves": "dall-e-2"}, {"leave_out": ["model"]}, [GENERATION, VARIATION], id="no model (Azure)"),
        pytest.param(
            {"values": {"response_format": {"base64": "b64_json", "url": "url"}}},
            {"values": {"response_format": {"b64_json": "base64"}}},
            [{**GENERATION, "response_format": "b64_json"}],
            id="another word for a value (Together)",
        ),
        pytest.param({"size_as": "W*H"}, {"size_as": "W*H"}, [GENERATION, VARIATION], id="W*H (Xinference)"),
        pytest.param(
            {"size_as": "width_height"},
            {"size_as": "width_height"},
            [GENERATION, VARIATION],
            id="width and height (Together)",
        ),
        pytest.param(
            {"size_as": "aspect_ratio"},
            {"size_as": "aspect_ratio"},
            [{**GENERATION, "model": "dall-e-3", "size": "1792x1024", "n": 1}, {**GENERATION, **GPT}],
            id="an aspect ratio (xAI)",
        ),
        pytest.param(
            {"uploads": {"images": "image"}},
            {"uploads": {"images": "image"}},
            [SEVERAL],
            id="one field for all files (old LiteLLM)",
        ),
        pytest.param(
            {"uploads": {"image": "images", "images": "images", "mask": "mask_image"}},
            {"uploads": {"image": "images", "images": "images", "mask": "mask_image"}},
            [*EDITS, VARIATION],
            id="other fields for files (vLLM-Omni, Xinference)",
        ),
        pytest.param(
            {"uploads": {"encoding": "json"}}, {"uploads": {"encoding": "json"}}, EDITS, id="edits in JSON (OpenAI)"
        ),
        pytest.param(
            {"uploads": {"encoding": "json", "image": "image", "reference": "url"}},
            {"uploads": {"encoding": "json", "image": "image", "reference": "url"}},
            EDITS,
            id="edits in JSON (xAI)",
        ),
        pytest.param(
            {"paths": {"edit": "images/generations"}, "uploads": {**DATA_URLS, "reference": "data_url"}},
            {"paths": {"edit": "images/generations"}, "uploads": {**DATA_URLS, "reference": "data_url"}},
            [*EDITS, GENERATION],
            id="edits are generations (Together)",
        ),
        pytest.param(
            {"uploads": {"encoding": "json", "images": "ref_images", "reference": "base64"}},
            {"uploads": {"encoding": "json", "images": "ref_images", "reference": "base64"}},
            EDITS,
            id="bare base64 (LocalAI)",
        ),
        pytest.param(
            {"picture_host": "localhost"},
            {"picture_hosts": ["LocalHost"]},
            [GENERATION],
            id="pictures on another host (LocalAI)",
        ),
    ],
)
def test_a_deviation_is_served_with_its_option_and_not_without(
    stage: Stage, deviation: dict[str, Any], options: dict[str, Any], requests: list[dict[str, Any]]
) -> None:
    server = stage.serve(rate_limit=None, dialect=deviation)
    ended = _run(stage, server, requests, {})
    assert ended.exit_code in {1, 3}, f"the server does not deviate: {ended.stderr}"
    before = server.charged()
    ended = _run(stage, server, requests, options)
    assert ended.exit_code == 0, ended.stderr
    assert server.charged() - before == sum(request.get("n", 1) for request in requests)
    assert len(list((stage.folder / f"out-{len(options)}").rglob("images/*.*"))) == server.charged() - before


@pytest.mark.parametrize(
    "deviation",
    [
        {"pictures": "relative_url"},
        {"pictures": "data_url"},
        {"created": False},
        {"errors": "detail"},
        {"most_images": 1},
    ],
    ids=str,
)
def test_what_a_server_says_otherwise_is_understood_without_an_option(stage: Stage, deviation: dict[str, Any]) -> None:
    server = stage.serve(rate_limit=None, dialect=deviation)
    requests = [{**GENERATION, "n": 3}, {**GENERATION, **GPT}, EDIT]
    ended = _run(stage, server, requests, {})
    assert ended.exit_code == 0, ended.stderr
    assert server.charged() == 6


def test_a_refusal_in_fastapi_s_form_names_the_field(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, dialect={"errors": "detail"})
    stage.provider("lab", server)
    stage.run("run", stage.job("job", [{**GENERATION, "extra": {"seed": 1}, "model": "gpt-image-9"}]), exit_code=3)
    stage.run("run", stage.job("two", [{**GENERATION, "extra": {"style": 3}, **GPT}]), exit_code=1)
    error = stage.manifest("two")[0]["error"]
    assert (error["http_status"], error["message"]) == (400, "Unknown parameter: 'style'.")


def test_pictures_that_a_server_withheld_are_not_asked_for_again(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, dialect={"withholds": True})
    stage.provider("lab", server)
    stage.run("run", stage.job("job", [{**GENERATION, "prompt": "a forbidden fruit"}]), exit_code=1)
    (entry,) = stage.manifest("job")
    assert (entry["status"], entry["error"]["code"], entry["attempts"]) == ("failed", "moderation_blocked", 1)
    assert len(server.books()) == 1


def test_the_key_is_in_its_header_alone_and_the_query_in_no_log(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, dialect={**KEY_HEADER, **VERSION})
    stage.provider("lab", server, **KEY_HEADER, **VERSION)
    ended = stage.run("run", stage.job("job", [GENERATION]), "--verbose", key="sk-hidden-0123456789")
    written = [path.read_bytes() for path in stage.output.rglob("*") if path.is_file()]
    assert b"sk-hidden" not in b"".join(written) + ended.stdout.encode() + ended.stderr.encode()


@pytest.mark.parametrize(
    ("size", "style", "said"),
    [
        ("1024x1024", "aspect_ratio", {"aspect_ratio": "1:1"}),
        ("1792x1024", "aspect_ratio", {"aspect_ratio": "16:9"}),
        ("1024x1536", "aspect_ratio", {"aspect_ratio": "2:3"}),
        ("3000x1000", "aspect_ratio", {"aspect_ratio": "3:1"}),
        ("0x0", "aspect_ratio", {"aspect_ratio": "0:0"}),
        ("auto", "aspect_ratio", {"size": "auto"}),
        ("512x768", "width_height", {"width": 512, "height": 768}),
        ("512x768", "W*H", {"size": "512*768"}),
        ("512x768", "WxH", {"size": "512x768"}),
        ("auto", "W*H", {"size": "auto"}),
    ],
)
def test_a_size_is_said_in_the_server_s_style(size: str, style: Any, said: dict[str, Any]) -> None:
    assert to_dialect({"size": size}, Dialect(size_as=style)) == said


def test_what_the_request_states_wins_over_what_the_provider_adds() -> None:
    dialect = Dialect(body={"steps": 4, "response_format": "b64_json"}, leave_out=frozenset({"model", "user"}))
    said = to_dialect({"response_format": "url", "model": "m", "n": 2}, dialect)
    assert said == {"steps": 4, "response_format": "url", "n": 2}


def test_the_defaults_are_openai_s() -> None:
    assert Dialect().credentials("sk-1") == {"Authorization": "Bearer sk-1"}
    assert Dialect().credentials(None) == {}
    assert Dialect(auth_header="api-key", auth_scheme=None).credentials("k") == {"api-key": "k"}
    assert Uploads() == Uploads("multipart", "image", "image[]", "mask")
    assert json.dumps(to_dialect({"prompt": "x", "size": "auto"}, Dialect())) == '{"prompt": "x", "size": "auto"}'
