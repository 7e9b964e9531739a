"""An output folder with a ledger, plans to put in, and runs over it in this process: what the engine's tests share."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import hashlib
import io
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from PIL import Image

from pipeline.config.load import Config, Provider, RetryRules, Route
from pipeline.engine.caller import LocalCaller
from pipeline.engine.events import ProviderPace
from pipeline.engine.provider_context import Callers
from pipeline.engine.runner import Runner
from pipeline.ledger import submit
from pipeline.ledger.controls import read_calls_in_flight, record_calls_in_flight
from pipeline.ledger.database import open_ledger, transaction
from pipeline.ledger.folder_identity import HeldFolder
from pipeline.ledger.queue import QueuedRequest, Scope, next_requests
from pipeline.ledger.recovery import recover
from pipeline.models.table import Models
from pipeline.planning.plan import ImageRequest, Plan
from pipeline.sandbox.server import serve
from pipeline.sandbox.settings import SandboxSettings
from pipeline.storage import LocalStore
from pipeline.stores import Stores

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from pipeline.engine.events import Event

LAB = Provider("lab", "http://127.0.0.1:9/v1", rate_limit=None, concurrency=32)
ALL = Scope(None, 0.0)
MODEL = {"model": "dall-e-2", "size": "256x256"}
PRICE = 0.016  # of one such picture, in US dollars


def picture(size: int = 16) -> bytes:
    """Draw a small PNG."""
    stream = io.BytesIO()
    Image.new("RGB", (size, size), "#3a7ca5").save(stream, "png")
    return stream.getvalue()


PNG = picture()
PNG_BASE64 = base64.b64encode(PNG).decode()


def queued_request(pk: int, model: str = "dall-e-2") -> QueuedRequest:
    """Return a request as the ledger gives it to a worker."""
    return QueuedRequest(
        pk=pk,
        job_pk=1,
        job_name="job",
        provider="lab",
        rehearsal=False,
        budget_usd=None,
        id=f"r{pk}",
        served_by="generation",
        prompt="a",
        params={"model": model},
        inputs=(),
        n=1,
        received=0,
        moderated=0,
        numbers=frozenset(),
        urls=(),
    )


def request(number: int, *, id: str | None = None, n: int = 1, **params: Any) -> ImageRequest:  # noqa: A002
    """Make the request of this number; the number is its identity."""
    key = hashlib.sha256(str(number).encode()).hexdigest()
    name = id or f"prompt-{number}-{key[:8]}"
    return ImageRequest(key, name, "generation", "generation", f"prompt {number}", {**MODEL, **params}, n, {}, ())


def plan(
    *requests: ImageRequest,
    name: str = "job",
    provider: Provider = LAB,
    file: Path | None = None,
    budget_usd: float | None = None,
    members: tuple[Provider, ...] = (),
) -> Plan:
    """Make a plan of these requests; with `members`, at a route."""
    return Plan(name, provider, file, budget_usd, requests, (), (), members=members)


@functools.cache
def models() -> Models:
    """The table of models."""
    return Models.load({})


@dataclass
class Bench:
    """A ledger at work. `ask` and `one` question it in SQL. What binds is kept apart from what happened."""

    folder: Path
    connection: sqlite3.Connection
    events: list[Event] = field(default_factory=list)
    paces: list[ProviderPace] = field(default_factory=list)
    retry: RetryRules = field(default_factory=lambda: RetryRules(attempts=3, max_wait_seconds=0.01))
    environment: dict[str, str] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)
    make: Callable[..., LocalCaller] = LocalCaller  # in which process calls are made

    @functools.cached_property
    def held(self) -> HeldFolder:
        """The folder, as a run holds it."""
        return HeldFolder(self.folder, self.images)

    @property
    def images(self) -> LocalStore:
        """The result images of all jobs."""
        return LocalStore(self.folder)

    @property
    def stores(self) -> Stores:
        """The stores of all images."""
        return Stores(self.folder)

    def submit(self, *requests: ImageRequest, now: float | None = None, **more: Any) -> None:
        """Queue a job of these requests."""
        submit.submit(self.connection, plan(*requests, **more), now)

    def submit_routed(self, *requests: ImageRequest, providers: tuple[Provider, ...], **more: Any) -> None:
        """Queue a job at a route of these providers."""
        route = Route("route", tuple(one.name for one in providers), **more.pop("rules", {}))
        self.routes[route.name] = route
        service = route.as_provider({one.name: one for one in providers})
        self.submit(*requests, provider=service, members=providers, **more)

    def submit_beside(self, *requests: ImageRequest, **more: Any) -> None:
        """Queue a job as another process does: over a connection of its own."""
        with contextlib.closing(open_ledger(self.folder)) as other:
            submit.submit(other, plan(*requests, **more))

    def send_batch(
        self,
        *request_pks: int,
        id: str | None = "batch_1",  # noqa: A002 - the column's name
        status: str | None = "in_progress",
        completed: int = 0,
        failed: int = 0,
        sent_at: float | None = None,
        expires_at: float | None = None,
        estimate_usd: float | None = None,
    ) -> int:
        """Record a batch of these requests, each a line for one image, as it is while it is out; return its key."""
        job, provider = self.ask(
            "SELECT job, provider FROM request r JOIN job j ON j.pk = r.job WHERE r.pk = ?", request_pks[0]
        )[0]
        token = f"pipeline-{self.one('SELECT count(*) FROM batch')}"
        self.set(
            "INSERT INTO batch (job, provider, served_by, model, token, requests, tokens, id, status, completed,"
            " failed, created_at, sent_at, expires_at) VALUES (?, ?, 'generation', ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?)",
            *(job, provider, MODEL["model"], token, len(request_pks), id, status, completed, failed, sent_at or 0.0),
            *(sent_at, expires_at),
        )
        batch_pk = int(self.one("SELECT max(pk) FROM batch"))
        for pk in request_pks:
            self.set("UPDATE request SET status = 'running', stem = 'stem-' || pk WHERE pk = ?", pk)
            self.set(
                "INSERT INTO attempt (request, provider, n, estimate_usd, sent_at, batch) VALUES (?, ?, 1, ?, ?, ?)",
                *(pk, provider, estimate_usd, sent_at or 0.0, batch_pk),
            )
        return batch_pk

    def ask(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        """Give the rows of an answer."""
        return [tuple(row) for row in self.connection.execute(question, values)]

    def one(self, question: str, *values: Any) -> Any:
        """Give the first column of the first row."""
        return self.ask(question, *values)[0][0]

    def set(self, statement: str, *values: Any) -> None:
        """Change the ledger by hand."""
        self.connection.execute(statement, values)

    def statuses(self, job: str = "job") -> dict[str, str]:
        """Give each request's status by its id, superseded ones left out."""
        return dict(
            self.connection.execute(
                "SELECT r.id, r.status FROM request r JOIN job j ON j.pk = r.job WHERE j.name = ?"
                " AND r.stated = j.revision ORDER BY r.position",
                (job,),
            ).fetchall()
        )

    def works(self, provider: str = "lab", scope: Scope = ALL, most: int = 100, **more: Any) -> list[QueuedRequest]:
        """Give what a lane would take next."""
        with transaction(self.connection):
            return next_requests(self.connection, provider, scope, more.pop("taken", ()), most, **more)

    def runner(self, *providers: Provider, scope: Scope = ALL, knows: bool = True, **more: Any) -> Runner:
        """Make a run over what is pending at these providers. If it knows their servers, and they have no limit, it
        begins with as many calls in flight as their entries allow.
        """
        with transaction(self.connection):
            for one in providers if knows else ():
                if read_calls_in_flight(self.connection, one.name) is None:
                    record_calls_in_flight(self.connection, one.name, one.concurrency)
        config = Config(
            None, self.folder, None, {one.name: one for one in providers}, retry=self.retry, routes=self.routes
        )
        callers = Callers(self.environment, _address, self.make)
        return Runner(self.connection, self.held, config, models(), scope, callers, self._hear, **more)

    def _hear(self, event: Event) -> None:
        if isinstance(event, ProviderPace):
            self.paces.append(event)
        else:
            self.events.append(event)

    async def run(self, *providers: Provider, **more: Any) -> Runner:
        """Run to the end."""
        runner = self.runner(*providers, **more)
        recover(self.connection)
        await runner.run()
        return runner


