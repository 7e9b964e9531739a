"""A request from somewhere → let in, or refused: by the name it calls us, by its token, and by where it comes from.

Whoever may use this machine may use the page on loopback. What must be kept out there are other sites' pages in the
same browser: they can send requests to 127.0.0.1, and by a name of theirs that points here even read the answers.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised, not bound


def is_loopback(host: str) -> bool:
    """Whether a name or an address can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@dataclass(frozen=True, slots=True)
class AccessControl:
    """Who may come in. `token` is None where only this machine can knock; `form_token` is in the page alone."""

    host: str
    token: str | None
    form_token: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @classmethod
    def of(cls, host: str) -> AccessControl:
        """Make the door of a server that listens on `host`: with a token unless that is loopback."""
        return cls(host, None if is_loopback(host) else secrets.token_urlsafe(32))

    def check(self, request: web.Request) -> None:
        """Raise HTTPForbidden, or HTTPUnauthorized where the token is missing."""
        if not self._knows(_hostname(request.headers.get("Host", ""))):
            raise web.HTTPForbidden(text="This server is not called by that name.\n")
        if self.token is not None and not self._has_token(request):
            raise web.HTTPUnauthorized(text="Open the address that `pipeline serve` printed; it has the token.\n")
        if request.method not in {"GET", "HEAD"} and not _from_own_page(request.headers):
            raise web.HTTPForbidden(text="This comes from another site's page.\n")

    def check_form(self, given: object) -> None:
        """Raise HTTPForbidden where a form does not come from a page that this server gave out."""
        if not isinstance(given, str) or not _same(given, self.form_token):
            raise web.HTTPForbidden(text="This page is of an earlier start of the server; load it again.\n")

    def cookie_name(self, request: web.Request) -> str:
        """Name the cookie after the port that this server listens on: browsers keep one jar for all ports of a host."""
        name = request.transport.get_extra_info("sockname") if request.transport else None
        return f"pipeline-{name[1] if name else 0}"

    def _knows(self, name: str) -> bool:
        """Whether a Host header names us; the port is left out, as a tunnel has its own."""
        if name in LOOPBACK or name == self.host.lower():
            return True
        if self.host not in WILDCARDS:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            own = socket.gethostname().lower()
            return name in {own, f"{own}.local"}
        return True

    def _has_token(self, request: web.Request) -> bool:
        assert self.token is not None
        given = request.cookies.get(self.cookie_name(request), "")
        if request.path == "/":
            given = request.query.get("token", given)
        return _same(given, self.token)


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _hostname(header: str) -> str:
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def _from_own_page(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that our own page sent this; what is no browser says nothing, and needs the form token."""
    if headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        return False
    origin = headers.get("Origin")
    return origin is None or urlsplit(origin).netloc.lower() == headers.get("Host", "").lower()
