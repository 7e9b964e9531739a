"""Validate the input file of a batch, line by line, as the service does after the create."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from pipeline.sandbox.api_errors import ORGANIZATION, ApiError
from pipeline.sandbox.dialect import PATHS
from pipeline.sandbox.request_body import parse_json
from pipeline.sandbox.rules.models import MODELS, Operation, is_available
from pipeline.sandbox.rules.usage import text_tokens

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path

MAX_LINES: Final = 50_000
MAX_ERRORS: Final = 100
IMAGE_TOKENS: Final = 1024
"""What one input image counts towards the enqueued tokens, as one measured edit did."""
REQUIRED: Final = ("custom_id", "method", "url", "body")
OPERATIONS: Final[dict[str, Operation]] = {
    f"/v1/{PATHS['generation']}": "generation",
    f"/v1/{PATHS['edit']}": "edit",
}
LineError: TypeAlias = dict[str, object]


def line_error(code: str, message: str, param: str | None = None, line: int | None = None) -> LineError:
    """Return one entry of `errors.data`."""
    return {"code": code, "message": message, "param": param, "line": line}


def token_limit_exceeded(model: str, limit: int) -> LineError:
    """Return the error of a batch that would exceed the enqueued tokens of its model."""
    message = (
        f"Enqueued token limit reached for {model} in organization {ORGANIZATION}. Limit: {limit:,} enqueued tokens. "
        "Please try again once some in_progress batches have been completed."
    )
    return line_error("token_limit_exceeded", message)


@dataclass(slots=True)
class Validated:
    """What was found in an input file: its errors, its model and what its lines count."""

    errors: list[LineError] = field(default_factory=list)
    model: str | None = None
    tokens: int = 0
    lines: int = 0


def line_starts(path: Path) -> list[int]:
    """Return where the lines of a file begin, without those that are blank. Raises OSError."""
    starts, place = [], 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                starts.append(place)
            place += len(line)
    return starts


def validate_file(path: Path, endpoint: str, today: date | None) -> Validated:
    """Read a whole input file; takes as long as its JSON takes. Raises OSError."""
    check = _Check(endpoint, today)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                check.read(number, line)
            if len(check.found.errors) >= MAX_ERRORS:
                break
    found = check.found
    if not found.lines:
        found.errors.append(line_error("empty_file", "The input file is empty."))
    if found.lines > MAX_LINES:
        message = f"The input file has more than {MAX_LINES:,} requests."
        found.errors.append(line_error("too_many_tasks", message))
    return found


class _Check:
    """Checks one line after another."""

    def __init__(self, endpoint: str, today: date | None) -> None:
        self.found = Validated()
        self._endpoint = endpoint
        self._today = today
        self._custom_ids: set[str] = set()

    def read(self, number: int, text: bytes) -> None:
        """Check one line and note its errors."""
        self.found.lines += 1
        try:
            line = parse_json(text.rstrip(b"\r\n"))
        except ApiError:
            self._refuse(number, "invalid_json_line", "This line is not parseable as valid JSON.")
            return
        missing = [name for name in REQUIRED if line.get(name) is None]
        for name in missing:
            self._refuse(number, "missing_required_parameter", f"Missing required parameter: '{name}'.", name)
        if not missing:
            self._check_values(number, line)

    def _check_values(self, number: int, line: dict[str, object]) -> None:
        custom_id, body = line["custom_id"], line["body"]
        if not isinstance(custom_id, str) or not custom_id:
            self._refuse(number, "invalid_request", "Invalid 'custom_id': expected a string.", "custom_id")
        elif custom_id in self._custom_ids:
            message = f"The custom_id '{custom_id[:100]}' for this request is a duplicate of another request."
            self._refuse(number, "duplicate_custom_id", message, "custom_id")
        else:
            self._custom_ids.add(custom_id)
        if line["method"] != "POST":
            self._refuse(number, "invalid_request", "Invalid 'method': expected 'POST'.", "method")
        if line["url"] != self._endpoint:
            message = "The URL provided for this request does not match the batch endpoint."
            self._refuse(number, "url_mismatch", message, "url")
        if isinstance(body, dict):
            self._check_body(number, body)
        else:
            self._refuse(number, "invalid_request", "Invalid 'body': expected an object.", "body")

    def _check_body(self, number: int, body: dict[str, object]) -> None:
        model, prompt, images = body.get("model"), body.get("prompt"), body.get("images")
        if model is None:
            self._refuse(number, "missing_required_parameter", "Missing required parameter: 'model'.", "body.model")
        elif not isinstance(model, str) or not self._is_supported(model):
            message = f"The provided model '{str(model)[:100]}' is not supported by the Batch API."
            self._refuse(number, "model_not_found", message, "body.model")
        elif model != (self.found.model or model):
            message = "The model of this request differs from that of others: one batch is for one model."
            self._refuse(number, "model_mismatch", message, "body.model")
        else:
            self.found.model = model
        self.found.tokens += text_tokens(prompt) if isinstance(prompt, str) else 0
        self.found.tokens += IMAGE_TOKENS * len(images) if isinstance(images, list) else 0

    def _is_supported(self, model: str) -> bool:
        known = model in MODELS and MODELS[model].is_gpt and is_available(model, self._today)
        return known and self._endpoint in OPERATIONS

    def _refuse(self, number: int, code: str, message: str, param: str | None = None) -> None:
        self.found.errors.append(line_error(code, message, param, number))
