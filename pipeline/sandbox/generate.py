"""A request to make pictures becomes an answer.

`_decide` is the whole way of a call, in the order of the service's checks: key, body, pace, parameters, files,
policy; then chance, time, and the pictures.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from aiohttp import web

from pipeline.sandbox import responses
from pipeline.sandbox.faults import BAD_GATEWAY, DRIP_SECONDS, DRIPS, Luck, draw_call
from pipeline.sandbox.request_body import read_form
from pipeline.sandbox.request_log import CallEntry
from pipeline.sandbox.responses import Answer
from pipeline.sandbox.rules import errors
from pipeline.sandbox.rules.uploads import read_uploads
from pipeline.sandbox.rules.validate import ImageCall, images_asked, moderate, read_call
from pipeline.sandbox.translate import accepted, check_query, restate, translate, withheld

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from pipeline.sandbox.rate_window import SlidingWindow
    from pipeline.sandbox.request_body import Form
    from pipeline.sandbox.request_log import Books
    from pipeline.sandbox.rules.errors import Meter
    from pipeline.sandbox.rules.models import Operation
    from pipeline.sandbox.rules.uploads import Uploads
    from pipeline.sandbox.settings import SandboxSettings
    from pipeline.sandbox.signed_urls import Links
    from pipeline.sandbox.upload_store import Spool

P = ParamSpec("P")
T = TypeVar("T")
HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


@dataclass(slots=True)
class Service:
    """What all calls and downloads of one running sandbox share; the counters are its only memory."""

    settings: SandboxSettings
    window: SlidingWindow | None
    links: Links
    spool: Spool
    books: Books
    threads: ThreadPoolExecutor
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    calls: int = 0
    downloads: int = 0
    charged: int = 0

    async def work(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what takes the processor for milliseconds in a thread, so that the loop stays free."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, partial(function, *args, **kwargs))

    def arrive(self, entry: CallEntry, images: int) -> None:
        """Give the arriving call its place in quota and window. Raises ApiError."""
        entry.n = images
        entry.at, entry.mono = self.clock(), self.monotonic()
        quota = self.settings.quota_images
        if quota is not None and self.charged >= quota:
            raise errors.insufficient_quota()
        wait = self.window.admit(entry.mono, images) if self.window else None
        if self.window and wait is not None:
            meter: Meter = "input-images" if entry.operation == "edit" else "images"
            raise errors.rate_limited(self.window.limit, used=self.window.used, asked=images, wait=wait, meter=meter)

    def charge(self, entry: CallEntry, images: int) -> None:
        """Put pictures that were made on the bill."""
        self.charged += images
        entry.charged = images


async def serve_call(
    service: Service, request: web.Request, operation: Operation, request_id: str
) -> web.StreamResponse:
    """Answer a call, or drop it, and write it into the books."""
    started = time.monotonic()
    entry = CallEntry(service.clock(), service.monotonic(), request.path, operation, request_id)
    try:
        try:
            answer = await _decide(service, request, operation, entry)
        except errors.ApiError as refusal:
            answer = responses.refused(refusal)
        if answer is None:
            return drop(request)
        answer = restate(answer, service.settings.dialect)
        response = await send(request, answer, {**service_headers(request_id, started), **answer.headers})
        entry.status = answer.status
        return response
    finally:
        service.books.write(entry)


async def _decide(service: Service, request: web.Request, operation: Operation, entry: CallEntry) -> Answer | None:
    settings = service.settings
    authenticate(request, settings)
    check_query(request, settings.dialect)
    form = await _receive(service, request, operation, entry)
    operation, form = translate(operation, form, settings.dialect)
    call = read_call(operation, form, today=settings.today, verified=settings.verified)
    if settings.dialect.most_images is not None:
        call = replace(call, n=min(call.n, settings.dialect.most_images))
    uploads = None if operation == "generation" else await service.work(read_uploads, call, form)
    try:
        moderate(call)
    except errors.ApiError:
        if not settings.dialect.withholds:
            raise
        return responses.answer_with(withheld(call.n, int(service.clock())))
    luck = draw_call(service.settings, service.calls)
    service.calls += 1
    entry.fault = luck.fault
    refusal = luck.refusal(service.settings.rate_limit, call.n)
    if luck.fault != "http_429":  # who is refused for pace is refused at once
        await asyncio.sleep(luck.latency)
    if refusal:
        raise refusal
    match luck.fault:
        case "drop_before":
            return None
        case "html_502":
            return Answer(502, "text/html", (BAD_GATEWAY,))
        case "empty":
            return responses.answer_with_nothing(int(service.clock()))
    answer = await _make(service, request, call, uploads)
    service.charge(entry, call.n)
    return _spoil(answer, luck)


async def _receive(service: Service, request: web.Request, operation: Operation, entry: CallEntry) -> Form:
    """Read the body and count the arrival; one that cannot be read counts as one image."""
    try:
        form = await read_form(request, accepted(operation, service.settings.dialect))
    except errors.ApiError:
        service.arrive(entry, 1)
        raise
    entry.model, entry.prompt = (_noted(form.fields.get(name)) for name in ("model", "prompt"))
    service.arrive(entry, images_asked(form))
    return form


def _noted(value: object) -> str | None:
    return value if isinstance(value, str) else None  # a deep list is more than a line of the books could hold


async def _make(service: Service, request: web.Request, call: ImageCall, uploads: Uploads | None) -> Answer:
    plan = responses.sketches(call, uploads)
    created = int(service.clock())
    if call.response_format == "b64_json":
        return await service.work(responses.answer_with_bytes, call, plan, uploads, created)
    for upload in (*uploads.images, uploads.mask) if uploads else ():
        if upload:
            await service.work(service.spool.keep, upload.sha256, upload.content)
    origin = _origin(request, service.settings.dialect.picture_host)
    return responses.answer_with_urls(call, [service.links.sign(origin, sketch) for sketch in plan], created)


def _origin(request: web.Request, host: str | None) -> str:
    """Return the scheme, host and port that the client called, under whatever name it knows this machine, or `host`."""
    address, port = request.get_extra_info("sockname", ("127.0.0.1", 80))[:2]
    called = request.headers.get("Host", "")
    if host is not None or not HOST.fullmatch(called):
        called = f"{host or address}:{port}"
    return f"http://{called}"


def _spoil(answer: Answer, luck: Luck) -> Answer | None:
    """Let the faults happen that happen to pictures already made and charged."""
    match luck.fault:
        case "drop_after":
            return None
        case "broken_json":
            whole = b"".join(answer.chunks)
            return replace(answer, chunks=(whole[: len(whole) // 2],))
        case "slow":
            whole = b"".join(answer.chunks)
            step = -(-len(whole) // DRIPS)
            drips = tuple(whole[place : place + step] for place in range(0, len(whole), step))
            return replace(answer, chunks=drips, pause=DRIP_SECONDS)
        case _:
            return answer


def authenticate(request: web.Request, settings: SandboxSettings) -> None:
    """Take any key but an empty one and one that begins with `bad-`. Raises ApiError."""
    key = request.headers.get(settings.dialect.auth_header, "").strip()
    if expected := settings.dialect.auth_scheme:
        scheme, _, key = key.partition(" ")
        key = key.strip() if scheme.lower() == expected.lower() else ""
    if key.startswith("bad-"):
        raise errors.incorrect_key(key)
    if not key and settings.require_key:
        raise errors.missing_key()


def service_headers(request_id: str, started: float) -> dict[str, str]:
    """Return the headers that every answer of the service carries; `started` in monotonic seconds."""
    return {
        "x-request-id": request_id,
        "openai-processing-ms": str(max(1, round((time.monotonic() - started) * 1000))),
        "openai-version": "2020-10-01",
        "openai-organization": errors.ORGANIZATION,
    }


async def send(request: web.Request, answer: Answer, headers: dict[str, str]) -> web.StreamResponse:
    """Write an answer out. Raises ConnectionError where the client has gone away."""
    response = web.StreamResponse(status=answer.status, headers={**headers, "Content-Type": answer.content_type})
    if len(answer.chunks) == 1 or answer.pause:
        response.content_length = sum(map(len, answer.chunks))
    if request.content.exception() or answer.status == 408:
        response.force_close()  # a body that broke off leaves nothing to read the next request from
    await response.prepare(request)
    for number, chunk in enumerate(answer.chunks if request.method != "HEAD" else ()):
        if number:
            await asyncio.sleep(answer.pause)
        await response.write(chunk)
    await response.write_eof()
    return response


def drop(request: web.Request) -> web.Response:
    """Close the connection without an answer; what is returned goes nowhere."""
    if request.transport:
        request.transport.close()
    return web.Response()
