"""A call's number becomes the fault it suffers, the same in every run with the same seed.

Faults exclude each other. Each call and each download is drawn anew, so a retry may well succeed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from pipeline.sandbox.rules import errors
from pipeline.sandbox.settings import CALL_FAULTS, DOWNLOAD_FAULTS, CallFault, DownloadFault, RateLimit

if TYPE_CHECKING:
    from pipeline.sandbox.settings import SandboxSettings

BAD_GATEWAY: Final = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    b"<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n"
)
NOT_THE_PICTURE: Final = b"<!DOCTYPE html><html><body><h1>This picture is on holiday.</h1></body></html>\n"
Name = TypeVar("Name", bound=str)
DRIPS: Final = 20
DRIP_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Luck:
    """All that chance decides about one call."""

    fault: CallFault | None
    latency: float
    pace_wait: float  # the wait that an `http_429` tells, in seconds
    says_retry_after: bool  # whether an `http_503` says when to come back

    def refusal(self, limit: RateLimit | None, images: int) -> errors.ApiError | None:
        """Give the JSON error of a fault that is one; None for the others."""
        match self.fault:
            case "http_429":
                full = limit or RateLimit()
                return errors.rate_limited(full, used=full.images, asked=images, wait=self.pace_wait, meter="images")
            case "http_500":
                return errors.server_error()
            case "http_503":
                return errors.overloaded(1 if self.says_retry_after else None)
            case _:
                return None


def draw_call(settings: SandboxSettings, number: int) -> Luck:
    """Draw what happens to the call with this number."""
    chance = random.Random(f"{settings.seed}:call:{number}")
    shares = [getattr(settings.faults, name) for name in CALL_FAULTS]
    return Luck(
        fault=_pick(CALL_FAULTS, shares, chance),
        latency=chance.uniform(*settings.latency_seconds),
        pace_wait=chance.randint(50, 300) / 1000,
        says_retry_after=chance.random() < 0.5,
    )


def draw_download(settings: SandboxSettings, number: int) -> DownloadFault | None:
    """Draw what happens to the download with this number."""
    chance = random.Random(f"{settings.seed}:download:{number}")
    return _pick(DOWNLOAD_FAULTS, [getattr(settings.faults, name) for name in DOWNLOAD_FAULTS], chance)


def _pick(names: tuple[Name, ...], shares: list[float], chance: random.Random) -> Name | None:
    point = chance.random()
    for name, share in zip(names, shares, strict=True):
        point -= share
        if point < 0:
            return name
    return None
