"""Work one line of a batch, by the way of a call at once."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox.batch.faults import pick_line_fault
from pipeline.sandbox.batch.outputs import Kind, answered_line, damaged
from pipeline.sandbox.batch.validation import OPERATIONS
from pipeline.sandbox.calls import check_call, make_images
from pipeline.sandbox.faults import plan_faults
from pipeline.sandbox.request_body import RequestBody
from pipeline.sandbox.request_log import BatchLineEntry
from pipeline.sandbox.responses import error_response
from pipeline.sandbox.rules.validate import images_asked
from pipeline.sandbox.translate_response import translate_response

if TYPE_CHECKING:
    from pipeline.sandbox.batch.records import Batch
    from pipeline.sandbox.responses import Response
    from pipeline.sandbox.service import Service


@dataclass(frozen=True, slots=True)
class WorkedLine:
    """What a line came to: which file it goes to, what is written there, and what the request log says."""

    kind: Kind
    content: bytes
    entry: BatchLineEntry


def ids_of(batch: Batch, index: int) -> random.Random:
    """Return what the ids of a line are drawn from: a line that is written again after a kill has the same."""
    return random.Random(f"{batch.id}:{index}")


async def work_line(service: Service, batch: Batch, index: int, line: dict[str, object]) -> WorkedLine:
    """Answer a line of the input; `index` is its place there."""
    fields, custom_id = line["body"], str(line["custom_id"])
    assert isinstance(fields, dict)
    body, prompt = RequestBody("json", fields), fields.get("prompt")
    entry = BatchLineEntry(
        at=service.clock(),
        batch=batch.id,
        custom_id=custom_id,
        operation=OPERATIONS[batch.endpoint],
        model=str(fields.get("model")),
        prompt=prompt if isinstance(prompt, str) else None,
        n=images_asked(body),
    )
    try:
        response = await _answer(service, batch, index, body, entry)
    except errors.ApiError as error:
        response = error_response(error)
    response = translate_response(response, service.settings.dialect)
    entry.status = response.status
    fault = pick_line_fault(service.settings, batch.number, index)
    entry.fault = fault or entry.fault
    written = answered_line(ids_of(batch, index), custom_id, response.status, response.chunks[0])
    return WorkedLine("output" if response.status < 400 else "error", damaged(written, fault), entry)


async def _answer(service: Service, batch: Batch, index: int, body: RequestBody, entry: BatchLineEntry) -> Response:
    """Return the response of a call with this body. Raises ApiError."""
    for name in ("stream", "partial_images"):
        if body.fields.get(name):
            raise errors.unsupported(f"'{name}' is not supported by the Batch API.", name)
    checked = await check_call(service, OPERATIONS[batch.endpoint], body)
    plan = plan_faults(service.settings, f"{batch.number}:{index}")
    if error := plan.api_error(service.settings.rate_limit, checked.call.n):
        entry.fault = plan.fault
        raise error
    return await make_images(service, checked, "", entry)
