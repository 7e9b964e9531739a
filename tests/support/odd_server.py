"""An Images API that answers some calls oddly, each in one of the ways that other people's servers were seen to.

The odd answers are a seeded draw: one at a random place in each run of `every` calls, and each mode once before any
comes again. `books` has an entry per call, as the sandbox's books have.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import io
import json
import random
import struct
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from aiohttp import web
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Entry = dict[str, Any]
    Answer = Callable[["Call"], web.StreamResponse | Awaitable[web.StreamResponse]]

LATENCY = 0.02  # seconds
LATE = 2.0  # seconds after which the URL of `late` works


def _encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (24, 16), "#b04a3a").save(stream, kind)
    return stream.getvalue()


PNG, JPEG = _encoded("png"), _encoded("jpeg")


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _with_wrong_checksum(png: bytes) -> bytes:
    body = b"parameters\0steps: 20"
    chunk = struct.pack(">I", len(body)) + b"tEXt" + body + bytes(4)
    return png[:33] + chunk + png[33:]  # after the header


@dataclass
class Call:
    """One call: its HTTP request, its number from 1, and where pictures are."""

    http: web.Request
    number: int
    base_url: str
    headers: dict[str, str]

    @property
    def url(self) -> str:
        """A picture's URL."""
        return f"{self.base_url}/picture/{self.number}.png"


@dataclass(frozen=True)
class Odd:
    """One odd way to answer. `charged` images are made; the request cannot be made if not `makeable`."""

    answer: Answer
    charged: int = 1
    makeable: bool = True


def _json(call: Call, body: Any, status: int = 200, **headers: str) -> web.Response:
    return web.json_response(body, status=status, headers={**call.headers, **headers})


def _data(*items: Any, **more: Any) -> Odd:
    """200 with this list under `data`; `URL` stands for a picture's URL."""
    return _body({"created": 1_790_000_000, "data": list(items), **more}, charged=len(items))


URL = "<url>"


def _body(body: Any, *, charged: int = 1) -> Odd:
    return Odd(lambda call: _json(call, json.loads(json.dumps(body).replace(URL, call.url))), charged)


