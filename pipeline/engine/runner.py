"""A request becomes files: one worker each, and one function that carries it from the queue to the record.

A `Lane` is one provider at work, with its own throttle and its own calls in flight, so that none holds up another. A
worker is made when there is room for a call and few others wait at the throttle: the number in flight follows the
latency (50 pictures a minute at 80 s each are 67 calls in flight) and nothing but the limit decides the speed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.engine import budget, journal
from pipeline.engine.answer import Inline, Link
from pipeline.engine.api import Api, Call, Upload
from pipeline.engine.check import check, decode
from pipeline.engine.download import Downloader, DownloadFailed, HostRefused, UrlDead, expiry
from pipeline.engine.events import (
    CallEnded,
    CallSent,
    ImageStored,
    Paused,
    ProviderAway,
    ProviderBack,
    RequestEnded,
    Retrying,
    Stopped,
)
from pipeline.engine.ledger import recover, release
from pipeline.engine.outage import Outage
from pipeline.engine.retry import retrying
from pipeline.engine.store import store
from pipeline.engine.throttle import Throttle
from pipeline.engine.writer import Writer
from pipeline.errors import (
    BrokenPicture,
    DiskFull,
    DownloadRefused,
    Moderated,
    PipelineError,
    RateLimited,
    RequestError,
    Stop,
    Unusable,
    UrlLost,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    from tenacity import RetryCallState

    from pipeline.config import Config, Provider
    from pipeline.engine.answer import Answer
    from pipeline.engine.events import Listener
    from pipeline.engine.journal import PaidUrl, Scope, Work
    from pipeline.engine.store import StoredImage
    from pipeline.spec.models import Models

LOOKAHEAD = 32
"""Requests of one provider that wait at its throttle at once; more would only wait in memory and not in the ledger."""

POLL_SECONDS = 1.0  # how often the ledger is asked for what another process has submitted


@dataclass(slots=True)
class _Progress:
    """Where one request stands while its worker carries it."""

    work: Work
    missing: int
    urls: list[PaidUrl]
    numbers: set[int]
    received: int
    moderated: int
    succeeded: bool = False
    probe: bool = False
    last_error: RequestError | None = None

    @classmethod
    def of(cls, work: Work) -> _Progress:
        return cls(work, work.missing, list(work.urls), set(work.numbers), work.received, work.moderated)

    def next_numbers(self, count: int) -> list[int]:
        """Take the lowest free numbers for pictures of this request."""
        free = [number for number in range(1, len(self.numbers) + count + 1) if number not in self.numbers][:count]
        self.numbers.update(free)
        return free


@dataclass(slots=True)
class Runner:
    """A run: the lanes of all providers that requests in `scope` wait for. `address` opens a provider's door."""

    connection: sqlite3.Connection
    folder: Path
    config: Config
    models: Models
    scope: Scope
    environment: Mapping[str, str]
    address: Callable[[Provider], Awaitable[str]]
    emit: Listener
    budget_usd: float | None = None
    stops: list[Stop] = field(default_factory=list)
    barred: set[tuple[int, str | None]] = field(
        default_factory=set
    )  # (job, model) that a stop holds up; None: every model
    _lanes: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _working: dict[str, Lane] = field(default_factory=dict)
    _stopped: set[str] = field(default_factory=set)
    _halted: bool = False

    async def run(self) -> None:
        """Work until nothing in scope is pending, or every provider that it waits for has stopped; see `stops`."""
        async with Writer(self.connection) as writer:
            money = budget.Budget(self.budget_usd, self.config.budget_usd)
            async with asyncio.TaskGroup() as group:
                while await self._start_lanes(writer, money, group):
                    await asyncio.wait(self._lanes.values(), timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            with contextlib.suppress(PipelineError):  # a full disk; the next start mends the same
                await writer.do(recover)

    def halt(self) -> None:
        """Make no further call; what is in flight is finished."""
        self._halted = True
        for lane in self._working.values():
            lane.halt()

    async def _start_lanes(self, writer: Writer, money: budget.Budget, group: asyncio.TaskGroup) -> bool:
        """Start a lane for each provider that requests wait for and that has none; False when there is nothing to wait for."""
        self._lanes = {name: task for name, task in self._lanes.items() if not task.done()}
        if not self._halted:
            for name in await writer.do(journal.waiting_providers, self.scope, frozenset(self.barred)):
                if name not in self._lanes and name not in self._stopped and name in self.config.providers:
                    self._lanes[name] = group.create_task(self._work(name, writer, money), name=f"lane {name}")
        return bool(self._lanes)

    async def _work(self, name: str, writer: Writer, money: budget.Budget) -> None:
        provider = self.config.providers[name]
        base_url = await self.address(provider)
        key = provider.key(self.environment)
        headers = provider.header_values(self.environment)
        most_bytes = self.config.download.max_bytes
        async with (
            Api(
                base_url,
                key,
                headers,
                timeout=provider.timeout_seconds,
                connections=provider.concurrency,
                most_bytes=2**20 + most_bytes * 4 // 3 * provider.images_per_call,
            ) as api,
            Downloader(
                base_url=base_url,
                allow_hosts=self.config.download.allow_hosts,
                most_bytes=most_bytes,
                connections=max(64, provider.concurrency),
            ) as downloader,
        ):
            lane = Lane(self, provider, api, downloader, writer, money)
            self._working[name] = lane
            if self._halted:
                lane.halt()
            try:
                await lane.work()
            finally:
                del self._working[name]

    def stop(self, error: Stop, provider: str) -> None:
        """Note a stop, and carry it as far as its cause reaches."""
        self.stops.append(error)
        self.emit(Stopped("everything" if error.reach == "everything" else f"provider `{provider}`", error))
        if error.reach == "everything":
            self.halt()
        else:
            self._stopped.add(provider)
            self._working[provider].halt()


class Lane:
    """One provider at work."""

    def __init__(
        self, runner: Runner, provider: Provider, api: Api, downloader: Downloader, writer: Writer, money: budget.Budget
    ) -> None:
        self._runner = runner
        self._provider = provider
        self._api = api
        self._downloader = downloader
        self._writer = writer
        self._money = money
        self._emit = runner.emit
        self._throttle = Throttle(provider.rate_limit)
        self._outage = Outage(api.base_url, runner.config.retry.outage_hours * 3600)
        self._carrying: dict[int, asyncio.Task[None]] = {}
        self._in_line: set[int] = set()  # requests that have no call in flight yet
        self._interruptible: set[asyncio.Task[Any]] = set()
        self._halted = False
        self._changed = asyncio.Event()
        self._refused_pace = 0  # 429s in a row without a hint

    def halt(self) -> None:
        """Make no further call: whoever only waits goes back into the queue at once."""
        self._halted = True
        for task in self._interruptible:
            task.cancel()
        self._changed.set()

    async def work(self) -> None:
        """Take requests while there are any, and give each a worker."""
        await self._remember()
        async with asyncio.TaskGroup() as group:
            while not self._halted:
                self._changed.clear()
                taken = await self._take()
                for work in taken:
                    self._in_line.add(work.request)
                    self._carrying[work.request] = group.create_task(self._worker(work), name=work.id)
                if not taken and not self._carrying:
                    break
                if not taken:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(POLL_SECONDS):
                            await self._changed.wait()
        await self._writer.do(release, self._provider.name)

    async def _remember(self) -> None:
        """Take over what an earlier run sent within the window, and the pause that it was told."""
        now, name = time.time(), self._provider.name
        if limit := self._provider.rate_limit:
            sent = await self._writer.do(journal.sent_since, name, now - limit.window, limit.images)
            self._throttle.remember((now - moment, images) for moment, images in sent)
        self._throttle.pause(await self._writer.do(journal.paused_until, name) - now)

    async def _take(self) -> list[Work]:
        """Take as many requests as there is room for in flight and in line."""
        room = min(self._provider.concurrency - len(self._carrying), LOOKAHEAD - len(self._in_line))
        if room <= 0:
            return []
        found = await self._writer.do(
            journal.pending,
            self._provider.name,
            self._runner.scope,
            set(self._carrying),
            room,
            frozenset(self._runner.barred),
        )
        return [] if self._halted else found

    async def _worker(self, work: Work) -> None:
        """Carry one request, and leave it ended or back in the queue, whatever happens."""
        try:
            await self._carry(_Progress.of(work))
        except Stop as error:
            self._writer.post(journal.put_back, work.request)
            self._stop(error, work)
        except asyncio.CancelledError:
            self._writer.post(journal.put_back, work.request)
            raise
        finally:
            del self._carrying[work.request]
            self._in_line.discard(work.request)
            self._changed.set()

    async def _carry(self, request: _Progress) -> None:
        """Carry a request to its end: what is paid is fetched, what is missing is asked for, until nothing is missing."""
        retry = retrying(
            self._runner.config.retry,
            sleep=self._sleep,
            counts=lambda error: error.counted and not request.probe,
            before_sleep=lambda state: self._say_retrying(request, state),
        )
        try:
            while request.urls or request.missing > 0:
                await retry(self._make, request)
        except Stop:
            raise
        except RequestError as error:
            request.last_error = error
        await self._end(request)

    async def _make(self, request: _Progress) -> None:
        """The way of a request: throttle, call, record, download, check, store, record."""
        if not request.urls:
            turn, images = await self._turn(request)
            try:
                attempt, estimate = await self._begin(request, images)
                if attempt is None:
                    raise asyncio.CancelledError
                self._in_line.discard(request.work.request)
                self._changed.set()
                began, sent_at = time.monotonic(), _Moment(turn.sent)
                try:
                    answer = await self._api.call(self._call(request, images), sent_at)
                    files = await self._keep_inline(request, answer)
                except RequestError as error:
                    await self._failed(request, attempt, error, sent_at.moment, estimate, began)
                    raise
            finally:
                turn.unsent()
            self._outage_over()
            await self._answered(request, attempt, answer, files, sent_at.moment, estimate, began)
        else:
            self._in_line.discard(request.work.request)
            self._changed.set()
            await self._writer.do(journal.resume_downloads, request.work.request)
        await self._fetch_all(request)

    async def _turn(self, request: _Progress) -> tuple[Any, int]:
        """Wait for the provider to be there, and for leave to call it; give the turn and the images to ask for."""
        work, images = (
            request.work,
            min(request.missing, self._provider.images_per_call, self._throttle.most or request.missing),
        )
        self._in_line.add(work.request)
        with self._waiting():
            try:
                while True:
                    request.probe = await self._outage.passage(work.request)
                    turn = await self._throttle.turn(images)
                    if request.probe or self._outage.down_since is None:
                        break
                    turn.unsent()
            except asyncio.CancelledError:
                self._outage.released(work.request)
                raise
        if not self._runner.barred.isdisjoint({(work.job, work.model), (work.job, None)}):
            turn.unsent()
            raise asyncio.CancelledError
        return turn, images

    async def _begin(self, request: _Progress, images: int) -> tuple[int | None, float | None]:
        """Set the money aside and write the call down, before it is sent."""
        work = request.work
        model = self._runner.models.find(work.model)
        sizes = [(entry["width"], entry["height"]) for entry in work.inputs if entry["role"] == "image"]
        estimate = model.most(work.operation, work.prompt, work.params, images, sizes) if model else None
        if self._money.limit(work) is not None and not self._money.knows(work):
            self._money.learn(work, await self._writer.do(budget.committed, work.job))
        self._money.reserve(work, estimate)
        attempt = await self._writer.do(
            journal.begin, work.request, self._provider.name, self._api.base_url, images, estimate, time.time()
        )
        if attempt is None:
            self._money.settle(work, estimate, 0.0)
        else:
            self._emit(CallSent(work.job_name, work.id, self._provider.name, images))
        return attempt, estimate

    def _call(self, request: _Progress, images: int) -> Call:
        work = request.work
        folder = self._runner.folder / work.job_name
        params = {"prompt": work.prompt, **work.params, "n": images}
        if work.prompt is None:
            del params["prompt"]
        uploads = [Upload(entry["role"], folder / entry["file"], entry["content_type"]) for entry in work.inputs]
        return Call(work.operation, params, uploads)

    async def _keep_inline(self, request: _Progress, answer: Answer) -> list[StoredImage]:
        """Check and file the pictures that came along, each in a thread. Raises Unusable where none is whole."""
        inline = [picture for picture in answer.pictures if isinstance(picture, Inline)]
        if not inline:
            return []
        numbers = request.next_numbers(len(inline))
        results = await asyncio.gather(
            *(
                self._keep(request, picture.base64, number, picture.revised_prompt)
                for picture, number in zip(inline, numbers, strict=True)
            ),
            return_exceptions=True,
        )
        files: list[StoredImage] = []
        for number, result in zip(numbers, results, strict=True):
            if isinstance(result, BrokenPicture):
                request.numbers.discard(number)
                broken = result
            elif isinstance(result, BaseException):
                raise result
            else:
                files.append(result)
        if not files and len(inline) == len(answer.pictures):
            raise Unusable(
                f"the picture that came is broken: {broken}",
                http_status=answer.http_status,
                request_id=answer.request_id,
            )
        return files

    async def _keep(
        self, request: _Progress, content: bytes | str, number: int, revised_prompt: str | None
    ) -> StoredImage:
        """Check and file one picture in a thread."""
        work = request.work
        return await asyncio.to_thread(
            _check_and_store,
            content,
            work.params,
            self._runner.folder / work.job_name,
            work.stem,
            number,
            revised_prompt,
        )

    async def _answered(
        self,
        request: _Progress,
        attempt: int,
        answer: Answer,
        files: list[StoredImage],
        sent_at: float,
        estimate: float | None,
        began: float,
    ) -> None:
        """Record an answer: what it cost, the files that are here, the URLs that are to be fetched."""
        work, now = request.work, time.time()
        model = self._runner.models.find(work.model)
        cost = model.cost(work.operation, work.params, len(answer.pictures), answer.usage) if model else None
        links = [picture for picture in answer.pictures if isinstance(picture, Link)]
        ttl = self._provider.url_ttl_seconds
        urls = [
            journal.NewUrl(number, link.url, expiry(link.url, ttl, skew=answer.skew, now=now), link.revised_prompt)
            for link, number in zip(links, request.next_numbers(len(links)), strict=True)
        ]
        reply = journal.Reply(answer.http_status, answer.request_id, answer.usage, cost, sent_at, now, answer.moderated)
        paid, request.succeeded = await self._writer.do(journal.answered, work, attempt, reply, urls, files)
        self._money.settle(work, estimate, cost)
        request.urls = paid
        request.missing -= len(files) + answer.moderated
        request.received += len(files)
        request.moderated += answer.moderated
        self._emit(CallEnded(work.job_name, work.id, self._provider.name, time.monotonic() - began, cost, None))
        for file in files:
            self._emit(ImageStored(work.job_name, work.id, f"{work.job_name}/{file.file}"))

    async def _failed(
        self,
        request: _Progress,
        attempt: int,
        error: RequestError,
        sent_at: float,
        estimate: float | None,
        began: float,
    ) -> None:
        """Record a call that brought nothing, and draw what follows for everyone from it."""
        work, now = request.work, time.time()
        if isinstance(error, DiskFull):
            return  # the call is paid and its picture could not be kept: left open, it counts as unknown
        await self._writer.do(journal.failed, attempt, error, error.outcome, sent_at or None, now)
        self._money.settle(work, estimate, None if error.outcome == "unknown" else 0.0)
        self._emit(CallEnded(work.job_name, work.id, self._provider.name, time.monotonic() - began, None, error))
        if isinstance(error, RateLimited):
            self._pause(error)
        was_down = self._outage.down_since is not None
        if isinstance(error, Stop):
            return
        if given_up := self._outage.failed(work.request, error):
            raise given_up
        if self._outage.down_since is not None and not was_down:
            self._emit(ProviderAway(self._provider.name, error.message))

    async def _fetch_all(self, request: _Progress) -> None:
        """Download what is paid, all at once. Raises UrlLost, or DownloadRefused, where not one picture came."""
        urls, request.urls = request.urls, []
        if not urls:
            return
        results = await asyncio.gather(*(self._fetch(request, url) for url in urls), return_exceptions=True)
        failures: list[BaseException] = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if not isinstance(failure, UrlLost | DownloadRefused):
                raise failure
        refused = [failure for failure in failures if isinstance(failure, DownloadRefused)]
        if refused:
            raise refused[0]
        if len(failures) == len(urls):
            raise failures[0]

    async def _fetch(self, request: _Progress, url: PaidUrl) -> None:
        """Bring one paid picture home: a live URL is tried at growing intervals until it dies."""
        work, rules, refusals, tries = request.work, self._runner.config.download, 0, 0
        while True:
            try:
                content = await self._downloader.fetch(url.url, url.expires_at)
                file = await self._keep(request, content, url.number, None)
                break
            except UrlDead as reason:
                await self._lose(request, url, str(reason))
            except (DownloadFailed, BrokenPicture) as reason:
                tries += 1
                refusals += rules.attempts if isinstance(reason, HostRefused) else _is_definite(reason)
                if time.time() >= url.expires_at:
                    await self._lose(request, url, str(reason))
                if refusals >= rules.attempts:
                    raise DownloadRefused(
                        f"{reason} ({refusals} times); `pipeline resume` tries again for nothing"
                    ) from None
            wait = min(0.25 * 2**tries, 60.0, max(0.0, url.expires_at - time.time()) + 0.05)
            await self._sleep(wait * random.uniform(0.5, 1.0))
        request.succeeded = await self._writer.do(journal.stored, work.request, url.image, file, time.time())
        request.received += 1
        request.missing -= 1
        self._emit(ImageStored(work.job_name, work.id, f"{work.job_name}/{file.file}"))

    async def _lose(self, request: _Progress, url: PaidUrl, reason: str) -> None:
        """Write a dead URL off; its picture is missing again. Raises UrlLost."""
        await self._writer.do(journal.lost, url.image)
        request.numbers.discard(url.number)
        raise UrlLost(f"a paid picture's URL died before it was here: {reason}")

    async def _end(self, request: _Progress) -> None:
        """Record how the request ended."""
        work, error = request.work, request.last_error
        if request.succeeded:
            self._emit(RequestEnded(work.job_name, work.id, "succeeded", None))
            return
        if error is None and request.moderated:
            error = Moderated(
                f"the service withheld {request.moderated} of {work.n} pictures as moderated", http_status=200
            )
        if error is None:  # the job has asked for more meanwhile
            await self._writer.do(journal.put_back, work.request)
            return
        status: journal.Ending = "partial" if request.received else "failed"
        await self._writer.do(journal.end, work.request, status, error, time.time())
        self._emit(RequestEnded(work.job_name, work.id, status, error))

    def _stop(self, error: Stop, work: Work) -> None:
        if error.reach in {"model", "job"}:
            self._runner.barred.add((work.job, work.model if error.reach == "model" else None))
            self._runner.stops.append(error)
            held = (
                f"model `{work.model}` of job `{work.job_name}`" if error.reach == "model" else f"job `{work.job_name}`"
            )
            self._emit(Stopped(held, error))
        elif not self._halted:
            self._runner.stop(error, self._provider.name)

    def _pause(self, error: RateLimited) -> None:
        """Hold everyone who calls this provider, for as long as it says; it outlives the run."""
        self._refused_pace += 1
        rules = self._runner.config.retry
        asked = error.retry_after
        if asked is None:
            asked = min(2.0**self._refused_pace, rules.max_wait_seconds)
        seconds = asked + random.uniform(0.0, 0.05 * asked + 0.01)
        self._throttle.pause(seconds)
        self._writer.post(journal.pause, self._provider.name, time.time() + seconds)
        self._emit(Paused(self._provider.name, seconds, error.message))

    def _outage_over(self) -> None:
        self._refused_pace = 0
        down_since = self._outage.down_since
        self._outage.answered()
        if down_since is not None:
            self._emit(ProviderBack(self._provider.name, asyncio.get_running_loop().time() - down_since))

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """A wait that a stop cuts short, by cancelling the worker."""
        task = asyncio.current_task()
        assert task is not None
        if self._halted:
            raise asyncio.CancelledError
        self._interruptible.add(task)
        try:
            yield
        finally:
            self._interruptible.discard(task)

    async def _sleep(self, seconds: float) -> None:
        with self._waiting():
            await asyncio.sleep(seconds)

    def _say_retrying(self, request: _Progress, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, RequestError):
            self._emit(Retrying(request.work.job_name, request.work.id, state.upcoming_sleep, error))


class _Moment:
    """Tells the throttle that a call leaves, and remembers when (seconds since 1970; 0 before)."""

    def __init__(self, sent: Callable[[], None]) -> None:
        self._sent = sent
        self.moment = 0.0

    def __call__(self) -> None:
        self.moment = time.time()
        self._sent()


def _is_definite(reason: DownloadFailed | BrokenPicture) -> bool:
    return isinstance(reason, BrokenPicture) or reason.definite


def _check_and_store(
    content: bytes | str, params: Mapping[str, Any], folder: Path, stem: str, number: int, revised_prompt: str | None
) -> StoredImage:
    """Bytes, or base64 of them, → a file. Plain values in and out, for any thread or process."""
    image = check(decode(content) if isinstance(content, str) else content, params)
    return store(image, folder, stem, number, revised_prompt)
