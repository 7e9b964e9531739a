"""Serves the live page, its events, its images and its buttons over HTTP, until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import html
import logging
import re
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from pipeline import ledger
from pipeline.errors import BadInput, PipelineError
from pipeline.ledger.submit import known_names
from pipeline.reports import thumbnails
from pipeline.reports.html_report import report_page
from pipeline.reports.next_command import NextCommand
from pipeline.signals import Shutdown
from pipeline.web import actions, control_actions
from pipeline.web.access import METRICS_PATH, WILDCARDS, AccessControl
from pipeline.web.event_stream import HEARTBEAT_SECONDS, EventStream
from pipeline.web.image_files import find_in_thread, find_job_file, find_served_image
from pipeline.web.metrics import CONTENT_TYPE, MetricsPage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from pipeline.batch import Batch
    from pipeline.config.load import Config
    from pipeline.web.image_files import ServedFile

    Action = Callable[[Batch, str, str], actions.ActionResult]
    Question = Callable[[Batch, str], actions.Question]
    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_PAGES = Path(__file__).with_name("static")
_SHARED = Path(__file__).parents[1] / "reports" / "pages"  # what the report's pages have, too
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_ACTIONS: dict[str, Action] = {
    "resume": lambda batch, job, _value: actions.resume(batch, job),
    "cancel": lambda batch, job, _value: actions.cancel(batch, job),
    "pause": lambda batch, provider, _value: control_actions.pause(batch, provider),
    "unpause": lambda batch, provider, _value: control_actions.unpause(batch, provider),
    "throttle": control_actions.throttle,
    "priority": control_actions.prioritise,
}
"""What each button does, with the job or the provider that it is about and the number that was entered, if any."""

_QUESTIONS: dict[str, Question] = {
    "resume": actions.ask_resume,
    "cancel": actions.ask_cancel,
    "pause": control_actions.ask_pause,
    "unpause": control_actions.ask_unpause,
    "throttle": control_actions.ask_throttle,
    "priority": control_actions.ask_priority,
}


class Site:
    """The live page of one output folder."""

    def __init__(self, batch: Batch, access: AccessControl, on_end: Callable[[], None] = lambda: None) -> None:
        self._batch = batch
        self._access = access
        self._on_end = on_end  # called when the ledger is no longer read
        self._stream = EventStream(batch.config)
        self._metrics = MetricsPage(batch.config)

    def application(self) -> web.Application:
        """Return the application; it reads the ledger while it runs."""
        app = web.Application(middlewares=[self._guard], client_max_size=4096)
        app.router.add_get("/", self._page)
        app.router.add_get("/live.css", self._style)
        app.router.add_get("/live.js", self._script)
        app.router.add_get("/events", self._events)
        app.router.add_get(METRICS_PATH, self._read_metrics)
        app.router.add_get(r"/images/{pk:\d{1,18}}", self._image)
        app.router.add_get(r"/thumbnails/{pk:\d{1,18}}", self._thumbnail)
        app.router.add_get("/jobs/{job}/report.html", self._report)
        app.router.add_get("/jobs/{job}/{file:(?:images|thumbnails|inputs)/[^/]+}", self._job_file)
        app.router.add_post("/actions", self._act)
        app.cleanup_ctx.append(self._following)
        app.on_shutdown.append(self._end_stream)
        return app

    async def _following(self, _app: web.Application) -> AsyncIterator[None]:
        following = asyncio.create_task(self._stream.follow())
        following.add_done_callback(lambda _: self._on_end())
        yield
        await following

    async def _end_stream(self, _app: web.Application) -> None:
        self._stream.end()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._access.check(request)
            _check_dates(request)
            response = await handler(request)
        except web.HTTPException as refusal:
            refusal.headers.update(_HEADERS)
            raise
        if not response.prepared:
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
        return response

    async def _page(self, request: web.Request) -> web.Response:
        parts = {
            "form_token": self._access.form_token,
            "folder": str(self._batch.folder),
            "name": self._batch.folder.name,
        }
        text = re.sub(
            r"\{\{ (\w+) \}\}", lambda found: html.escape(parts[found[1]]), (_PAGES / "live.html").read_text("utf-8")
        )
        response = web.Response(text=text, content_type="text/html", headers={"Cache-Control": "no-store"})
        if self._access.token is not None:
            name = self._access.cookie_name(request)
            response.set_cookie(name, self._access.token, httponly=True, samesite="Strict", path="/")
        return response

    async def _style(self, _request: web.Request) -> web.Response:
        text = (_SHARED / "colours.css").read_text("utf-8") + (_PAGES / "live.css").read_text("utf-8")
        return web.Response(text=text, content_type="text/css", headers={"Cache-Control": "no-cache"})

    async def _script(self, _request: web.Request) -> web.Response:
        text = (_SHARED / "elements.js").read_text("utf-8") + (_PAGES / "live.js").read_text("utf-8")
        return web.Response(text=text, content_type="text/javascript", headers={"Cache-Control": "no-cache"})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                **_HEADERS,
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
            }
        )
        await response.prepare(request)
        with self._stream.listening() as queue, contextlib.suppress(ConnectionError):
            await response.write(b"retry: 2000\n\n")
            while (event := await _next(queue)) != b"":
                await response.write(event)
        return response

    async def _read_metrics(self, _request: web.Request) -> web.Response:
        try:
            text = await asyncio.to_thread(self._metrics.text, time.time())
        except PipelineError as error:
            raise web.HTTPServiceUnavailable(text=f"{error}\n") from None
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})

    async def _report(self, request: web.Request) -> web.Response:
        try:
            text = await asyncio.to_thread(_read_report, self._batch.config, request.match_info["job"])
        except BadInput as error:
            raise web.HTTPNotFound(text=f"{error}\n") from None
        except PipelineError as error:
            raise web.HTTPServiceUnavailable(text=f"{error}\n") from None
        headers = {"Content-Security-Policy": "frame-ancestors 'none'", "Cache-Control": "no-store"}
        return web.Response(
            body=text.encode("utf-8", "replace"), content_type="text/html", charset="utf-8", headers=headers
        )

    async def _job_file(self, request: web.Request) -> web.StreamResponse:
        job, file = request.match_info.values()
        find = functools.partial(find_job_file, self._batch.folder, self._batch.stores, job, file)
        return await _send(find, small=file.startswith(f"{thumbnails.FOLDER}/"))

    async def _image(self, request: web.Request) -> web.StreamResponse:
        pk = int(request.match_info["pk"])
        return await _send(functools.partial(find_served_image, self._batch.folder, self._batch.stores, pk))

    async def _thumbnail(self, request: web.Request) -> web.StreamResponse:
        pk = int(request.match_info["pk"])
        return await _send(
            functools.partial(find_served_image, self._batch.folder, self._batch.stores, pk, small=True), small=True
        )

    async def _act(self, request: web.Request) -> web.Response:
        form = await _read_form(request)
        self._access.check_form(form.get("form_token"))
        name, about = form.get("action", ""), form.get("job", form.get("provider"))
        if name not in _ACTIONS or about is None:
            raise web.HTTPBadRequest(text="There is no such action.\n")
        try:
            if "ask" in form:
                return web.json_response((await asyncio.to_thread(_QUESTIONS[name], self._batch, about)).as_json())
            result = await asyncio.to_thread(_ACTIONS[name], self._batch, about, form.get("value", ""))
        except BadInput as error:
            raise web.HTTPNotFound(text=f"{error}\n") from None
        except PipelineError as error:
            raise web.HTTPServiceUnavailable(text=f"{error}\n") from None
        return web.json_response(result.as_json())


def _check_dates(request: web.Request) -> None:
    """Raise HTTPBadRequest for a date that aiohttp fails to read once it sends a file."""
    try:
        _ = request.if_modified_since, request.if_unmodified_since, request.if_range
    except OverflowError:
        raise web.HTTPBadRequest(text="A date of this request is out of range.\n") from None


async def _read_form(request: web.Request) -> dict[str, str]:
    """Read a form in the encoding of our own page, always UTF-8. Raises HTTPUnsupportedMediaType and HTTPBadRequest."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise web.HTTPUnsupportedMediaType(text="A form is sent as application/x-www-form-urlencoded.\n")
    try:
        body = await request.read()
    except (HttpProcessingError, web.RequestPayloadError, ValueError):
        raise web.HTTPBadRequest(text="The body of this request is damaged.\n") from None
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


