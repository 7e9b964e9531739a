"""Runs what may hang for ever in a daemon thread, for which no exit of the process waits."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from yarl import URL

from pipeline.client.network import ProxyRefusedError, proxy_for

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

NAME_SECONDS = 6.0
"""How long the resolver may take."""


def in_daemon_thread(work: Callable[[], _T]) -> asyncio.Future[_T]:
    """Return the future of work that may hang, as on a network drive that is gone."""
    done: Future[_T] = Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001 - raised where the future is awaited
            done.set_exception(error)

    threading.Thread(target=run, name="doctor", daemon=True).start()
    return asyncio.wrap_future(done)


async def name_fault(address: str) -> str | None:
    """Return why the host of a URL, or its proxy, has no address; None if it has one, or if a call will say why not.

    A resolver that does not answer would hold up the end of the event loop, and of the process.
    """
    url, proxy = URL(address), None
    with contextlib.suppress(ProxyRefusedError):
        proxy = proxy_for(url.origin())
    host, port = (proxy or url).host, (proxy or url).port
    try:
        async with asyncio.timeout(NAME_SECONDS):
            await in_daemon_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except TimeoutError:
        return f"the name {host} was not resolved within {NAME_SECONDS:g} s"
    except (OSError, UnicodeError):
        return None
    return None
