"""Choose the fault of each call and download by its number; the same seed gives the same faults in every run.

Faults exclude each other. Each call and each download is chosen anew, so a retry may succeed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox.rate_window import RateLimit
from pipeline.sandbox.settings import CALL_FAULTS, DOWNLOAD_FAULTS, CallFault, DownloadFault

if TYPE_CHECKING:
    from pipeline.sandbox.settings import SandboxSettings

BAD_GATEWAY: Final = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    b"<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n"
)
WRONG_PAGE: Final = b"<!DOCTYPE html><html><body><h1>This picture is on holiday.</h1></body></html>\n"
Name = TypeVar("Name", bound=str)
SLOW_CHUNKS: Final = 20


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """What fault injection decides about one call."""

    fault: CallFault | None
    latency: float
    retry_wait: float  # of an `http_429`, in seconds
    sends_retry_after: bool  # whether an `http_503` has the header
    slow_seconds: float  # of a `slow` response

    def api_error(self, limit: RateLimit | None, images: int) -> errors.ApiError | None:
        """Return the JSON error of a fault that is one; None for the others."""
        match self.fault:
            case "http_429":
                full = limit or RateLimit()
                return errors.rate_limited(full, used=full.images, asked=images, wait=self.retry_wait, meter="images")
            case "http_500":
                return errors.server_error()
            case "http_503":
                return errors.overloaded(1 if self.sends_retry_after else None)
            case _:
                return None


def plan_faults(settings: SandboxSettings, number: int | str) -> FaultPlan:
    """Choose what happens to the call with this number, or to the line of a batch with this name."""
    rng = random.Random(f"{settings.seed}:call:{number}")
    shares = [getattr(settings.faults, name) for name in CALL_FAULTS]
    return FaultPlan(
        fault=pick(CALL_FAULTS, shares, rng),
        latency=rng.uniform(*settings.latency_seconds),
        retry_wait=rng.randint(50, 300) / 1000,
        sends_retry_after=rng.random() < 0.5,
        slow_seconds=settings.slow_seconds,
    )


def pick_download_fault(settings: SandboxSettings, number: int) -> DownloadFault | None:
    """Choose what happens to the download with this number."""
    rng = random.Random(f"{settings.seed}:download:{number}")
    return pick(DOWNLOAD_FAULTS, [getattr(settings.faults, name) for name in DOWNLOAD_FAULTS], rng)


def pick(names: tuple[Name, ...], shares: list[float], rng: random.Random) -> Name | None:
    """Return one of the names with the probability that is its share, or None."""
    point = rng.random()
    for name, share in zip(names, shares, strict=True):
        point -= share
        if point < 0:
            return name
    return None
