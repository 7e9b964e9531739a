"""One call over real sockets: what leaves, what comes back, and what is said when neither is whole."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import json
import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientConnectorError, TCPConnector
from yarl import URL

from pipeline.client.client import ImagesClient
from pipeline.client.network import proxy_for
from pipeline.client.request import Call, Upload, build_body
from pipeline.client.response import ImagesResponse, InlineImage, LinkedImage
from pipeline.client.secrets import Secrets
from pipeline.client.session import ApiSession
from pipeline.config.dialect import Dialect
from pipeline.engine.caller import image_threads
from pipeline.errors import (
    Invalid,
    KeyRefused,
    NotSent,
    OutcomeUnknown,
    QuotaSpent,
    RequestError,
    ServerFault,
    Unusable,
    WrongAddress,
    WrongPath,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

KEY = "sk-test-0123456789"
CALL = Call("generation", {"prompt": "a cat", "model": "m", "n": 2})
MAX_BYTES = 1_000_000
PICTURE = b'{"data": [{"b64_json": "QUJD"}]}'


def reply(status: int, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Server:
    """Answers each call with the same bytes, after `hold` is set; then repeats `beat`, closes, or stays as it is."""

    answer: bytes
    stay: bool = False
    beat: bytes = b""
    calls: list[bytes] = field(default_factory=list)
    connections: int = 0
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    called: asyncio.Event = field(default_factory=asyncio.Event)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else await chunked(reader)
                self.calls.append(head + body)
                self.called.set()
                await self.hold.wait()
                writer.write(self.answer)
                await writer.drain()
                while self.beat and not writer.is_closing():
                    await asyncio.sleep(0.01)
                    writer.write(self.beat)
                    await writer.drain()
                if not self.stay:
                    break
        writer.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


async def chunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).strip(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body


@contextlib.asynccontextmanager
async def serving(answer: bytes, *, stay: bool = False, hold: bool = False, beat: bytes = b"") -> AsyncIterator[Server]:
    server = Server(answer, stay, beat)
    if not hold:
        server.hold.set()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        server.hold.set()
        listening.close()
        for writer in server.writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def door(base_url: str, **more: Any) -> AsyncIterator[ImagesClient]:
    settings: dict[str, Any] = {"dialect": Dialect(), "timeout": 20.0, "connections": 8, **more}
    key, headers = settings.pop("key", KEY), settings.pop("headers", {})
    async with ApiSession(base_url, key, headers, secrets=Secrets({"key": key, **headers}), **settings) as session:
        yield ImagesClient(session, settings["dialect"], image_threads())


async def make(api: ImagesClient, call: Call, sent: Callable[[], None]) -> ImagesResponse:
    return await api.call(call.operation, await build_body(call, Dialect()), sent, MAX_BYTES, call.params.get("n", 1))


async def refused(api: ImagesClient, call: Call = CALL) -> tuple[RequestError, int]:
    """Make a call that fails; give the error, and how often `sent` was told."""
    told: list[None] = []
    with pytest.raises(RequestError) as caught:
        await make(api, call, lambda: told.append(None))
    assert KEY not in repr(caught.value.__dict__) + str(caught.value)
    return caught.value, len(told)


async def test_a_call_carries_the_key_in_one_header_and_tells_once_that_it_left() -> None:
    told: list[None] = []
    async with serving(reply(200, PICTURE), hold=True) as server, door(server.url, headers={"X-Thing": "t"}) as api:
        call = asyncio.create_task(make(api, CALL, lambda: told.append(None)))
        await server.called.wait()
        assert len(told) == 1
        server.hold.set()
        answer = await call
    assert answer.images == (InlineImage("QUJD", None),)
    (sent,) = server.calls
    head, _, body = sent.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/images/generations HTTP/1.1\r\n")
    assert sent.count(KEY.encode()) == 1
    assert f"Authorization: Bearer {KEY}".encode() in head
    assert b"X-Thing: t" in head
    assert json.loads(body) == CALL.params
    assert len(told) == 1


async def test_a_configured_authorization_header_takes_the_key_s_place() -> None:
    headers = {"authorization": "Basic abc"}
    async with serving(reply(200, PICTURE)) as server, door(server.url, headers=headers) as api:
        await make(api, CALL, lambda: None)
    assert re.findall(rb"(?i)authorization: (.*)\r", server.calls[0]) == [b"Basic abc"]


async def test_a_form_carries_files_with_their_kinds(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg", "m.png"):
        (tmp_path / name).write_bytes(b"\x89" + name.encode())
    image, second = Upload("image", tmp_path / "a.png", "image/png"), Upload("image", tmp_path / "b.jpg", "image/jpeg")
    mask = Upload("mask", tmp_path / "m.png", "image/png")
    params = {"prompt": "caf\u00e9 \u201cx\u201d", "n": 1, "svg": {"model": "v", "r": {"e": True}}, "tags": ["p", 2]}
    told: list[None] = []
    async with serving(reply(200, PICTURE)) as server, door(server.url) as api:
        await make(api, Call("edit", params, [image, mask]), lambda: told.append(None))
        await make(api, Call("edit", {}, [image, second]), lambda: told.append(None))
        await make(api, Call("variation", {}, [image]), lambda: told.append(None))
    one, two, three = server.calls
    assert re.findall(rb'name="([^"]+)"; filename="([^"]+)"', one) == [(b"image", b"a.png"), (b"mask", b"m.png")]
    assert re.findall(rb'name="([^"]+)"; filename="([^"]+)"', two) == [(b"image[]", b"a.png"), (b"image[]", b"b.jpg")]
    assert re.findall(rb"Content-Type: (image/\w+)", one + two) == [b"image/png"] * 3 + [b"image/jpeg"]
    assert re.findall(rb' name="([^"]+)"\r\n', one) == [
        b"prompt",
        b"n",
        b"svg[model]",
        b"svg[r][e]",
        b"tags[]",
        b"tags[]",
    ]
    assert "caf\u00e9 \u201cx\u201d".encode() in one
    assert b"octet-stream" not in one + two + three
    assert three.startswith(b"POST /v1/images/variations ")
    assert len(told) == 3


async def test_an_uploaded_file_that_is_gone_sends_nothing(tmp_path: Path) -> None:
    async with serving(reply(200, PICTURE)) as server, door(server.url) as api:
        error, told = await refused(api, Call("edit", {}, [Upload("image", tmp_path / "gone.png", "image/png")]))
    assert (type(error), told, server.connections) == (Invalid, 0, 0)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


async def test_a_refused_port_a_name_that_is_none_and_a_failed_handshake_send_nothing() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"no TLS here\r\n")
        writer.close()

    listening = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening:
        for address in (f"http://127.0.0.1:{free_port()}/v1", "http://nowhere.invalid/v1", f"https://127.0.0.1:{port}"):
            async with door(address) as api:
                error, told = await refused(api)
            assert (type(error), told) == (NotSent, 0), address
            assert address in error.message


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"garbage\r\n\r\n",
        reply(200, PICTURE[:-5], length=99),
        reply(200, b"x" * 50, "Content-Encoding: gzip"),
    ],
)
@pytest.mark.parametrize("form", [False, True])
async def test_a_call_that_left_and_was_cut_off_is_of_unknown_outcome_and_is_sent_once(
    answer: bytes, form: bool, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"x" * 300_000)
    call = Call("edit", {}, [Upload("image", tmp_path / "a.png", "image/png")]) if form else CALL
    async with serving(answer) as server, door(server.url) as api:
        error, told = await refused(api, call)
    assert (type(error), told, len(server.calls)) == (OutcomeUnknown, 1, 1)
    assert error.http_status == (200 if b"Content-Length" in answer else None), "of a response that had begun"


_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(PICTURE), PICTURE)


_STREAM = b"event: image_generation.completed\ndata: %s\n\ndata: [DONE]\n\n" % PICTURE


@pytest.mark.parametrize(
    "answer", [reply(200, PICTURE, length=99), _CHUNKED, _CHUNKED[:-2], reply(200, _STREAM, length=999)]
)
@pytest.mark.parametrize("stay", [False, True])
async def test_a_whole_body_counts_whose_framing_promises_more(
    answer: bytes, stay: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such an image is paid, and the same server frames the next one in the same way."""
    monkeypatch.setattr("pipeline.client.network.QUIET_SECONDS", 0.05)
    async with serving(answer, stay=stay) as server, door(server.url) as api:
        for _ in range(2):  # the connection is not used again
            response = await make(api, CALL, lambda: None)
            assert response.images == (InlineImage("QUJD", None),)
    assert (len(server.calls), server.connections) == (2, 2)


