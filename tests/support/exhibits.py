"""Jobs with images on disk and in the ledger, as a run would have left them, without the run."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from PIL import Image

from pipeline.ledger.database import transaction
from tests.support.workbench import request

if TYPE_CHECKING:
    from pipeline.planning.plan import ImageRequest
    from tests.support.workbench import Bench

REFUSED = {
    "http_status": 400,
    "type": "invalid_request_error",
    "code": "content_policy_violation",
    "message": "Your request was rejected by our safety system (req_123456).",
}
FINISHED = 1_795_000_000.0


@functools.cache
def drawn(number: int, size: tuple[int, int] = (48, 32), kind: str = "png") -> bytes:
    """Return a small image that is different for every number."""
    stream = io.BytesIO()
    Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, number % 256)).save(stream, kind)
    return stream.getvalue()


def asked(number: int, prompt: str | None = None, *, n: int = 1, variables: Any = None, **more: Any) -> ImageRequest:
    """Return the request of this number, with a prompt and variables of its own."""
    made = request(number, n=n, id=more.pop("id", None), **more)
    return replace(made, prompt=made.prompt if prompt is None else prompt, variables=variables or {})


def hang(bench: Bench, number: int, *pictures: bytes, job: str = "job", on_disk: bool = True, **more: Any) -> None:
    """Store these images for the request of this number; `more` are columns of its row and of its images."""
    key = hashlib.sha256(str(number).encode()).hexdigest()
    kind, revised = more.pop("format", "png"), more.pop("revised_prompt", None)
    with transaction(bench.connection):
        pk, job_pk, id_ = bench.ask(
            "SELECT r.pk, r.job, r.id FROM request r JOIN job j ON j.pk = r.job WHERE j.name = ? AND r.key = ?",
            job,
            key,
        )[0]
        bench.set(
            "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome)"
            " VALUES (?, 'lab', 1, ?, ?, 'answered')",
            pk,
            FINISHED + number,
            FINISHED + number + more.pop("seconds", 2.5),
        )
        for place, content in enumerate(pictures, 1):
            file = f"images/{id_}-{place}.{kind}"
            if on_disk:
                path = bench.folder / job / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            bench.set(
                "INSERT INTO image (request, attempt, job, number, state, file, sha256, bytes, width, height, format,"
                " revised_prompt) VALUES (?, (SELECT max(pk) FROM attempt), ?, ?, 'stored', ?, ?, ?, 48, 32, ?, ?)",
                *(pk, job_pk, place, file, hashlib.sha256(content).hexdigest(), len(content), kind, revised),
            )
        columns = {"status": "succeeded", "attempts": 1, "cost_usd": 0.016, "finished_at": FINISHED + number, **more}
        columns["received"] = len(pictures)
        names = ", ".join(f"{name} = ?" for name in columns)
        bench.set(f"UPDATE request SET {names} WHERE pk = ?", *columns.values(), pk)


def fail(bench: Bench, number: int, error: dict[str, Any] | None = None, **more: Any) -> None:
    """Record that the request of this number failed."""
    hang(bench, number, status="failed", cost_usd=None, error=json.dumps(error or REFUSED), **more)
