"""Delivers a message by a webhook's POST or on a command's stdin: two tries of ten seconds; errors hide the address."""

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
_END_BYTES = 64 * 1024  # of a command's stderr that are kept


class DeliveryError(Exception):
    """A message was not delivered; its text contains no part of an address but the host."""


async def deliver(attempt: Callable[[], Awaitable[None]]) -> None:
    """Deliver with a second try after a pause. Raises DeliveryError."""
    for left in reversed(range(_TRIES)):
        try:
            async with asyncio.timeout(SECONDS):
                return await attempt()
        except TimeoutError:
            failure = DeliveryError(f"it took longer than {SECONDS:g} s")
        except DeliveryError as reason:
            failure = reason
        if not left:
            raise failure
        await asyncio.sleep(BETWEEN_SECONDS)
    return None  # pragma: no cover - the last try ends before


async def post(address: str, template: str, headers: Mapping[str, str], message: Message) -> None:
    """POST a message to a webhook. A redirect is followed on the same host only. Raises DeliveryError."""
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
    except (aiohttp.ClientError, OSError, ValueError) as reason:  # its own text may contain the address
        raise DeliveryError(f"{url.host} cannot be reached: {type(reason).__name__}") from None
    raise DeliveryError(f"{url.host} redirects in a circle")


async def _post_once(session: Any, url: URL, body: Mapping[str, Any]) -> URL | None:
    """POST once; return the URL of a redirect, None if the message was accepted."""
    from pipeline.client.network import proxy_for

    async with session.post(url, json=body, allow_redirects=False, proxy=proxy_for(url)) as response:
        if 200 <= response.status < 300:
            return None
        location = response.headers.get("Location")
        if not (300 <= response.status < 400 and location):
            raise DeliveryError(f"{url.host} responded with status {response.status}")
        target = url.join(type(url)(location))
        if target.host != url.host or (url.scheme, target.scheme) == ("https", "http"):
            raise DeliveryError(f"{url.host} redirects to another host")
        return target


async def run_command(words: Sequence[str], environment: Mapping[str, str], message: Message) -> None:
    """Run a command with a message as JSON on its stdin, without a shell. Raises DeliveryError."""
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,  # stdout is for results
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C stops the run, which still notifies
        )
    except (OSError, ValueError) as reason:
        raise DeliveryError(f"{words[0]}: {getattr(reason, 'strerror', None) or reason}") from None
    try:
        facts = json.dumps(dict(message.facts), ensure_ascii=False).encode()
        _, stderr = await asyncio.gather(_write(process.stdin, facts), _read_end(process.stderr))
        await process.wait()
    finally:
        if process.returncode is None:
            _kill(process)
            await process.wait()
    if process.returncode:
        last = stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise DeliveryError(f"{words[0]} exited with {process.returncode}" + "".join(f": {line}" for line in last))


async def _write(stream: asyncio.StreamWriter | None, content: bytes) -> None:
    """Write all of a process's stdin, as far as it reads it."""
    assert stream is not None
    with contextlib.suppress(ConnectionError):
        stream.write(content)
        await stream.drain()
    stream.close()


async def _read_end(stream: asyncio.StreamReader | None) -> bytes:
    """Return the end of a process's stderr, however much it writes."""
    assert stream is not None
    end = b""
    while piece := await stream.read(_END_BYTES):
        end = (end + piece)[-_END_BYTES:]
    return end


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
