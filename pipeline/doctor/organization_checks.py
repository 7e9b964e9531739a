"""Checks of what a project may make in a minute and spend in a month, read with an admin key."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline.client.organization import OrganizationClient, open_admin_session
from pipeline.client.usage import UsageClient
from pipeline.config.environment import ADMIN_KEY, UnusableVariable
from pipeline.config.organization import PROJECT, has_admin_api, read_admin_key, read_project
from pipeline.doctor.check import not_checked, problem, warning, well
from pipeline.doctor.provider_checks import CALL_SECONDS
from pipeline.errors import KeyRefused, RequestError, WrongPath
from pipeline.reports.facts import dollars, rate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.client.organization import ProjectRateLimit
    from pipeline.client.session import ApiSession
    from pipeline.config.provider import Provider
    from pipeline.doctor.check import Check
    from pipeline.doctor.next_run import NextRun

_LIMITS_PAGE = "https://platform.openai.com/settings/organization/limits"


async def check_organization(next_run: NextRun, provider: Provider, base_url: str) -> list[Check]:
    """Return whether the limits of a provider's project and organization are enough."""
    try:
        key = read_admin_key(provider, next_run.environment)
    except UnusableVariable as error:
        return [problem("limit", error.fault, f"export {ADMIN_KEY}=… with the whole key")]
    if key is None:
        why = f"{ADMIN_KEY} is not set" if has_admin_api(provider) else "not an organization at OpenAI"
        return [not_checked(name, f"`{provider.name}`: {why}") for name in ("limit", "spend limit")]
    project = read_project(provider, next_run.environment)
    async with open_admin_session(base_url, key, timeout=CALL_SECONDS) as session:
        client = OrganizationClient(session)
        found = await asyncio.gather(
            _check_limits(next_run, provider, client, project),
            _check_spending(next_run, provider, session, project),
            _check_permissions(next_run, provider, client, project),
        )
    return [check for part in found for check in part]


async def _check_limits(
    next_run: NextRun, provider: Provider, client: OrganizationClient, project: str | None
) -> list[Check]:
    if project is None:
        return [not_checked("limit", f"`{provider.name}`: neither {PROJECT} nor its `project:` is set")]
    try:
        limits = await client.rate_limits(project)
    except RequestError as error:
        return [_unread("limit", provider, project, error)]
    by_model = {limit.model: limit for limit in limits}
    models = _models(next_run, provider)
    if not models:
        return [not_checked("limit", f"`{provider.name}`: nothing is missing")]
    return [_check_limit(next_run, provider, project, model, by_model) for model in models]


def _models(next_run: NextRun, provider: Provider) -> list[str]:
    return list(dict.fromkeys(demand.model for demand in next_run.demands_at(provider) if demand.model))


async def _check_permissions(
    next_run: NextRun, provider: Provider, client: OrganizationClient, project: str | None
) -> list[Check]:
    """Return the models that a project may not use; nothing if it may use all, or if that is not known."""
    if project is None:
        return []
    try:
        permissions = await client.model_permissions(project)
    except RequestError:  # the limits say it
        return []
    do = f"allow it at {_LIMITS_PAGE}, or name another model in the job"
    return [
        problem("models", f"`{provider.name}`: {project} may not use `{model}`", do)
        for model in _models(next_run, provider)
        if permissions is not None and not permissions.allows(model)
    ]


