"""Serve a number of calls at once; others wait for their turn, or are refused."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox.validation import integer, mapping_of, refuse_unknown_keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Beyond: TypeAlias = Literal["wait", "http_429", "http_503"]
BEYOND: Final[tuple[Beyond, ...]] = get_args(Beyond)


@dataclass(frozen=True, slots=True)
class CapacitySettings:
    """How many calls are served at once, and what becomes of those beyond them."""

    calls: int
    beyond: Beyond = "wait"


def read_capacity(value: object) -> CapacitySettings | None:
    """Parse the mapping under `sandbox.capacity:`; None if there is none. Raises ValueError."""
    if value is None:
        return None
    mapping = mapping_of("capacity", value)
    refuse_unknown_keys(mapping, ["calls", "beyond"], "capacity.")
    beyond = next((known for known in BEYOND if known == mapping.get("beyond", "wait")), None)
    if beyond is None:
        raise ValueError(f"capacity.beyond: expected one of {', '.join(BEYOND)}, got {mapping.get('beyond')!r}")
    return CapacitySettings(integer("capacity.calls", mapping.get("calls"), low=1), beyond)


class Capacity:
    """The calls that are served now."""

    def __init__(self, settings: CapacitySettings | None) -> None:
        self._settings = settings
        self._free = asyncio.Semaphore(settings.calls) if settings else None

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve a call in the block, when it is its turn. Raises ApiError if it is refused."""
        if self._free is None or self._settings is None:
            yield
            return
        if self._settings.beyond != "wait" and self._free.locked():
            raise errors.busy() if self._settings.beyond == "http_429" else errors.overloaded(None)
        async with self._free:
            yield
