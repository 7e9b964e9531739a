"""The forms of a manifest line and of what is in it. Its schema follows them; fields may be added."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

Status = Literal["pending", "running", "succeeded", "partial", "failed", "cancelled", "superseded"]


class ErrorForm(TypedDict):
    """Why a request failed; `kind` is the name of the error's class."""

    http_status: int | None
    type: str | None
    code: str | None
    message: str | None
    kind: str


class InputForm(TypedDict):
    """An uploaded image; `file` is relative to the job's folder."""

    role: str
    source: str
    file: str
    sha256: str


class ShownImage(TypedDict):
    """A stored image; `file` is relative to the job's folder."""

    file: str
    sha256: str
    bytes: int
    width: int | None
    height: int | None
    format: str | None
    revised_prompt: str | None
    remark: str | None
    flags: list[str]
    duplicate_of: str | None


class ManifestImage(ShownImage):
    """The same with where people see it, and the provider that made it."""

    url: str | None
    provider: str | None


class QuarantinedForm(TypedDict):
    """Bytes that came as an image and are none."""

    file: str
    sha256: str
    bytes: int
    reason: str


class ManifestLine(TypedDict):
    """One request of a job: a line of manifest.jsonl."""

    id: str
    key: str
    custom_id: str | None
    job: str
    operation: str
    provider: str
    endpoint: str | None
    served_by: str
    prompt: str | None
    params: dict[str, Any]
    variables: dict[str, Any]
    inputs: list[InputForm]
    status: Status
    attempts: int
    maybe_paid: int
    error: ErrorForm | None
    images: list[ManifestImage]
    replaced: list[ManifestImage]
    quarantined: list[QuarantinedForm]
    usage: dict[str, Any] | None
    cost_usd: float | None
    settings: dict[str, Any]
    rehearsal: bool
    mode: str | None
    batch_id: str | None
    request_id: str | None
    created_at: str | None
    finished_at: str | None
