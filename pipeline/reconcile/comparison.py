"""Comparison: asks each provider for its usage and costs, reads the ledger, and settles what was found if asked to."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import ledger
from pipeline.client.organization import open_admin_session
from pipeline.client.usage import DAY, MINUTE, UsageClient
from pipeline.config.environment import ADMIN_KEY
from pipeline.config.organization import has_admin_api, read_admin_key, read_project
from pipeline.errors import ConfigError, OutageGivenUp, TryAgain
from pipeline.job_queue import JobQueue
from pipeline.ledger.charged_calls import called_providers, compared_until, read_charged_calls, settle_calls
from pipeline.models.table import Models
from pipeline.preparation import prepare_ledger
from pipeline.reconcile.prices import compare_prices
from pipeline.reconcile.reconciliation import reconcile
from pipeline.reports.manifest import write_manifest
from pipeline.sandbox_process import sandbox_processes
from pipeline.stores import Addresses

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    from pipeline.client.usage import UsedImages
    from pipeline.config.load import Config, Provider
    from pipeline.reconcile.prices import DayPrice
    from pipeline.reconcile.reconciliation import Reconciliation
    from pipeline.sandbox_process import SandboxProcesses

_SECONDS = 30.0  # for one call of the admin API
_BEFORE = 2 * MINUTE  # calls that ended so long before may be counted in the first minute


@dataclass(frozen=True, slots=True)
class Account:
    """The providers that share an address and a project, and so one count of images; and the admin key for it."""

    providers: tuple[Provider, ...]
    key: str
    project: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the providers."""
        return tuple(provider.name for provider in self.providers)


@dataclass(frozen=True, slots=True)
class Compared:
    """What the comparison of one account found."""

    result: Reconciliation
    prices: tuple[DayPrice, ...]

    @property
    def is_explained(self) -> bool:
        """Whether nothing is left that nobody can explain."""
        return self.result.is_explained and not any(price.differs for price in self.prices)


async def compare(
    config: Config, environment: Mapping[str, str], name: str | None, since: float | None, *, apply: bool
) -> list[Compared]:
    """Compare the ledger with what a provider says that it made and charged; without a name, each that was called.

    With `apply`, record what became of calls of unknown outcome. Raises ConfigError before anybody is asked,
    FolderBusy for `apply` beside a run, OutageGivenUp, and the Stop that a refusal means.
    """
    with ledger.reading(config.output) as connection:
        accounts = find_accounts(config, environment, name, called_providers(connection))
        if not apply:
            return await _compare_all(config, connection, accounts, since)
    with (
        ledger.writing(config.output, shared=config.shared) as connection,
        JobQueue(config, connection).held("nothing can be settled"),
    ):
        await prepare_ledger(connection, config.output, lambda _event: None)
        found = await _compare_all(config, connection, accounts, since)
        for comparison in found:
            _settle(config, connection, comparison.result)
        return found


def find_accounts(config: Config, environment: Mapping[str, str], name: str | None, called: set[str]) -> list[Account]:
    """Return the accounts that are compared, each with all its providers. Raises ConfigError."""
    if name is None:
        chosen = [
            provider for provider in config.providers.values() if provider.name in called and has_admin_api(provider)
        ]
        chosen = [provider for provider in chosen if provider.sandbox is None] or chosen
    else:
        found = config.find_provider(name)
        members = config.routes[name].members if name in config.routes else (found.name,)
        chosen = [config.providers[member] for member in members]
    accounts: dict[tuple[str | None, str | None], Account] = {}
    for provider in chosen:
        key, place = _key(provider, environment), _place(provider, environment)
        sharing = tuple(other for other in config.providers.values() if _place(other, environment) == place)
        accounts.setdefault(place, Account(sharing, key, place[1]))
    if not accounts and not environment.get(ADMIN_KEY, "").strip():
        raise ConfigError(f"{ADMIN_KEY} is not set; {_HOW}")
    return list(accounts.values())


_HOW = "create an admin key in the settings of your organization, and export it: it reads usage and costs"


def _key(provider: Provider, environment: Mapping[str, str]) -> str:
    key = read_admin_key(provider, environment)
    if key is None and not has_admin_api(provider):
        raise ConfigError(
            f"provider `{provider.name}` has no usage that could be read: the admin key is sent to OpenAI, to this"
            " machine, and over https to a host whose entry names a `project`"
        )
    if key is None:
        raise ConfigError(f"{ADMIN_KEY} is not set, and provider `{provider.name}` needs it; {_HOW}")
    return key


def _place(provider: Provider, environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    address = provider.name if provider.base_url is None else provider.base_url.rstrip("/")
    return address, read_project(provider, environment)


async def _compare_all(
    config: Config, connection: sqlite3.Connection, accounts: Iterable[Account], since: float | None
) -> list[Compared]:
    async with sandbox_processes(config.output) as sandboxes:
        return [await _compare(config, connection, account, sandboxes, since) for account in accounts]


def _settle(config: Config, connection: sqlite3.Connection, result: Reconciliation) -> None:
    """Record what became of calls, and write the manifests of their jobs again."""
    settled = [unknown_call for unknown_call in result.unknown if unknown_call.finding != "open"]
    calls = [(unknown_call.call.attempt_pk, unknown_call.finding, unknown_call.cost_usd) for unknown_call in settled]
    settle_calls(connection, calls, result.providers, result.complete_until)
    for job in sorted({unknown_call.call.job for unknown_call in settled}):
        write_manifest(connection, job, config.output, Addresses.of(config))


async def _compare(
    config: Config, connection: sqlite3.Connection, account: Account, sandboxes: SandboxProcesses, since: float | None
) -> Compared:
    now, first = time.time(), account.providers[0]
    start = compared_until(connection, account.names) if since is None else since
    start = now if start is None else start
    base_url = await sandboxes.base_url(first)
    async with open_admin_session(base_url, account.key, timeout=_SECONDS) as session:
        client = UsageClient(session, account.project)
        try:
            used = await _read_usage(client, int(start // MINUTE) * MINUTE, int(now) + MINUTE)
            costs = await client.costs(int(start // DAY) * DAY, int(now) + MINUTE)
        except TryAgain as error:
            raise OutageGivenUp(f"the usage of `{first.name}` cannot be read: {error.message}") from None
    models = Models.load(config.models, first.own_models)
    calls = read_charged_calls(connection, account.names, start - _BEFORE)
    result = reconcile(account.names, calls, used, models, since=start, now=now)
    names = sorted({name for name in (*(call.model for call in calls), *(images.model for images in used)) if name})
    prices = compare_prices(result, costs, models, names, now)
    return Compared(result, tuple(prices))


async def _read_usage(client: UsageClient, start: int, end: int) -> list[UsedImages]:
    """Return what was made by the minute; only days on which anything was made are asked for."""
    days = sorted({images.start // DAY * DAY for images in await client.images(start // DAY * DAY, end, DAY)})
    used: list[UsedImages] = []
    for day in days:
        if (first := max(day, start)) < min(day + DAY, end):
            used += await client.images(first, min(day + DAY, end), MINUTE)
    return used
