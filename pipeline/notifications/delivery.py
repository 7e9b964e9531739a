"""A notice → a webhook's POST, or a command's stdin: two tries of ten seconds each, and no word of its address."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from typing import TYPE_CHECKING, Any

from pipeline.notifications.message import body_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from yarl import URL

    from pipeline.notifications.message import Message

SECONDS = 10.0  # that one try may take
_TRIES = 2
BETWEEN_SECONDS = 2.0
_REDIRECTS = 5


class DeliveryError(Exception):
    """A notice did not arrive; its words hold no part of an address but the host."""


async def deliver(once: Callable[[], Awaitable[None]]) -> None:
    """Try to deliver, and once more. Raises Undelivered."""
    for left in reversed(range(_TRIES)):
        try:
            async with asyncio.timeout(SECONDS):
                return await once()
        except TimeoutError:
            failure = DeliveryError(f"it took longer than {SECONDS:g} s")
        except DeliveryError as reason:
            failure = reason
        if not left:
            raise failure
        await asyncio.sleep(BETWEEN_SECONDS)
    return None  # pragma: no cover - the last try ends before


async def post(address: str, template: str, headers: Mapping[str, str], message: Message) -> None:
    """POST a notice to a webhook. A redirect is followed on the same host only. Raises Undelivered."""
    import aiohttp
    from yarl import URL

    url, topic = URL(address), ""
    if template == "ntfy":  # whose JSON goes to the server itself and names the topic
        root, _, topic = url.path.rstrip("/").rpartition("/")
        url = url.with_path(root or "/").with_query(url.query)
    body = body_of(message, template, topic)
    try:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), headers=headers) as session:
            for _ in range(_REDIRECTS):
                target = await _post_once(session, url, body)
                if target is None:
                    return
                url = target
    except (aiohttp.ClientError, OSError, ValueError) as reason:  # whose own words may hold the address
        raise DeliveryError(f"{url.host} cannot be reached: {type(reason).__name__}") from None
    raise DeliveryError(f"{url.host} redirects in a circle")


async def _post_once(session: Any, url: URL, body: Mapping[str, Any]) -> URL | None:
    """POST once; give where it is to be done again, None where it has arrived."""
    from pipeline.client.network import proxy_for

    async with session.post(url, json=body, allow_redirects=False, proxy=proxy_for(url)) as response:
        if 200 <= response.status < 300:
            return None
        location = response.headers.get("Location")
        if not (300 <= response.status < 400 and location):
            raise DeliveryError(f"{url.host} answered {response.status}")
        target = url.join(type(url)(location))
        if target.host != url.host or (url.scheme, target.scheme) == ("https", "http"):
            raise DeliveryError(f"{url.host} redirects to another host")
        return target


async def run_command(words: Sequence[str], environment: Mapping[str, str], message: Message) -> None:
    """Give a notice to a command as JSON on its stdin; no shell is near. Raises Undelivered."""
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,  # stdout is for results
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C is for the run, which ends in order
        )
    except (OSError, ValueError) as reason:
        raise DeliveryError(f"{words[0]}: {getattr(reason, 'strerror', None) or reason}") from None
    try:
        _, said = await process.communicate(json.dumps(dict(message.facts), ensure_ascii=False).encode())
    finally:
        if process.returncode is None:
            _kill(process)
            await process.wait()
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines()[-1:]
        raise DeliveryError(f"{words[0]} ended with {process.returncode}" + "".join(f": {line}" for line in last))


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
