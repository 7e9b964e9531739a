"""A signed URL over real sockets: byte for byte, from hosts that a provider may name, and whole."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import re
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from yarl import URL

from pipeline.client.download import Downloader, DownloadFailed, HostRefused, UrlExpired
from pipeline.client.image_url import expiry
from pipeline.client.secrets import NO_SECRETS, Secrets
from tests.support.tls import server_context, trust

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONTENT = bytes(range(256)) * 40
LATER = time.time() + 3600


def reply(status: int, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


@dataclass
class Host:
    """Gives its answers in turn, the last one for ever."""

    answers: list[bytes]
    heads: list[bytes] = field(default_factory=list)
    port: int = 0
    hangs_up: bool = False  # on who does not speak http
    hung_up: int = 0
    answers_first: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            first = await reader.readexactly(1)
            if self.hangs_up and first != b"G":
                self.hung_up += 1
                writer.write(reply(400) if self.answers_first else b"")
                writer.close()
                return
            self.heads.append(first + await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def url(self, path: str = "/a.png") -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@contextlib.asynccontextmanager
async def hosting(*answers: bytes, tls: bool = False, hangs_up: bool = False) -> AsyncIterator[Host]:
    host = Host(list(answers), hangs_up=hangs_up)
    listening = await asyncio.start_server(host.serve, "127.0.0.1", 0, ssl=server_context() if tls else None)
    host.port = listening.sockets[0].getsockname()[1]
    try:
        yield host
    finally:
        listening.close()


def downloader(**more: Any) -> Downloader:
    given: dict[str, Any] = {"base_url": "http://127.0.0.1:1/v1", "allow_hosts": (), "max_bytes": 50_000}
    return Downloader(**{**given, "connections": 4, "secrets": NO_SECRETS, **more})


async def failure(url: str, expires_at: float = LATER, **more: Any) -> DownloadFailed:
    async with downloader(**more) as session:
        with pytest.raises(DownloadFailed) as caught:
            await session.fetch(url, expires_at)
    assert "sig=" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/a%2fb%3A/c;d=1?sig=a%2Bb%3D%2f&se=2026-11-22T10%3A00%3A00Z&x=1+2&sig=~", None),
        ("//a/./../b?c=%zz&d='e'(f)*[g]|{h}", None),
        ("/a?b=http://c/d?e#fragment", "/a?b=http://c/d?e"),
        ("/caf\u00e9 x\r\nX-Evil: 1\x00", "/caf%C3%A9%20x%0D%0AX-Evil:%201%00"),
    ],
)
async def test_a_signed_url_leaves_byte_for_byte(path: str, line: str | None) -> None:
    async with hosting(reply(200, CONTENT)) as host, downloader() as session:
        assert await session.fetch(host.url(path), LATER) == CONTENT
    assert host.heads[0].split(b"\r\n")[0] == f"GET {line or path} HTTP/1.1".encode()


async def test_no_key_no_cookie_and_no_password_of_netrc_leaves(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with hosting(reply(200, CONTENT, "Set-Cookie: a=b; Path=/")) as host, downloader() as session:
        for _ in range(2):
            await session.fetch(host.url(), LATER)
    for head in host.heads:
        assert not re.search(rb"(?i)authorization|cookie", head)


XML = (
    "<?xml?><Error><Code>AuthenticationFailed</Code><AuthenticationErrorDetail>Signed expiry time "
    "[Mon, 23 Nov 2026 10:00:00 GMT]: Start [Mon, 23 Nov 2026 08:00:00 GMT] - Expiry [Mon, 23 Nov 2026 10:00:00 GMT]"
    " - Current [Mon, 23 Nov 2026 {}:00:01 GMT]</AuthenticationErrorDetail></Error>"
)


@pytest.mark.parametrize(
    ("status", "body", "kind", "definite"),
    [
        (403, XML.format("10"), UrlExpired, True),
        (403, XML.format("09"), DownloadFailed, True),
        (403, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", UrlExpired, True),
        (403, "", DownloadFailed, True),
        (404, "<Code>BlobNotFound</Code>", DownloadFailed, True),
        (409, "", DownloadFailed, True),
        (401, "", DownloadFailed, True),
        (410, "", DownloadFailed, True),
        (204, "", DownloadFailed, True),
        (206, "", DownloadFailed, True),
        (304, "", DownloadFailed, True),
        (408, "", DownloadFailed, False),
        (429, "", DownloadFailed, False),
        (500, "", DownloadFailed, False),
        (503, "", DownloadFailed, False),
    ],
)
async def test_a_dead_url_a_refusal_and_a_hiccup_are_told_apart(
    status: int, body: str, kind: type[DownloadFailed], definite: bool
) -> None:
    async with hosting(reply(status, body.encode())) as host:
        error = await failure(host.url("/a?sig=secret"))
    assert (type(error), error.definite, error.http_status) == (kind, definite, status)
    assert (error.deterministic, error.option) == (False, None), "a live URL may still bring its image"


async def test_a_refusal_after_the_url_s_own_end_means_that_it_is_dead() -> None:
    async with hosting(reply(403)) as host:
        assert type(await failure(host.url(), time.time() - 1)) is UrlExpired
    async with hosting(reply(503)) as host:
        assert type(await failure(host.url(), time.time() - 1)) is DownloadFailed


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        reply(200, CONTENT, length=len(CONTENT) + 1),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 50\r\n\r\n" + b"x" * 50,
        b"nonsense\r\n\r\n",
    ],
)
async def test_a_picture_that_is_cut_is_a_hiccup_and_no_success(answer: bytes) -> None:
    async with hosting(answer) as host:
        error = await failure(host.url("/a?sig=secret"))
    assert (type(error), error.definite) == (DownloadFailed, False)


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp"])
@pytest.mark.parametrize("head", [b"Content-Length: 9999", b"Transfer-Encoding: chunked"])
async def test_a_whole_picture_counts_whose_framing_promises_more(kind: str, head: bytes) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, kind)
    picture = stream.getvalue()
    chunk = b"%x\r\n%s\r\n" % (len(picture), picture)
    answer = b"HTTP/1.1 200 OK\r\n%s\r\n\r\n" % head + (chunk if b"chunked" in head else picture)
    async with hosting(answer) as host, downloader() as session:
        assert await session.fetch(host.url("/a"), LATER) == picture


async def test_a_picture_that_a_proxy_has_passed_on_with_a_remark_is_taken() -> None:
    async with hosting(reply(203, CONTENT)) as host, downloader() as session:
        assert await session.fetch(host.url("/a"), LATER) == CONTENT


async def test_a_picture_may_be_as_large_as_allowed_and_no_larger() -> None:
    bomb = gzip.compress(b"\0" * 60_000)
    async with hosting(reply(200, b"x" * 50_000), reply(200, b"x" * 50_001)) as host, downloader() as session:
        assert len(await session.fetch(host.url(), LATER)) == 50_000
        with pytest.raises(DownloadFailed, match="larger than"):
            await session.fetch(host.url(), LATER)
    chunks = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nc350\r\n" + b"x" * 50_000 + b"\r\n1\r\nx\r\n0\r\n\r\n"
    )
    for answer in (chunks, reply(200, bomb, "Content-Encoding: gzip"), reply(200, b"", length=10**12)):
        async with hosting(answer) as host:
            error = await failure(host.url())
        assert str(error).startswith("the image is larger than download.max_bytes (")
        assert (error.definite, error.deterministic, error.option) == (True, True, "`download.max_bytes`")


async def test_redirects_stay_on_the_host_and_are_exact_too() -> None:
    async with hosting(reply(200, CONTENT)) as other:
        location = f"Location: {other.url('/b%2Fc?sig=x%3D&t=%3A')}"
        answers = [reply(302, b"", "Location: /next%3A?s=%2B"), reply(307, b"", location)]
        async with hosting(*answers) as host, downloader() as session:
            assert await session.fetch(host.url(), LATER) == CONTENT
    assert [head.split()[1] for head in host.heads] == [b"/a.png", b"/next%3A?s=%2B"]
    assert other.heads[0].split()[1] == b"/b%2Fc?sig=x%3D&t=%3A"


def naming(host: str) -> str:
    """Return the option that allows a host."""
    return f"`picture_hosts: [{host}]` of the provider"


@pytest.mark.parametrize(
    ("location", "option"),
    [
        ("http://localhost/a", naming("localhost")),
        ("https://evil.example/a", naming("evil.example")),
        ("//10.0.0.1/a", naming("10.0.0.1")),
        ("file:///etc/passwd", None),
        ("http://[/", None),
        ("ftp://127.0.0.1/", None),
    ],
)
async def test_a_redirect_to_another_host_or_scheme_is_refused(location: str, option: str | None) -> None:
    async with hosting(reply(302, b"", f"Location: {location}")) as host:
        error = await failure(host.url())
    assert (type(error), error.deterministic, error.option) == (HostRefused, True, option)


async def test_a_circle_of_redirects_ends() -> None:
    async with hosting(reply(302, b"", "Location: /a.png")) as host:
        error = await failure(host.url())
    assert error.definite
    assert len(host.heads) == 5


PRIVATE = [
    *("127.0.0.1", "127.1", "127.0x0.0.1", "0177.0.0.1", "2130706433", "0x7f000001", "0x7f.1", "0", "0.0.0.0"),  # noqa: S104 - none is bound
    *("10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255"),
    *("[::1]", "[::]", "[fe80::1]", "[fe80::1%25eth0]", "[fd00::1]", "[fec0::1]", "[ff02::1]", "[::ffff:127.0.0.1]"),
    *("[::ffff:10.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "localhost", "a.localhost"),
    *("LOCALHOST.", "127.0.0.1."),
]


@pytest.mark.parametrize("host", PRIVATE)
@pytest.mark.parametrize("base_url", ["http://api.example/v1", "https://api.example/v1"])
async def test_an_address_of_this_machine_or_its_network_is_refused(host: str, base_url: str) -> None:
    scheme = base_url.partition(":")[0]
    error = await failure(f"{scheme}://{host}:1/a?sig=secret", base_url=base_url)
    assert type(error) is HostRefused


@pytest.mark.parametrize(
    "url", ["ftp://h/a", "file:///etc/passwd", "/a", "", "http:///a", "http://h:99999/", "http://[::"]
)
async def test_what_is_no_web_address_is_refused(url: str) -> None:
    error = await failure(url)
    assert type(error) is HostRefused
    assert url.startswith("http://") or "ask for the image itself, by `body: {response_format: b64_json}`" in str(error)


HTTPS = "https://127.0.0.1/v1"


async def test_http_beside_https_is_tried_as_https_first(monkeypatch: pytest.MonkeyPatch) -> None:
    trust(monkeypatch)
    path = "/a%2fb?sig=a%2Bb%3D"
    async with hosting(reply(200, CONTENT), tls=True) as host, downloader(base_url=HTTPS) as session:
        assert await session.fetch(host.url(path), LATER) == CONTENT
        host.answers = [reply(404), reply(302, b"", "Location: /next"), reply(200, CONTENT)]
        with pytest.raises(DownloadFailed) as caught:
            await session.fetch(host.url(path), LATER)
        assert not caught.value.deterministic, "https has worked there: time may help"
        assert await session.fetch(host.url(path), LATER) == CONTENT
    assert host.heads[0].split(b"\r\n")[0] == f"GET {path} HTTP/1.1".encode()
    assert host.heads[-1].split(b"\r\n")[0] == b"GET /next HTTP/1.1"


@pytest.mark.parametrize("port", ["closed", "http", "silent", "refuses", "redirects"])
async def test_http_that_https_does_not_serve_is_refused_with_the_option_that_allows_it(
    port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(monkeypatch)
    answer = reply(404) if port == "refuses" else reply(200, CONTENT)
    async with hosting(answer, tls=port in {"refuses", "redirects"}, hangs_up=port in {"http", "silent"}) as host:
        host.answers_first = port == "http"
        if port == "redirects":
            host.answers = [reply(301, b"", f"Location: {host.url()}")]
        if port == "closed":
            host.port = 1
        error = await failure(host.url(), base_url=HTTPS)
    assert (type(error), error.deterministic, error.option) == (HostRefused, True, naming("127.0.0.1"))
    assert "is http, the provider is https" in str(error)
    assert ("nothing speaks TLS at this port" in str(error)) == (port == "http")
    assert "None" not in str(error)


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_http_whose_https_fails_for_the_moment_is_not_final(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trust(monkeypatch)
    async with hosting(reply(status), tls=True) as host:
        error = await failure(host.url(), base_url=HTTPS)
    assert (type(error), error.deterministic, error.http_status) == (DownloadFailed, False, status)
    assert error.option == naming("127.0.0.1")


async def test_http_of_a_host_that_is_named_is_used_if_https_does_not_serve_it() -> None:
    named = downloader(base_url=HTTPS, allow_hosts=["127.0.0.1"])
    async with hosting(reply(200, CONTENT), hangs_up=True) as host, named as session:
        for _ in range(2):
            assert await session.fetch(host.url(), LATER) == CONTENT
    assert len(host.heads) == 2
    assert host.hung_up == 1, "what is known to speak http is not asked for https again"


async def test_http_of_a_host_that_is_named_is_used_if_https_has_not_this_path(monkeypatch: pytest.MonkeyPatch) -> None:
    trust(monkeypatch)
    requests: list[tuple[str, int]] = []

    async def get(_self: Downloader, url: URL, _expires_at: float, **_more: Any) -> bytes:
        requests.append((url.scheme, url.port or 0))
        if url.scheme == "https":
            raise DownloadFailed("the image host answered 404", http_status=404, definite=True)
        return CONTENT

    monkeypatch.setattr(Downloader, "_get", get)
    async with downloader(base_url=HTTPS, allow_hosts=["*.example.org"]) as session:
        assert await session.fetch("http://img.example.org/a", LATER) == CONTENT
        assert await session.fetch("http://img.example.org:80/a", LATER) == CONTENT
        assert await session.fetch("http://two.example.org:80/a", LATER) == CONTENT
        with pytest.raises(HostRefused):
            await session.fetch("http://example.org/a", LATER)
    assert requests == [
        *(("https", 443), ("http", 80), ("http", 80), ("https", 443), ("http", 80), ("https", 443)),
    ]


async def test_redirects_between_hosts_that_are_named_are_followed() -> None:
    async with hosting(reply(200, CONTENT)) as last:
        to_last = reply(302, b"", f"Location: http://localhost:{last.port}/b")
        async with hosting(to_last) as host, downloader(allow_hosts=["localhost"]) as session:
            assert await session.fetch(host.url(), LATER) == CONTENT
    async with hosting(reply(302, b"", f"Location: http://127.0.0.2:{last.port}/b")) as host:
        error = await failure(host.url(), allow_hosts=["localhost"])
    assert (type(error), error.option) == (HostRefused, naming("127.0.0.2"))


async def test_a_private_host_that_is_allowed_by_name_is_taken() -> None:
    session = downloader(base_url="http://api.example/v1", allow_hosts=["LocalHost"])
    async with hosting(reply(200, CONTENT)) as host, session:
        assert await session.fetch(f"http://localhost:{host.port}/", LATER) == CONTENT


async def test_a_name_that_resolves_to_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(_self: Any, host: str, port: int = 0, family: Any = 0) -> list[Any]:
        found = ["203.0.114.5", "10.0.0.7"] if host == "inside.example" else ["127.0.0.1"]
        one = {"hostname": host, "port": port, "family": socket.AF_INET, "proto": family * 0, "flags": 0}
        return [{**one, "host": address} for address in found]

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    for name in ("inside.example", "loop.example"):
        error = await failure(f"http://{name}:1/a?sig=secret", base_url="http://api.example/v1")
        assert (type(error), error.deterministic, error.option) == (HostRefused, True, naming(name))
        assert name in str(error)
    async with hosting(reply(200, CONTENT)) as host, downloader(base_url="http://api.example/v1") as session:
        monkeypatch.setenv("http_proxy", f"http://proxy.example:{host.port}")  # a proxy may stand in the own network
        assert await session.fetch("http://cdn.example/a", LATER) == CONTENT
    assert host.heads[0].startswith(b"GET http://cdn.example/a ")


async def test_a_host_that_cannot_be_reached_is_a_hiccup() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    error = await failure(f"http://127.0.0.1:{port}/?sig=secret")
    assert (type(error), error.definite) == (DownloadFailed, False)


SAS = "https://h.example/a.png?st=2026-11-22T08%3A00%3A00Z&se=2026-11-22T10%3A00%3A00Z&sig=x"
TEN = 1795341600.0


@pytest.mark.parametrize(
    ("url", "moment"),
    [
        (SAS, TEN),
        (f"{SAS}&ske=2026-11-22T09:00:00Z", TEN - 3600),
        (f"{SAS}&ske=2026-11-23T09:00:00Z", TEN),
        ("https://h/?se=2026-11-22", TEN - 36000),
        ("https://h/?X-Amz-Date=20261122T090000Z&X-Amz-Expires=3600", TEN),
        ("https://h/?X-Goog-Date=20261122T080000Z&X-Goog-Expires=7200", TEN),
        (f"https://h/?Expires={TEN:.0f}&Signature=x", TEN),
        ("https://h/?expires=3600", 1000 + 600),
        ("https://h/?se=soon", 1000 + 600),
        ("https://h/?X-Amz-Expires=3600", 1000 + 600),
        ("https://h/", 1000 + 600),
        ("http://[::", 1000 + 600),
    ],
)
def test_a_url_s_end_is_read_from_its_signature_else_taken_from_the_config(url: str, moment: float) -> None:
    assert expiry(url, 600, now=1000) == moment


def test_the_server_s_clock_decides_where_it_differs_from_ours() -> None:
    assert expiry(SAS, 600, skew=90.0, now=1000) == TEN - 90
    assert expiry("https://h/", 600, skew=90.0, now=1000) == 1600


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text() | st.text().map("https://h.invalid/?se={}".format) | st.text().map("http://{}".format))
def test_any_text_as_a_url_has_an_end_and_fails_as_a_download(url: str) -> None:
    assert isinstance(expiry(url, 600), float)

    async def resolve(*_: Any, **__: Any) -> list[Any]:
        raise OSError("no network here")

    async def main() -> None:
        async with downloader(base_url="https://api.invalid/v1") as session:
            with pytest.raises(DownloadFailed):
                await session.fetch(url, LATER)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
        asyncio.run(main())


KEY = "sk-test-0123456789"


async def test_a_url_with_the_key_is_restored_on_the_provider_s_own_host_alone() -> None:
    secrets = Secrets({"key": KEY})
    async with hosting(reply(200, CONTENT)) as host:
        stored = secrets.scrub_text(host.url(f"/a.png?k={KEY}"))
        async with downloader(secrets=secrets) as session:
            assert await session.fetch(stored, LATER) == CONTENT
        assert f"GET /a.png?k={KEY} ".encode() in host.heads[0]
    for where in ("https://cdn.example", "http://127.0.0.2:9"):
        refused = await failure(f"{where}/a?k=***key***", secrets=secrets)
        assert isinstance(refused, HostRefused)
        assert "contains the key" in str(refused)
        assert refused.option == f"`picture_hosts: [{URL(where).host}]` of the provider"


async def test_a_host_that_is_named_gets_the_key_in_a_url_and_no_message_repeats_it() -> None:
    secrets = Secrets({"key": KEY})
    async with hosting(reply(404), reply(302, b"", f"Location: http://[{KEY}/x")) as host:
        for _ in range(2):
            refused = await failure(
                f"http://127.0.0.1:{host.port}/***key***",
                secrets=secrets,
                base_url="http://api.example/v1",
                allow_hosts=["127.0.0.1"],
            )
            assert KEY not in str(refused)
        assert f"GET /{KEY} ".encode() in host.heads[0]


@pytest.mark.parametrize("key", ["Key0123456789", "key0123456789"])
async def test_neither_a_redirect_nor_an_answer_that_repeats_the_key_brings_it_into_a_message(key: str) -> None:
    answers = (reply(302, b"", f"Location: http://{key}.example/x"), reply(403, f"<Code>{key}</Code>".encode()))
    async with hosting(*answers) as host:
        for _ in answers:
            refused = await failure(host.url("/***key***"), secrets=Secrets({"key": key}))
            assert key.lower() not in f"{refused} {refused.option}".lower()
            assert "***key" in str(refused)


async def test_headers_beyond_all_measure_end_a_download_and_shorter_ones_do_not() -> None:
    async with hosting(reply(200, CONTENT, f"X-Long: {'a' * 90_000}")) as host, downloader() as session:
        assert await session.fetch(host.url(), LATER) == CONTENT
    async with hosting(reply(200, CONTENT, f"X-Long: {'raw' * 40_000}")) as host:
        refused = await failure(host.url())
    assert (refused.deterministic, "raw" in str(refused)) == (True, False)
    assert "a header of more than 100 KB" in str(refused)


async def test_a_proxy_is_not_asked_for_a_name_of_its_own_network(monkeypatch: pytest.MonkeyPatch) -> None:
    async with hosting(reply(200, CONTENT)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        for name in ("printer", "printer.lan", "vault.corp", "a.internal."):
            refused = await failure(f"http://{name}/a.png", base_url="http://api.example/v1")
            assert isinstance(refused, HostRefused), name
            assert refused.option == f"`picture_hosts: [{name}]` of the provider"
        assert proxy.heads == []
        async with downloader(base_url="http://api.example/v1", allow_hosts=["printer.lan"]) as session:
            assert await session.fetch("http://printer.lan/a.png", LATER) == CONTENT
            assert await session.fetch("http://cdn.example/a.png", LATER) == CONTENT