async def _send(find: Callable[[], ServedFile | None], *, small: bool = False) -> web.StreamResponse:
    """Send the file that is found in the ledger."""
    try:
        served = await find_in_thread(find, small=small)
    except (PipelineError, OSError) as error:  # no room for a thumbnail: the page requests the image itself
        raise web.HTTPServiceUnavailable(text=f"{error}\n") from None
    if served is None:
        raise web.HTTPNotFound(text="There is no such image.\n")
    headers = {"Content-Type": served.content_type, "Cache-Control": "private, max-age=60"}
    if served.path is None:
        return web.Response(body=served.content, headers=headers)
    return web.FileResponse(served.path, headers=headers)


def _read_report(config: Config, job: str) -> str:
    """Return the report of a job as it stands in the ledger now. Raises BadInput for an unknown job."""
    with ledger.reading(config.output, job) as connection:
        (name,) = known_names(connection, [job])
        return report_page(connection, name, NextCommand.anywhere(config))


async def _next(queue: asyncio.Queue[bytes]) -> bytes:
    """Return the next event, or a comment as heartbeat, so that no proxy closes the idle connection."""
    try:
        async with asyncio.timeout(HEARTBEAT_SECONDS):
            return await queue.get()
    except TimeoutError:
        return b": heartbeat\n\n"


def make_runner(site: Site) -> web.AppRunner:
    """Return what serves a site; a traceback is logged for faults of ours only, not for a client's broken bytes."""
    logger = logging.getLogger("pipeline.web")
    logger.addFilter(_is_fault_of_ours)
    return web.AppRunner(site.application(), access_log=None, shutdown_timeout=2.0, logger=logger)


def _is_fault_of_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError)


async def serve(batch: Batch, host: str, port: int, say: Callable[[str], object]) -> int:
    """Serve until a signal, and print the address once. Returns the exit code. Raises BadInput if it cannot listen."""
    access, shutdown, stop = AccessControl.of(host), Shutdown(), asyncio.Event()
    runner = make_runner(Site(batch, access, stop.set))
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as reason:
            what = f"{host}:{port} cannot be served: {reason.strerror or reason}; choose another --port or --host"
            raise BadInput(what) from None
        with shutdown.listening(lambda _number: stop.set()):
            say(_address(host, runner.addresses[0][1], access.token))
            await stop.wait()
    finally:
        await runner.cleanup()
    assert shutdown.signal is not None
    return 128 + shutdown.signal


def _address(host: str, port: int, token: str | None) -> str:
    name = socket.gethostname() if host in WILDCARDS else host
    return f"http://{f'[{name}]' if ':' in name else name}:{port}/" + (f"?token={token}" if token else "")
