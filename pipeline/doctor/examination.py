"""The examination: all checks at the same time, with one end for those that wait for somebody."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.doctor.check import problem
from pipeline.doctor.daemon_thread import in_daemon_thread, name_fault
from pipeline.doctor.held_checks import check_held
from pipeline.doctor.job_checks import check_budgets, check_inputs, check_jobs, check_prices
from pipeline.doctor.machine_checks import check_disk, check_open_files, check_output
from pipeline.doctor.notify_check import check_notifications
from pipeline.doctor.organization_checks import check_organization
from pipeline.doctor.provider_checks import ProviderExamination, shared_organizations
from pipeline.errors import ConfigError
from pipeline.sandbox_process import sandbox_processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pipeline.doctor.check import Check
    from pipeline.doctor.next_run import NextRun

LAST_SECONDS = 15.0
"""When checks that have not ended are given up; each call to a server has its own, shorter time."""

_OF_JOBS: Sequence[Callable[[NextRun], Iterator[Check]]] = (check_jobs, check_inputs, check_prices, check_budgets)
_OF_MACHINE: Sequence[Callable[[NextRun], Iterator[Check]]] = (check_output, check_disk, check_open_files)


@dataclass(frozen=True, slots=True)
class Examination:
    """The checks of the next run. With `notify`, a trial notification is sent."""

    next_run: NextRun
    notify: bool = False

    async def run(self) -> list[Check]:
        """Return all checks: what holds work back, then jobs, machine, providers and notifications."""
        found = [check for examine in (check_held, *_OF_JOBS) for check in examine(self.next_run)]
        machine = [self._within_time(examine) for examine in _OF_MACHINE]
        *parts, providers, notified = await asyncio.gather(
            *machine,
            self._providers(),
            check_notifications(self.next_run, send=self.notify),
        )
        return [*found, *(check for part in (*parts, providers, notified) for check in part)]

    async def _within_time(self, examine: Callable[[NextRun], Iterator[Check]]) -> list[Check]:
        try:
            async with asyncio.timeout(LAST_SECONDS):
                return await in_daemon_thread(lambda: list(examine(self.next_run)))
        except TimeoutError:
            what = f"{examine.__name__.replace('_', ' ')}: the disk has not answered within {LAST_SECONDS:g} s"
            return [problem("output", what, "see whether the file system of `output` is there, or choose another")]

    async def _providers(self) -> list[Check]:
        """Return the checks of all providers, each examined at the same time."""
        async with sandbox_processes(self.next_run.config.output) as sandboxes:
            examined, found = [], []
            for provider in self.next_run.providers():
                try:
                    base_url = await sandboxes.base_url(provider)
                except ConfigError as error:
                    found.append(
                        problem("server", f"`{provider.name}`: {error}", "correct its `sandbox:` in the config")
                    )
                else:
                    examined.append(ProviderExamination(provider, base_url, self.next_run))
            results = await asyncio.gather(*(self._examine(examination) for examination in examined))
        return [*found, *(check for result in results for check in result), *shared_organizations(examined)]

    async def _examine(self, examination: ProviderExamination) -> list[Check]:
        if (fault := await name_fault(examination.base_url)) is not None:
            return await examination.run(fault)
        own, limits = await asyncio.gather(
            examination.run(), check_organization(self.next_run, examination.provider, examination.base_url)
        )
        is_found = any(check.name == "models" and check.status == "problem" for check in own)
        return [*own, *(check for check in limits if check.name != "models" or not is_found)]
