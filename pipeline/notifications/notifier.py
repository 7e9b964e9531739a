"""Sends notifications of a run's end, stop or long pause to the webhook or command that `notify:` names."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from pipeline.config.environment import child_environment
from pipeline.engine import events
from pipeline.notifications.delivery import DeliveryError, deliver, post, run_command
from pipeline.notifications.message import end_message, failure_message, pause_message
from pipeline.reports.next_command import NextCommand

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from types import TracebackType

    from pipeline.config.load import Config
    from pipeline.engine.events import Event, Listener
    from pipeline.errors import Stop
    from pipeline.ledger.job_summary import JobSummary
    from pipeline.notifications.message import Message


@dataclass(slots=True)
class _Stall:
    """A provider that sends no images; `timer` is None once its pause has been reported."""

    since: float
    reason: str
    until: float | None = None
    timer: asyncio.TimerHandle | None = None


def ways_of(
    config: Config, environment: Mapping[str, str], message: Message
) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
    """Return the ways by which a message goes out, each with its name. Raises ConfigError if a variable is unset."""
    notify = config.notify
    if notify is None:
        return []
    ways: list[tuple[str, Callable[[], Awaitable[None]]]] = []
    if address := notify.webhook_url(environment):
        headers = notify.header_values(environment)
        ways.append(("webhook", partial(post, address, notify.template, headers, message)))
    if notify.command:
        child = child_environment(environment, secret=config.secret_variables())
        ways.append(("command", partial(run_command, notify.command, child, message)))
    return ways


class Notifier:
    """An async context manager around a run; `listen` passes events on. A failure here is an event, not an error."""

    def __init__(self, config: Config, environment: Mapping[str, str], emit: Listener) -> None:
        self._config = config
        self._notify = config.notify
        self._continue = NextCommand.anywhere(config).line("run")
        self._environment = environment
        self._emit = emit
        self._has_started = self._has_worked = False
        self._stalls: dict[str, _Stall] = {}
        self._deliveries: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._stalls):
            self._end_stall(name)
        if isinstance(error, Exception) and self._has_started:
            self._send(failure_message(error, self._continue))
        if isinstance(error, asyncio.CancelledError):  # a second signal: the person is there and waits for nothing
            for task in self._deliveries:
                task.cancel()
        await asyncio.gather(*self._deliveries, return_exceptions=True)

    def listen(self, event: Event) -> None:
        """Process an event and pass it on."""
        self._emit(event)
        match event:
            case events.RunStarted():
                self._has_started = True
                return
            case events.ProviderPace(provider, "paused", until):
                self._stalled(provider, "it asked for a pause", until)
            case events.ProviderPace():
                return
            case events.Paused(provider, seconds, reason):
                self._stalled(provider, reason, time.time() + seconds)
            case events.ProviderDown(provider, reason):
                self._stalled(provider, reason, None)
            case (
                events.CallEnded(_, _, provider, _, _, None)
                | events.BatchSent(_, provider)
                | events.ProviderUp(provider)
            ):
                self._responded(provider)
        self._has_worked = True

    def ended(
        self, exit_code: int, summaries: Sequence[JobSummary], stops: Sequence[Stop], signal: str | None = None
    ) -> None:
        """Report the end of the run, unless it had nothing to do."""
        if self._has_worked:
            self._send(end_message(exit_code, summaries, stops, signal, self._continue))

    def _stalled(self, provider: str, reason: str, until: float | None) -> None:
        """Record a stall, and report it once it has lasted for `pause_minutes` or is known to."""
        if self._notify is None:
            return
        now, longest = time.time(), self._notify.pause_minutes * 60
        stall = self._stalls.get(provider)
        if stall is None:
            stall = self._stalls[provider] = _Stall(now, reason)
            stall.timer = asyncio.get_running_loop().call_later(longest, self._report_stall, provider)
        stall.until = until
        if until is not None and until - stall.since >= longest and stall.timer is not None:
            self._report_stall(provider)

    def _report_stall(self, provider: str) -> None:
        stall = self._stalls[provider]
        if stall.timer is not None:
            stall.timer.cancel()
        stall.timer = None  # it is reported once
        self._send(pause_message(provider, stall.reason, stall.since, stall.until))

    def _responded(self, provider: str) -> None:
        """End a stall, unless its pause still lasts: the response is to a call that was sent before it."""
        stall = self._stalls.get(provider)
        if stall is not None and (stall.until is None or stall.until <= time.time()):
            self._end_stall(provider)

    def _end_stall(self, provider: str) -> None:
        stall = self._stalls.pop(provider, None)
        if stall is not None and stall.timer is not None:
            stall.timer.cancel()

    def _send(self, message: Message) -> None:
        """Deliver a message in the background."""
        if self._notify is None or message.moment not in self._notify.on:
            return
        for how, once in ways_of(self._config, self._environment, message):
            task = asyncio.get_running_loop().create_task(self._deliver(how, once), name=f"notification by {how}")
            self._deliveries.add(task)
            task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, how: str, once: Callable[[], Awaitable[None]]) -> None:
        try:
            await deliver(once)
        except DeliveryError as reason:
            self._emit(events.NotificationFailed(how, str(reason)))
