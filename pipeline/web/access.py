"""Access control of the live page: checks a request's Host header, its token and its origin.

Everyone on this machine may use the page on loopback. What must be refused there are requests of other sites' pages in
the same browser: they can send requests to 127.0.0.1, and with a host name of theirs that resolves to it (DNS
rebinding) even read the responses.
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
METRICS_PATH = "/metrics"
_WITH_TOKEN = frozenset({"/", METRICS_PATH})  # whose URL may have it
WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised, not bound


def is_loopback(host: str) -> bool:
    """Whether a name or an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@dataclass(frozen=True, slots=True)
class AccessControl:
    """Decides which requests are allowed. `token` is None on loopback; `form_token` is in the page alone."""

    host: str
    token: str | None
    form_token: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @classmethod
    def of(cls, host: str) -> AccessControl:
        """Return the access control of a server that listens on `host`: with a token unless that is loopback."""
        return cls(host, None if is_loopback(host) else secrets.token_urlsafe(32))

    def check(self, request: web.Request) -> None:
        """Raise HTTPForbidden, or HTTPUnauthorized if the token is missing."""
        if not self._is_own_name(_hostname(request.headers.get("Host", ""))):
            raise web.HTTPForbidden(text="This server does not answer to that host name.\n")
        if self.token is not None and not self._has_token(request):
            raise web.HTTPUnauthorized(text="Open the address that `pipeline serve` printed; it contains the token.\n")
        if request.method not in {"GET", "HEAD"} and not _from_own_page(request.headers):
            raise web.HTTPForbidden(text="This request comes from another site's page.\n")

    def check_form(self, given: object) -> None:
        """Raise HTTPForbidden if a form does not come from a page of this server."""
        if not isinstance(given, str) or not _same(given, self.form_token):
            raise web.HTTPForbidden(text="This page is from an earlier start of the server; reload it.\n")

    def cookie_name(self, request: web.Request) -> str:
        """Return the cookie's name. It has the server's port, since browsers share cookies between a host's ports."""
        name = request.transport.get_extra_info("sockname") if request.transport else None
        return f"pipeline-{name[1] if name else 0}"

    def _is_own_name(self, name: str) -> bool:
        """Whether a host name is ours; the port is not compared, since a tunnel has its own."""
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
        if request.path in _WITH_TOKEN:
            given = request.query.get("token", given)
        if request.path == METRICS_PATH:  # Prometheus sends it so
            scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
            given = credentials.strip() if scheme.lower() == "bearer" else given
        return _same(given, self.token)


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _hostname(header: str) -> str:
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def _netloc(origin: str) -> str | None:
    """Return the host and port of an origin, None if it is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _from_own_page(headers: Mapping[str, str]) -> bool:
    """Whether our own page sent this. Clients other than browsers send no such header, and need the form token."""
    if headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        return False
    origin = headers.get("Origin")
    return origin is None or _netloc(origin) == headers.get("Host", "").lower()
