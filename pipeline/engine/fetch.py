"""A paid URL → its picture on disk: a live URL is tried at growing intervals until it dies."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from pipeline.client.download import DownloadFailed, HostRefused, UrlDead
from pipeline.errors import BrokenImage, DownloadRefused, UrlLost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pipeline.client.download import Downloader
    from pipeline.ledger.queue import PaidUrl
    from pipeline.storage import StoredImage

FIRST_WAIT, LONGEST_WAIT = 0.25, 60.0  # seconds; each wait is twice the last, less a random part


async def fetch(
    url: PaidUrl,
    death: float,
    downloader: Downloader,
    keep: Callable[[bytes], Awaitable[StoredImage]],
    sleep: Callable[[float], Awaitable[None]],
    attempts: int,
) -> StoredImage:
    """Download a paid picture and `keep` it. `death` is the moment `url.expires_at` on the monotonic clock: a wall
    clock that jumps meanwhile kills no URL.

    Raises UrlLost when the URL has died, and DownloadRefused after `attempts` definite refusals of a live one: it
    is still paid, and stays in the ledger.
    """
    wait, refusals = FIRST_WAIT, 0
    with downloader.bringing(url.expires_at):
        while True:
            try:
                return await keep(await downloader.fetch(url.url, url.expires_at))
            except UrlDead as reason:
                raise _lost(reason) from None
            except HostRefused as reason:
                raise DownloadRefused(str(reason)) from None
            except (DownloadFailed, BrokenImage) as reason:
                refusals += isinstance(reason, BrokenImage) or reason.definite
                if time.monotonic() >= death:
                    raise _lost(reason) from None
                if refusals >= attempts:
                    what = f"{_said(reason)} ({refusals} times); it is paid, `pipeline resume` tries again for nothing"
                    raise DownloadRefused(what) from None
            await sleep(max(0.0, min(wait * random.uniform(0.5, 1.0), death - time.monotonic())))
            wait = min(2 * wait, LONGEST_WAIT)


def _lost(reason: Exception) -> UrlLost:
    return UrlLost(f"a paid picture's URL died before the picture was here: {_said(reason)}")


def _said(reason: Exception) -> str:
    return f"the download {reason}" if isinstance(reason, BrokenImage) else str(reason)
