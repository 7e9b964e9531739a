"""Read `routes:` of the config: several providers that serve one job, and how requests are divided among them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from pipeline.config import yaml_document
from pipeline.config.provider import NAME, Provider, RateLimit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.config.validation import Section

Policy = Literal["spread", "fallback"]
Moderation = Literal["refuse", "next"]

_KEYS = ("providers", "policy", "same", "moderation")
_VARIABLE = re.compile(r"[^\"\\\0]+")  # stands in a path of SQLite's JSON functions


@dataclass(frozen=True, slots=True)
class Route:
    """Providers that serve one job, in the order of preference.

    With `spread` each takes what it has room for; with `fallback` the next one is asked only while those before it
    have stopped or are down. Requests alike in the variables `same` have one home. With `moderation: next`, what the
    content policy of one refuses is asked of the next.
    """

    name: str
    members: tuple[str, ...]
    policy: Policy = "spread"
    same: tuple[str, ...] = ()
    moderation: Moderation = "refuse"

    def as_provider(self, providers: Mapping[str, Provider]) -> Provider:
        """Return the route as if it were one provider: the sum of the limits, and the first Batch API."""
        members = [providers[name] for name in self.members]
        return Provider(
            name=self.name,
            base_url=None,
            rate_limit=sum_of_limits(members),
            concurrency=sum(member.concurrency for member in members),
            images_per_call=max(member.images_per_call for member in members),
            sandbox={} if all(member.sandbox is not None for member in members) else None,
            batch=next((member.batch for member in members if member.batch is not None), None),
        )


def sum_of_limits(members: Sequence[Provider]) -> RateLimit | None:
    """Return the limit of several providers together; None if one of them has none."""
    limits = [member.rate_limit for member in members if member.rate_limit is not None]
    if len(limits) < len(members):
        return None
    seconds = max(limit.per_seconds for limit in limits)
    images = sum(limit.per_minute for limit in limits) * seconds / 60
    return RateLimit(max(1, round(images)), seconds)


def read_routes(section: Section, providers: Mapping[str, Provider]) -> dict[str, Route]:
    """Read `routes:`; problems are recorded in the section."""
    routes: dict[str, Route] = {}
    for name, value in section.value.items():
        if not NAME.fullmatch(name):
            section.add_problem(name, "is not a valid name: letters, digits, '.', '_', '-', not beginning with a dot")
        if name in providers:
            section.add_problem(name, "is also the name of a provider; give the route another name")
        route = _read_route(section, name, value)
        if _check_members(section, route, providers):
            routes[name] = route
    return routes


def _read_route(section: Section, name: str, value: Any) -> Route:
    if isinstance(value, list):
        return Route(name, tuple(section.texts(name)))
    own = section.section(name)
    own.reject_unknown_keys(*_KEYS)
    same = own.texts("same")
    for variable in same:
        if not _VARIABLE.fullmatch(variable):
            own.add_problem("same", f"`{variable:.60}` cannot be the name of a variable")
    policy: Policy = own.choice("policy", "spread", get_args(Policy))
    moderation: Moderation = own.choice("moderation", "refuse", get_args(Moderation))
    return Route(name, tuple(own.texts("providers")), policy, tuple(same), moderation)


def _check_members(section: Section, route: Route, providers: Mapping[str, Provider]) -> bool:
    """Return whether all members of a route are providers that may be together; record a problem if not."""
    faults = list(_member_faults(route, providers, section.value))
    for fault in faults:
        section.add_problem(route.name, fault)
    return not faults


def _member_faults(route: Route, providers: Mapping[str, Provider], routes: Mapping[str, Any]) -> list[str]:
    if not route.members:
        return ["names no provider; write a list of them, like [openai, azure]"]
    faults = []
    for place, name in enumerate(route.members):
        if name in route.members[:place]:
            faults.append(f"names `{name:.60}` twice")
        elif name in providers:
            continue
        elif name in routes:
            faults.append(f"names the route `{name:.60}`; a route has providers only, so name those of that route")
        else:
            close = yaml_document.nearest(name, providers)
            hint = f"did you mean `{close}`?" if close else f"known are {', '.join(sorted(providers))}"
            faults.append(f"there is no provider `{name:.60}`; {hint}")
    kinds = {providers[name].sandbox is None for name in route.members if name in providers}
    if len(kinds) > 1:
        faults.append("mixes a sandbox with servers that bill; a rehearsal needs a route of its own")
    return faults


def shared_limit_warnings(members: Sequence[Provider]) -> list[str]:
    """Return a warning for members at one server: the keys of one account share one limit."""
    found: dict[str, list[Provider]] = {}
    for member in members:
        if member.base_url is not None:
            found.setdefault(member.base_url, []).append(member)
    warnings = []
    for base_url, group in found.items():
        if len(group) > 1:
            names = " and ".join(f"`{member.name}`" for member in group)
            what = f"{names} are at {base_url}: keys of one organization or project share one limit"
            warnings.append(f"{what}, and then the sum of their `rate_limit` must not exceed it")
    return warnings
