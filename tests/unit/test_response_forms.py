"""Images are found where servers put them, nowhere else, and what is in no known form is named by its keys."""

from __future__ import annotations

import base64
import json
import pickle
from typing import Any

import pytest

from pipeline.client.response import InlineImage, LinkedImage
from pipeline.errors import Deferred, Moderated, RequestError, Unusable, WrongAddress
from tests.support.workbench import PNG
from tests.unit.test_response import read, refused

B64 = base64.b64encode(PNG).decode()
JPEG64 = base64.b64encode(b"\xff\xd8\xff\xe0" + b"\xc3\xbf" * 90).decode()
SAFE64 = base64.urlsafe_b64encode(b"\x89PNG\r\n\x1a\n" + b"\xfb\xff" * 90).decode()
DATA = f"data:image/png;base64,{B64}"
WEB = "https://cdn.example/a%2Fb.png?sig=x%3D"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'
INLINE, LINK = InlineImage(B64, None), LinkedImage(WEB, None)


def of(content: str) -> InlineImage:
    return InlineImage(content, None)


FORMS: list[tuple[Any, list[InlineImage | LinkedImage]]] = [
    # images
    ({"images": [{"url": WEB}], "timings": {"inference": 1.2}, "seed": 5}, [LINK]),
    (
        {"images": [{"url": WEB, "content_type": "image/png", "width": 64}, {"url": DATA}], "prompt": "x"},
        [LINK, INLINE],
    ),
    ({"images": [B64], "request": {"seed": 1}}, [INLINE]),
    ({"images": [B64, DATA, WEB]}, [INLINE, INLINE, LINK]),
    ({"images": [JPEG64], "parameters": {"init_images": [B64]}, "info": "{}"}, [of(JPEG64)]),
    ({"images": {"url": WEB}}, [LINK]),
    ({"images": WEB}, [LINK]),
    ({"images": [{"base64": B64, "url": None}]}, [INLINE]),
    # data
    ({"created": 1, "data": {"url": WEB}}, [LINK]),
    ({"created": 1, "data": [WEB]}, [LINK]),
    ({"created": 1, "data": WEB}, [LINK]),
    ({"created": 1, "data": [B64]}, [INLINE]),
    ({"data": B64}, [INLINE]),
    ({"data": ["/files/a.png"]}, [LinkedImage("https://api.example/files/a.png", None)]),
    ({"data": {"image_base64": [B64]}, "base_resp": {"status_code": 0, "status_msg": "success"}}, [INLINE]),
    ({"data": {"image_urls": [WEB, WEB]}, "base_resp": {"status_code": 0, "status_msg": "success"}}, [LINK, LINK]),
    ({"data": {"images": [{"url": WEB}]}, "code": 0, "message": "success"}, [LINK]),
    ({"data": [{"image_url": WEB}]}, [LINK]),
    ({"data": [{"image_url": {"url": WEB}}]}, [LINK]),
    ({"data": [{"b64": B64}, {"base64": B64}, {"image_base64": B64}, {"image": B64}]}, [INLINE] * 4),
    ({"data": [{"image": {"url": WEB}}]}, [LINK]),
    ({"data": [{"b64_json": WEB}]}, [LINK]),
    ({"data": [{"url": B64}]}, [INLINE]),
    ({"data": [{"b64_json": SAFE64}]}, [of(SAFE64)]),
    ({"data": [SAFE64]}, [of(SAFE64)]),
    ({"data": [{"b64_json": f"\n {B64}\n"}]}, [INLINE]),
    ({"data": [{"url": f"  {WEB} \n"}]}, [LINK]),
    ({"data": [{"url": f"DATA:image/png;BASE64,{B64}"}]}, [INLINE]),
    ({"data": [{"url": "data:application/octet-stream;base64," + B64}]}, [INLINE]),
    ({"data": [{"url": f"data:image/png;name=a;base64,{B64.replace('+', '%2B').replace('=', '%3D')}"}]}, [INLINE]),
    ({"data": [{"url": "data:image/svg+xml;utf8,%3Csvg/%3E"}]}, [of(base64.b64encode(b"<svg/>").decode())]),
    # other names
    ({"artifacts": [{"base64": B64, "seed": 1, "finishReason": "SUCCESS"}]}, [INLINE]),
    ({"output": {"results": [{"url": WEB}], "task_status": "SUCCEEDED", "task_id": "t"}, "usage": {}}, [LINK]),
    ({"output": {"choices": [{"message": {"role": "assistant", "content": [{"image": WEB}]}}]}}, [LINK]),
    ({"output": [WEB, WEB], "status": "succeeded", "urls": {"get": "https://api.example/p/1"}}, [LINK, LINK]),
    ({"output": WEB, "input": {"image": "https://in.example/i.png"}}, [LINK]),
    ({"output": [{"type": "image_generation_call", "result": B64}]}, [INLINE]),
    ({"result": {"image": B64}, "success": True, "errors": [], "messages": []}, [INLINE]),
    ({"result": {"sample": WEB}, "status": "Ready"}, [LINK]),
    ({"results": [{"url": WEB}]}, [LINK]),
    ({"predictions": [{"bytesBase64Encoded": B64, "mimeType": "image/png"}]}, [INLINE]),
    ({"candidates": [{"content": {"parts": [{"text": "a cat"}, {"inlineData": {"data": B64}}]}}]}, [INLINE]),
    (
        {"candidates": [{"content": {"parts": [{"thought": True, "inlineData": {"data": JPEG64}}]}}, {"image": B64}]},
        [INLINE],
    ),
    ({"generatedImages": [{"image": {"imageBytes": B64}}]}, [INLINE]),
    ({"image": B64}, [INLINE]),
    ({"image": DATA, "message": "Success"}, [INLINE]),
    ({"image": {"url": WEB}}, [LINK]),
    ({"url": WEB, "created": 1}, [LINK]),
    ({"b64_json": B64}, [INLINE]),
    ({"image_url": WEB}, [LINK]),
    ({"code": 200, "msg": "ok", "data": {"url": WEB}}, [LINK]),
    ({"code": "ok", "msg": "ok", "url": WEB}, [LINK]),
    ({"data": {"urls": [WEB]}, "urls": {"get": "https://api.example/p/1"}}, [LINK]),
    ({"urls": [WEB]}, [LINK]),
    ({"output_url": WEB}, [LINK]),
    ({"images": [{"src": WEB}, {"file_url": WEB}]}, [LINK, LINK]),
    ({"response": {"data": [{"url": WEB}]}}, [LINK]),
    ({"images": {"0": {"url": WEB}, "1": B64}}, [LINK, INLINE]),
    # a chat
    (
        {
            "choices": [
                {
                    "message": {
                        "role": "assistant",
                        "content": "",
                        "images": [{"type": "image_url", "image_url": {"url": DATA}}],
                    }
                }
            ]
        },
        [INLINE],
    ),
    (
        {
            "choices": [
                {
                    "message": {
                        "content": [
                            {"type": "text", "text": "a"},
                            {"type": "image_url", "image_url": {"url": WEB, "detail": "auto"}},
                        ]
                    }
                }
            ]
        },
        [LINK],
    ),
    ({"choices": [{"message": {"content": f"Here it is: ![cat]({WEB})"}}]}, [LINK]),
    ({"choices": [{"message": {"content": DATA}}]}, [INLINE]),
    # a list, a text
    ([{"url": WEB}, {"b64_json": B64}], [LINK, INLINE]),
    ([WEB], [LINK]),
    (B64, [INLINE]),
    (WEB, [LINK]),
]


