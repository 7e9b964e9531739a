"""Tasks that work beside a block, and end with it; the block ends with an error of theirs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from pipeline.errors import first_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class _BlockEnded(Exception):
    """The block has ended, and so must its tasks."""


@contextlib.asynccontextmanager
async def background_tasks() -> AsyncIterator[asyncio.TaskGroup]:
    """Have a TaskGroup whose tasks are cancelled at the end of the block.

    If a task fails, the block is cancelled, and the error of the task is raised in place of that.
    """
    try:
        async with asyncio.TaskGroup() as group:
            yield group
            raise _BlockEnded
    except BaseExceptionGroup as group_of_errors:
        errors = group_of_errors.subgroup(lambda error: not isinstance(error, (_BlockEnded, BaseExceptionGroup)))
        if errors is not None:
            raise first_error(errors) from None
