"""The place of a host by its name alone: this machine, a private network, or the open net."""

from __future__ import annotations

import ipaddress
from typing import Literal

Place = Literal["loopback", "private", "open"]

_PRIVATE_ENDS = (".local", ".lan", ".internal", ".intranet", ".corp", ".home", ".home.arpa", ".localdomain")


def place_of(host: str) -> Place:
    """Return where a host is; a name without a dot is in a private network, and an unknown name on the open net."""
    name = host.lower().strip("[]").rstrip(".")
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        if f".{name}".endswith(".localhost"):
            return "loopback"
        return "private" if "." not in name or name.endswith(_PRIVATE_ENDS) else "open"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return "loopback" if address.is_loopback else "open" if address.is_global else "private"