@pytest.mark.parametrize(("body", "images"), FORMS, ids=lambda value: str(value)[:90])
def test_images_are_read_from_the_places_in_which_servers_put_them(body: Any, images: list[Any]) -> None:
    assert list(read(200, body).images) == images


def test_a_revised_prompt_and_usage_are_kept_in_every_form() -> None:
    answer = read(
        200,
        {
            "images": [{"url": WEB, "revised_prompt": "a"}, {"image": {"url": WEB}, "revised_prompt": "b"}],
            "usage": {"cost": 1},
        },
    )
    assert answer.images == (LinkedImage(WEB, "a"), LinkedImage(WEB, "b"))
    assert answer.usage == {"cost": 1}


@pytest.mark.parametrize(
    "content",
    [PNG, b"\xff\xd8\xff\xe0rest", b"RIFF\1\2\3\4WEBPVP8 ", b"GIF89a....", b"\0\0\0\x18ftypheic" + b"\0" * 20],
)
@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "application/json", ""])
def test_a_body_that_is_an_image_is_that_image(content: bytes, kind: str) -> None:
    assert read(200, content, content_type=kind).images == (of(base64.b64encode(content).decode()),)


def test_a_content_type_of_images_makes_any_bytes_an_image_but_not_json() -> None:
    odd = b"\1\2\3 a format of tomorrow"
    assert read(200, odd, content_type="image/x-new; q=1").images == (of(base64.b64encode(odd).decode()),)
    assert read(200, SVG, content_type="image/svg+xml").images == (of(base64.b64encode(SVG).decode()),)
    assert read(200, SVG).images == (of(base64.b64encode(SVG).decode()),)
    assert read(200, {"data": [{"url": WEB}]}, content_type="image/png").images == (LINK,)
    assert type(refused(200, {"error": {"code": "moderation_blocked"}}, content_type="image/png")) is Moderated
    assert type(refused(200, b"", content_type="image/png")) is Unusable


