"""A job of 200 images for the tests of exports, and what other tools read from an export of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.readme import HOME

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
