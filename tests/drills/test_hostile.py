"""What a hostile server, or a hostile file, may send: seeded cases by the thousand, each within its time and memory.

A `Subject` is one kind of input: it draws a case from a seed, and takes it as the program does. It may accept the case,
or refuse it with one of its own errors; anything else is a fault, named by the seed that draws it again. To add a kind
(answers, headers, jobs, rows), write its two functions and put it into `SUBJECTS`.
"""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import random
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from multidict import CIMultiDict
from PIL import Image, features

from pipeline.client.response import HttpResponse, read_response
from pipeline.config.load import RetryRules
from pipeline.engine.image_writer import decode, validate
from pipeline.errors import BrokenImage, RequestError
from pipeline.images.inspect import open_image
from pipeline.images.limits import MIB
from pipeline.reports.thumbnails import shrink
from pipeline.web.image_files import THUMBNAIL_THREADS
from tests.support.workbench import answer_with, lab, request, vendor

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from tests.support.workbench import Bench

MAX_PIXELS = 4_000_000  # so that a bomb that is let through is small
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Subject:
    """One kind of hostile input, and what one case of it may take."""

    name: str
    draw: Callable[[random.Random], Any]
    take: Callable[[Any], object]
    refusals: tuple[type[Exception], ...]
    longest: int = 500  # characters of a refusal
    seconds: float = 2.0
    memory: int = 256 * MIB  # beyond what the process has; checked for a group of cases


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@cache
def _images() -> tuple[bytes, ...]:
    """Whole images of every format and of many forms of each."""
    colours = Image.effect_noise((48, 36), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    more = {"save_all": True, "append_images": [colours.rotate(90), colours.rotate(180)]}
    images = [
        _encoded(colours.convert(mode), "png", **options)
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
        for options in ({}, {"exif": exif})
    ]
    images += [_encoded(colours, "jpeg", **options) for options in ({}, {"progressive": True}, {"exif": exif})]
    images += [_encoded(colours, "jpeg", restart_marker_blocks=2), _encoded(colours.convert("CMYK"), "jpeg")]
    images += [_encoded(colours, "webp", lossless=lossless, exif=exif) for lossless in (False, True)]
    images += [_encoded(colours, kind, **more) for kind in ("png", "webp", "gif", "tiff", "mpo")]
    images += [
        _encoded(colours.convert(mode), kind) for mode in ("1", "L", "P", "RGB") for kind in ("bmp", "gif", "tiff")
    ]
    images += [
        _encoded(colours, "tiff", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
    ]
    images += [_encoded(colours.convert("1"), "tiff", compression=name) for name in ("group3", "group4", "tiff_ccitt")]
    if features.check("avif"):
        images += [_encoded(colours, "avif", speed=10, exif=exif), _encoded(colours, "avif", speed=10, **more)]
    return tuple(images)


def _change(content: bytearray, seed: random.Random) -> None:
    """Change the bytes in one of the ways in which files go wrong, or are made to."""
    at, size = seed.randrange(len(content)), 1 << seed.randrange(8)
    match seed.randrange(7):
        case 0:
            content[at] ^= 1 << seed.randrange(8)
        case 1:  # an extreme number
            order, letter = seed.choice("<>"), seed.choice("HI")
            number = seed.choice((0, 1, 0x7FFF, 0xFFFF, 0xFFFE)) * (0x10001 if letter == "I" else 1)
            content[at : at + struct.calcsize(letter)] = struct.pack(order + letter, number)
        case 2:  # a part again and again
            content[at:at] = content[at : at + size] * (1 << seed.randrange(12))
        case 3:
            del content[at : at + size]
        case 4:
            del content[max(1, at) :]
        case 5:
            other = seed.choice(_images())
            begin = seed.randrange(len(other))
            content[at:at] = other[begin : begin + 4 * size]
        case _:
            content[at : at + size] = seed.randbytes(size)


def _with_checksums(content: bytes) -> bytes:
    """Return a PNG with the checksums that its chunks should have, so that what was changed reaches the decoder."""
    made, at = bytearray(content[:8]), 8
    while at + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, at)
        body = content[at + 4 : at + 8 + size]
        made += struct.pack(">I", max(0, len(body) - 4)) + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + size
    return bytes(made)


def _draw_image(seed: random.Random) -> bytes:
    content = bytearray(seed.choice(_images()))
    for _ in range(seed.randint(1, 4)):
        if content:
            _change(content, seed)
    is_png = content.startswith(b"\x89PNG")
    return _with_checksums(bytes(content)) if is_png and seed.random() < 0.7 else bytes(content)


def _take_image(content: bytes) -> None:
    """Read it as a result, and, if that is whole, as an input and for its thumbnail."""
    validate(content, None, MAX_PIXELS)
    open_image(content)
    shrink(content)


SVG = b"""<svg xmlns="http://www.w3.org/2000/svg" xmlns:l="http://www.w3.org/1999/xlink" width="9" height="9">
<style>.a:not(.b){fill:url(#c);stroke:rgb(1,2,3)} @media (min-width:1px){g{opacity:.5}}</style>
<g class="a" style="fill:\\75rl(#c)"><use l:href="#c"/><image href="data:image/png;base64,AAAA"/></g>
<animate attributeName="opacity" values="0;1"/><text>a&#64;b<![CDATA[url(]]></text></svg>"""
PIECES = (
    *(b"url(", b"http://a", b"@import", b"\\75", b"&#x75;", b"<![CDATA[", b"]]>", b"<!--", b"-->", b"href", b"'", b'"'),
    *(
        b"<script>",
        b"onload=''",
        b"javascript:",
        b"(" * 500,
        b"<g>" * 500,
        b"\0",
        b"\xff",
        b"&a;",
        b"9" * 400,
        b" " * 500,
    ),
)


def _draw_svg(seed: random.Random) -> bytes:
    content = bytearray(SVG)
    for _ in range(seed.randint(1, 4)):
        at = seed.randrange(5, len(content))
        content[at : at + seed.choice((0, 0, 1, 4, 30))] = seed.choice(PIECES)
    return bytes(content)


def _take_svg(content: bytes) -> None:
    """An SVG that is accepted names no other host."""
    validate(content, "svg", MAX_PIXELS)


def _draw_base64(seed: random.Random) -> bytes:
    alphabet = seed.choice(("ABCab01+/", "ABCab01-_", "Aa+-/_", "Aé\ud800 \n=", "=\0,:"))
    text = "".join(seed.choices(alphabet, k=seed.randrange(200))) * seed.choice((1, 1, 1000))
    return (seed.choice(("", "data:image/png;base64,", "data:")) + text).encode("utf-8", "surrogatepass")


_URL = "https://api.example/v1/images/generations"
_BODIES: tuple[Any, ...] = (
    {"created": 1, "data": [{"url": "https://host/a.png?se=2030-01-01", "revised_prompt": "a cat"}], "usage": {"a": 1}},
    {
        "data": [{"b64_json": "iVBORw0KGgo="}],
        "usage": {"input_tokens": 3, "details": {"image_tokens": 9}},
        "size": "1x1",
    },
    {"images": ["https://host/a.png"], "output": {"results": [{"url": "/a.png"}], "task_status": "SUCCEEDED"}},
    {"choices": [{"message": {"content": "![a](https://host/a.png)", "images": [{"image_url": {"url": "data:,"}}]}}]},
    {"error": {"message": "Rate limit reached: Limit: 5/1min. Try again in 3s", "type": "requests", "code": "x"}},
    {"detail": [{"loc": ["body", "size"], "msg": "bad", "type": "value_error"}], "errors": [{"message": "no"}]},
    {"code": 1113, "message": "\u4f59\u989d\u4e0d\u8db3", "base_resp": {"status_code": 1008}, "status": "failed"},
)
_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 10**40, 1e308, float("nan"), float("inf"), "", " ", "\x1bc\x07\x9b", "\u202e", "\ud83c", "\0"),
    *("x" * 5000, "https://" + "a" * 20_000, "data:image/png;base64,", '"' * 300, "<style>" * 400, [], {}, [[[[]]]]),
    *({"url": {"url": {"url": "x"}}}, ["a"] * 3000, {"b64_json": 5}, "=" * 500, "1e999", "9" * 4000),
)
_NAMES = (
    "retry-after",
    "retry-after-ms",
    "date",
    "content-type",
    "location",
    "x-request-id",
    "x-ratelimit-limit-images",
)
_WORDS = (
    "text/event-stream",
    "application/json",
    "image/png",
    "text/html",
    "-1",
    "1e999",
    "NaN",
    "Wed, 21 Oct 2015",
    "",
)