def event(data: Any, name: str = "x") -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


STREAMS = [
    event({"type": "image_generation.partial_image", "b64_json": JPEG64})
    + event({"type": "image_generation.completed", "b64_json": B64}),
    event({"object": "image.generation.result", "data": [{"b64_json": B64}]}) + "data: [DONE]\n\n",
    event({"images": [B64]}),
    event({"choices": [{"delta": {"images": [{"image_url": {"url": DATA}}]}}]})
    + event({"choices": [{"delta": {"content": "!"}}]}),
    ": ping\n\n" + event({"output": {"results": [{"base64": B64}]}}),
    f"data: {json.dumps({'n': 1})}\ndata: {json.dumps({'b64_json': B64})}\ndata: [DONE]\n",
    "\n".join(json.dumps(one) for one in ({"progress": 0.5}, {"b64_json": B64, "usage": {}})),
]


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json", "application/x-ndjson", ""])
@pytest.mark.parametrize("text", STREAMS, ids=range(len(STREAMS)))
def test_a_stream_is_read_whatever_its_content_type_says(text: str, kind: str) -> None:
    if not text.startswith("{") or kind != "text/event-stream":
        assert read(200, text.encode(), content_type=kind).images == (INLINE,)


def test_json_that_is_called_a_stream_is_read() -> None:
    assert read(200, {"data": [{"b64_json": B64}]}, content_type="text/event-stream").images == (INLINE,)


def test_a_body_of_text_may_be_an_image() -> None:
    for text, image in ((B64, INLINE), (WEB, LINK), (DATA, INLINE), (f"{WEB}\n", LINK)):
        assert read(200, text.encode(), content_type="text/plain").images == (image,)


# What is no result


@pytest.mark.parametrize(
    ("body", "beyond"),
    [
        ({"data": [{"url": WEB}] * 200}, 0),
        ({"data": [{"url": WEB, "b64_json": B64}] * 203}, 3),
        ({"data": [[{"url": WEB}] * 150] * 3}, 250),
        ({"predictions": [{"images": [WEB] * 300}] * 2}, 400),
        ({"data": [{"url": WEB}], "output": ["a word"] * 300}, 0),
    ],
)
def test_two_hundred_images_are_kept_and_the_others_are_counted(body: Any, beyond: int) -> None:
    found = read(200, body)
    assert (len(found.images) == 200 or not beyond, found.beyond) == (True, beyond)


