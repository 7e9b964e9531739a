"""The limits of one provider's calls: its own, which is the lowest of several, and those of single models."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.engine.throttle import Throttle

if TYPE_CHECKING:
    from pipeline.config.load import RateLimit
    from pipeline.engine.throttle import Reservation


class CallLimits:
    """Throttles of one provider. In force is the lowest of the configured limit, or the part of it that others leave,
    the one that people set while the run is at work, and the one that the server stated, which is kept in `stated`.

    `share` is the part of what the server states that is for this program.
    """

    def __init__(self, limit: RateLimit | None, share: float = 1.0) -> None:
        self.throttle = Throttle(limit)
        self.stated: RateLimit | None = None
        self._configured = limit
        self._share = share
        self._part = 1.0
        self._images: int | None = None  # per window, as people have set it
        self._models: dict[str, Throttle] = {}  # limits that the server stated for one model

    async def reserve(self, model: str | None, images: int, priority: int = 0) -> list[Reservation]:
        """Reserve room in the window of the provider, and before that in its model's own, if it has one."""
        throttle = self._models.get(model or "")
        if throttle is None:
            return [await self.throttle.reserve(images, priority)]
        own = await throttle.reserve(images, priority)
        try:
            return [await self.throttle.reserve(own.images, priority), own]
        except BaseException:
            own.cancel()
            raise

    def set_images(self, images: int | None) -> None:
        """Allow so many images per configured window from now on; None: as many as else."""
        self._images = images
        self._enforce()

    def set_part(self, part: float) -> None:
        """Use only this part of the configured limit from now on, at least one image."""
        self._part = part
        self._enforce()

    def lower(self, images: int, per_seconds: float | None, model: str | None = None) -> RateLimit | None:
        """Enforce a limit that the server stated, for all its models or for one, if it is lower; return it then.

        `per_seconds` is None if the server did not state it. If the config sets no limit, none is adopted.
        """
        configured = self._configured
        if configured is None:
            return None
        throttle = self.throttle if model is None else self._models.setdefault(model, Throttle(configured))
        before = (self.stated or configured) if model is None else (throttle.limit or configured)
        if images > 0:
            images = max(1, math.floor(images * self._share + 1e-9))
        stated = replace(before, images=images, per_seconds=per_seconds or before.per_seconds)
        if images < 1 or not _is_lower(stated, before):
            return None
        if model is None:
            self.stated = stated
            self._enforce()
        else:
            throttle.enforce(stated)
        return stated

    def _enforce(self) -> None:
        configured = self._configured
        if configured is None:
            return
        lowest = replace(configured, images=max(1, math.floor(configured.images * self._part + 1e-9)))
        if self._images is not None and self._images < lowest.images:
            lowest = replace(configured, images=self._images)
        if self.stated is not None and _is_lower(self.stated, lowest):
            lowest = self.stated
        self.throttle.enforce(lowest)

    @property
    def throttles(self) -> list[Throttle]:
        """All throttles: the provider's own, and those of models."""
        return [self.throttle, *self._models.values()]

    def close(self) -> None:
        """Cancel all waiting calls."""
        for throttle in self.throttles:
            throttle.close()


def _is_lower(limit: RateLimit, other: RateLimit) -> bool:
    return limit.images * other.per_seconds < other.images * limit.per_seconds