def _changed(value: Any, draw: random.Random) -> Any:
    """Return a value with some of its parts replaced by hostile ones."""
    if draw.random() < 0.12:
        return draw.choice(_VALUES)
    if isinstance(value, dict):
        return {
            name if draw.random() > 0.03 else str(draw.choice(_VALUES))[:99]: _changed(one, draw)
            for name, one in value.items()
        }
    if isinstance(value, list):
        return [_changed(one, draw) for one in value * draw.choice((1, 1, 1, 3))]
    return value


def _answer(draw: random.Random) -> HttpResponse:
    """Draw a response: a known body with hostile values, cut, doubled or under another content type."""
    body = json.dumps(_changed(draw.choice(_BODIES), draw)).encode()
    match draw.randrange(8):
        case 0:
            body = body[: draw.randrange(len(body) + 1)]
        case 1:
            body += body
        case 2:
            body = b"data: " + body + b"\n\ndata: [DONE]\n\n"
        case 3:
            place = draw.randrange(len(body) + 1)
            body = body[:place] + draw.randbytes(9) + body[place:]
    headers = CIMultiDict((draw.choice(_NAMES), draw.choice((*_WORDS, "9" * 4000, "x" * 8000))) for _ in range(3))
    return HttpResponse(draw.choice((200, 200, 200, 202, 302, 400, 401, 429, 500, 503)), headers, body, _URL)