def _refused(status: int, body: Any = "", *, makeable: bool = True, charged: int = 0, **headers: str) -> Odd:
    """An error response: JSON, or text as it is."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if isinstance(body, str):
        return Odd(
            lambda call: web.Response(status=status, text=body, headers={**call.headers, **named}), charged, makeable
        )
    return Odd(lambda call: _json(call, body, status, **named), charged, makeable)


def _raw(content: bytes | Callable[[Call], bytes], kind: str, *, charged: int = 1, **headers: str) -> Odd:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Odd(
        lambda call: web.Response(
            body=content(call) if callable(content) else content,
            content_type=kind,
            headers={**call.headers, **named},
        ),
        charged,
    )


def _packed(pack: Callable[[bytes], bytes], name: str) -> Odd:
    body = json.dumps({"created": 1, "data": [{"b64_json": _text(PNG)}]}).encode()
    return _raw(pack(body), "application/json", content_encoding=name)


def _bare_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


def _events(*events: tuple[str, Any], label: str = "text/event-stream", end: str = "") -> Odd:
    def content(call: Call) -> bytes:
        lines = [f"event: {name}\ndata: {json.dumps(body)}\n\n".replace(URL, call.url) for name, body in events]
        return ("".join(lines) + end).encode()

    return _raw(content, label)


def _cut(call: Call) -> web.StreamResponse:
    """Cut the connection after the image was made."""
    assert call.http.transport is not None
    call.http.transport.close()
    return web.Response()


async def _half(call: Call) -> web.StreamResponse:
    """Send half of a response, then cut the connection."""
    response = web.StreamResponse(headers={**call.headers, "Content-Length": "4000"})
    await response.prepare(call.http)
    await response.write(b'{"created": 1, "data": [{"b64_json": "')
    assert call.http.transport is not None
    call.http.transport.close()
    return response


async def _slow(call: Call) -> web.StreamResponse:
    await asyncio.sleep(1.0)
    return _json(call, {"created": 1, "data": [{"b64_json": _text(PNG)}]})


def _late(call: Call) -> web.StreamResponse:
    return _json(call, {"created": 1, "data": [{"url": f"{call.base_url}/late/{time.monotonic()}"}]})


_B64 = {"b64_json": _text(PNG)}
_DONE = {"type": "image_generation.completed", **_B64}
_PAGE = "<!doctype html><html><head><title>Console</title></head><body></body></html>"

ODD: dict[str, Odd] = {
    # refusals of a call that is well
    "400 of an image": _refused(400, {"error": {"message": "Invalid image file", "code": "invalid_image_file"}}),
    "400": _refused(400, {"error": {"message": "Bad Request", "type": None, "code": None}}),
    "401": _refused(401, {"message": "Invalid API key"}),
    "402": _refused(402, {"error": {"message": "upstream account rotated", "type": "upstream_error"}}),
    "403": _refused(403, {"error": {"message": "Forbidden", "code": 403}}),
    "403 of a firewall": _refused(403, "<html><title>Request blocked</title></html>"),
    "403 of a model": _refused(403, {"error": {"message": "Your organization must be verified to use `dall-e-2`."}}),
    "404 bare": _refused(404),
    "404 of a proxy": _refused(404, "404 page not found\n"),
    "404 of a router": _refused(404, {"error": {"message": "No endpoints found that support images", "code": 404}}),
    "404 of a model": _refused(404, {"error": {"code": "model_not_found", "message": "no model `dall-e-2`"}}),
    "405": _refused(405),
    "302": _refused(302, Location="https://status.example.org/maintenance"),
    "422": _refused(422, {"detail": [{"loc": ["body"], "msg": "field required"}]}),
    "413": _refused(413, "<html>413 Request Entity Too Large</html>"),
    # money words
    "arrears": _refused(400, {"code": "Arrearage", "message": "Access denied, your account is not in good standing."}),
    "403 of money": _refused(403, {"code": 30001, "message": "Sorry, your account balance is insufficient"}),
    "400 of money": _refused(400, {"code": 400, "message": "Insufficient credits. Please top up."}),
    "429 of money": _refused(429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}),
    # moderation
    "403 moderated": _refused(
        403,
        {
            "error": {
                "code": 403,
                "message": 'The input was flagged for "violence". No credits were charged.',
                "metadata": {"reasons": ["violence"], "flagged_input": "kite"},
            }
        },
        makeable=False,
    ),
    "403 content_moderation": _refused(
        403, {"id": "a1", "name": "content_moderation", "errors": ["flagged by our moderation system"]}, makeable=False
    ),
    "451": _refused(451, {"error": {"code": "moderation_blocked", "message": "blocked"}}, makeable=False),
    # faults of the server, and limits
    "408": _refused(408, "timeout"),
    "409": _refused(409, {"error": {"message": "conflict"}}),
    "429 of the past": _refused(429, {"error": {"message": "slow"}}, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
    "429": _refused(429, {"error": {"message": "rate limit"}}, Retry_After="0.3"),
    "500": _refused(500, {"error": {"message": "The server had an error", "type": "server_error"}}),
    "502": _refused(502, "<html>502 Bad Gateway</html>", charged=1),
    "503": _refused(503, "<html>503</html>", Retry_After="1"),
    "504": _refused(504, "<html>504</html>", charged=1),
    "520": _refused(520, "error code: 520", charged=1),
    "524": _refused(524, "<html>524: A timeout occurred</html>", charged=1),
    "cut": Odd(_cut),
    "half": Odd(_half),
    "slow": Odd(_slow),
    # successes without an image, or in other forms
    "empty body": _raw(b"", "application/json"),
    "no data": _data(),
    "no keys": _body({"code": 0, "msg": "ok", "data": None}),
    "html": _raw(_PAGE.encode(), "text/html", charged=0),
    "images": _body({"images": [{"url": URL}], "timings": {"inference": 1.2}, "seed": 5}),
    "images as text": _body({"images": [_text(PNG)], "request": {"seed": 1}}),
    "data as object": _body({"created": 1, "data": {"url": URL}}),
    "data as text": _body({"created": 1, "data": [URL]}),
    "image_base64": _body({"id": "1", "data": {"image_base64": [_text(PNG)]}, "base_resp": {"status_code": 0}}),
    "artifacts": _body({"artifacts": [{"base64": _text(PNG), "seed": 1, "finishReason": "SUCCESS"}]}),
    "output": _body({"output": {"results": [{"url": URL}], "task_status": "SUCCEEDED"}}),
    "result": _body({"result": {"image": _text(PNG)}, "success": True, "errors": []}),
    "raw": _raw(PNG, "image/png"),
    "chat": _body(
        {"choices": [{"message": {"images": [{"image_url": {"url": "data:image/png;base64," + _text(PNG)}}]}}]}
    ),
    "image_url": _data({"image_url": URL}),
    "b64": _data({"b64": _text(PNG)}),
    "events": _events(("image_generation.completed", _DONE)),
    "events as json": _events(("image_generation.completed", _DONE), label="application/json"),
    "events of a whole": _events(("result", {"data": [{"url": URL}]}), end="data: [DONE]\n\n"),
    "wrapped": _data(
        {"b64_json": "data:image/png;base64," + "\n".join(_text(PNG)[i:][:76] for i in range(0, 400, 76))}
    ),
    "urlsafe": _data({"b64_json": base64.urlsafe_b64encode(PNG).decode()}),
    "spaces": _data({"url": f"  {URL} \n"}),
    "more": _data(_B64, _B64, _B64, _B64),
    "gzip": _packed(gzip.compress, "gzip"),
    "deflate": _packed(zlib.compress, "deflate"),
    "bare deflate": _packed(_bare_deflate, "deflate"),
    # odd figures
    "usage of floats": _data(_B64, usage={"input_tokens": 12.0, "output_tokens": 1056.0, "total_tokens": 1068.0}),
    "usage in other words": _data(_B64, usage={"prompt_tokens": 12, "completion_tokens": 1056}),
    "usage of zero": _data(_B64, usage={"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "cost": 0.25}),
    "usage of one": _data(_B64, usage={"input_tokens": 12, "output_tokens": 1, "total_tokens": 13}),
    # bytes and URLs
    "wrong checksum": _data({"b64_json": _text(_with_wrong_checksum(PNG))}),
    "no end": _data({"b64_json": _text(JPEG[:-2])}),
    "half an image": _data({"b64_json": _text(PNG[:-30])}),
    "jxl": _data({"b64_json": _text(b"\xff\x0a" + bytes(200))}),
    "heic": _data({"b64_json": _text(b"\0\0\0\x18ftypheic" + bytes(200))}),
    "url": _data({"url": URL}),
    "late url": Odd(_late),
    "url of nobody": _data({"url": "http://127.0.0.1:9/picture/1.png"}),
    "url of another network": Odd(
        lambda call: _json(call, {"created": 1, "data": [{"url": "http://192.168.7.7/picture/1.png"}]}), makeable=False
    ),
}
"""Every mode that a single answer may have. Left out are those that concern more than their call: a 429 that asks for
hours, and a lower limit. Signed URLs and TLS are the sandbox's.
"""


@dataclass
class OddServer:
    """A server that is running."""

    seed: int
    every: int
    life: float  # seconds that its URLs live by the client's assumption
    modes: dict[str, Odd] = field(default_factory=lambda: ODD)
    base_url: str = ""
    books: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin the draw."""
        self._draw = random.Random(self.seed)
        self._deck: list[str] = []
        self._odd_at = self._draw.randrange(1, self.every + 1)

    @property
    def odd(self) -> list[Entry]:
        """The calls that were answered oddly."""
        return [entry for entry in self.books if entry["fault"]]

    def drawn(self) -> Counter[str]:
        """How often each mode was drawn."""
        return Counter(entry["fault"] for entry in self.odd)

    def _mode(self, number: int) -> str | None:
        """Return how the call of this number is answered, None if well. Called once for each in order."""
        block, place = divmod(number - 1, self.every)
        if not place:
            self._odd_at = block * self.every + 1 + self._draw.randrange(self.every)
        if number != self._odd_at or not block:  # the first calls show that the provider works
            return None
        if not self._deck:
            self._deck = sorted(self.modes)
            self._draw.shuffle(self._deck)
        return self._deck.pop()

    async def call(self, http: web.Request) -> web.StreamResponse:
        """Answer a call."""
        body = await http.json()
        number = len(self.books) + 1
        mode = self._mode(number)
        name = f"req-{number}"
        entry = {
            "type": "call",
            "at": time.time(),
            "mono": time.monotonic(),
            "life": self.life,
            "path": http.path,
            "request_id": name,
            "prompt": body["prompt"],
            "n": body.get("n", 1),
            "fault": mode,
            "status": None,
            "charged": 1 if mode is None else self.modes[mode].charged,
        }
        self.books.append(entry)
        await asyncio.sleep(LATENCY)
        call = Call(http, number, self.base_url.removesuffix("/v1"), {"x-request-id": name})
        if mode is None:
            return _json(call, {"created": 1, "data": [_B64]})
        answer = self.modes[mode].answer(call)
        return answer if isinstance(answer, web.StreamResponse) else await answer

    async def late(self, http: web.Request) -> web.StreamResponse:
        """Answer 404 until an image is where its URL says."""
        is_there = time.monotonic() - float(http.match_info["born"]) >= LATE
        return web.Response(body=PNG, content_type="image/png") if is_there else web.Response(status=404)


async def _picture(_http: web.Request) -> web.StreamResponse:
    return web.Response(body=PNG, content_type="image/png")


@contextlib.contextmanager
def odd_server(seed: int, every: int, **more: Any) -> Iterator[OddServer]:
    """Serve in a thread of this process."""
    server = OddServer(seed, every, **more)
    started: SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = SimpleQueue()

    async def work() -> None:
        stop = asyncio.Event()
        app = web.Application()
        app.router.add_post("/v1/images/generations", server.call)
        app.router.add_get("/picture/{name}", _picture)
        app.router.add_get("/late/{born}", server.late)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        server.base_url = f"http://127.0.0.1:{port}/v1"
        started.put((asyncio.get_running_loop(), stop))
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(work(),), daemon=True)
    thread.start()
    loop, stop = started.get(timeout=20)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
