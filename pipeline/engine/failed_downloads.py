"""Failed downloads: the errors of paid images that do not arrive."""

from __future__ import annotations

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


def _reason(reason: Exception) -> str:
    return f"the downloaded file {reason}" if isinstance(reason, BrokenImage) else str(reason)
