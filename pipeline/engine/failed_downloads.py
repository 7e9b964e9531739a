"""Failed downloads: the errors of paid images that do not arrive, and the waits between two downloads."""

from __future__ import annotations

from pipeline.client.download import DownloadFailed
from pipeline.client.rate_limit_hints import LONGEST_PAUSE
from pipeline.errors import BrokenImage, DownloadRefused, UrlLost


def download_refused(reason: Exception, *, deterministic: bool, option: str | None) -> DownloadRefused:
    """Return the error of an image that cannot be downloaded now; `option` is the setting that would allow it."""
    allow = f"; to allow it, set {option}" if option else ""
    error = DownloadRefused(
        f"{_reason(reason)}{allow}; the image is paid, and `pipeline resume` downloads it without paying again"
    )
    error.deterministic, error.option, error.cause = deterministic, option, _reason(reason)
    return error


def url_lost(reason: Exception) -> UrlLost:
    """Return the error of an image whose URL has expired."""
    return UrlLost(f"the URL of a paid image expired before the image was downloaded: {_reason(reason)}")


def seconds_until_next(reason: DownloadFailed | BrokenImage, delay: float, left: float) -> float:
    """Return the seconds until the next download: `delay`, or more if the host asks for more, up to an hour.

    Of the seconds that are `left` until the URL expires, a host that asks for all of them gets half.
    """
    asked = (reason.retry_after or 0.0) if isinstance(reason, DownloadFailed) else 0.0
    return max(0.0, min(max(delay, min(asked if asked < left else left / 2, LONGEST_PAUSE)), left))


def _reason(reason: Exception) -> str:
    return f"the downloaded file {reason}" if isinstance(reason, BrokenImage) else str(reason)
