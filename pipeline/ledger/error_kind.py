"""The class of a recorded error, in Python and in SQL: a guess for one that was recorded before classes were."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.errors import RequestError

INTERRUPTED = "interrupted"
"""The type of the error of a call that the death of a run cut off."""


def kind_of(error: Mapping[str, Any]) -> str:
    """Return the class of a recorded error."""
    if kind := error.get("kind"):
        return str(kind)
    if error.get("type") == INTERRUPTED:
        return "OutcomeUnknown"
    if error.get("code") in {"content_policy_violation", "moderation_blocked"}:
        return "Moderated"
    status = error.get("http_status")
    is_refusal = status is not None and 400 <= status < 500 and status not in {408, 409, 429}
    return "Invalid" if is_refusal else "ServerFault"


def kind_of_json(error: str | None) -> str:
    """Return the same for the column `error` of a request: SQL's `error_kind`."""
    return kind_of({} if error is None else json.loads(error))


def error_json(error: RequestError) -> str:
    """Return an error as the manifest shows it; `kind` is the name of its class."""
    return json.dumps(error_fields(error), ensure_ascii=False)


def error_fields(error: RequestError) -> dict[str, Any]:
    """Return the fields of an error as the manifest, the events and the ledger show them; `kind` is its class."""
    fields = {"http_status": error.http_status, "type": error.type, "code": error.code, "message": error.message}
    return {**fields, "kind": type(error).__name__}
