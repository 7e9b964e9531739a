"""A call of the Images API → the body that is sent: JSON for a generation, a form where pictures go along."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from pipeline.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a multipart call."""

    role: str  # image or mask
    path: Path
    content_type: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the Images API: plain values, so that it may be made anywhere."""

    operation: str
    params: Mapping[str, Any]
    uploads: Sequence[Upload] = ()


Body = dict[str, Any]
"""What is sent, as aiohttp takes it; good for one call, as a form is."""


async def body_of(call: Call) -> Body:
    """Write a call's body: JSON for a generation, else a form. Raises Invalid where an uploaded file is gone."""
    if call.operation == "generation":
        return {"json": call.params}
    try:
        return {"data": await asyncio.to_thread(_form, call)}
    except OSError as reason:
        raise Invalid(f"{reason.filename} cannot be read: {reason.strerror}; submit the job again") from None


def _form(call: Call) -> aiohttp.FormData:
    """Write a multipart body. One file goes as `image`, several as `image[]`; each part says what it is,
    since aiohttp would say application/octet-stream and the service refuses that (openai-node issue 1468).
    """
    form = aiohttp.FormData()
    for name, value in call.params.items():
        for field, text in _fields(name, value):
            form.add_field(field, text)
    several = sum(upload.role == "image" for upload in call.uploads) > 1
    for upload in call.uploads:
        field = "image[]" if several and upload.role == "image" else upload.role
        form.add_field(field, upload.path.read_bytes(), filename=upload.path.name, content_type=upload.content_type)
    return form


def _fields(name: str, value: Any) -> list[tuple[str, str]]:
    """Write a parameter as form fields: nested ones as svg[model], lists as name[]; the vendor's SDK does the same."""
    if isinstance(value, dict):
        return [field for key, inner in value.items() for field in _fields(f"{name}[{key}]", inner)]
    if isinstance(value, list | tuple):
        return [field for inner in value for field in _fields(f"{name}[]", inner)]
    return [(name, value if isinstance(value, str) else json.dumps(value))]
