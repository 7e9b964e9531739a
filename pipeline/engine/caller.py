"""Caller: makes one API call, from `CallSpec` to `CallResult`, and downloads the images that it paid for.

Specs and results are values that can be pickled, so that a caller may run in another process. `LocalCaller` makes the
calls in this one.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from pipeline.backoff import Backoff
from pipeline.client.client import ImagesClient
from pipeline.client.download import Downloader, DownloadFailed, UrlExpired
from pipeline.client.image_url import expiry, host_of, stated_expiry
from pipeline.client.limits import images_asked, response_bytes
from pipeline.client.request import build_body
from pipeline.client.response import InlineImage, LinkedImage, read_response
from pipeline.client.secrets import Secrets
from pipeline.client.session import ApiSession
from pipeline.engine.failed_downloads import download_refused, seconds_until_next, url_lost
from pipeline.engine.image_writer import ImageWriter, decode, free_numbers, validate
from pipeline.errors import BrokenImage, Invalid, RequestError, Unusable
from pipeline.file_descriptors import descriptors_for_calls, raise_descriptor_limit
from pipeline.ledger.attempts import ImageUrl

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from pipeline.client.request import Call
    from pipeline.client.response import HttpResponse, ImagesResponse
    from pipeline.config.load import DownloadRules, Provider
    from pipeline.engine.image_writer import FileNames
    from pipeline.errors import AttemptOutcome
    from pipeline.ledger.queue import PaidUrl
    from pipeline.storage import LocalStore, QuarantinedFile, StoredImage

_FIRST_WAIT, _LONGEST_WAIT = 0.25, 60.0  # seconds between two downloads of a URL
_FOR_BATCHES = 16
"""Connections beside those of calls, so that neither waits for the other: 8 uploads, downloads, and polls."""

_BEYOND_CORES = 1
"""One thread more than cores waits for the disk while the others compute. Six threads on two cores were no faster and
delayed the event loop by up to 37 ms (99th percentile, images of 2.6 MB), compared with 15 ms.
"""


@dataclass(frozen=True, slots=True)
class Target:
    """A server to call. `provider` names the key's variable and never holds the key; `images` is the store's folder."""

    provider: Provider
    base_url: str
    download: DownloadRules
    images: Path


@dataclass(frozen=True, slots=True)
class CallSpec:
    """One call: what is sent, to whom, and how its images are named. `taken` are numbers that are in use, `headers`
    those of this call alone.
    """

    target: Target
    call: Call
    names: FileNames
    taken: frozenset[int]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CallResult:
    """What became of one call: stored images and URLs, or `error`. Moments are in seconds since 1970.

    `quarantined` are images of the response that are not valid.

    `returned` counts the images of the response, those that were broken included, and `beyond` those of them that were
    not kept; `sent_at` is None if no byte left.
    """

    outcome: AttemptOutcome
    sent_at: float | None
    ended_at: float
    error: RequestError | None = None
    http_status: int | None = None
    request_id: str | None = None
    usage: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    returned: int = 0
    beyond: int = 0
    moderated: int = 0
    urls: tuple[ImageUrl, ...] = ()
    images: tuple[StoredImage, ...] = ()
    quarantined: tuple[QuarantinedFile, ...] = ()
    remaining: int | None = None  # images that are left in the window of the rate limit, as the server states it
    is_replay: bool = False


def image_threads() -> ThreadPoolExecutor:
    """Create the thread pool that decodes and stores images, so that the event loop stays responsive."""
    return ThreadPoolExecutor((os.cpu_count() or 1) + _BEYOND_CORES, "images")


class LocalCaller:
    """Makes calls and downloads in this process; an async context manager. Keys come from `environment`.

    `images` is the target's store. `session` is the one with the provider's API, for what else is asked of it.
    """

    is_elsewhere = False
    """Whether calls are sent by other processes: then a call that is reported as sent cannot be held back."""

    def __init__(self, target: Target, images: LocalStore, environment: Mapping[str, str]) -> None:
        provider, rules = target.provider, target.download
        key, headers = provider.key(environment), provider.header_values(environment)
        self.secrets = secrets = Secrets({"key": key, **headers})
        calls = descriptors_for_calls(raise_descriptor_limit())
        self._target = target
        self._stack = AsyncExitStack()
        self._proven_hosts: set[str] = set()  # from which an image was downloaded in this run
        self._threads = image_threads()
        self._writer = ImageWriter(images, self._threads, rules.max_pixels)
        self.session = ApiSession(
            target.base_url,
            key,
            headers,
            dialect=provider.dialect,
            timeout=provider.timeout_seconds,
            connections=min(provider.concurrency + (_FOR_BATCHES if provider.batch else 0), calls),
            secrets=secrets,
        )
        self._client = ImagesClient(self.session, provider.dialect, self._threads)
        self._downloader = Downloader(
            base_url=target.base_url,
            allow_hosts=rules.allow_hosts | provider.dialect.picture_hosts,
            max_bytes=rules.max_bytes,
            connections=min(max(64, provider.concurrency), calls),
            secrets=secrets,
        )

    async def __aenter__(self) -> Self:
        self._stack.callback(self._threads.shutdown, wait=False, cancel_futures=True)
        await self._stack.enter_async_context(self.session)
        await self._stack.enter_async_context(self._downloader)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def in_flight(self) -> int:
        """Number of calls that wait for their response."""
        return self._client.in_flight

    @property
    def downloads(self) -> int:
        """Number of downloads in progress, waits between two attempts included."""
        return self._downloader.active

    @property
    def next_expiry(self) -> float | None:
        """When the first URL that is being downloaded expires, in seconds since 1970."""
        return self._downloader.next_expiry

    async def call(
        self, spec: CallSpec, on_sent: Callable[[], None], on_answered: Callable[[], None] = lambda: None
    ) -> CallResult:
        """Make a call and store the images that its response contains. `on_sent` is called when its first byte leaves;
        what it raises is raised, and nothing is sent. `on_answered` is called when a success response has come.

        Other errors are returned, not raised; the call was not sent if an upload cannot be read.
        """
        sent_at: float | None = None

        def on_first_bytes() -> None:
            nonlocal sent_at
            on_sent()
            sent_at = time.time()

        try:
            body = await build_body(spec.call, self._target.provider.dialect)
        except Invalid as error:
            return CallResult("not_sent", None, time.time(), error)
        body["headers"] = {**body.get("headers", {}), **spec.headers}
        try:
            asked = images_asked(spec.call.params)
            max_bytes = response_bytes(spec.call.params, self._target.download.max_bytes)
            response = await self._client.call(spec.call.operation, body, on_first_bytes, max_bytes, asked)
            on_answered()
            return await self._store(response, spec, sent_at)
        except RequestError as error:
            return CallResult(error.outcome, sent_at, time.time(), error)

    async def receive(self, http: HttpResponse, spec: CallSpec, sent_at: float | None) -> CallResult:
        """Store the images of a response that came in another way than as the answer to a call. Errors are returned."""
        try:
            response = await asyncio.get_running_loop().run_in_executor(self._threads, read_response, http)
            return await self._store(response, spec, sent_at)
        except RequestError as error:
            return CallResult(error.outcome, sent_at, time.time(), error)

    async def _store(self, response: ImagesResponse, spec: CallSpec, sent_at: float | None) -> CallResult:
        """Store inline images and name linked ones; the error is Unusable if no image is valid. Raises DiskFull."""
        images = [await self._choose(image, spec) for image in response.images]
        inline = [image for image in images if isinstance(image, InlineImage)]
        links = [image for image in images if isinstance(image, LinkedImage)]
        numbers = free_numbers(spec.taken, len(inline))
        stored, broken = await self._writer.write_all(inline, spec.names, numbers)
        if broken and len(broken) == len(response.images):
            error = Unusable(f"the image in the response {broken[0].reason}", http_status=200)
            error.request_id, error.deterministic, error.is_replay = response.request_id, True, response.is_replay
            return CallResult(error.outcome, sent_at, time.time(), error, quarantined=tuple(broken))
        now, ttl = time.time(), self._target.provider.url_ttl_seconds
        free = free_numbers(spec.taken | {image.number for image in stored}, len(links))
        urls = [
            ImageUrl(number, link.url, expiry(link.url, ttl, skew=response.skew, now=now), link.revised_prompt)
            for link, number in zip(links, free, strict=True)
        ]
        return CallResult(
            outcome="answered",
            sent_at=sent_at,
            ended_at=now,
            http_status=response.http_status,
            request_id=response.request_id,
            usage=response.usage,
            settings=response.settings,
            returned=len(response.images) + response.beyond,
            beyond=response.beyond,
            moderated=response.moderated,
            urls=tuple(urls),
            images=tuple(stored),
            quarantined=tuple(broken),
            remaining=response.remaining,
            is_replay=response.is_replay,
        )

    async def _choose(self, image: InlineImage | LinkedImage, spec: CallSpec) -> InlineImage | LinkedImage:
        """Return the first valid form of an image that a response holds in several; a URL counts as valid."""
        if isinstance(image, LinkedImage) or not image.others:
            return image
        for form in (image, *image.others):
            if isinstance(form, LinkedImage) or await asyncio.get_running_loop().run_in_executor(
                self._threads, _is_valid, form.base64, spec.names.output_format, self._target.download.max_pixels
            ):
                return form
        return image

    async def download(
        self,
        url: PaidUrl,
        names: FileNames,
        expires_at: float,
        wait: Callable[[Exception, float], Awaitable[None]],
    ) -> StoredImage:
        """Download a paid image and store it, with exponential backoff until its URL expires, whatever it answers.

        `expires_at` is `url.expires_at` on the monotonic clock: a wall clock that jumps meanwhile expires no URL.
        `wait` is called with what failed and the seconds until the next attempt. Raises UrlLost if the URL has expired,
        DiskFull, and DownloadRefused if the image is still paid, and stays in the ledger: if time cannot help, if it is
        not valid after `download.attempts`, or if an expiry is assumed that no image of this host confirms.
        """
        is_stated = stated_expiry(url.url) is not None
        until = url.expires_at if is_stated else math.inf
        backoff, invalid = Backoff(_FIRST_WAIT, _LONGEST_WAIT), 0
        with self._downloader.tracking(url.expires_at):
            while True:
                is_last = invalid + 1 >= self._target.download.attempts
                try:
                    image = await self.fetch(url.url, until, names, url.number, is_last=is_last)
                except UrlExpired as error:
                    raise url_lost(error) from None
                except (DownloadFailed, BrokenImage) as error:
                    reason: DownloadFailed | BrokenImage = error
                else:
                    self._proven_hosts.add(host_of(url.url))
                    return image
                if isinstance(reason, DownloadFailed) and reason.deterministic:
                    raise download_refused(reason, deterministic=True, option=reason.option)
                invalid += isinstance(reason, BrokenImage)
                if time.monotonic() >= expires_at:
                    if is_stated or host_of(url.url) in self._proven_hosts:
                        raise url_lost(reason)
                    raise download_refused(reason, deterministic=False, option=None)
                await wait(reason, seconds_until_next(reason, backoff.next(), expires_at - time.monotonic()))

    async def fetch(
        self, url: str, expires_at: float, names: FileNames, number: int, *, is_last: bool = False
    ) -> StoredImage:
        """Download an image once and store it; `expires_at` is in seconds since 1970.

        Raises DownloadFailed, BrokenImage if it is not valid, or DownloadRefused if this was the last attempt, and
        DiskFull.
        """
        content = await self._downloader.fetch(url, expires_at)
        try:
            return await self._writer.write(content, names, number)
        except BrokenImage as reason:
            if not is_last:
                raise
            error = download_refused(reason, deterministic=True, option=None)
            error.quarantined = await self._writer.put_aside(content, names, str(reason))
            raise error from None


def _is_valid(base64: str, output_format: str | None, max_pixels: int) -> bool:
    try:
        validate(decode(base64), output_format, max_pixels)
    except BrokenImage:
        return False
    return True
