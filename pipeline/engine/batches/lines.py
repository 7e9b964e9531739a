"""Lines of batch files: an input line asks for images, an output line is a response or says why there is none.

The forms are those of OpenAI's guide to the Batch API.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from pipeline.client.error_body import word
from pipeline.client.request import to_dialect
from pipeline.client.response import HttpResponse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pipeline.client.secrets import Secrets
    from pipeline.config.dialect import Dialect
    from pipeline.ledger.queue import QueuedRequest


_BEGINNING = 2000  # bytes of a line that name its request, wherever its images come


def endpoint_of(served_by: str, dialect: Dialect) -> str:
    """Return the endpoint of an operation, as lines and batches name it."""
    return f"/v1/{dialect.paths[served_by]}"


def custom_id(token: str, attempt_pk: int) -> str:
    """Return the id of a line: unique for its attempt, in whatever ledger."""
    return f"{token}-{attempt_pk}"


def attempt_of(text: object, token: str) -> int | None:
    """Return the primary key of the attempt that a line's id names; None if the line is not of this batch."""
    start, _, number = text.rpartition("-") if isinstance(text, str) else ("", "", "")
    return int(number) if start == token and number.isascii() and number.isdecimal() and len(number) < 19 else None


def input_line(
    line_id: str, request: QueuedRequest, images: int, dialect: Dialect, file_ids: Mapping[str, str]
) -> bytes:
    """Return a line that asks for images of a request; `file_ids` are those of its input images, by hash."""
    prompt = {} if request.prompt is None else {"prompt": request.prompt}
    body: dict[str, Any] = to_dialect({**prompt, **request.params, "n": images}, dialect)
    references = [(input_image["role"], {"file_id": file_ids[input_image["sha256"]]}) for input_image in request.inputs]
    if references:
        body["images"] = [reference for role, reference in references if role == "image"]
    for role, reference in references:
        if role == "mask":
            body["mask"] = reference
    url = endpoint_of(request.served_by, dialect)
    line = {"custom_id": line_id, "method": "POST", "url": url, "body": body}
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


@dataclass(frozen=True, slots=True)
class OutputLine:
    """A line of an output or error file: a response with its status and body, or an error without a response."""

    attempt_pk: int
    status: int | None
    body: Any
    request_id: str | None
    code: str | None
    message: str | None

    @property
    def is_success(self) -> bool:
        """Whether the line is a success response."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def largest_image(self) -> int:
        """About how many bytes the largest image of the response has."""
        data = self.body.get("data") if isinstance(self.body, dict) else None
        images = [item.get("b64_json") for item in data if isinstance(item, dict)] if isinstance(data, list) else []
        return max((len(encoded) * 3 // 4 for encoded in images if isinstance(encoded, str)), default=0)

    def as_response(self, secrets: Secrets) -> HttpResponse:
        """Return the line's response as if it had come over HTTP."""
        headers = {} if self.request_id is None else {"x-request-id": self.request_id}
        content = self.body.encode() if isinstance(self.body, str) else to_json(self.body)
        return HttpResponse(self.status or 0, headers, content, "", secrets=secrets)


def read_output_line(raw: bytes | None, token: str) -> OutputLine:
    """Parse a line of an output or error file, None if it was too long. Raises ValueError, which says what is wrong."""
    if raw is None:
        what = "it is longer than its images may be"
        raise ValueError(what)
    try:
        line = from_json(raw.removeprefix(BOM_UTF8), allow_inf_nan=False)  # some files begin with a mark
    except ValueError as reason:
        what = f"it is not JSON: {reason}"
        raise ValueError(what) from None
    if not isinstance(line, dict):
        what = "it is not an object"
        raise ValueError(what)  # noqa: TRY004 - a malformed value, whatever its type
    attempt_pk = attempt_of(line.get("custom_id"), token)
    if attempt_pk is None:
        what = f"its custom_id {line.get('custom_id')!r:.80} is of no line of this batch"
        raise ValueError(what)
    response, error = line.get("response"), line.get("error")
    if not isinstance(response, dict):
        told = error if isinstance(error, dict) else {"message": error}
        return OutputLine(attempt_pk, None, None, None, word(told.get("code")), word(told.get("message")))
    status = response.get("status_code")
    if not isinstance(status, int) or isinstance(status, bool) or not 100 <= status < 600:
        what = f"its status {status!r:.40} is none of HTTP"
        raise ValueError(what)
    return OutputLine(attempt_pk, status, response.get("body"), word(response.get("request_id")), None, None)


def named_attempt(raw: bytes, token: str) -> int | None:
    """Return the primary key of the attempt that the beginning of a malformed line names."""
    found = re.search(rb'"' + token.encode() + rb'-([0-9]{1,18})"', raw[:_BEGINNING])
    return int(found[1]) if found else None


def read_lines(path: Path, longest: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield (offset, line) of a file, without empty lines; a line of more than `longest` bytes is None."""
    with path.open("rb") as file:
        offset = 0
        while raw := file.readline(longest):
            start, is_cut = offset, len(raw) == longest and not raw.endswith(b"\n")
            offset += len(raw)
            while is_cut and (more := file.readline(longest)):
                offset += len(more)
                is_cut = not more.endswith(b"\n")
                raw = b""
            if not raw:
                yield start, None
            elif raw.strip():
                yield start, raw


def line_at(path: Path, offset: int) -> bytes:
    """Return the line that begins at this offset of a file."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.readline()


def count_lines(path: Path) -> int:
    """Count the lines of a file."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))
