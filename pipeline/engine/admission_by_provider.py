"""The admission control of each provider, one for a whole run; it knows what earlier runs sent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pipeline.client.rate_limit_hints import LONGEST_PAUSE
from pipeline.engine.admission import Admission
from pipeline.ledger import attempts
from pipeline.ledger.controls import read_calls_in_flight

if TYPE_CHECKING:
    from pipeline.config.load import Config, Provider
    from pipeline.engine.stop_policy import StopPolicy
    from pipeline.engine.uploads import Spool
    from pipeline.ledger.writer import Writer


class Admissions(dict[str, Admission]):
    """The admission controls of a run by the names of their providers."""

    def __init__(self, config: Config, stops: StopPolicy, spool: Spool) -> None:
        super().__init__()
        self._config = config
        self._stops = stops
        self._spool = spool

    async def open(self, provider: Provider, base_url: str, writer: Writer) -> Admission:
        """Create a provider's admission control."""
        name, limit, now = provider.name, provider.rate_limit, time.time()
        admission = Admission(
            provider,
            base_url,
            self._config.retry,
            self._stops.signal(name),
            known_good=await writer.do(attempts.has_succeeded, name),
            spool=self._spool,
            initial_level=await writer.do(read_calls_in_flight, name),
        )
        if limit is not None:
            sent = await writer.do(attempts.sent_since, name, now - limit.window)
            admission.throttle.remember((now - moment, images) for moment, images in sent)
        paused = await writer.do(attempts.paused_until, name) - now
        admission.throttle.pause(min(paused, LONGEST_PAUSE))  # more than was ever asked: the clock was set back
        self[name] = admission
        return admission
