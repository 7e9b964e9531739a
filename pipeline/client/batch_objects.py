"""Objects of the Files API and the Batch API, read from responses: bounded, and in one form whatever the server is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.client.error_body import plain, read_error_body, word
from pipeline.client.limits import BATCH_ERRORS, ID_CHARACTERS, LIST_ITEMS, MESSAGE_CHARACTERS
from pipeline.client.response import read_object
from pipeline.errors import Unusable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.client.response import HttpResponse

_END_OF_TIME = 253_402_300_800.0  # the year 10000, which no calendar here can write
_MOST = 10**15  # bytes, lines and counts from here on mean nothing
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of the Files API. `bytes` is None if the service does not state it, and moments are since 1970."""

    id: str
    name: str
    bytes: int | None
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class BatchError:
    """An error that the service found in the input of a batch; `line` counts from 1."""

    code: str | None
    message: str
    param: str | None
    line: int | None


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """A batch. `status` is the service's word in lower case; ids of files that do not exist are None, never empty."""

    id: str
    status: str
    endpoint: str
    input_file_id: str | None
    output_file_id: str | None
    error_file_id: str | None
    errors: tuple[BatchError, ...]
    total: int
    completed: int
    failed: int
    created_at: float | None
    expires_at: float | None
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ObjectPage:
    """One page of a list. `after` is what the next one is asked for with: None if this is the last page."""

    items: tuple[Mapping[str, Any], ...]
    after: str | None


def read_file(http: HttpResponse) -> RemoteFile:
    """Read the response that is a file's object. Raises the RequestError that any other means."""
    found = file_of(read_object(http))
    if found is None:
        raise _unknown(http, "a file")
    return found


def read_batch(http: HttpResponse) -> RemoteBatch:
    """Read the response that is a batch. Raises the RequestError that any other means."""
    found = batch_of(read_object(http))
    if found is None:
        raise _unknown(http, "a batch")
    return found


def read_page(http: HttpResponse) -> ObjectPage:
    """Read the response that is a page of a list. Raises the RequestError that any other means."""
    body = read_object(http)
    data = body.get("data")
    if not isinstance(data, list):
        raise _unknown(http, "a list")
    items = tuple(item for item in data if isinstance(item, dict))
    if not body.get("has_more"):
        return ObjectPage(items, None)
    after = id_of(body.get("last_id")) or (id_of(items[-1].get("id")) if items else None)
    if after is None:
        raise _unknown(http, "a list that can be read on")
    return ObjectPage(items, after)


def _unknown(http: HttpResponse, what: str) -> Unusable:
    """Return the error of an object of another kind; what it says of an error is a part of it."""
    server_message = read_error_body(http.body, http.secrets.scrub).message
    message = f"the server answered {http.status} with an object that is not {what}: {server_message:.200}"
    return Unusable(message, http_status=http.status, request_id=http.request_id)


def file_of(body: Mapping[str, Any]) -> RemoteFile | None:
    """Return the file that an object describes; None if it has no id."""
    file_id = id_of(body.get("id"))
    if file_id is None:
        return None
    return RemoteFile(file_id, _text(body.get("filename")), _whole(body.get("bytes")), moment(body.get("expires_at")))


def batch_of(body: Mapping[str, Any]) -> RemoteBatch | None:
    """Return the batch that an object describes; None if it has no id."""
    batch_id = id_of(body.get("id"))
    if batch_id is None:
        return None
    counts = _object(body.get("request_counts"))
    metadata = list(_object(body.get("metadata")).items())[:LIST_ITEMS]
    return RemoteBatch(
        id=batch_id,
        status=(word(body.get("status")) or "").lower(),
        endpoint=word(body.get("endpoint")) or "",
        input_file_id=id_of(body.get("input_file_id")),
        output_file_id=id_of(body.get("output_file_id")),
        error_file_id=id_of(body.get("error_file_id")),
        errors=_errors(body.get("errors")),
        total=_whole(counts.get("total")) or 0,
        completed=_whole(counts.get("completed")) or 0,
        failed=_whole(counts.get("failed")) or 0,
        created_at=moment(body.get("created_at")),
        expires_at=moment(body.get("expires_at")),
        metadata={_text(name): _text(value) for name, value in metadata if isinstance(value, str)},
    )


def _errors(value: Any) -> tuple[BatchError, ...]:
    """Return the errors of a batch: the list itself, or one in `data`."""
    found = value.get("data") if isinstance(value, dict) else value
    errors = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    return tuple(
        BatchError(
            word(error.get("code")), _text(error.get("message")), word(error.get("param")), _whole(error.get("line"))
        )
        for error in errors[:BATCH_ERRORS]
    )


def id_of(value: Any) -> str | None:
    """Return the id of an object; None if it is empty, or nothing that can be an id."""
    if isinstance(value, str) and re.fullmatch(rf"[!-~]{{1,{ID_CHARACTERS}}}", value) and value.strip("."):
        return value
    return None


def moment(value: Any) -> float | None:
    """Return a moment in seconds since 1970, from a number, a number as text or ISO 8601; None if it is none."""
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        try:
            stated = datetime.fromisoformat(value[:40])
            value = (stated if stated.tzinfo else stated.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return None
    number = _number(value)
    return float(number) if number is not None and 0 < number < _END_OF_TIME else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and 0 <= number < _MOST else None  # neither NaN nor an absurd number


def _number(value: Any) -> int | float | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return plain(value, MESSAGE_CHARACTERS) if isinstance(value, str) else ""
