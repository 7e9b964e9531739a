"""Decide which requests can go through a provider's Batch API, and which are rather made in realtime."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import TYPE_CHECKING

from pipeline.models.rules import quoted

if TYPE_CHECKING:
    from pipeline.config.batch_rules import BatchRules
    from pipeline.config.provider import Provider
    from pipeline.models.model import Model

_OPERATIONS = ("generation", "edit")
_HOUR = 3600


def batch_fault(model_name: str | None, model: Model | None, served_by: str, rules: BatchRules | None) -> str | None:
    """Return why a request cannot go by batch, else None.

    A model that the table does not know can: it is tried. `served_by` is the operation whose endpoint is called.
    """
    if rules is None:
        return "the provider has no Batch API"
    if served_by not in _OPERATIONS:
        return f"a {served_by} cannot go by batch"
    if model is not None and not model.batch:
        return f"{quoted(model_name or model.name)} cannot go by batch"
    return None


def ends_too_soon(model: Model | None, now: float, expires_hours: float) -> bool:
    """Return whether a model is shut down before a batch that is sent now could expire; the day begins in UTC."""
    if model is None or model.shutdown is None:
        return False
    ends_at = datetime.combine(model.shutdown, time(), UTC).timestamp()
    return ends_at < now + expires_hours * _HOUR


def realtime_reason(
    model_name: str | None, model: Model | None, served_by: str, provider: Provider, now: float
) -> str | None:
    """Return why mode auto makes a request in realtime, else None. A sandbox has all models, as if none ended."""
    rules = provider.batch
    fault = batch_fault(model_name, model, served_by, rules)
    if fault or rules is None or model is None or provider.sandbox is not None:
        return fault
    return shutdown_reason(model) if ends_too_soon(model, now, rules.expires_hours) else None


def shutdown_reason(model: Model) -> str:
    """Return what is said of a model that ends too soon."""
    return f"{model.name} is shut down on {model.shutdown} at OpenAI, before a batch could expire"