NO_RESULT: list[Any] = [
    {"input": {"image": B64}, "status": "ok"},
    {"request": {"images": [B64], "image": DATA}},
    {"parameters": {"init_images": [B64]}, "images": []},
    {"error": {"message": "no", "image": B64, "url": "https://docs.example/errors"}},
    {"error": "the image is too large", "image": B64},
    {"error": {"message": "no"}, "images": [B64]},
    {"detail": [{"loc": ["body", "image"], "msg": "bad", "input": B64, "url": "https://docs.example/errors"}]},
    {"message": "see the documentation", "url": "https://docs.example/errors", "code": 400},
    {"code": "InvalidParameter", "message": "bad image", "image": DATA},
    {"status": "failed", "image": B64},
    {"status": 400, "title": "bad", "url": "https://docs.example"},
    {"success": False, "image": B64, "errors": [{"code": 1, "message": "bad"}]},
    {"data": {"error": "no", "url": "https://docs.example/errors"}},
    {"message": "https://docs.example/errors"},
    {"choices": [{"message": {"content": "I cannot draw https://x.example/a.png"}}]},
    {"choices": [{"message": {"content": [{"type": "input_image", "image_url": WEB}]}}]},
    {"data": ["task-0123456789abcdef0123456789abcdef"], "id": "x"},
    {"data": ["f" * 64], "result": "0" * 2000},
    {"data": [{"url": "data:text/plain;base64,QUJD"}]},
    {"images": ["not ready"], "image": "none"},
    {"output": None, "input": {"image": WEB}},
]


@pytest.mark.parametrize("body", NO_RESULT, ids=lambda value: str(value)[:90])
def test_a_repeated_input_and_an_error_s_link_are_no_results(body: Any) -> None:
    with pytest.raises(RequestError):
        read(200, body)


@pytest.mark.parametrize(
    "body",
    [
        {"status": "queued", "id": "t", "input": {"image": WEB}},
        {"output": {"task_id": "t", "task_status": "PENDING"}, "request_id": "r"},
        {"status": "IN_QUEUE", "request_id": "r", "response_url": WEB},
        {"id": "p", "status": "starting", "output": None, "urls": {"get": WEB}},
        {"result": {"state": "waiting"}},
    ],
)
def test_a_task_is_no_result(body: Any) -> None:
    assert type(refused(200, body)) is Deferred


@pytest.mark.parametrize(
    ("body", "withheld", "images"),
    [
        ({"artifacts": [{"base64": B64, "finishReason": "CONTENT_FILTERED"}]}, 1, 0),
        ({"artifacts": [{"base64": B64, "finishReason": "CONTENT_FILTERED"}, {"base64": B64}]}, 1, 1),
        ({"candidates": [{"finishReason": "IMAGE_SAFETY"}]}, 1, 0),
        ({"candidates": [{"finishReason": "PROHIBITED_CONTENT", "content": {}}]}, 1, 0),
        ({"predictions": [{"raiFilteredReason": "blocked"}, {"bytesBase64Encoded": B64}]}, 1, 1),
        ({"choices": [{"finish_reason": "content_filter", "message": {"content": ""}}]}, 1, 0),
        ({"choices": [{"finish_reason": "stop", "message": {"images": [{"image_url": {"url": WEB}}]}}]}, 0, 1),
        ({"data": [{"url": WEB}, {"error": {"code": "moderation_blocked"}}, {"error": "server_error"}]}, 1, 1),
        ({"data": [{"error": {"message": "blocked by our content policy"}}, {"b64_json": B64}]}, 1, 1),
        ({"data": [{"url": WEB, "error": None}, {"url": WEB, "error": {}}]}, 0, 2),
    ],
)
def test_what_the_service_withheld_is_counted_and_no_image(body: Any, withheld: int, images: int) -> None:
    answer = read(200, body)
    assert (answer.moderated, len(answer.images)) == (withheld, images)


