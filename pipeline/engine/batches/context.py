"""What all batches of one provider share: its client, its records, the modes, and the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.client.batch_client import BatchClient
    from pipeline.config.batch_rules import BatchRules
    from pipeline.config.load import Provider, RetryRules
    from pipeline.engine.admission import Admission
    from pipeline.engine.batches.modes import Modes
    from pipeline.engine.caller import LocalCaller, Target
    from pipeline.engine.events import Listener
    from pipeline.engine.provider_context import ProviderContext
    from pipeline.engine.records import Records
    from pipeline.engine.stop_policy import StopPolicy
    from pipeline.ledger.queue import Scope
    from pipeline.ledger.writer import Writer
    from pipeline.models.table import Models


@dataclass(frozen=True, slots=True)
class BatchContext:
    """What all batches of one provider share; `shared` is what its requests in realtime share, too.

    If `waits` is false, each batch is looked at once, and those that are not final stay out.
    """

    shared: ProviderContext
    rules: BatchRules
    client: BatchClient
    modes: Modes
    models: Models
    scope: Scope
    writer: Writer
    stops: StopPolicy
    waits: bool

    @property
    def target(self) -> Target:
        """The server."""
        return self.shared.target

    @property
    def provider(self) -> Provider:
        """The provider."""
        return self.shared.target.provider

    @property
    def admission(self) -> Admission:
        """The admission control of the provider's calls."""
        return self.shared.admission

    @property
    def retry(self) -> RetryRules:
        """The rules of retries."""
        return self.shared.retry

    @property
    def output(self) -> Path:
        """The output folder, with the jobs' uploads."""
        return self.shared.output

    @property
    def caller(self) -> LocalCaller:
        """The caller, which stores images."""
        return self.shared.caller

    @property
    def records(self) -> Records:
        """The records of the provider's attempts."""
        return self.shared.records

    @property
    def emit(self) -> Listener:
        """The run's listener."""
        return self.shared.records.emit
