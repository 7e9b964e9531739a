"""Serve `/v1/batches`: create, retrieve, list and cancel; and keep the batches going."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from pipeline.sandbox import api_errors
from pipeline.sandbox.api_errors import ApiError
from pipeline.sandbox.batch import errors
from pipeline.sandbox.batch.faults import hidden_creates, plan_batch
from pipeline.sandbox.batch.files import EXPIRES_AFTER, KEPT_SECONDS
from pipeline.sandbox.batch.pages import page_of, page_size
from pipeline.sandbox.batch.records import Batch
from pipeline.sandbox.batch.run import BatchRun
from pipeline.sandbox.request_body import MIB, read_body
from pipeline.sandbox.request_log import BatchEntry
from pipeline.sandbox.responses import json_response
from pipeline.sandbox.rules.fields import Check, Choice, Text, json_type

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from pipeline.sandbox.batch.faults import BatchPlan
    from pipeline.sandbox.batch.records import BatchStore
    from pipeline.sandbox.file_store import StoredFile
    from pipeline.sandbox.responses import Response
    from pipeline.sandbox.service import Service

ENDPOINTS: Final = (
    *("/v1/responses", "/v1/chat/completions", "/v1/embeddings", "/v1/completions", "/v1/moderations"),
    *("/v1/images/generations", "/v1/images/edits", "/v1/videos"),
)
REQUIRED: Final[dict[str, Check]] = {
    "input_file_id": Text(512, shortest=1),
    "endpoint": Choice(ENDPOINTS),
    "completion_window": Choice(("24h",)),
}
OPTIONAL: Final = ("metadata", "output_expires_after")
MOST_PAIRS, LONGEST_KEY, LONGEST_VALUE = 16, Text(64), Text(512)
USUALLY_LISTED, MOST_LISTED = 20, 100
log = logging.getLogger(__name__)


class Batches:
    """The batches of one sandbox, each in a task of its own."""

    def __init__(self, service: Service, store: BatchStore) -> None:
        self._service = service
        self._store = store
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused: dict[str, int] = {}  # by file: creates that did not see it yet

    def resume(self) -> None:
        """Go on with the batches that an earlier sandbox left."""
        for batch in self._store.all():
            if not batch.is_final:
                self._start(batch, resumed=True)

    async def close(self) -> None:
        """Leave all batches as they are recorded."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, batch: Batch, *, resumed: bool) -> None:
        task = asyncio.create_task(self._run(BatchRun(self._service, self._store, batch, resumed)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, run: BatchRun) -> None:
        try:
            await run.run()
        except Exception:
            log.exception("the sandbox failed on %s", run.batch.id)

    async def create(self, request: web.Request) -> Response | None:
        """Create a batch; None if the answer is lost with its connection. Raises ApiError."""
        fields = (await read_body(request, (api_errors.JSON_TYPE,), MIB)).fields
        _check(fields)
        stored = self._input_file(str(fields["input_file_id"]))
        number = self._store.next_number()
        plan = plan_batch(self._service.settings, number)
        if plan.fate == "spend_cap" and plan.form:
            raise ApiError(errors.spend_cap_message(stored.id), param="file_id")
        batch = self._add(fields, stored, number, plan)
        self._start(batch, resumed=False)
        if plan.loses_answer and not plan.drops:
            raise api_errors.server_error()
        return None if plan.loses_answer else json_response(batch.as_object())

    def _input_file(self, file_id: str) -> StoredFile:
        try:
            stored = self._service.files.get(file_id, self._service.clock())
        except LookupError as error:
            raise errors.cannot_find_file(file_id) from error
        if stored.purpose != "batch":
            raise errors.not_a_batch_file(stored.purpose)
        refused = self._refused.get(file_id, 0)
        if refused < hidden_creates(self._service.settings, stored.number):
            self._refused[file_id] = refused + 1
            raise errors.cannot_find_file(file_id)
        return stored

    def _add(self, fields: Mapping[str, object], stored: StoredFile, number: int, plan: BatchPlan) -> Batch:
        now, settings = self._service.clock(), self._service.settings.batch
        expires, metadata = fields.get("output_expires_after"), fields.get("metadata")
        batch = Batch(
            number=number,
            seed=self._service.settings.seed,
            plan=plan,
            endpoint=str(fields["endpoint"]),
            input_file_id=stored.id,
            created_at=now,
            expires_at=now + settings.expires_seconds,
            metadata=metadata if isinstance(metadata, dict) else None,
            output_seconds=expires["seconds"] if isinstance(expires, dict) else KEPT_SECONDS,
        )
        self._store.add(batch, self._service.files.path(stored.id))
        self._service.request_log.write(BatchEntry(now, batch.id, stored.id, batch.endpoint, batch.metadata))
        return batch

    def retrieve(self, batch_id: str) -> Response:
        """Return a batch's object. Raises ApiError."""
        return json_response(self._find(batch_id).as_object())

    def list_batches(self, query: Mapping[str, str]) -> Response:
        """Return a page of batches, the newest first. Raises ApiError."""
        limit = page_size(query, USUALLY_LISTED, MOST_LISTED)
        objects = [batch.as_object() for batch in reversed(self._store.all())]
        return page_of(objects, query.get("after"), limit, errors.no_such_batch)

    def cancel(self, batch_id: str) -> Response:
        """Begin to cancel a batch, and return its object. Raises ApiError."""
        batch = self._find(batch_id)
        if batch.status in {"validating", "in_progress"}:
            batch.enter("cancelling", self._service.clock())
            self._store.save(batch)
        elif batch.status not in {"cancelling", "cancelled"}:
            raise errors.cannot_cancel(batch.status)
        return json_response(batch.as_object())

    def _find(self, batch_id: str) -> Batch:
        try:
            return self._store.get(batch_id)
        except LookupError as error:
            raise errors.no_such_batch(batch_id) from error


def _check(fields: Mapping[str, object]) -> None:
    """Check the body of a create. Raises ApiError."""
    for name in fields:
        if name not in REQUIRED and name not in OPTIONAL:
            raise api_errors.unknown_parameter(name[:200])
    for name, check in REQUIRED.items():
        if fields.get(name) is None:
            raise api_errors.missing_parameter(name)
        check.parse(name, fields[name], from_text=False)
    if fields.get("output_expires_after") is not None:
        EXPIRES_AFTER.parse("output_expires_after", fields["output_expires_after"], from_text=False)
    metadata = fields.get("metadata")
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise api_errors.invalid_type("metadata", "an object", json_type(metadata))
    if len(metadata) > MOST_PAIRS:
        message = f"Invalid 'metadata': expected at most {MOST_PAIRS} pairs, but got {len(metadata)} instead."
        raise api_errors.unsupported(message, "metadata", "object_above_max_properties")
    for key, value in metadata.items():
        LONGEST_KEY.parse("metadata", key, from_text=False)
        LONGEST_VALUE.parse(f"metadata.{key[:64]}", value, from_text=False)
