"""Checks of a provider by its list of models, which costs nothing: its key, its models, the way there, the clock."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from yarl import URL

from pipeline.client.limits import OBJECT_BYTES
from pipeline.client.network import ProxyRefusedError, proxy_for
from pipeline.client.rate_limit_hints import skew
from pipeline.client.response import read_error, read_object
from pipeline.client.secrets import Secrets
from pipeline.client.session import ApiSession
from pipeline.config.environment import UnusableVariable
from pipeline.config.hosts import place_of
from pipeline.config.organization import is_openai
from pipeline.doctor.check import not_checked, problem, warning, well
from pipeline.errors import KeyRefused, ModelUnknown, NotSent, RequestError, WrongAddress
from pipeline.reports.facts import counted, duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.client.response import HttpResponse
    from pipeline.config.provider import Provider
    from pipeline.doctor.check import Check
    from pipeline.doctor.next_run import NextRun

CALL_SECONDS = 8.0
"""How long a provider may take to answer one of these calls, all of which are made at the same time."""

_CLOCK_SECONDS = 60.0
_LATER_SECONDS = 24 * 3600.0  # within which after the planned end a shutdown is worth a warning
_STALE_DAYS = 30  # after its shutdown a model that is still listed is served here
_MOST_MODELS = 20  # of one provider that are looked up one by one
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(slots=True)
class ProviderExamination:
    """What one provider says of itself. `organization` is the one of its key, if it names it."""

    provider: Provider
    base_url: str
    next_run: NextRun
    organization: str | None = None
    checks: list[Check] = field(default_factory=list)

    async def run(self, fault: str | None = None) -> list[Check]:
        """Make all calls at the same time, and return the checks; `fault` is why none can be made."""
        name, environment = self.provider.name, self.next_run.environment
        try:
            key, headers = self.provider.key(environment), self.provider.header_values(environment)
        except UnusableVariable as error:
            what = "key" if error.variable == self.provider.api_key_env else "value"
            return [problem("key", error.fault, f"export {error.variable}=… with the whole {what}")]
        if key is not None and key.startswith("sk-admin-"):
            what = f"`{name}`: the key in ${self.provider.api_key_env} is an admin key, which makes no images"
            return [problem("key", what, "put the key of a project there, and the admin key into OPENAI_ADMIN_KEY")]
        found = list(self._network())
        if any(check.status == "problem" for check in found):
            return found
        if fault is not None:
            return [*found, *self._unreached(fault, f"check the network, the proxy, and `base_url` of `{name}`")]
        async with ApiSession(
            self.base_url,
            key,
            headers,
            dialect=self.provider.dialect,
            timeout=CALL_SECONDS,
            connections=_MOST_MODELS + 1,
            secrets=Secrets({"key": key, **headers}),
        ) as session:
            models = self._models()
            listed, *single = await asyncio.gather(
                _get(session, self.provider, "models"),
                *(_get(session, self.provider, "models", model) for model in models),
            )
        found += self._server(listed, has_key=key is not None)
        if not isinstance(listed, Exception):
            self.organization = listed.headers.get("openai-organization")
            found += self._access(listed, dict(zip(models, single, strict=True)))
        return found

    def _models(self) -> list[str]:
        """Return the models that the provider is asked for by name."""
        if "model" in self.provider.dialect.leave_out:
            return []
        models = dict.fromkeys(demand.model for demand in self.next_run.demands_at(self.provider) if demand.model)
        return list(models)[:_MOST_MODELS]

    def _network(self) -> Iterator[Check]:
        """Yield whether proxies and certificates of the environment can be used."""
        name = self.provider.name
        for variable in _CERTIFICATES:
            path = os.environ.get(variable)
            if path and not Path(path).exists():
                what = f"${variable} names {path}, which does not exist"
                yield problem("network", what, f"correct {variable}, or unset it")
        try:
            proxy = proxy_for(URL(self.base_url).origin())
        except ProxyRefusedError as reason:
            yield problem("network", f"`{name}`: {reason}", "correct that variable of the environment")
        else:
            which = "no proxy" if proxy is None else f"the proxy {proxy.host}:{proxy.port}"
            yield well("network", f"{which} stands before `{name}`")

    def _server(self, listed: HttpResponse | RequestError, *, has_key: bool) -> Iterator[Check]:
        """Yield whether the server answers and takes the key, and how the clocks differ."""
        name = self.provider.name
        if isinstance(listed, RequestError):
            is_slow = not isinstance(listed, NotSent)
            do = (
                "see whether the service has an outage, or try again later"
                if is_slow
                else f"check the network, the proxy, and `base_url` of `{name}`"
            )
            yield from self._unreached(listed.message, do)
            return
        yield from self._key(listed, has_key=has_key)
        yield self._clock(listed)

    def _unreached(self, why: str, do: str) -> Iterator[Check]:
        name = self.provider.name
        yield problem("server", f"`{name}`: {why}", do)
        yield from (not_checked(check_name, f"`{name}` has not answered") for check_name in ("key", "clock", "models"))

    def _key(self, listed: HttpResponse, *, has_key: bool) -> Iterator[Check]:
        name = self.provider.name
        if 200 <= listed.status < 300:
            try:
                read_object(listed)
            except WrongAddress as error:
                yield problem("server", f"`{name}`: {error.message}", f"correct `base_url` of `{name}`")
                return
            except RequestError:
                pass
            yield well("key", f"`{name}` accepts it") if has_key else well("key", f"`{name}` needs none")
            return
        refusal = read_error(listed)
        what = f"`{name}`: {refusal.message} (status {listed.status})"
        if isinstance(refusal, KeyRefused) and "missing scopes" in refusal.message.lower():
            yield not_checked("key", f"`{name}`: it may not read the list of models")
        elif isinstance(refusal, KeyRefused) or listed.status in {401, 403}:
            variable = self.provider.api_key_env
            do = f"put a living key into ${variable}" if variable else f"name its variable as `api_key_env` of `{name}`"
            yield problem("key", what, do)
        elif listed.status in {404, 405, 501}:
            yield not_checked("key", f"`{name}` has no list of models")
        elif isinstance(refusal, WrongAddress):
            yield problem("server", what, f"correct `base_url` of `{name}`")
        else:
            yield warning("server", what, "see whether the service has an outage, or try again later")

    def _clock(self, listed: HttpResponse) -> Check:
        if listed.headers.get("date") is None:
            return not_checked("clock", f"`{self.provider.name}` states no time")
        ahead = skew(listed.headers, time.time())
        if abs(ahead) <= _CLOCK_SECONDS:
            return well("clock", f"within {_CLOCK_SECONDS:.0f} s of the one of `{self.provider.name}`")
        side = "slow" if ahead > 0 else "fast"
        what = f"the clock here is {duration(abs(ahead))} {side}, compared with `{self.provider.name}`"
        return problem("clock", what, "set it by NTP, such as with `timedatectl set-ntp true`")

    def _access(self, listed: HttpResponse, single: Mapping[str, HttpResponse | RequestError]) -> Iterator[Check]:
        """Yield for each model whether it is listed, may be used, and is not shut down too early."""
        entries = _entries(listed)
        for model, answer in single.items():
            refused = self._refusal(model, answer, entries)
            if refused is not None:
                yield refused
            elif entries is None and not _is_model(answer):
                yield not_checked("models", f"`{self.provider.name}` does not say whether it has `{model}`")
            else:
                yield self._shutdown(model, (entries or {}).get(model) or _object(answer))

    def _refusal(
        self, model: str, answer: HttpResponse | RequestError, entries: Mapping[str, Mapping[str, Any]] | None
    ) -> Check | None:
        """Return the check of a model that is missing or may not be used; None if nothing says so."""
        name = self.provider.name
        error = answer if isinstance(answer, RequestError) else None if answer.status < 300 else read_error(answer)
        is_named = isinstance(error, ModelUnknown) or (isinstance(error, KeyRefused) and entries is not None)
        do = f"allow `{model}` for the project of the key, verify the organization, or name another model in the job"
        if is_named and error is not None and "missing scopes" not in error.message.lower():
            return problem("models", f"`{name}`: `{model}` cannot be used: {error.message}", do)
        if entries is not None and model not in entries and not _is_model(answer):
            what = f"`{name}` does not list `{model}`"
            is_complete = is_openai(self.provider) or place_of(self.provider.host) in {"loopback", "private"}
            return problem("models", what, do) if is_complete else warning("models", what, do)
        return None

    def _shutdown(self, model: str, entry: Mapping[str, Any]) -> Check:
        """Return whether a model lives until everything is made. Days begin in UTC."""
        name, day = self.provider.name, _day(entry.get("shutdown_date"))
        known = self.next_run.models(self.provider).find(model)
        settings = self.provider.sandbox
        if settings is not None and not settings.get("today") and model not in (settings.get("shutdown_dates") or {}):
            return well("models", f"`{model}` may be used: this sandbox shuts no model down")
        if day is None and "shutdown_date" not in entry and known is not None and self.provider.sandbox is None:
            day = known.shutdown if self.provider.host.endswith("openai.com") else None
        if day is None:
            return well("models", f"`{name}` lists `{model}`, without a shutdown")
        ends_at = self.next_run.ends_at(self.provider)
        gone_at = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
        other = f", such as `{known.replacement}`" if known is not None and known.replacement else ""
        instead = f"name another model in the job{other}"
        what = f"`{name}` shuts `{model}` down on {day} (UTC)"
        if self.next_run.now - gone_at > _STALE_DAYS * 86400:
            return warning("models", f"`{name}` was to shut `{model}` down on {day}, and still lists it", instead)
        if gone_at <= ends_at:
            return problem("models", f"{what}, before everything is made", instead)
        if gone_at <= ends_at + _LATER_SECONDS:
            return warning("models", f"{what}, within a day of the planned end", f"start now, or {instead}")
        return well("models", f"{what}, in {counted(round((gone_at - self.next_run.now) / 86400), 'day')}")


async def _get(session: ApiSession, provider: Provider, *steps: str) -> HttpResponse | RequestError:
    """Return the response to a GET, whatever its status, or why there is none."""
    url = session.url("/".join(quote(step, safe="") for step in steps), provider.dialect.query)
    try:
        return await session.request("GET", url, max_bytes=OBJECT_BYTES)
    except RequestError as error:
        return error


def _entries(listed: HttpResponse) -> dict[str, Mapping[str, Any]] | None:
    """Return the models of a list by name; None if it is no list."""
    try:
        items = read_object(listed).get("data")
    except RequestError:
        return None
    if not isinstance(items, list):
        return None
    return {item["id"]: item for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)}


def _object(answer: HttpResponse | RequestError) -> Mapping[str, Any]:
    if isinstance(answer, RequestError):
        return {}
    try:
        return read_object(answer)
    except RequestError:
        return {}


def _is_model(answer: HttpResponse | RequestError) -> bool:
    return _object(answer).get("object") == "model"


def _day(value: Any) -> date | None:
    try:
        return date.fromisoformat(value[:10]) if isinstance(value, str) else None
    except ValueError:
        return None


def shared_organizations(examined: Sequence[ProviderExamination]) -> Iterator[Check]:
    """Yield a warning for providers at one server whose keys are of one organization, as far as it says."""
    found: dict[tuple[str, str | None], list[str]] = {}
    for examination in examined:
        if examination.provider.base_url is not None:
            found.setdefault((examination.base_url, examination.organization), []).append(examination.provider.name)
    for (base_url, organization), names in found.items():
        if len(names) > 1:
            who = " and ".join(f"`{name}`" for name in names)
            of = f" of {organization}" if organization else ""
            what = f"{who} are at {base_url}: keys{of} of one organization or project share one limit"
            yield warning("shared limit", what, "see that the sum of their `rate_limit` does not exceed it")
