"""Any bytes from a socket get a response in the service's form: never aiohttp's own, a 5xx, or none."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.sandbox import request_body
from tests.support.sandbox_client import calling, png

if TYPE_CHECKING:
    from pathlib import Path

JSON = b"Content-Type: application/json\r\n"
KEY = b"Authorization: Bearer k\r\n"
CAT = b'{"prompt": "a cat", "size": "256x256"}'
CHUNKED = b"Transfer-Encoding: chunked\r\n"
EDITS = b"/v1/images/edits"
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na cat\r\n'
    b'--b\r\nContent-Disposition: form-data; name="size"\r\n\r\n256x256\r\n'
    b'--b\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n'
    + png()
    + b"\r\n--b--\r\n"
)
MULTIPART = b"Content-Type: multipart/form-data; boundary=b\r\n"


def post(
    path: bytes = b"/v1/images/generations",
    *,
    method: bytes = b"POST",
    version: bytes = b"HTTP/1.1",
    head: bytes = JSON,
    body: bytes = CAT,
    host: bytes = b"Host: x\r\n",
    key: bytes = KEY,
    length: object = None,
) -> bytes:
    size = f"Content-Length: {len(body) if length is None else length}\r\n" if length is not False else ""
    return b"%b %b %b\r\n%b%b%b%b\r\n%b" % (method, path, version, host, key, head, size.encode(), body)


async def response_to(port: int, sent: bytes) -> tuple[int, dict[bytes, bytes], bytes] | None:
    """Send bytes and return the final response, or None if the connection closes without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    try:
        writer.write(sent)
        head = b"HTTP/1.1 100 "
        while head.startswith(b"HTTP/1.1 100 "):
            head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.strip().split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        body = await reader.readexactly(int(headers[b"content-length"])) if not sent.startswith(b"HEAD ") else b""
        return int(first.split()[1]), headers, body
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    finally:
        writer.close()


def is_in_service_form(status: int, headers: dict[bytes, bytes], body: bytes) -> bool:
    if headers[b"content-type"] == b"application/xml":  # the blob store's
        return 400 <= status < 500 and body.startswith(b"\xef\xbb\xbf<?xml")
    if not headers[b"x-request-id"].startswith(b"req_") or headers[b"content-type"] != b"application/json":
        return False
    document: dict[str, Any] = json.loads(body.decode())
    document_is_unicode = json.dumps(document, ensure_ascii=False).encode()
    if status == 200:
        return bool(document_is_unicode)
    return 400 <= status < 500 and document["error"].keys() >= {"message", "type", "param", "code"}


MALFORMED = [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), 400),  # TLS
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),  # HTTP/2
    (b"hello\r\n\r\n", 400),
    (b"\0" * 100, 400),
    (post(method=b"BREW"), 400),
    (post(method=b"OPTIONS"), 405),
    (post(method=b"TRACE"), 405),
    (post(b"x:443", method=b"CONNECT"), 404),
    (post(b"*", method=b"OPTIONS"), 404),
    (post(b"http://xn--/v1/models", method=b"GET"), 200),
    (post(b"http://h:99999/v1/models"), 400),
    (post(b"/v1/models/%ff%zz%", method=b"GET"), 404),
    (post(b"/v1/models/%00", method=b"GET"), 404),
    (post(b"/v1/models/" + b"a" * 40_000, method=b"GET"), 404),
    (post(b"/v1/models/" + b"a" * 70_000, method=b"GET"), 400),
    (post(b"/v1/\xff"), 400),
    (post(b"/v1/pictures/%ff.png?a=%ff&sig=%ff", method=b"GET"), 403),
    (post(b"/v1/pictures/x.png", method=b"BIND"), 405),
    (post(version=b"HTTP/9.9"), 400),
    (post(version=b"HTTP/1.0"), 200),
    (post(host=b""), 400),
    (post(host=b'Host: a b"<\xff>\r\n'), 200),
    (post(key=b"Authorization: Bearer bad-\xff\r\n"), 401),
    (post(key=b"Authorization: \xff\r\n"), 401),
    (post(head=JSON + b"X: " + b"a" * 40_000 + b"\r\n"), 200),
    (post(head=JSON + b"X: " + b"a" * 70_000 + b"\r\n"), 400),
    (post(head=JSON + b"X: a\r\n" * 1000), 400),
    (post(head=JSON + b"no colon\r\n"), 400),
    (post(head=b"Content-Type: \xff;;\r\n"), 400),
    (post(head=b""), 400),
    (post(body=b""), 400),
    (post(length=False), 400),
    (post(length=-1), 400),
    (post(length="9" * 40), 400),
    (post(length=len(CAT) - 5), 400),
    (post(length=len(CAT) + 5), 408),
    (post(head=JSON + CHUNKED), 400),  # a length and chunks
    (post(head=JSON + CHUNKED, length=False, body=b"zz\r\n"), 400),
    (post(head=JSON + CHUNKED, length=False, body=b"f" * 20 + b"\r\nabc"), 400),
    (post(head=JSON + CHUNKED, length=False, body=b"ff\r\nabc"), 408),
    (post(head=JSON + b"Content-Encoding: wat\r\n"), 200),
    (post(head=JSON + b"Content-Encoding: deflate\r\n"), 400),
    (post(head=JSON + b"Expect: 100-continue\r\n"), 200),
    (post(head=JSON + b"Connection: Upgrade\r\nUpgrade: h2c\r\n"), 200),
    (post(head=JSON.replace(b"json", b"json; charset=wat")), 200),
    (post(body=b"\xef\xbb\xbf" + CAT), 400),
    (post(body=CAT.decode().encode("utf-16")), 400),
    (post(body=b'{"prompt": ' + b"[" * 900 + b"]" * 900 + b"}"), 400),
    (post(body=b'{"model": ' + b'{"a":' * 900 + b"1" + b"}" * 901), 400),
    (post(body=b'{"prompt": "x", "n": 1e999}'), 400),
    (post(body=b'{"prompt": "x", "n": ' + b"9" * 4000 + b"}"), 400),
    (post(body=b'{"prompt": "a\\u0000\\ufffe", "size": "256x256"}'), 200),
    (post(EDITS, head=b"Content-Type: multipart/form-data; boundary=" + b"a" * 200 + b"\r\n"), 400),
    (post(EDITS, head=MULTIPART, body=FORM), 200),
    (post(EDITS, head=MULTIPART, body=FORM[:-20], length=len(FORM)), 408),
    (post(EDITS, head=MULTIPART, body=FORM.replace(b'"size"', b'"\xff\xfe"')), 400),
    (post(EDITS, head=MULTIPART, body=FORM.replace(b'name="size"', b"name*=utf-8''%ff%zz")), 400),
    (post(EDITS, head=MULTIPART, body=b"--b\r\n" + b"X: a\r\n" * 3000 + b"\r\nx\r\n--b--\r\n"), 400),
    (post(EDITS, head=MULTIPART, body=b"--b\r\nX: " + b"a" * 99_999 + b"\r\n\r\nx\r\n--b--\r\n"), 400),
]


