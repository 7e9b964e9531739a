"""Client of an organization's admin API: reads rate and spend limits. It changes nothing and makes no images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pipeline.client.batch_objects import id_of, read_page
from pipeline.client.limits import OBJECT_BYTES
from pipeline.client.response import read_object
from pipeline.client.secrets import Secrets
from pipeline.client.session import ApiSession
from pipeline.config.dialect import Dialect
from pipeline.errors import Unusable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from pipeline.client.response import HttpResponse

_CONNECTIONS = 4
_MOST_PAGES = 1000
_MOST = 10**12  # a limit from here on means nothing


@dataclass(frozen=True, slots=True)
class ProjectRateLimit:
    """The limits of a project for one model; None if the service states no such limit for it."""

    model: str
    images_per_minute: int | None
    calls_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class SpendLimit:
    """What may be spent in a month, in USD; calls beyond it are refused if it `is_enforced`."""

    usd: float
    is_enforced: bool


@dataclass(frozen=True, slots=True)
class ModelPermissions:
    """The models that a project may use: those named if it `is_allow_list`, else all others."""

    names: frozenset[str]
    is_allow_list: bool

    def allows(self, model: str) -> bool:
        """Return whether the project may use a model."""
        return (model in self.names) == self.is_allow_list


def open_admin_session(base_url: str, key: str, *, timeout: float) -> ApiSession:
    """Return the session of an admin key; `timeout` in seconds for each call."""
    return ApiSession(
        *(base_url, key, {}),
        dialect=Dialect(),
        timeout=timeout,
        connections=_CONNECTIONS,
        secrets=Secrets({"admin key": key}),
    )


class OrganizationClient:
    """Makes the calls of the admin API in the session of an admin key; none is repeated by itself.

    Each call raises NotSent if it was not sent, OutcomeUnknown if it was and no complete response came, Unusable if a
    success response cannot be understood, and else the RequestError that the response means: KeyRefused for a key that
    is no admin key, WrongPath for an unknown project.
    """

    def __init__(self, session: ApiSession) -> None:
        self._session = session

    async def rate_limits(self, project: str) -> list[ProjectRateLimit]:
        """Return the rate limits of a project. A model that has no row has no limit of the project's own."""
        items = [item async for item in self._items("projects", project, "rate_limits")]
        return [
            ProjectRateLimit(
                item["model"],
                _count(item.get("max_images_per_1_minute")),
                _count(item.get("max_requests_per_1_minute")),
            )
            for item in items
            if isinstance(item.get("model"), str)
        ]

    async def spend_limit(self, project: str | None = None) -> SpendLimit | None:
        """Return the monthly spend limit of a project, or that of the organization; None if none is set."""
        steps = ("spend_limit",) if project is None else ("projects", project, "spend_limit")
        http = await self.get(*steps)
        if http.status == 404:
            return None
        body = read_object(http)
        cents, enforcement = _count(body.get("threshold_amount")), body.get("enforcement")
        status = enforcement.get("status") if isinstance(enforcement, dict) else None
        return None if cents is None else SpendLimit(cents / 100, status == "enforcing")

    async def model_permissions(self, project: str) -> ModelPermissions | None:
        """Return which models a project may use; None if nothing restricts that."""
        http = await self.get("projects", project, "model_permissions")
        if http.status == 404:
            return None
        body = read_object(http)
        names, mode = body.get("model_ids"), body.get("mode")
        if not isinstance(names, list) or mode not in {"allow_list", "deny_list"}:
            return None
        return ModelPermissions(frozenset(name for name in names if isinstance(name, str)), mode == "allow_list")

    async def get(self, *steps: str, query: Mapping[str, str] | None = None) -> HttpResponse:
        """Return the response to a request below `/organization`, whatever its status."""
        path = "/".join(quote(step, safe="") for step in ("organization", *steps))
        return await self._session.request("GET", self._session.url(path, query or {}), max_bytes=OBJECT_BYTES)

    async def _items(self, *steps: str) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the objects of all pages of a list. Raises Unusable if it has no end."""
        after: str | None = None
        known = set[str]()
        for _ in range(_MOST_PAGES):
            page = read_page(await self.get(*steps, query={"limit": "100", **({"after": after} if after else {})}))
            for item in page.items:
                yield item
            after = id_of(page.after)
            if after is None:
                return
            if after in known:
                break
            known.add(after)
        raise Unusable(f"the list at {'/'.join(steps)} does not end")


def _count(value: Any) -> int | None:
    """Return a number that is not negative; None if it is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and 0 <= value < _MOST else None
