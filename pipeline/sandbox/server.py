"""Requests become answers.

Every path below `/v1` is answered here, and whatever else is asked gets the service's refusal in JSON.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from aiohttp import web

from pipeline.sandbox import responses
from pipeline.sandbox.download import serve_download
from pipeline.sandbox.generate import Service, authenticate, drop, send, serve_call, service_headers
from pipeline.sandbox.http_server import Door
from pipeline.sandbox.rate_window import SlidingWindow
from pipeline.sandbox.request_log import Books
from pipeline.sandbox.responses import Answer
from pipeline.sandbox.rules import errors
from pipeline.sandbox.rules.models import MODELS, SHUTDOWN_DATES, is_alive
from pipeline.sandbox.signed_urls import PREFIX, Links
from pipeline.sandbox.translate import restate
from pipeline.sandbox.upload_store import Spool, default_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from pipeline.sandbox.settings import SandboxSettings

MODELS_PATH: Final = "/v1/models"
MODELS_CREATED: Final = 1_667_433_600  # the day on which the Images API opened; any date will do
LAST_CALLS_SECONDS: Final = 0.1
"""How long open calls may go on when the sandbox stops."""
BACKLOG: Final = 1024
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunningSandbox:
    """Where a sandbox listens."""

    base_url: str
    port: int


@contextlib.asynccontextmanager
async def serve(
    settings: SandboxSettings,
    *,
    port: int = 0,
    host: str = "127.0.0.1",
    books: Path | None = None,
    spool: Path | None = None,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[RunningSandbox]:
    """Serve until the with-block ends; port 0 takes a free one. Raises OSError where the port is taken."""
    threads = ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="sandbox")
    with Books(books) as opened_books:
        service = Service(
            settings=settings,
            window=SlidingWindow(settings.rate_limit) if settings.rate_limit else None,
            links=Links(settings.seed, settings.url_ttl_seconds, clock),
            spool=Spool(spool or default_folder()),
            books=opened_books,
            threads=threads,
            clock=clock,
            monotonic=monotonic,
        )
        runner = web.ServerRunner(door(service), shutdown_timeout=LAST_CALLS_SECONDS)
        try:
            await runner.setup()
            await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
            bound = int(runner.addresses[0][1])
            yield RunningSandbox(f"http://{host}:{bound}/v1", bound)
        finally:
            await runner.cleanup()
            threads.shutdown(wait=False, cancel_futures=True)


def door(service: Service) -> Door:
    """Open one door for every method and path, so that no answer is aiohttp's own."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await _answer(service, request)
        except ConnectionError:  # the client has gone away
            return drop(request)

    return Door(answer)


async def _answer(service: Service, request: web.Request) -> web.StreamResponse:
    started, request_id = time.monotonic(), f"req_{uuid.uuid4().hex}"
    operations = service.settings.dialect.operations
    try:
        if request.path.startswith(PREFIX):
            return await serve_download(service, request)
        if request.path in operations and request.method == "POST":
            return await serve_call(service, request, operations[request.path], request_id)
        answer = _read_only(service, request)
    except errors.ApiError as refusal:
        answer = restate(responses.refused(refusal), service.settings.dialect)
    except ConnectionError:
        raise
    except Exception:
        log.exception("the sandbox failed on %s %s", request.method, request.path)
        answer = responses.refused(errors.server_error())
    return await send(request, answer, {**service_headers(request_id, started), **answer.headers})


def _read_only(service: Service, request: web.Request) -> Answer:
    """Answer what needs no body: the models, and every wrong path and method. Raises ApiError."""
    path, method = request.path, request.method
    if path != "/v1" and not path.startswith("/v1/"):
        raise errors.invalid_url(method, path)
    authenticate(request, service.settings)
    if path in service.settings.dialect.operations:
        raise errors.wrong_method(method, path, ("POST",))
    if path != MODELS_PATH and not path.startswith(f"{MODELS_PATH}/"):
        raise errors.invalid_url(method, path)
    if method not in {"GET", "HEAD"}:
        raise errors.wrong_method(method, path, ("GET", "HEAD"))
    if path == MODELS_PATH:
        alive = [_model(name) for name in MODELS if is_alive(name, service.settings.today)]
        return _document({"object": "list", "data": alive})
    name = unquote(path.removeprefix(f"{MODELS_PATH}/"))
    if name not in MODELS:
        raise errors.model_not_found(name[:200])
    if not is_alive(name, service.settings.today):
        raise errors.model_shut_down(name)
    return _document(_model(name))


def _model(name: str) -> dict[str, object]:
    shutdown = SHUTDOWN_DATES.get(name)
    return {
        "id": name,
        "object": "model",
        "created": MODELS_CREATED,
        "owned_by": "sandbox",
        "shutdown_date": shutdown.isoformat() if shutdown else None,
    }


def _document(content: dict[str, object]) -> Answer:
    return Answer(200, errors.JSON_TYPE, (json.dumps(content).encode(),))