@pytest.mark.parametrize(("sent", "status"), MALFORMED, ids=range(len(MALFORMED)))
@pytest.mark.filterwarnings("ignore")  # aiohttp warns of a broken Content-Disposition
async def test_malformed_input_gets_a_response_in_the_services_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sent: bytes, status: int
) -> None:
    monkeypatch.setattr(request_body, "IDLE_SECONDS", 0.2)
    async with calling(tmp_path) as caller:
        answer = await response_to(caller.sandbox.port, sent)
        assert answer
        assert answer[0] == status, answer
        assert is_in_service_form(*answer)
    assert caplog.text == "", "failures after the response are only logged"


async def test_a_head_request_returns_headers_only(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        for path, status in ((b"/v1/models", 200), (b"/v1/images/edits", 405), (b"/", 404)):
            answer = await response_to(caller.sandbox.port, post(path, method=b"HEAD"))
            assert answer
            assert (answer[0], answer[1][b"content-type"]) == (status, b"application/json")
            assert int(answer[1][b"content-length"]) > 0


async def test_an_invalid_host_header_is_not_used_in_urls(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        port = caller.sandbox.port
        for host, origin in (
            (b'Host: a b"<\xff>\r\n', f"http://127.0.0.1:{port}/"),
            (b"Host: some-name:81\r\n", "http://some-name:81/"),
        ):
            answer = await response_to(port, post(host=host))
            assert answer
            assert json.loads(answer[2])["data"][0]["url"].startswith(origin)


MUTATIONS = 400


@pytest.mark.filterwarnings("ignore")  # as above
async def test_mutated_requests_get_a_response_in_the_services_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(request_body, "IDLE_SECONDS", 0.2)
    rng = random.Random(4)
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(CAT), CAT)
    sources = [
        post(),
        post(b"/v1/models/gpt-image-2", method=b"GET", head=b"", body=b""),
        post(head=JSON + CHUNKED, length=False, body=chunks),
        post(EDITS, head=MULTIPART, body=FORM),
    ]
    async with calling(tmp_path, rate_limit=None) as caller:
        for number in range(MUTATIONS):
            sent = mutated(sources[number % len(sources)], rng)
            if b"\r\n\r\n" not in sent:
                continue  # an unfinished head is not a request yet
            async with asyncio.timeout(10):
                answer = await response_to(caller.sandbox.port, sent)
            assert answer, (number, sent)
            assert is_in_service_form(*answer), (number, sent, answer)
            assert caplog.text == "", (number, sent)


def mutated(sent: bytes, rng: random.Random) -> bytes:
    """Return the bytes with a few changed, deleted or doubled, mostly in the head."""
    content = bytearray(sent)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(min(len(content), rng.choice((60, 300, 10_000))))
        match rng.randrange(3):
            case 0:
                content[place] = rng.randrange(256)
            case 1:
                del content[place]
            case _:
                content[place:place] = content[place : place + rng.randint(1, 20)]
    return bytes(content)
