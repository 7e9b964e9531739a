"""Listen and route each request: generation, download, files and batches, models, the admin API, or an error.

Every path below `/v1` is answered here; all other paths get the service's 404 in JSON.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from aiohttp import web

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox import responses
from pipeline.sandbox.batch.batches import Batches
from pipeline.sandbox.batch.content import Contents
from pipeline.sandbox.batch.records import BatchStore
from pipeline.sandbox.batch.routes import BatchRoutes, route_of
from pipeline.sandbox.charges import Charges
from pipeline.sandbox.download import serve_download
from pipeline.sandbox.file_store import FileStore
from pipeline.sandbox.generate import serve_call
from pipeline.sandbox.http_server import HttpServer, drop, send, service_headers
from pipeline.sandbox.kept_responses import KeptResponses
from pipeline.sandbox.organization import ORGANIZATION_PATH, serve_organization
from pipeline.sandbox.request_log import RequestLog
from pipeline.sandbox.rules.models import MODELS
from pipeline.sandbox.service import Admission, Service
from pipeline.sandbox.signed_urls import PREFIX, SignedUrls
from pipeline.sandbox.spool import open_spool
from pipeline.sandbox.translate_request import authenticate
from pipeline.sandbox.translate_response import translate_response
from pipeline.sandbox.upload_store import UploadStore, default_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from pipeline.sandbox.responses import Response
    from pipeline.sandbox.settings import SandboxSettings

MODELS_PATH: Final = "/v1/models"
MODELS_CREATED: Final = 1_667_433_600  # the day on which the Images API opened; any date will do
SHUTDOWN_SECONDS: Final = 0.1
"""How long open calls may continue when the sandbox stops."""
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
    request_log: Path | None = None,
    upload_folder: Path | None = None,
    spool: Path | None = None,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[RunningSandbox]:
    """Serve until the with-block ends; port 0 takes a free one. Raises OSError if the port is taken.

    Files and batches are kept in `spool`; without one in a folder of the port's, and not at all for port 0.
    """
    threads = ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="sandbox")
    uploads = upload_folder or default_folder()
    upload_store = UploadStore(uploads)
    kept = spool or (uploads / f"port-{port}" if port else None)
    with RequestLog(request_log) as opened_log, open_spool(kept) as folder:
        service = Service(
            settings=settings,
            admission=Admission(settings, Charges(folder / "charges.jsonl")),
            signed_urls=SignedUrls(settings.seed, settings.url_ttl_seconds, clock),
            upload_store=upload_store,
            files=FileStore(folder / "files"),
            kept=KeptResponses(folder / "kept"),
            request_log=opened_log,
            threads=threads,
            clock=clock,
            monotonic=monotonic,
        )
        batches = Batches(service, BatchStore(folder / "batches"))
        async with _listening(BatchRoutes(service, batches, Contents(service)), host, port) as running:
            batches.resume()
            try:
                yield running
            finally:
                await batches.close()


@contextlib.asynccontextmanager
async def _listening(routes: BatchRoutes, host: str, port: int) -> AsyncIterator[RunningSandbox]:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await _handle(routes, request)
        except ConnectionError:  # the client has closed the connection
            return drop(request)

    runner = web.ServerRunner(HttpServer(handle), shutdown_timeout=SHUTDOWN_SECONDS)
    try:
        await runner.setup()
        await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
        bound = int(runner.addresses[0][1])
        yield RunningSandbox(f"http://{host}:{bound}/v1", bound)
    finally:
        await runner.cleanup()
        routes.service.threads.shutdown(wait=False, cancel_futures=True)


async def _handle(routes: BatchRoutes, request: web.Request) -> web.StreamResponse:
    service = routes.service
    started, request_id = time.monotonic(), f"req_{uuid.uuid4().hex}"
    operations = service.settings.dialect.operations
    try:
        if request.path.startswith(PREFIX):
            return await serve_download(service, request)
        if request.path in operations and request.method == "POST":
            return await serve_call(service, request, operations[request.path], request_id)
        if found := route_of(request.raw_path):
            return await routes.serve(request, *found, request_id, started)
        is_admin = request.path.startswith(ORGANIZATION_PATH)
        response = serve_organization(service, request) if is_admin else _read_only(service, request)
    except errors.ApiError as error:
        response = translate_response(responses.error_response(error), service.settings.dialect)
    except ConnectionError:
        raise
    except Exception:
        log.exception("the sandbox failed on %s %s", request.method, request.path)
        response = responses.error_response(errors.server_error())
    return await send(request, response, service_headers(request_id, started))


def _read_only(service: Service, request: web.Request) -> Response:
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
        return responses.json_response({"object": "list", "data": _available_models(service.settings)})
    name = unquote(path.removeprefix(f"{MODELS_PATH}/"))
    if name not in MODELS or name in service.settings.organization.denied_models:
        raise errors.model_not_found(name[:200])
    if not service.settings.is_available(name):
        raise errors.model_shut_down(name)
    if MODELS[name].is_gpt and not service.settings.verified:
        raise errors.not_verified(name)
    return responses.json_response(_model(name, service.settings))


def _available_models(settings: SandboxSettings) -> list[dict[str, object]]:
    """Return the models that are not shut down and that the project may use; an unverified organization's are listed,
    as people have seen.
    """
    denied = settings.organization.denied_models
    return [_model(name, settings) for name in MODELS if settings.is_available(name) and name not in denied]


def _model(name: str, settings: SandboxSettings) -> dict[str, object]:
    shutdown = settings.shutdown_date(name)
    return {
        "id": name,
        "object": "model",
        "created": MODELS_CREATED,
        "owned_by": "sandbox",
        "shutdown_date": shutdown.isoformat() if shutdown else None,
    }
