"""Hold what all requests of one running sandbox share: settings, limits, counters, storage."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox.capacity import Capacity
from pipeline.sandbox.rate_window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from pipeline.sandbox.api_errors import Meter
    from pipeline.sandbox.charges import Charges
    from pipeline.sandbox.file_store import FileStore
    from pipeline.sandbox.kept_responses import KeptResponses
    from pipeline.sandbox.request_log import CallEntry, ChargedEntry, RequestLog
    from pipeline.sandbox.settings import SandboxSettings
    from pipeline.sandbox.signed_urls import SignedUrls
    from pipeline.sandbox.upload_store import UploadStore

P = ParamSpec("P")
T = TypeVar("T")
IMAGE_PURPOSES: Final = ("vision", "user_data", "assistants")
"""Purposes of the files that a call may name as its images."""


class Admission:
    """Admission control of an organization: the quota, the rate limit, the capacity. `charges` are its books."""

    def __init__(self, settings: SandboxSettings, charges: Charges) -> None:
        self.charges = charges
        self.capacity = Capacity(settings.capacity)
        self._quota = settings.quota_images
        self._window = SlidingWindow(settings.rate_limit) if settings.rate_limit else None
        self._charged = 0

    def admit(self, entry: CallEntry, images: int) -> None:
        """Take places for the images of an arriving call. Raises ApiError if the quota is spent or the window full."""
        entry.n = images
        if self.is_quota_spent():
            raise errors.insufficient_quota()
        wait = self._window.admit(entry.mono, images) if self._window else None
        if self._window and wait is not None:
            meter: Meter = "input-images" if entry.operation == "edit" else "images"
            raise errors.rate_limited(self._window.limit, used=self._window.used, asked=images, wait=wait, meter=meter)

    def headers(self, now: float) -> dict[str, str]:
        """Return the headers that state the rate limit, and how much of it is left at `now` (monotonic seconds)."""
        if self._window is None:
            return {}
        left = self._window.left(now)
        return {
            "x-ratelimit-limit-images": str(self._window.limit.images),
            "x-ratelimit-remaining-images": str(left),
        }

    def charge(self, entry: ChargedEntry, images: int, cost_usd: float) -> None:
        """Count images that were made, and note what they cost at once; a line of a batch costs its share of it."""
        self._charged += images
        entry.charged = images
        entry.cost_usd = cost_usd * entry.price_share

    def is_quota_spent(self) -> bool:
        """Whether nothing more may be made."""
        return self._quota is not None and self._charged >= self._quota


@dataclass(slots=True)
class Service:
    """Shared state of one running sandbox; the counters number the calls and downloads for the faults."""

    settings: SandboxSettings
    admission: Admission
    signed_urls: SignedUrls
    upload_store: UploadStore
    files: FileStore
    kept: KeptResponses
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

    def read_image(self, file_id: str) -> tuple[bytes, str | None]:
        """Return the bytes and the content type of a file that may be an image of a call. Raises LookupError."""
        stored = self.files.get(file_id, self.clock())
        if stored.purpose not in IMAGE_PURPOSES:
            raise LookupError(file_id)
        try:
            return self.files.path(file_id).read_bytes(), stored.content_type
        except OSError as error:  # deleted in the meantime
            raise LookupError(file_id) from error
