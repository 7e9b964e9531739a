"""Read an input file of OpenAI's Batch API as a job: one request a line, whose text is never a template."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.config.yaml_document import Document, unknown_key_message
from pipeline.errors import JobError, Problem
from pipeline.images.source import ImageSource
from pipeline.ordinary_file import open_ordinary
from pipeline.planning.identity import UniqueIds
from pipeline.planning.job import Entry, Job, find_name_fault
from pipeline.planning.job_schema import REQUEST_KEYS, UNSUPPORTED
from pipeline.planning.json_rows import InvalidLine, decoded_lines, parse_object
from pipeline.planning.paths import missing_hint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SUFFIX = ".jsonl"

MAX_BYTES = 2**30
"""Maximum size of a file, five times what the service accepts, since images may be in it."""

OPERATIONS = {"/v1/images/generations": "generation", "/v1/images/edits": "edit"}

_KEYS = ("custom_id", "method", "url", "body")
_OTHER_KEYS = REQUEST_KEYS - {"prompt", "n", "mask"}  # of job files, which are no parameters of the API
_NO_LINE = (
    'a line of a Batch input file is {"custom_id": "a", "method": "POST", "url": "/v1/images/generations", "body": '
    '{"model": …, "prompt": …}}; rows of prompts belong in `rows:` of a job file'
)


def read_batch_file(path: Path) -> Job:
    """Read a file of lines with `custom_id`, `method`, `url` and `body`. Raises JobError if it cannot be read.

    Mistakes in lines are the job's problems.
    """
    reader = _Reader(str(path))
    try:
        with open_ordinary(path) as file:
            for number, text in decoded_lines(file, str(path), MAX_BYTES):
                if text.strip():
                    reader.read(number, text)
    except (OSError, ValueError) as reason:  # ValueError: a name with a zero byte
        hint = missing_hint(str(path)) if isinstance(reason, FileNotFoundError) else ""
        message = f"cannot be read: {getattr(reason, 'strerror', None) or reason}{hint}"
        raise JobError([Problem(str(path), message)]) from None
    if not reader.lines:
        raise JobError([Problem(str(path), f"has no lines; {_NO_LINE}")])
    if fault := find_name_fault(path.stem):
        reader.problems.append(Problem(str(path), f"{fault}; rename the file, whose name is the job's"))
    return Job(
        name=path.stem,
        provider=None,
        folder=path.parent.absolute(),
        file=path.absolute(),
        entries=tuple(reader.entries),
        budget_usd=None,
        document=Document(str(path), None, reader.lines),
        problems=tuple(reader.problems),
        is_batch_file=True,
    )


class _Mistake(ValueError):
    """What is wrong with a value of a line: `field` names it from the top of the line."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(slots=True)
class _Reader:
    """Reads one line after another into entries."""

    file: str
    entries: list[Entry] = field(default_factory=list)
    lines: dict[tuple[str | int, ...], int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _custom_ids: dict[str, int] = field(default_factory=dict)  # → the line that has it
    _ids: UniqueIds = field(default_factory=UniqueIds)

    def read(self, number: int, text: str) -> None:
        index = len(self.lines)
        self.lines["requests", index] = number
        try:
            line = parse_object(text)
            custom_id = self._custom_id(line, number)
            fields, references = _body_fields(_operation(line), line.get("body"))
        except InvalidLine as reason:
            self.problems.append(Problem(f"{self.file}, line {number}", str(reason)))
        except _Mistake as reason:
            self.problems.append(Problem(f"{self.file}, line {number}, {reason.field}", str(reason)))
        else:
            fields["id"] = self._ids.of(custom_id)
            self.entries.append(
                Entry(index, fields, frozenset(fields), None, None, custom_id=custom_id, references=references)
            )

    def _custom_id(self, line: Mapping[str, Any], number: int) -> str:
        if line.keys().isdisjoint(_KEYS):
            raise InvalidLine(f"is no request; {_NO_LINE}")
        for key in line:
            if key not in _KEYS:
                raise _Mistake(key, unknown_key_message(key, _KEYS))
        custom_id = line.get("custom_id")
        if not isinstance(custom_id, str) or not custom_id:
            raise _Mistake("custom_id", "is missing; write a text that no other line has")
        first = self._custom_ids.setdefault(custom_id, number)
        if first != number:
            raise _Mistake("custom_id", f"`{custom_id:.100}` is also that of line {first}; each line needs its own")
        return custom_id


def _operation(line: Mapping[str, Any]) -> str:
    if line.get("method") != "POST":
        raise _Mistake("method", 'must be "POST"')
    url = line.get("url")
    if not isinstance(url, str) or url not in OPERATIONS:
        raise _Mistake("url", f"is {url!r:.100}; lines that make images have {' or '.join(OPERATIONS)}")
    return OPERATIONS[url]


def _body_fields(operation: str, body: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of a request, and its images in the form of the API if not all of them are data URLs."""
    if not isinstance(body, dict):
        raise _Mistake("body", "must be an object with the parameters of the call")
    fields: dict[str, Any] = {"operation": operation}
    for key, value in body.items():
        if key in UNSUPPORTED:
            raise _Mistake(f"body.{key}", f"`{key}` is not for batches: {UNSUPPORTED[key]}")
        if key == "image":
            raise _Mistake("body.image", 'is `images` in JSON, a list: "images": [{"image_url": "data:…"}]')
        if key in _OTHER_KEYS:
            raise _Mistake(f"body.{key}", "is no parameter of the Images API")
        if value is not None and key not in {"images", "mask"}:
            fields[key] = value
    for key in ("prompt", "model"):
        if not isinstance(fields.get(key, ""), str):
            raise _Mistake(f"body.{key}", f"must be text, not {fields[key]!r:.60}")
    images = _images(body)
    contents = {name: _data_content(name, reference) for name, reference in images.items()}
    if any(content is None for content in contents.values()):
        return fields, {key: body[key] for key in ("images", "mask") if body.get(key) is not None}
    sources = {name: ImageSource.of(content, name) for name, content in contents.items()}
    if "mask" in sources:
        fields["mask"] = sources.pop("mask")
    if sources:
        fields["image"] = list(sources.values())
    return fields, {}


def _images(body: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    """Return the references of the images and of the mask, by their names in messages."""
    images = body.get("images")
    if images is not None and not (isinstance(images, list) and images):
        raise _Mistake("body.images", 'must be a list: [{"image_url": "data:…"}]')
    named = {f"images[{number}]": reference for number, reference in enumerate(images or [])}
    if body.get("mask") is not None:
        named["mask"] = body["mask"]
    for name, reference in named.items():
        is_object = isinstance(reference, dict) and len(reference) == 1
        if not is_object or not isinstance(reference.get("image_url", reference.get("file_id")), str):
            raise _Mistake(f"body.{name}", 'must be {"image_url": "…"} or {"file_id": "…"}')
    return named


def _data_content(name: str, reference: Mapping[str, str]) -> bytes | None:
    """Return the bytes of a data URL, None for a reference to what is elsewhere."""
    url = reference.get("image_url", "")
    if url[:5].lower() != "data:":
        if url and url[:8].lower() != "https://" and url[:7].lower() != "http://":
            raise _Mistake(f"body.{name}.image_url", f"is `{url:.60}`; it must be a data URL or an http URL")
        return None
    head, comma, content = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise _Mistake(f"body.{name}.image_url", "is a data URL without base64: write `data:image/png;base64,…`")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as reason:
        raise _Mistake(f"body.{name}.image_url", f"is not valid base64: {reason}") from None
