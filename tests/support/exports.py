"""A job of 200 images for the tests of exports, and what other tools read from an export of it."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.ledger.database import transaction
from tests.support.readme import HOME
from tests.support.workbench import PNG, benched, request

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.support.stage import Stage

PROMPT = '{{ sign }} a "{{ animal }}",\nin the style of {{ style }} · ünï¢ødé 猫 😀 \\ {"data": []} test'
ROWS: list[dict[str, Any]] = [
    {
        "subject": f"row {number}",
        "count": number,
        "mixed": number if number % 2 else f"no {number}",
        "share": number / 2,
    }
    for number in range(20)
]


class Told(NamedTuple):
    """What an export has of an image."""

    prompt: str | None
    variables: dict[str, Any]
    sha256: str


def make_job(stage: Stage, name: str = "night") -> Path:
    """Write a job of 200 images: generations, edits and variations, n > 1, failures, and words that trip up loaders."""
    pictures = HOME / "jobs" / "images"
    edit = {"operation": "edit", "image": str(pictures / "sunlit_lounge.png"), "mask": str(pictures / "mask.png")}
    variation = {"operation": "variation", "image": str(pictures / "corgi_and_cat_paw.png")}
    (stage.folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    matrix = {"sign": ["=", "-", "+1"], "animal": ["cat", "@dog"], "style": ["a test", 3, True]}
    return stage.job(
        name,
        [
            {"prompt": PROMPT, "matrix": matrix, "n": 5},
            {"prompt": "{{ subject }} of {{ count }}", "rows": "rows.jsonl", "n": 3},
            {"id": "train.set", **edit, "prompt": "an edit", "n": 10},
            {"id": "train_set", **variation, "n": 10},
            *({"prompt": f"something forbidden, number {number}"} for number in range(3)),
            *({"prompt": f"val {number}"} for number in range(30)),
        ],
    )


def stated(entries: Iterable[dict[str, Any]]) -> dict[str, Told]:
    """Return what a manifest has of each image, by the name of its file."""
    return {
        image["file"].rpartition("/")[2]: Told(entry["prompt"], entry["variables"], image["sha256"])
        for entry in entries
        for image in entry["images"]
    }


def fill(folder: Path, count: int, name: str = "big") -> None:
    """Make an output folder with a job of so many small images, each unlike all others, without a run."""
    (folder / name / "images").mkdir(parents=True)
    with benched(folder) as bench:
        bench.submit(*(request(number) for number in range(count)), name=name)
        rows = bench.ask("SELECT pk, id, position FROM request ORDER BY position")
        with transaction(bench.connection):
            bench.connection.execute(
                "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome, request_id)"
                " SELECT pk, 'lab', 1, 0.0, 1.0, 'answered', 'req_' || pk FROM request"
            )
            bench.connection.executemany(
                "INSERT INTO image (request, attempt, job, state, number, file, sha256, bytes, width, height, format)"
                " VALUES (?1, (SELECT pk FROM attempt WHERE request = ?1), 1, 'stored', 1, ?2, ?3, ?4, 16, 16, 'png')",
                (_store(folder / name, pk, stem, number) for pk, stem, number in rows),
            )
            bench.set("UPDATE request SET status = 'succeeded', received = 1, attempts = 1, finished_at = 1.0")


def _store(folder: Path, pk: int, stem: str, number: int) -> tuple[int, str, str, int]:
    content = png_with_note(f"image {number}".encode())
    file = f"images/{stem}-1.png"
    (folder / file).write_bytes(content)
    return pk, file, hashlib.sha256(content).hexdigest(), len(content)


def png_with_note(text: bytes, kind: bytes = b"tEXt", key: bytes = b"note\0") -> bytes:
    """Return a small PNG with a chunk before its pixels."""
    chunk = kind + key + text
    header, rest = PNG[:33], PNG[33:]
    return header + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + rest
