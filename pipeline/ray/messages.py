"""What a run and its workers tell each other: orders in blocks, and reports of what became of them. Plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.client.request import Call
    from pipeline.engine.image_writer import FileNames

MOMENT, SHORT_MOMENT = 0.1, 0.01
"""Seconds in which reports are gathered before they are sent: many, and few. Each is with the run within 0.2."""

MANY = 8  # reports at once

POLL_SECONDS = 1.0
"""How long a worker that has nothing to report waits before it says so."""


@dataclass(frozen=True, slots=True)
class CallOrder:
    """Make one call of a provider, and store the images that its response contains."""

    id: int
    provider: str
    call: Call
    names: FileNames
    taken: frozenset[int]
    headers: Mapping[str, str] = field(default_factory=dict)  # of this call alone


@dataclass(frozen=True, slots=True)
class FetchOrder:
    """Download one paid image and store it, in one attempt; `is_last` if bytes that are no image are put aside."""

    id: int
    provider: str
    url: str
    expires_at: float
    names: FileNames
    number: int
    is_last: bool


Order = CallOrder | FetchOrder


class Sent(NamedTuple):
    """The first byte of a call is about to leave."""

    id: int


class Done(NamedTuple):
    """An order is done: with a CallResult, a StoredImage, or the error that it raised.

    `left` is what could not be put into the object store, and is put into the run's spool instead.
    """

    id: int
    value: Any
    left: tuple[LeftBytes, ...] = ()


class LeftBytes(NamedTuple):
    """Bytes that the run stores itself: an image under this name, or what is no image, with the reason."""

    name: str
    content: bytes
    reason: str | None = None


class Failure(NamedTuple):
    """An error as values: exceptions with arguments that have names cannot be pickled."""

    kind: type[BaseException]
    words: tuple[Any, ...]
    fields: dict[str, Any]

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Return an error as values."""
        return cls(type(error), error.args, vars(error))

    def error(self) -> BaseException:
        """Return the error again."""
        error = self.kind.__new__(self.kind, *self.words)
        error.args = self.words
        vars(error).update(self.fields)
        return error


class Answer(NamedTuple):
    """What a worker answers to a poll.

    `clock` is its own monotonic clock when it answered, `wall` its seconds since 1970, `blocks` the number of blocks
    that have arrived. `first` is the number of the first report: those before it are known to have arrived.
    """

    clock: float
    wall: float
    blocks: int
    first: int
    reports: list[Sent | Done]


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker needs to know before its first order: where images go, and values of environment variables."""

    output: Path
    images: Path | str | None
    images_options: Mapping[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