# What is in no known form


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"pictures": ["x"], "timings": {"inference": 1.2}, "seed": 5}, "pictures, timings, seed (timings: inference)"),
        ({"id": "1", "outcome": [{"blob": "QUJD", "w": 3}]}, "id, outcome (outcome: blob, w)"),
        ({"data": [{"picture": "QUJD"}]}, "data (data: picture)"),
        ({"code": 0, "msg": "ok", "payload": {"x": 1}}, "code, msg, payload (payload: x)"),
        ({f"key{number}": 1 for number in range(30)}, ", ".join(f"key{number}" for number in range(10))),
        ({"a\x1b[31m\u202e`b": 1, "n" * 500: 2}, f"a??31m??b, {'n' * 30}"),
        ([{"blob": 1}], "a list of objects with blob"),
        ([[5]], "a list"),
        (7, "a int"),
    ],
)
def test_what_is_in_no_known_form_is_named_by_its_keys_and_deterministic(body: Any, named: str) -> None:
    error = refused(200, body)
    assert type(error) is Unusable
    assert f"answered 200 with {named}: no image in a form that is known" in error.message
    assert error.deterministic
    assert pickle.loads(pickle.dumps(error)).deterministic  # noqa: S301 - our own bytes


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"null", b'{"data": [{"b64_json": "QUJ', b"[" * 9000, {}, [], {"data": []}, {"data": None}),
        *({"data": [{}]}, {"data": [{"url": ""}]}, {"created": 1, "data": [], "seed": 3}, {"images": [], "seed": 3}),
        *({"created": 1}, {"id": "x", "usage": {"total_tokens": 5}}, {"code": 0, "msg": "ok", "data": None}),
        *({"message": "something went wrong"}, {"error": "ouch"}),
    ],
)
def test_an_empty_or_a_cut_body_is_not_deterministic(body: Any) -> None:
    error = refused(200, body)
    assert (type(error), error.deterministic) == (Unusable, False)


def test_an_empty_body_is_named_by_its_keys_too() -> None:
    error = refused(200, {"code": 0, "msg": "ok", "data": None})
    assert error.message == "the server answered 200 without an image, with code, msg, data"
    assert refused(200, {}).message == "the server answered 200 without an image"


def test_a_body_that_is_neither_json_nor_an_image_is_deterministic() -> None:
    for content, kind in (
        (b"OK", "text/plain"),
        (b"<?xml version='1.0'?><a/>", "application/xml"),
        (b"PK\3\4\0", "application/zip"),
    ):
        error = refused(200, content, content_type=kind)
        assert (type(error), error.deterministic) == (Unusable, True)
        assert kind in error.message


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json", ""])
@pytest.mark.parametrize("status", [200, 201, 203])
def test_an_html_page_is_a_wrong_address(kind: str, status: int) -> None:
    page = (
        b"\r\n<!DOCTYPE html><html><head><title>Gateway\n console</title></head><body><div id=app></div></body></html>"
    )
    error = refused(status, page, content_type=kind)
    assert type(error) is WrongAddress
    assert (
        error.message
        == f"the server answered {status} with an HTML page \u201cGateway console\u201d: check `base_url`,"
        " and what answers in its place"
    )
    for start in (b"<html>ok", b'<?xml version="1.0"?>\n<!DOCTYPE html><html/>', b"<!-- a --><html>"):
        assert type(refused(status, start, content_type=kind)) is WrongAddress


def test_json_that_is_called_html_is_read() -> None:
    assert read(200, {"data": [{"url": WEB}]}, content_type="text/html").images == (LINK,)
    assert type(refused(200, {"data": []}, content_type="text/html")) is Unusable