_FINAL = b'data: {"type": "image_generation.completed", "b64_json": "QUJD"}\n\n'


@pytest.mark.parametrize("rest", [b"", b": ping\n\n", b'data: {"type": "image_generation.part'])
@pytest.mark.parametrize("stay", [False, True])
async def test_a_stream_counts_once_all_images_have_come_whatever_it_lacks(
    rest: bytes, stay: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.client.network.QUIET_SECONDS", 0.05)
    answer = reply(200, _FINAL + _FINAL + rest, "Content-Type: text/event-stream", length=999)
    async with serving(answer, stay=stay) as server, door(server.url) as api:
        response = await make(api, CALL, lambda: None)
    assert response.images == (InlineImage("QUJD", None),) * 2


@pytest.mark.parametrize(
    ("body", "beat"),
    [(_FINAL + _FINAL, b": ping\n\n"), (_STREAM, b": ping\r\n\r\n"), (PICTURE, b"\n"), (PICTURE + b"\n", b" ")],
)
async def test_keep_alives_after_a_whole_body_do_not_delay_it(
    body: bytes, beat: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.client.network.QUIET_SECONDS", 0.1)
    async with serving(reply(200, body, length=900_000), beat=beat) as server, door(server.url, timeout=9999) as api:
        response = await make(api, CALL, lambda: None)
    assert set(response.images) == {InlineImage("QUJD", None)}


@pytest.mark.parametrize("beat", [b"", b" "])
@pytest.mark.parametrize("start", [b"", b"\n", b": ping\n\n"])
async def test_keep_alives_before_a_body_are_waited_for_until_the_timeout(
    start: bytes, beat: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.client.network.QUIET_SECONDS", 0.01)
    answer = reply(200, start, length=900_000)
    async with serving(answer, stay=True, beat=beat) as server, door(server.url, timeout=0.3) as api:
        error, _ = await refused(api)
    assert (type(error), len(server.calls)) == (OutcomeUnknown, 1)


@pytest.mark.parametrize(
    ("body", "beat"),
    [
        (_FINAL + _FINAL, b'event: ping\ndata: {"type": "ping"}\n\n'),
        (_STREAM, b": ping\n\n"),
        (PICTURE, b""),
        (b'{"data": [{"b64_json": "QUJD"}, {"b64_json": "QUJD", "revised_prompt": "a partial view"}]}', b""),
        (b'{"data": [{"b64_json": "QUJD"}, {"b64_json": "QUJD"}], "text": "', b"more"),
    ],
)
async def test_a_body_with_all_images_counts_at_the_timeout(body: bytes, beat: bytes) -> None:
    """They are paid, and the next call would end in the same way."""
    answer = reply(200, body, length=900_000)
    async with serving(answer, stay=True, beat=beat) as server, door(server.url, timeout=0.3) as api:
        response = await make(api, CALL, lambda: None)
    assert {image.base64 for image in response.images if isinstance(image, InlineImage)} == {"QUJD"}


_TWO = b'{"data": [{"b64_json": "QUJD"}, {"url": "https://example.com/a.png"}'


@pytest.mark.parametrize("rest", [b"", b"]", b'], "usage": {"total_tokens": 12', b'], "usage": {"total'])
@pytest.mark.parametrize("length", [999, None], ids=["broken off", "its own length"])
async def test_a_body_that_is_cut_after_all_images_counts(rest: bytes, length: int | None) -> None:
    async with serving(reply(200, _TWO + rest, length=length)) as server, door(server.url) as api:
        response = await make(api, CALL, lambda: None)
    assert response.images == (InlineImage("QUJD", None), LinkedImage("https://example.com/a.png", None))


@pytest.mark.parametrize(
    "body",
    [
        _TWO[:-2],  # within the URL of the second
        PICTURE[:-1],  # one image of two
        b'{"type": "partial_image", "data": [{"b64_json": "QUJD"}, {"b64_json": "QUJE"}',
        _FINAL + _FINAL[:-5],
    ],
)
async def test_a_body_that_is_cut_before_all_images_is_of_unknown_outcome(body: bytes) -> None:
    """The call is repeated with its key, and a server that honours it charges nothing again."""
    async with serving(reply(200, body, length=999)) as server, door(server.url) as api:
        error, _ = await refused(api)
    assert type(error) is OutcomeUnknown


@pytest.mark.parametrize(
    "part", [b'{"data": []', b'{"completed": 1, "total": 4}\n', b'{"type": "partial_image", "b64_json": "QUJD"}\n']
)
async def test_a_body_that_is_not_whole_is_waited_for_however_long_it_is_silent(
    part: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.client.network.QUIET_SECONDS", 0.01)
    answer = reply(200, part, length=99)
    async with serving(answer, stay=True) as server, door(server.url, timeout=0.3) as api:
        error, _ = await refused(api)
    assert (type(error), error.http_status) == (OutcomeUnknown, None)
    assert "no complete response within 0." in error.message


@pytest.mark.parametrize("encoding", ["br", "zstd"])
async def test_a_body_that_nothing_here_can_decompress_is_certain_and_named(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HAS_BROTLI", "HAS_ZSTD"):  # optional packages
        monkeypatch.setattr(f"aiohttp.http_parser.{name}", False)
    async with serving(reply(200, b"\x0b\x02", f"Content-Encoding: {encoding}")) as server, door(server.url) as api:
        error, _ = await refused(api)
    assert (type(error), error.deterministic) == (OutcomeUnknown, True)
    assert "compressed in a way that was not asked for" in error.message


async def test_a_call_that_gets_no_answer_in_time_is_of_unknown_outcome() -> None:
    async with serving(b"", hold=True) as server, door(server.url, timeout=0.3) as api:
        error, told = await refused(api)
        server.hold.set()
    assert (type(error), told) == (OutcomeUnknown, 1)
    assert "no complete response within 0." in error.message


async def test_a_reused_connection_that_the_server_has_closed_never_sends_a_call_twice() -> None:
    """aiohttp repeats no POST by itself; measured here with 3.14."""
    async with serving(reply(200, PICTURE), stay=True) as server, door(server.url) as api:
        await make(api, CALL, lambda: None)
        server.stay, server.answer = False, b""  # reads the next call, and hangs up
        error, told = await refused(api)
    assert server.connections == 1, "the connection was not reused, and this test shows nothing"
    assert (type(error), told, len(server.calls)) == (OutcomeUnknown, 1, 2)


async def test_an_error_whose_body_breaks_off_keeps_the_fate_of_its_status() -> None:
    async with serving(reply(503, b'{"error": ', "Retry-After: 7", length=999)) as server, door(server.url) as api:
        error, told = await refused(api)
    assert (type(error), error.retry_after, told) == (ServerFault, 7.0, 1)


async def test_an_error_s_body_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.client.network.REFUSAL_SECONDS", 0.1)
    spent = b'{"error": {"code": "insufficient_quota", "message": "Spent."'
    async with serving(reply(429, spent, length=999), stay=True) as server, door(server.url) as api:
        for _ in range(2):
            error, told = await refused(api)
            assert (type(error), told) == (QuotaSpent, 1)
    assert server.connections == 2, "the connection of a body that is cut is not used again"


async def test_an_error_s_body_of_any_size_keeps_its_fate() -> None:
    async with serving(reply(400, b"x" * 3_000_000)) as server, door(server.url) as api:
        error, _ = await refused(api)
    assert type(error) is Invalid


async def test_an_answer_that_is_too_large_is_unusable() -> None:
    body = b'{"data": [{"b64_json": "' + b"A" * 3_000_000 + b'"}]}'
    async with serving(reply(200, body)) as server, door(server.url) as api:
        error, _ = await refused(api)
    assert (type(error), error.deterministic) == (Unusable, True)
    assert "`download.max_bytes`" in error.message


async def test_a_large_answer_is_read() -> None:
    body = b'{"data": [{"b64_json": "' + b"A" * 400_000 + b'"}]}'
    async with serving(reply(200, body)) as server, door(server.url) as api:
        answer = await make(api, CALL, lambda: None)
    assert answer.images == (InlineImage("A" * 400_000, None),)


async def test_redirects_are_not_followed() -> None:
    async with serving(reply(200, PICTURE)) as other, serving(b"") as server, door(server.url) as api:
        server.answer = reply(307, b"", f"Location: {other.url}/images/generations?x=1")
        error, _ = await refused(api)
    assert type(error) is WrongAddress
    assert other.calls == []


async def test_the_key_is_scrubbed_from_all_that_a_server_says() -> None:
    said = {"message": f"bad {KEY}", "type": f"t {KEY}", "code": f"c {KEY}", "param": f"p {KEY}"}
    body = json.dumps({"error": said}).encode()
    async with serving(reply(401, body, f"x-request-id: r-{KEY}")) as server, door(server.url) as api:
        error, _ = await refused(api)
    assert type(error) is KeyRefused
    assert error.message.startswith("bad ***")


@pytest.mark.parametrize(
    ("sent", "advice"),
    [
        ({"key": None}, "no key was sent"),
        ({}, "check the key and what its organization may use"),
        ({"key": None, "headers": {"X-Key": KEY}}, "check the key and what its organization may use"),
    ],
)
async def test_a_refusal_of_a_call_without_a_key_says_that_none_was_sent(sent: dict[str, Any], advice: str) -> None:
    async with serving(reply(401)) as server, door(server.url, **sent) as api:
        error, _ = await refused(api)
    assert error.message == f"no reason given ({advice})"


async def test_a_netrc_entry_neither_stops_a_call_nor_changes_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with serving(reply(200, PICTURE)) as server, door(server.url) as api, door(server.url, key=None) as keyless:
        await make(api, CALL, lambda: None)
        await make(keyless, CALL, lambda: None)
    assert f"Authorization: Bearer {KEY}".encode() in server.calls[0]
    assert b"uthorization" not in server.calls[1]


async def test_the_proxy_of_the_environment_is_used_but_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(reply(200, PICTURE)) as proxy, serving(reply(200, PICTURE)) as server:
        monkeypatch.setenv("http_proxy", f"http://me:word@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        async with door("http://api.invalid/v1") as api:
            await make(api, CALL, lambda: None)
        async with door(server.url) as api:
            await make(api, CALL, lambda: None)
    assert proxy.calls[0].startswith(b"POST http://api.invalid/v1/images/generations ")
    assert len(proxy.calls) == len(server.calls) == 1


@contextlib.asynccontextmanager
async def proxying(status: int) -> AsyncIterator[int]:
    """Serve a proxy that refuses every CONNECT with this status; yield its port."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(status, b"<html>Access Denied"))
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


@pytest.mark.parametrize("status", [407, 403, 502, 503])
async def test_a_proxy_that_refuses_sends_nothing_and_keeps_its_password(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxying(status) as port, door("https://api.invalid/v1") as api:
        monkeypatch.setenv("https_proxy", f"http://me:pass-word@127.0.0.1:{port}")
        error, told = await refused(api)
    assert (type(error), told) == (NotSent, 0)
    assert f"through the proxy 127.0.0.1:{port}: the proxy answered {status}" in error.message
    assert "pass-word" not in error.message
    assert ("wants a user and a password" in error.message) == (status == 407)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_there_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv(f"{scheme}_proxy", f"http://me:pass-word@127.0.0.1:{port}")
    async with door(f"{scheme}://api.invalid/v1") as api:
        error, told = await refused(api)
    assert (type(error), told) == (NotSent, 0)
    assert f"the proxy 127.0.0.1:{port} cannot be reached" in error.message
    assert "pass-word" not in error.message


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"https_proxy": "socks5://me:pass-word@127.0.0.1:1"}, "https_proxy"),
        ({"HTTPS_PROXY": "socks5h://me:pass-word@127.0.0.1:1"}, "HTTPS_PROXY"),
        ({"ALL_PROXY": "socks5://me:pass-word@127.0.0.1:1"}, "ALL_PROXY"),
        ({"all_proxy": "socks4://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"}, "all_proxy"),
        ({"https_proxy": "http://me:pass-word@127.0.0.1:99999"}, "https_proxy"),
        ({"https_proxy": "http://"}, "https_proxy"),
    ],
)
async def test_a_proxy_that_cannot_be_used_is_refused_aloud(
    variables: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    async with door("https://api.invalid/v1") as api:
        error, told = await refused(api)
    assert (type(error), told, error.deterministic) == (NotSent, 0, True)
    assert f"{named} of the environment" in error.message
    assert "pass-word" not in error.message
    assert "socks" not in variables[named] or f"unset {named}" in error.message


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy"])
async def test_all_proxy_is_used_for_what_has_no_proxy_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(reply(200, PICTURE)) as proxy, serving(reply(200, PICTURE)) as own:
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with door("http://api.invalid/v1") as api:
            await make(api, CALL, lambda: None)
        monkeypatch.setenv("http_proxy", f"127.0.0.1:{own.port}")
        async with door("http://api.invalid/v1") as api:
            await make(api, CALL, lambda: None)
    assert (len(proxy.calls), len(own.calls)) == (1, 1)


DENIED = b"<html><title>Access Denied</title>Your request was blocked by the content filter. Payment required."


@pytest.mark.parametrize(
    ("status", "body", "error_class", "advised"),
    [
        *((status, DENIED, WrongAddress, True) for status in (400 + 1, 402, 403, 407)),
        (407, b'{"error": {"code": "invalid_api_key"}}', WrongAddress, True),
        (403, b'{"message": "denied by policy 7"}', WrongAddress, True),
        (401, b'{"error": {"code": "invalid_api_key", "message": "no"}}', KeyRefused, False),
        (429, b'{"error": {"code": "insufficient_quota", "message": "no"}}', QuotaSpent, False),
        (503, DENIED, ServerFault, False),
        (502, DENIED, OutcomeUnknown, False),
        (404, DENIED, WrongPath, False),
    ],
)
async def test_the_error_of_a_proxy_is_told_as_the_proxy_s_and_never_blames_key_or_account(
    status: int, body: bytes, error_class: type[RequestError], advised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(reply(status, body)) as proxy, door("http://api.invalid/v1") as api:
        monkeypatch.setenv("http_proxy", f"http://me:pass-word@127.0.0.1:{proxy.port}")
        error, _ = await refused(api)
    assert type(error) is error_class
    assert error.message.startswith(f"through the proxy 127.0.0.1:{proxy.port}: ")
    assert error.message.endswith("(check HTTP_PROXY and NO_PROXY)") == advised
    assert "pass-word" not in error.message


async def test_a_direct_call_and_a_tunnel_do_not_blame_a_proxy() -> None:
    async with serving(reply(403, DENIED)) as server, door(server.url) as api:
        error, _ = await refused(api)
    assert "proxy" not in error.message


DIRECT = [
    *("*", "10.0.0.0/8", "10.10.10.0/24", "10.10.10.7", "10.10.10.7:8080", " 10.0.0.0/8 ", "a.example,10.0.0.0/8"),
    *("a.example 10.0.0.0/8", "10.*", "10.10.10.*:8080"),
]


@pytest.mark.parametrize("entry", DIRECT)
@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_no_proxy_names_addresses(name: str, entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv(name, entry)
    assert proxy_for(URL("http://10.10.10.7:8080/v1")) is None
    if entry != "*":
        assert proxy_for(URL("http://11.10.10.7:8080/v1")) is not None


@pytest.mark.parametrize(
    ("entry", "url", "direct"),
    [
        *(
            (entry, "http://box.lan/v1", True)
            for entry in ("*.lan", ".lan", "lan", "LAN", "box.lan", "box.lan:80", "b*")
        ),
        *((entry, "http://BOX.lan.:81/v1", True) for entry in ("*.lan", ".lan", "box.lan.", "box.lan:81")),
        *((entry, "http://box.plan/v1", False) for entry in ("*.lan", ".lan", "lan", "10.0.0.0/8", "", ",", ":80")),
        *((entry, "http://box.lan/v1", False) for entry in ("box.lan:81", "ox.lan", "box", "fd00::/8")),
        *((entry, "http://lan/v1", direct) for entry, direct in (("lan", True), (".lan", True), ("*.lan", False))),
        *((entry, "http://[fd00::7]:80/v1", True) for entry in ("fd00::/8", "[fd00::7]", "fd00::7", "[fd00::7]:80")),
        *((entry, "http://[fd00::7]:80/v1", False) for entry in ("[fd00::7]:81", "fe00::/8", "10.0.0.0/8", "fd00::8")),
        ("10.0.0.0/99,10.0.0.7/8", "http://10.1.1.1/v1", True),
    ],
)
def test_no_proxy_names_hosts_networks_and_ports(
    entry: str, url: str, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", entry)
    assert (proxy_for(URL(url)) is None) == direct


async def test_a_connection_waits_for_a_file_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, tries = TCPConnector.connect, 0

    async def exhausted(connector: TCPConnector, *args: Any, **options: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ClientConnectorError(args[0].connection_key, OSError(errno.EMFILE, "Too many open files"))
        return await connect(connector, *args, **options)

    monkeypatch.setattr(TCPConnector, "connect", exhausted)
    async with serving(reply(200, PICTURE)) as server, door(server.url) as api:
        response = await make(api, CALL, lambda: None)
    assert (len(response.images), tries) == (1, 3)


async def test_a_response_with_long_headers_is_read() -> None:
    headers = [f"X-Long: {'a' * 90_000}", *(f"X-{number}: 1" for number in range(400))]
    async with serving(reply(200, PICTURE, *headers)) as server, door(server.url) as api:
        answer = await make(api, CALL, lambda: None)
    assert answer.images == (InlineImage("QUJD", None),)


@pytest.mark.parametrize(
    "headers", [[f"X-Long: {'raw' * 40_000}"], [f"X-Raw-{number}: raw" for number in range(600)]], ids=["long", "many"]
)
async def test_headers_beyond_all_measure_are_told_in_one_sentence_and_as_certain(headers: list[str]) -> None:
    async with serving(reply(200, PICTURE, *headers)) as server, door(server.url) as api:
        error, told = await refused(api)
    assert (type(error), error.deterministic, told, len(server.calls)) == (OutcomeUnknown, True, 1, 1)
    assert error.message == (
        "the response to a call that was sent cannot be read: "
        "it has a header of more than 100 KB, or more than 512 headers"
    )


@pytest.mark.parametrize("answer", [b"raw raw\r\n\r\n", b"HTTP/1.1 200 OK\r\nraw: raw\r\n", b"HTTP/1.1 200 raw\r\nx"])
async def test_what_is_not_http_is_told_without_its_words(answer: bytes) -> None:
    async with serving(answer) as server, door(server.url) as api:
        error, _ = await refused(api)
    assert (type(error), error.deterministic) == (OutcomeUnknown, False)
    assert "raw" not in error.message.lower()


async def test_the_key_is_scrubbed_from_a_success() -> None:
    echo = {"data": [{"b64_json": "QUJD", "revised_prompt": KEY}], "usage": {KEY: KEY}, "size": f"of {KEY}"}
    headers = [f"x-request-id: r-{KEY}", f"Date: {KEY}"]
    async with serving(reply(200, json.dumps(echo).encode(), *headers)) as server, door(server.url) as api:
        answer = await make(api, CALL, lambda: None)
    assert KEY not in repr(answer)
    assert answer.request_id == "r-***key***"


async def test_what_a_response_unpacks_to_counts() -> None:
    body = gzip.compress(b" " * (MAX_BYTES + 1) + PICTURE)
    async with serving(reply(200, body, "Content-Encoding: gzip")) as server, door(server.url) as api:
        error, _ = await refused(api)
    assert len(body) < MAX_BYTES / 100
    assert (type(error), error.deterministic) == (Unusable, True)
