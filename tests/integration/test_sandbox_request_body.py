"""Any body gets a success or a 4xx with the error envelope."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.sandbox.api_errors import ApiError
from pipeline.sandbox.request_body import MAX_FIELD_BYTES, MAX_JSON_BYTES, parse_json
from tests.support.sandbox_client import calling, png

if TYPE_CHECKING:
    from pathlib import Path

PATHS = ("generations", "edits", "variations")
TYPES = ("application/json", "multipart/form-data; boundary=b", "multipart/form-data", "text/plain", "", "multipart/x")
NAMES = ("prompt", "n", "size", "model", "image", "image[]", "mask", "stream", "images", "", 'a"b', "\u00fc")
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
BODIES = st.dictionaries(st.sampled_from(NAMES) | st.text(), VALUES | st.sampled_from(["dall-e-2", "gpt-image-2"]))
PARTS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.booleans(), st.binary(max_size=40) | st.just(png()), st.booleans()), max_size=6
)


def multipart(parts: list[tuple[str, bool, bytes, bool]]) -> bytes:
    body = b""
    for name, is_file, content, is_typed in parts:
        body += b'--b\r\nContent-Disposition: form-data; name="' + name.encode() + b'"'
        body += b'; filename="x.png"' if is_file else b""
        body += b"\r\nContent-Type: image/png" if is_typed else b""
        body += b"\r\n\r\n" + content + b"\r\n"
    return body + b"--b--\r\n"


async def post_all(folder: Path, calls: list[tuple[str, str, bytes]]) -> None:
    async with calling(folder, rate_limit=None) as caller:
        for path, content_type, body in calls:
            headers = {**caller.headers, "Content-Type": content_type}
            reply = await caller.call("POST", f"/images/{path}", data=body, headers=headers)
            assert reply.status == 200 or 400 <= reply.status < 500, (path, content_type, body)
            if reply.status != 200:
                assert reply.error["message"]


FUZZ = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@FUZZ
@given(calls=st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from(TYPES), st.binary(max_size=300)), max_size=20))
def test_raw_garbage_gets_an_envelope(tmp_path: Path, calls: list[tuple[str, str, bytes]]) -> None:
    asyncio.run(post_all(tmp_path, calls))


@FUZZ
@given(bodies=st.lists(st.tuples(st.sampled_from(PATHS), BODIES), max_size=20))
def test_json_garbage_gets_an_envelope(tmp_path: Path, bodies: list[tuple[str, dict[str, Any]]]) -> None:
    asyncio.run(post_all(tmp_path, [(path, "application/json", json.dumps(body).encode()) for path, body in bodies]))


@FUZZ
@given(forms=st.lists(st.tuples(st.sampled_from(PATHS), PARTS, st.integers(0, 60)), max_size=15))
def test_multipart_garbage_gets_an_envelope(
    tmp_path: Path, forms: list[tuple[str, list[tuple[str, bool, bytes, bool]], int]]
) -> None:
    whole = [(path, TYPES[1], multipart(parts)) for path, parts, _ in forms]
    cut = [(path, TYPES[1], multipart(parts)[:-lost]) for path, parts, lost in forms if lost]
    asyncio.run(post_all(tmp_path, whole + cut))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"prompt":' * 50_000,
        b'{"n": ' + b"9" * 5000 + b"}",
        b'{"n": NaN}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "\xff"}',
        b'{"prompt": "x"} x',
    ],
)
def test_a_body_that_is_not_a_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_json(body)
    assert "could not parse the JSON body" in str(caught.value)


def test_a_duplicate_key_is_refused() -> None:
    with pytest.raises(ApiError) as caught:
        parse_json(b'{"prompt": "a", "prompt": "b"}')
    assert caught.value.error["code"] == "duplicate_parameter"


def test_a_duplicate_among_very_many_keys_is_found_quickly() -> None:
    keys = ",".join(f'"k{number}":1' for number in range(300_000))
    start = time.monotonic()
    with pytest.raises(ApiError) as caught:
        parse_json(f'{{{keys},"twice":1,"twice":1}}'.encode())
    assert caught.value.error["param"] == "twice"
    assert time.monotonic() - start < 20, "not quadratic"


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b'{"prompt": "' + b"x" * MAX_JSON_BYTES + b'"}', 413),
        ("multipart/form-data; boundary=b", multipart([("prompt", False, b"x", False)]), 400),
        ("application/x-www-form-urlencoded", b"prompt=x", 400),
    ],
)
async def test_a_generation_accepts_only_json_of_limited_size(
    tmp_path: Path, content_type: str, body: bytes, status: int
) -> None:
    async with calling(tmp_path) as caller:
        headers = {**caller.headers, "Content-Type": content_type}
        reply = await caller.call("POST", "/images/generations", data=io.BytesIO(body), headers=headers)
        assert (reply.status, reply.error["type"]) == (status, "invalid_request_error")


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([("prompt", False, b"x" * (MAX_FIELD_BYTES + 1), False)], 413),
        ([("prompt", False, b"x", False)] * 2, 400),
        ([("image", True, b"", False)] * 101, 413),
        ([("prompt", False, b"\xff", False)], 400),
        ([("svg[model]", False, b"x", False)] * 2, 400),
        ([("svg", False, b"x", False), ("svg[model]", False, b"x", False)], 400),
        ([("svg[model]", False, b"x", False), ("svg[model][x]", False, b"x", False)], 400),
        ([("a" + "[b]" * 1000, False, b"x", False)], 400),
    ],
)
async def test_a_form_beyond_its_limits_is_refused(
    tmp_path: Path, parts: list[tuple[str, bool, bytes, bool]], status: int
) -> None:
    async with calling(tmp_path) as caller:
        headers = {**caller.headers, "Content-Type": "multipart/form-data; boundary=b"}
        reply = await caller.call("POST", "/images/edits", data=multipart(parts), headers=headers)
        assert (reply.status, reply.error["type"]) == (status, "invalid_request_error")


@pytest.mark.parametrize("paths", [{}, {"generation": "images/edits"}], ids=["own path", "shared path"])
async def test_a_json_edit_of_a_dialect_may_be_as_large_as_its_images(tmp_path: Path, paths: dict[str, str]) -> None:
    dialect = {"uploads": {"encoding": "json", "reference": "data_url"}, "paths": paths}
    large = f"data:image/png;base64,{base64.b64encode(png() + bytes(MAX_JSON_BYTES)).decode()}"
    async with calling(tmp_path, dialect=dialect) as caller:
        body = io.BytesIO(json.dumps({"prompt": "x", "model": "gpt-image-2", "images": [large]}).encode())
        headers = {**caller.headers, "Content-Type": "application/json"}
        reply = await caller.call("POST", "/images/edits", data=body, headers=headers)
        assert reply.status == 200, reply.content[:200]


async def test_a_body_with_a_wrong_content_encoding_is_refused(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        for kind in ("application/json", "multipart/form-data; boundary=b"):
            headers = {**caller.headers, "Content-Type": kind, "Content-Encoding": "gzip"}
            reply = await caller.call("POST", "/images/edits", data=b"this is no gzip", headers=headers)
            assert reply.status == 400
            assert reply.error["message"]