def _read_answer(http: HttpResponse) -> None:
    response = read_response(http, 1.8e9)
    assert all(len(repr(image)) < 100_000 for image in response.images)
    assert len(json.dumps([response.usage, dict(response.settings)])) < 1_000_000


SUBJECTS = (
    Subject("answers", _answer, _read_answer, (RequestError,), longest=1600),
    Subject("images", _draw_image, _take_image, (BrokenImage,)),
    Subject("SVG", _draw_svg, _take_svg, (BrokenImage,)),
    Subject(
        "base64", _draw_base64, lambda text: decode(text.decode("utf-8", "surrogatepass")), (BrokenImage,), seconds=0.5
    ),
)


def _peak() -> int | None:
    """Return the most memory of this process since `CLEAR` was written; None if the system does not say."""
    with contextlib.suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def _attack(subject: Subject, seeds: range) -> list[str]:
    """Take each case; return what went wrong, with the seed that draws it again."""
    faults = []
    for number in seeds:
        content = subject.draw(random.Random(number))
        began = time.thread_time()
        try:
            subject.take(content)
        except subject.refusals as reason:
            if len(str(reason)) > subject.longest or "Traceback" in str(reason):
                faults.append(f"{subject.name} {number}: {str(reason)[:200]}")
        except Exception as reason:  # noqa: BLE001 - what a drill looks for
            faults.append(f"{subject.name} {number}: {reason!r}")
        if (took := time.thread_time() - began) > subject.seconds:
            faults.append(f"{subject.name} {number}: {took:.1f} seconds")
    return faults


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
@pytest.mark.parametrize("count", [450, pytest.param(100_000, marks=pytest.mark.long)])
@pytest.mark.timeout(7200)
def test_hostile_input_ends_in_a_refusal_within_its_time_and_memory(
    subject: Subject, count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    _attack(subject, range(20))  # what is loaded at the first use
    with contextlib.suppress(OSError):
        CLEAR.write_text("5")
    before = _peak()
    assert _attack(subject, range(20, 20 + count)) == []
    after = _peak()
    if before is not None and after is not None:
        assert after - before < subject.memory
    assert capfd.readouterr().err == ""


def bomb() -> bytes:
    """A PNG of 0.7 MB that takes 0.7 GB: 11000x8100 pixels of 16 bits, RGBA."""
    packer, row = zlib.compressobj(9), bytes(1 + 11000 * 8)
    pixels = b"".join(packer.compress(row) for _ in range(8100)) + packer.flush()
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 11000, 8100, 16, 6, 0, 0, 0)), (b"IDAT", pixels), (b"IEND", b""))
    return _with_checksums(
        b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(b)) + a + b + bytes(4) for a, b in chunks)
    )


@pytest.mark.long
@pytest.mark.skipif(not CLEAR.exists(), reason="the system does not say how much memory was taken")
@pytest.mark.parametrize(
    ("take", "threads"),
    [(lambda content: validate(content, None), 12), (shrink, THUMBNAIL_THREADS)],
    ids=["results", "thumbnails"],
)
def test_twelve_bombs_at_once_stay_within_a_gigabyte(take: Callable[[bytes], object], threads: int) -> None:
    content = bomb()
    CLEAR.write_text("5")
    before = _peak()
    with ThreadPoolExecutor(threads) as pool:
        assert all(pool.map(take, [content] * 12))
    after = _peak()
    assert before is not None
    assert after is not None
    assert after - before < 1024 * MIB


def tiff_bomb() -> bytes:
    """A TIFF of 1 MB with 65,535 tags, each of them with the same 262,134 offsets of strips."""
    entry = struct.pack("<HHII", 273, 4, MIB // 4 - 10, 0)
    head = b"II*\0" + struct.pack("<IH", 8, 65535) + entry * 65535 + bytes(4)
    return head + bytes(MIB - len(head))


def jpeg_of_empty_scans() -> bytes:
    """A progressive JPEG with 60,000 scans that change nothing."""
    scan = b"\xff\xda\0\x08\x01\x01\0\x01\x3f\x21\0"
    return _encoded(Image.new("L", (8, 8)), "jpeg", progressive=True)[:-2] + scan * 60_000 + b"\xff\xd9"


async def test_bombs_among_the_answers_are_not_stored_and_hold_up_no_other(bench: Bench) -> None:
    bench.retry = RetryRules(attempts=1, unknown=1)
    bombs = itertools.cycle([tiff_bomb(), jpeg_of_empty_scans()])

    async def answer(body: dict[str, Any]) -> web.Response:
        is_bomb = body["prompt"] in {"prompt 13", "prompt 33"}  # three in a row would stop the provider
        content = next(bombs) if is_bomb else _images()[4]
        return answer_with({"b64_json": base64.b64encode(content).decode()})

    async with vendor(answer) as base_url:
        bench.submit(*(request(number) for number in range(1, 41)))
        began = time.monotonic()
        await bench.run(lab(base_url))
    assert time.monotonic() - began < 20
    assert bench.one("SELECT count(*) FROM request WHERE status = 'succeeded'") == 38
    assert bench.one("SELECT count(*) FROM image") == 38
