"""The books of what was charged, for the admin API: kept in the spool, so that the next sandbox has them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Charge:
    """The images of one call, or of one line of a batch, at the moment at which they were made."""

    at: float
    source: str  # image.generation, image.edit or image.variation
    model: str
    size: str
    images: int
    cost_usd: float
    api_key_id: str | None = None  # None for a line of a batch

    def dimension(self, name: str, project: str) -> str | None:
        """Return the value of a dimension by which the admin API groups and filters."""
        values: Mapping[str, str | None] = {
            "project_id": project,
            "user_id": "user-sandbox",
            "api_key_id": self.api_key_id,
            "model": self.model,
            "size": self.size,
            "source": self.source,
            "line_item": f"{self.model} image, output",
        }
        return values[name]


class Charges:
    """All charges of a spool, oldest first. Each is on disk before its response is sent."""

    def __init__(self, file: Path) -> None:
        self._file = file
        whole = file.read_text().rpartition("\n")[0] if file.exists() else ""
        self._all = [Charge(**json.loads(line)) for line in whole.splitlines()]

    def add(self, charge: Charge) -> None:
        """Note a charge."""
        self._all.append(charge)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(charge)) + "\n")

    def between(self, start: float, end: float) -> list[Charge]:
        """Return the charges from `start` on and before `end`."""
        return [charge for charge in self._all if start <= charge.at < end]
