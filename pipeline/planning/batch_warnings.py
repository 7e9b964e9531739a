"""Warn of what a job in mode batch or auto makes in realtime, and of what may not end well by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.models.batch_eligibility import realtime_reason
from pipeline.models.rules import quoted
from pipeline.planning.mode import local_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.config.provider import Provider
    from pipeline.models.model import Model
    from pipeline.models.table import Models
    from pipeline.planning.mode import ServiceMode
    from pipeline.planning.plan import ImageRequest

_MAX_IDS = 3


def batch_warnings(
    requests: Sequence[ImageRequest], provider: Provider, models: Models, service: ServiceMode, now: float
) -> Iterator[str]:
    """Yield the warnings of a job that is not in mode realtime; requests for the same reason share one."""
    if service.mode == "realtime":
        return
    if service.deadline is not None and service.has_passed(now):
        yield f"the deadline, {local_time(service.deadline)}, has passed: everything is made in realtime"
        return
    if provider.batch is None:
        yield f"provider `{provider.name}` has no Batch API: everything is made in realtime"
        return
    realtime: dict[str, list[str]] = {}
    for (name, served_by), ids in _by_endpoint(requests).items():
        model = models.find(name)
        reason = realtime_reason(name, model, served_by, provider, now)
        if reason is None:
            yield from _unknown(name, model)
        elif service.mode == "auto":
            realtime.setdefault(reason, []).extend(ids)
        else:
            yield reason
    for reason, ids in realtime.items():
        yield f"{_named(ids)} made in realtime: {reason}"


def _by_endpoint(requests: Sequence[ImageRequest]) -> dict[tuple[str | None, str], list[str]]:
    """Return the ids of requests by their model and the operation whose endpoint is called."""
    found: dict[tuple[str | None, str], list[str]] = {}
    for request in requests:
        found.setdefault((request.params.get("model"), request.served_by), []).append(request.id)
    return found


def _unknown(name: str | None, model: Model | None) -> Iterator[str]:
    if model is None:
        what = "no model is named" if name is None else f"model {quoted(name)} is not in the table"
        yield f"{what}: whether the Batch API takes it is not known, and it is tried"


def _named(ids: Sequence[str]) -> str:
    """Return which requests these are: all of a few, else the first and their number."""
    shown = ", ".join(f"`{request_id}`" for request_id in ids[:_MAX_IDS])
    if len(ids) == 1:
        return f"{shown} is"
    return f"{shown} are" if len(ids) <= _MAX_IDS else f"{len(ids):,} requests, such as {shown}, are"
