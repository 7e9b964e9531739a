"""Hold what all requests of one running sandbox share: settings, limits, counters, storage."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox.rate_window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from pipeline.sandbox.api_errors import Meter
    from pipeline.sandbox.request_log import CallEntry, RequestLog
    from pipeline.sandbox.settings import SandboxSettings
    from pipeline.sandbox.signed_urls import SignedUrls
    from pipeline.sandbox.upload_store import UploadStore

P = ParamSpec("P")
T = TypeVar("T")


class Admission:
    """Admission control of an organization: the quota of images and the rate limit."""

    def __init__(self, settings: SandboxSettings) -> None:
        self._quota = settings.quota_images
        self._window = SlidingWindow(settings.rate_limit) if settings.rate_limit else None
        self._charged = 0

    def admit(self, entry: CallEntry, images: int) -> None:
        """Take places for the images of an arriving call. Raises ApiError if the quota is spent or the window full."""
        entry.n = images
        if self._quota is not None and self._charged >= self._quota:
            raise errors.insufficient_quota()
        wait = self._window.admit(entry.mono, images) if self._window else None
        if self._window and wait is not None:
            meter: Meter = "input-images" if entry.operation == "edit" else "images"
            raise errors.rate_limited(self._window.limit, used=self._window.used, asked=images, wait=wait, meter=meter)

    def charge(self, entry: CallEntry, images: int) -> None:
        """Count images that were made."""
        self._charged += images
        entry.charged = images


@dataclass(slots=True)
class Service:
    """Shared state of one running sandbox; the counters number the calls and downloads for the faults."""

    settings: SandboxSettings
    admission: Admission
    signed_urls: SignedUrls
    upload_store: UploadStore
    request_log: RequestLog
    threads: ThreadPoolExecutor
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    calls: int = 0
    downloads: int = 0

    async def run_in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what uses the processor for milliseconds in a thread, so that the event loop stays free."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, partial(function, *args, **kwargs))

    def admit(self, entry: CallEntry, images: int) -> None:
        """Note the arrival of a call and admit it. Raises ApiError."""
        entry.at, entry.mono = self.clock(), self.monotonic()
        self.admission.admit(entry, images)