def _check_limit(
    next_run: NextRun, provider: Provider, project: str, model: str, limits: Mapping[str, ProjectRateLimit]
) -> Check:
    """Return whether the limit of a project for one model is the configured one at least."""
    known = next_run.models(provider).find(model)
    same = [
        limit for name, limit in limits.items() if known is not None and next_run.models(provider).find(name) is known
    ]
    row = limits.get(model) or next(iter(same), None)
    if row is not None and row.calls_per_minute == 0:
        what = f"`{provider.name}`: {project} may make no call with `{model}`: its limit is 0 a minute"
        return problem("limit", what, f"raise the limit at {_LIMITS_PAGE}, or name another model")
    if row is None or row.images_per_minute is None:
        return not_checked("limit", f"`{provider.name}`: {project} states none for `{model}`")
    allowed, own = row.images_per_minute, provider.shared_limit or provider.rate_limit
    what = f"`{provider.name}`: {project} may make {allowed:,} images of `{model}` a minute"
    entry = f"write `rate_limit: {{images: {allowed}, per_seconds: 60}}` for `{provider.name}`"
    if allowed == 0:
        return problem("limit", f"{what}, so none at all", f"raise the limit at {_LIMITS_PAGE}, or name another model")
    if own is None:
        return warning("limit", f"{what}, and the config has no `rate_limit`", entry)
    if allowed < own.per_minute - 1e-9:
        configured = f"{rate(own.per_minute)} are configured"
        return problem("limit", f"{what}, and {configured}", f"{entry}, or raise the limit at {_LIMITS_PAGE}")
    return well("limit", f"{what}; {rate(own.per_minute)} are configured")


async def _check_spending(
    next_run: NextRun, provider: Provider, session: ApiSession, project: str | None
) -> list[Check]:
    """Return whether the spend limits of organization and project are above what the month and the jobs cost."""
    costs = [job.usd for job in next_run.jobs if provider in next_run.members(job.service)]
    known = [usd for usd in costs if usd is not None]
    if len(known) < len(costs):
        return [not_checked("spend limit", f"`{provider.name}`: the cost of what is missing is unknown")]
    owners = list(dict.fromkeys((None, project)))
    found = await asyncio.gather(*(_check_owner(next_run, provider, session, owner, sum(known)) for owner in owners))
    return [check for check in found if check is not None] or [well("spend limit", f"`{provider.name}`: there is none")]


async def _check_owner(
    next_run: NextRun, provider: Provider, session: ApiSession, project: str | None, usd: float
) -> Check | None:
    """Return whether what a project, or the organization, may spend this month is enough; None without a limit."""
    try:
        limit = await OrganizationClient(session).spend_limit(project)
    except RequestError as error:
        return _unread("spend limit", provider, project, error)
    if limit is None:
        return None
    spent = await _spent_this_month(next_run.now, session, project)
    besides = "what this month has cost is not known" if spent is None else f"this month has cost {dollars(spent)}"
    what = (
        f"`{provider.name}`: {project or 'the organization'} may spend {dollars(limit.usd)} a month, {besides}, and the"
        f" estimate is {dollars(usd)}"
    )
    do = f"raise the limit at {_LIMITS_PAGE}, or make fewer images, such as with --limit"
    if (spent or 0.0) + usd <= limit.usd:
        return well("spend limit", what)
    return problem("spend limit", what, do) if limit.is_enforced else warning("spend limit", what, do)


async def _spent_this_month(now: float, session: ApiSession, project: str | None) -> float | None:
    """Return what a month of UTC has cost so far, in USD; the last two days may be incomplete. None if unknown."""
    today = datetime.fromtimestamp(now, UTC)
    first = datetime(today.year, today.month, 1, tzinfo=UTC)
    try:
        async with asyncio.timeout(CALL_SECONDS):
            costs = await UsageClient(session, project).costs(int(first.timestamp()), math.ceil(now) + 1)
    except (RequestError, TimeoutError):
        return None
    return float(sum(cost.usd for cost in costs))


def _unread(name: str, provider: Provider, project: str | None, error: RequestError) -> Check:
    """Return the check of limits that could not be read."""
    what = f"`{provider.name}`: {error.message}"
    if isinstance(error, KeyRefused):
        return warning(name, f"{what} (the admin key)", f"put a living admin key into {ADMIN_KEY}, or unset it")
    if isinstance(error, WrongPath) and project is not None:
        return warning(name, what, f"correct {PROJECT} or `project:` of `{provider.name}`, now {project}")
    return not_checked(name, what)
