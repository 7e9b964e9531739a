"""Check of the notifications: one is sent by each way if that is asked for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pipeline.config.environment import UnusableVariable
from pipeline.doctor.check import not_checked, problem, well
from pipeline.doctor.daemon_thread import name_fault
from pipeline.notifications.delivery import DeliveryError
from pipeline.notifications.message import trial_message
from pipeline.notifications.notifier import ways_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pipeline.doctor.check import Check
    from pipeline.doctor.next_run import NextRun

_SECONDS = 8.0  # for the one try


async def check_notifications(next_run: NextRun, *, send: bool) -> list[Check]:
    """Return whether a trial notification arrives by each way; it is sent once. Without `send` nothing is sent."""
    if next_run.config.notify is None:
        return [not_checked("notify", "the config has no `notify:`")]
    try:
        ways = ways_of(next_run.config, next_run.environment, trial_message("pipeline run"))
    except UnusableVariable as error:
        return [problem("notify", error.fault, f"export {error.variable}=… with the whole value")]
    if not send:
        return [not_checked("notify", "--notify sends a trial")]
    address = next_run.config.notify.webhook_url(next_run.environment)
    if address is not None and (fault := await name_fault(address)) is not None:
        return [_undelivered("webhook", fault)]
    return list(await asyncio.gather(*(_deliver(how, once) for how, once in ways)))


async def _deliver(how: str, once: Callable[[], Awaitable[None]]) -> Check:
    try:
        async with asyncio.timeout(_SECONDS):
            await once()
    except TimeoutError:
        reason = f"it took longer than {_SECONDS:g} s"
    except DeliveryError as error:
        reason = str(error)
    else:
        return well("notify", f"delivered by {how}")
    return _undelivered(how, reason)


def _undelivered(how: str, reason: str) -> Check:
    return problem("notify", f"not delivered by {how}: {reason}", f"correct `{how}` under `notify:` in the config")
