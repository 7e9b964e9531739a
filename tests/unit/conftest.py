"""Unit tests open no socket: whatever needs a server is an integration test."""

from __future__ import annotations

import socket
from typing import Any, NoReturn

import pytest


@pytest.fixture(autouse=True)
def _without_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every connection and every listening socket an error."""

    def refuse(_socket: socket.socket, *_address: Any) -> NoReturn:
        pytest.fail("a unit test opens a socket; move it to tests/integration")

    for method in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, method, refuse)


@pytest.fixture
def stage() -> NoReturn:
    """Refuse servers and commands in processes of their own."""
    pytest.fail("a unit test starts a process; move it to tests/e2e")
