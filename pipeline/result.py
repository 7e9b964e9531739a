"""How a run ended, for Python and for the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.results.outcome import read_outcomes

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.config import RateLimit
    from pipeline.engine.accounts import Account
    from pipeline.errors import Stop
    from pipeline.results.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended. `accounts` are those of the jobs it was asked for; `lowered` are the limits that
    providers stated, by provider, and that held instead of the configured ones; `unwritten` says what of the reports
    could not be written.
    """

    folder: Path
    accounts: Sequence[Account]
    stops: Sequence[Stop]
    signal: signal.Signals | None
    manifests: Sequence[Path]
    lowered: Mapping[str, RateLimit]
    reports: Sequence[Path] = ()
    unwritten: Sequence[str] = ()

    @property
    def requests(self) -> list[Outcome]:
        """What became of each request of these jobs, in their order; read from the ledger each time."""
        return [outcome for account in self.accounts for outcome in read_outcomes(self.folder, account.name)]

    def raise_for_error(self) -> None:
        """Raise what stopped the run, else the error of the first request that failed, if one did: a RequestError."""
        failed = (one.error for one in self.requests if one.status in {"failed", "partial"})
        error = next(iter(self.stops), None) or next(failed, None)
        if error is not None:
            raise error

    @property
    def exit_code(self) -> int:
        """Say in a number what became of what was asked for, as the README lists it."""
        if self.signal is not None:
            return 128 + self.signal
        if self.stops:
            return 3
        return int(any(account.unsuccessful for account in self.accounts))
