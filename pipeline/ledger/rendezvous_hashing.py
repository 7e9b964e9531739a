"""Rendezvous hashing: which of several members is the home of what is alike."""

from __future__ import annotations

import hashlib


def rendezvous(alike: str, *members: str | None) -> str | None:
    """Return the member with the highest hash of its name and of what is alike: SQL's `rendezvous`."""
    known = [member for member in members if member is not None]
    return max(known, key=lambda member: hashlib.sha256(f"{member}\n{alike}".encode()).digest(), default=None)