async def _address(provider: Provider) -> str:
    assert provider.base_url is not None
    return provider.base_url


@contextlib.contextmanager
def benched(folder: Path) -> Iterator[Bench]:
    """Open a ledger in a folder."""
    with contextlib.closing(open_ledger(folder)) as connection:
        bench = Bench(folder, connection)
        yield bench
        if "held" in vars(bench):
            bench.held.close()


Body = dict[str, Any]


@contextlib.asynccontextmanager
async def vendor(
    answer: Callable[[Body], Awaitable[web.StreamResponse]],
    image: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None,
) -> AsyncIterator[str]:
    """Serve an Images API whose every call is answered by this function, and return its base_url.

    Images are below /picture, and those of `image` below /image.
    """

    async def call(http: web.Request) -> web.StreamResponse:
        return await answer(await http.json())

    async def give(_http: web.Request) -> web.Response:
        return web.Response(body=PNG)

    app = web.Application()
    app.router.add_post("/v1/images/generations", call)
    app.router.add_get("/picture/{name}", give)
    app.router.add_get("/image/{name}", image or give)
    async with TestServer(app) as server:
        yield str(server.make_url("/v1"))


def answer_with(*data: Body, **more: Any) -> web.Response:
    """Answer 200 with this list of pictures."""
    return web.json_response({"created": int(time.time()), "data": list(data), **more})


@contextlib.asynccontextmanager
async def sandbox(books: Path | None = None, **settings: Any) -> AsyncIterator[str]:
    """Serve the sandbox in this process; give its base_url."""
    mapping = {"rate_limit": None, "require_key": False, **settings}
    async with serve(SandboxSettings.from_mapping(mapping), request_log=books) as running:
        yield running.base_url


def lab(base_url: str, name: str = "lab", **more: Any) -> Provider:
    """Make a provider at this address, without a limit unless one is given."""
    return Provider(name, base_url, **{"rate_limit": None, "concurrency": 32, **more})


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until this holds; the test's own timeout ends it."""
    while not condition():  # noqa: ASYNC110 - what is waited for is another's state, and raises no event
        await asyncio.sleep(0.001)
