"""One mapping of a YAML document → checked values; what is wrong is gathered for the whole file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.config import yaml_document
from pipeline.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.config.yaml_document import Document, Place

_MOST = 10**12  # of any number: seconds, bytes, pictures


@dataclass(slots=True)
class Section:
    """One mapping of the config file while it is read. What is missing or null is the default."""

    doc: Document
    place: Place
    problems: list[Problem]
    value: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        value = self.doc.value
        for step in self.place:
            value = value.get(step) if isinstance(value, dict) else None
        self.value = value if isinstance(value, dict) else {}
        if value is not None and not isinstance(value, dict):
            self.wrong(None, "must be a mapping of keys to values")

    def wrong(self, key: str | None, what: str) -> None:
        """Note a mistake at a key, or at the section itself."""
        place = self.place if key is None else (*self.place, key)
        if len(self.problems) < yaml_document.MOST_PROBLEMS:
            self.problems.append(Problem(self.doc.where(*place), what))

    def only(self, *known: str) -> None:
        """Note every key that is not known."""
        for key in self.value:
            if key not in known and len(self.problems) < yaml_document.MOST_PROBLEMS:
                self.wrong(key, yaml_document.unknown_key(key, known))

    def section(self, key: str) -> Section:
        """Give the mapping at a key."""
        return Section(self.doc, (*self.place, key), self.problems)

    def mapping(self, key: str) -> dict[str, Any]:
        """Give the mapping at a key as it is."""
        return self.section(key).value

    def text(self, key: str, default: Any) -> Any:
        """Give text that is not empty."""
        value = self.value.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or not value or "\0" in value:
            self.wrong(key, f"must be text, not {value!r:.60}")
            return default
        return value

    def texts(self, key: str) -> list[str]:
        """Give a list of texts; an empty one where there is none."""
        value = self.value.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.wrong(key, "must be a list of names")
            return []
        return value

    def integer(self, key: str, default: int, *, least: int) -> int:
        """Give a whole number of at least `least`."""
        value = self.value.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST:
            self.wrong(key, f"must be a whole number of at least {least}, not {value!r:.60}")
            return default
        return value

    def number(self, key: str, default: Any, *, least: float) -> Any:
        """Give a number of at least `least`."""
        value = self.value.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= _MOST:
            self.wrong(key, f"must be a number of at least {least:g}, not {value!r:.60}")
            return default
        return float(value)

    def choice(self, key: str, default: Any, known: Sequence[str]) -> Any:
        """Give one of the known words."""
        value = self.value.get(key)
        if value is None:
            return default
        return value if self.known(key, value, known) else default

    def known(self, key: str, value: Any, words: Sequence[str]) -> bool:
        """Say whether a value is one of the known words; note it at the key where it is not."""
        if value in words:
            return True
        close = yaml_document.nearest(value, words) if isinstance(value, str) else None
        hint = f"did you mean `{close}`?" if close else f"write one of {', '.join(words)}"
        self.wrong(key, f"`{value!s:.60}` is not known; {hint}")
        return False
