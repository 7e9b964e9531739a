"""Client of the Images API: makes one call and returns its parsed response, or raises the error that it means."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pipeline.client.network import is_json
from pipeline.client.replay import is_replay
from pipeline.client.response import ImagesResponse, read_response
from pipeline.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from pipeline.client.request import Body
    from pipeline.client.session import ApiSession
    from pipeline.config.dialect import Dialect

_LARGE = 16 * 2**20  # a body above this is parsed in a thread; this much takes a millisecond or two


class ImagesClient:
    """Makes the calls of the Images API in a provider's session."""

    def __init__(self, session: ApiSession, dialect: Dialect, threads: Executor) -> None:
        self.in_flight = 0  # calls that wait for their response
        self._session = session
        self._urls = {operation: session.url(path, dialect.query) for operation, path in dialect.paths.items()}
        self._threads = threads

    async def call(
        self, operation: str, body: Body, sent: Callable[[], None], max_bytes: int, images: int
    ) -> ImagesResponse:
        """Make one call with a body from `build_body`; `sent` is called when the first bytes are sent.

        A response of more than `max_bytes`, decompressed, is Unusable; one that is cut after all `images` that the call
        asks for is complete.

        Raises NotSent if none was sent, OutcomeUnknown if some were and no complete response came, else the
        RequestError that the response stands for.
        """
        self.in_flight += 1
        try:
            http = await self._session.request(
                "POST",
                self._urls[operation],
                max_bytes=max_bytes,
                sent=sent,
                option="`download.max_bytes`",
                images=images,
                **body,
            )
        finally:
            self.in_flight -= 1
        try:
            if len(http.body) > _LARGE:
                return await asyncio.get_running_loop().run_in_executor(self._threads, read_response, http)
            return read_response(http)
        except RequestError as error:
            error.is_replay = is_replay(http.headers) and is_json(http.body)  # the whole of it, not one that was cut
            raise
