"""Route the requests below `/v1/files` and `/v1/batches`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import unquote

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox.batch import files
from pipeline.sandbox.batch.errors import too_many
from pipeline.sandbox.http_server import drop, send, service_headers
from pipeline.sandbox.rate_window import RateLimit, SlidingWindow
from pipeline.sandbox.translate_request import authenticate, check_query

if TYPE_CHECKING:
    from aiohttp import web

    from pipeline.sandbox.batch.batches import Batches
    from pipeline.sandbox.batch.content import Contents
    from pipeline.sandbox.responses import Response
    from pipeline.sandbox.service import Service

Route: TypeAlias = tuple[str, ...]
METHODS: Final[dict[Route, tuple[str, ...]]] = {
    ("files",): ("GET", "POST"),
    ("files", "*"): ("GET", "DELETE"),
    ("files", "*", "content"): ("GET",),
    ("batches",): ("GET", "POST"),
    ("batches", "*"): ("GET",),
    ("batches", "*", "cancel"): ("POST",),
}
UPLOADS: Final = RateLimit(1000, 60)
BATCHES: Final = RateLimit(2000, 3600)
"""How many files may be uploaded in a minute, and how many batches created in an hour."""


def route_of(raw_path: str) -> tuple[Route, str] | None:
    """Return the route of a path, and the id that is in it; None if it belongs to neither API."""
    path = raw_path.partition("?")[0]
    if not path.startswith(("/v1/files", "/v1/batches")):
        return None
    parts = path.removeprefix("/v1/").split("/")
    route = tuple("*" if place == 1 else part for place, part in enumerate(parts))
    return (route, unquote(parts[1]) if len(parts) > 1 else "") if route in METHODS else None


@dataclass(frozen=True, slots=True)
class BatchRoutes:
    """The Files API and the Batch API of one sandbox."""

    service: Service
    batches: Batches
    contents: Contents
    uploads_made: SlidingWindow = field(default_factory=lambda: SlidingWindow(UPLOADS))
    batches_made: SlidingWindow = field(default_factory=lambda: SlidingWindow(BATCHES))

    async def serve(
        self, request: web.Request, route: Route, object_id: str, request_id: str, started: float
    ) -> web.StreamResponse:
        """Answer a request of this route for the file or batch with the id `object_id`. Raises ApiError."""
        authenticate(request, self.service.settings)
        check_query(request, self.service.settings.dialect)
        if request.method not in METHODS[route]:
            raise errors.wrong_method(request.method, request.path, METHODS[route])
        headers = service_headers(request_id, started)
        if route == ("files", "*", "content"):
            return await self.contents.send(request, object_id, headers)
        response = await self._answer(request, route, object_id)
        return drop(request) if response is None else await send(request, response, headers)

    async def _answer(self, request: web.Request, route: Route, object_id: str) -> Response | None:
        match route, request.method:
            case ("files",), "POST":
                self._admit("uploads", self.uploads_made)
                return await files.upload_file(self.service, request)
            case ("files",), _:
                return files.list_files(self.service, request)
            case ("files", _), "DELETE":
                return files.delete_file(self.service, object_id)
            case ("files", _), _:
                return files.retrieve_file(self.service, object_id)
            case ("batches",), "POST":
                self._admit("batches", self.batches_made)
                return await self.batches.create(request)
            case ("batches",), _:
                return self.batches.list_batches(request.query)
            case ("batches", _), _:
                return self.batches.retrieve(object_id)
            case _:
                return self.batches.cancel(object_id)

    def _admit(self, what: str, window: SlidingWindow) -> None:
        """Admit one creation. Raises ApiError if the window is full."""
        wait = window.admit(self.service.monotonic(), 1)
        if wait is not None:
            raise too_many(what, window.limit, wait)
