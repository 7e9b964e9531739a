"""Writes `output.jsonl` and `errors.jsonl`: what OpenAI's Batch API would have returned for a job's requests."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pybase64

from pipeline.exports.rows import json_bytes
from pipeline.files import make_folder, whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from pipeline.exports.listing import ListedRequest, Listing
    from pipeline.exports.originals import Originals
    from pipeline.storage import StoredImage

_NO_DATA = b'"data": []'


def write_batch_output(target: Path, listing: Listing, originals: Originals, *, no_images: bool = False) -> None:
    """Write both files below a folder: a line for each request with images, and one for each that failed.

    With `no_images`, lines have no base64. Raises OSError.
    """
    make_folder(target)
    work = originals.check if no_images else originals.read
    with whole_file(target / "output.jsonl") as file:
        found = originals.each(listing.iter_images(), work)
        for _, images in itertools.groupby(found, key=lambda item: item[0].entry["key"]):
            _write_success(file, images)
    with whole_file(target / "errors.jsonl") as file:
        for request in listing:
            if not request.images:
                file.write(json_bytes(_error_line(request.entry)) + b"\n")


def _write_success(file: BinaryIO, images: Iterator[tuple[ListedRequest, StoredImage, bytes | None]]) -> None:
    """Write the line of a request piece by piece: its images are in memory one after another."""
    end = b""
    for request, image, content in images:
        if end:
            file.write(b", ")
        else:
            start, _, end = json_bytes(_success_line(request.entry)).partition(_NO_DATA)
            file.write(start + _NO_DATA[:-1])
        more = {} if image.revised_prompt is None else {"revised_prompt": image.revised_prompt}
        file.write(b"{")
        if content is not None:
            file.write(b'"b64_json": "')
            file.write(pybase64.b64encode(content))
            file.write(b'", ' if more else b'"')
        file.write(json_bytes(more)[1:])
    file.write(b"]" + end + b"\n")


def _success_line(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the line of a request with images, without them."""
    body = {"created": _created(entry), "data": [], **_said(entry)}
    return _line(entry, {"status_code": 200, "request_id": entry["request_id"] or "", "body": body}, None)


def _line(entry: dict[str, Any], response: dict[str, Any] | None, error: dict[str, Any] | None) -> dict[str, Any]:
    custom_id = entry.get("custom_id") or entry["id"]
    return {"id": f"batch_req_{entry['key'][:32]}", "custom_id": custom_id, "response": response, "error": error}


def _error_line(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the line of a failed request: the service's response, or why there is none."""
    error = entry["error"] or {}
    code, message = error.get("code"), error.get("message")
    if error.get("http_status") is None:
        return _line(entry, None, {"code": code or error.get("kind") or "failed", "message": message})
    body = {"error": {"message": message, "type": error.get("type"), "param": None, "code": code}}
    response = {"status_code": error["http_status"], "request_id": entry["request_id"] or "", "body": body}
    return _line(entry, response, None)


def _said(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what the service said beside the images."""
    settings = {name: value for name, value in entry["settings"].items() if name not in {"created", "data"}}
    return settings if entry["usage"] is None else {**settings, "usage": entry["usage"]}


def _created(entry: dict[str, Any]) -> int:
    return int(datetime.fromisoformat(entry["finished_at"] or entry["created_at"]).timestamp())
