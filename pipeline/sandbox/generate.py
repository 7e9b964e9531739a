"""Serve the requests that make images: check the request, then apply faults and latency, then draw.

The checks run in the service's order: key, body, rate limit, parameters, files, content policy.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox import responses
from pipeline.sandbox.calls import check_call, make_images
from pipeline.sandbox.faults import BAD_GATEWAY, SLOW_CHUNKS, FaultPlan, plan_faults
from pipeline.sandbox.http_server import drop, send, service_headers
from pipeline.sandbox.request_body import read_body
from pipeline.sandbox.request_log import CallEntry
from pipeline.sandbox.responses import Response
from pipeline.sandbox.rules.validate import images_asked
from pipeline.sandbox.translate_request import accepted_content_types, authenticate, check_query, max_json_bytes
from pipeline.sandbox.translate_response import translate_response, withheld_images

if TYPE_CHECKING:
    from aiohttp import web

    from pipeline.sandbox.calls import CheckedCall
    from pipeline.sandbox.request_body import RequestBody
    from pipeline.sandbox.rules.models import Operation
    from pipeline.sandbox.service import Service

HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


async def serve_call(
    service: Service, request: web.Request, operation: Operation, request_id: str
) -> web.StreamResponse:
    """Answer a call or drop its connection, and log it."""
    started = time.monotonic()
    entry = CallEntry(service.clock(), service.monotonic(), request.path, operation, request_id)
    entry.idempotency_key = request.headers.get("Idempotency-Key")
    entry.client_request_id = request.headers.get("X-Client-Request-Id")
    credentials = request.headers.get(service.settings.dialect.auth_header, "")
    entry.api_key_id = f"key_{hashlib.sha256(credentials.encode(errors='surrogateescape')).hexdigest()[:16]}"
    try:
        try:
            response = await _process(service, request, operation, entry)
        except errors.ApiError as error:
            response = responses.error_response(error)
        if response is None:
            return drop(request)
        response = translate_response(response, service.settings.dialect)
        headers = {**service.admission.headers(service.monotonic()), **service_headers(request_id, started)}
        sent = await send(request, response, headers)
        entry.status = response.status
        return sent
    finally:
        service.request_log.write(entry)


async def _process(service: Service, request: web.Request, operation: Operation, entry: CallEntry) -> Response | None:
    """Return the response of a call, or None if the connection is to be dropped. Raises ApiError."""
    settings = service.settings
    authenticate(request, settings)
    check_query(request, settings.dialect)
    body = await _read_and_admit(service, request, operation, entry)
    checked = await check_call(service, operation, body)
    images = checked.call.n
    if checked.withheld:
        return responses.json_response(withheld_images(images, int(service.clock())))
    async with service.admission.capacity.serving():
        plan = plan_faults(settings, service.calls)
        service.calls += 1
        entry.fault = plan.fault
        failure = await _fail_early(service, plan, images)
        if failure is not None or plan.fault == "drop_before":
            return failure
        response = await _make_once(service, request, checked, entry)
    return _damage(response, plan)


async def _make_once(service: Service, request: web.Request, checked: CheckedCall, entry: CallEntry) -> Response:
    """Make a call's images, or answer with what is kept for its idempotency key if such keys count. Raises ApiError."""
    origin = _origin(request, service.settings.dialect.picture_host)
    if not service.settings.idempotency or not entry.idempotency_key:
        return await make_images(service, checked, origin, entry)
    key = entry.idempotency_key
    async with service.kept.alone(key):
        kept = await service.run_in_thread(service.kept.find, key, checked.digest)
        if kept is not None:
            entry.is_replay = True
            return kept
        response = await make_images(service, checked, origin, entry)
        return await service.run_in_thread(service.kept.keep, key, checked.digest, response)


async def _read_and_admit(
    service: Service, request: web.Request, operation: Operation, entry: CallEntry
) -> RequestBody:
    """Read the body and admit the call; one that cannot be read counts as one image."""
    dialect = service.settings.dialect
    try:
        accepted, limit = accepted_content_types(operation, dialect), max_json_bytes(operation, dialect)
        body = await read_body(request, accepted, limit)
    except errors.ApiError:
        service.admit(entry, 1)
        raise
    entry.model, entry.prompt = (_text_or_none(body.fields.get(name)) for name in ("model", "prompt"))
    service.admit(entry, images_asked(body))
    return body


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None  # a deeply nested list could not be written to the log


async def _fail_early(service: Service, plan: FaultPlan, images: int) -> Response | None:
    """Wait for the latency, then apply the faults of calls that make no image. Raises ApiError."""
    error = plan.api_error(service.settings.rate_limit, images)
    if plan.fault != "http_429":  # the rate limit refuses at once
        await asyncio.sleep(plan.latency)
    if error:
        raise error
    match plan.fault:
        case "html_502":
            return Response(502, "text/html", (BAD_GATEWAY,))
        case "empty":
            return responses.empty_response(int(service.clock()))
        case _:
            return None


def _origin(request: web.Request, host: str | None) -> str:
    """Return scheme, host and port for image URLs: `host`, else what the client used, else the socket's address."""
    address, port = request.get_extra_info("sockname", ("127.0.0.1", 80))[:2]
    called = request.headers.get("Host", "")
    if host is not None or not HOST.fullmatch(called):
        called = f"{host or address}:{port}"
    return f"http://{called}"


def _damage(response: Response, plan: FaultPlan) -> Response | None:
    """Apply the faults of calls whose images are made and charged; None if the connection is to be dropped."""
    match plan.fault:
        case "drop_after":
            return None
        case "broken_json":
            content = b"".join(response.chunks)
            return replace(response, chunks=(content[: len(content) // 2],))
        case "slow":
            content = b"".join(response.chunks)
            step = -(-len(content) // SLOW_CHUNKS)
            chunks = tuple(content[start : start + step] for start in range(0, len(content), step))
            return replace(response, chunks=chunks, pause=plan.slow_seconds / SLOW_CHUNKS)
        case _:
            return response
