"""Read checked values from one mapping of a YAML document; problems are collected for the whole file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.config import yaml_document
from pipeline.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.config.yaml_document import Document, KeyPath

_MAX_UNKNOWN = 100  # keys of one mapping that are named: the closest known key of each takes a while to find

MAX_NUMBER = 10**12
"""Maximum of every number that is read: seconds, bytes, images, dollars."""


def find_number_fault(value: object, least: float, *, whole: bool = False) -> str | None:
    """Return what a value must be, for a message, if it is no number from `least` to `MAX_NUMBER`; else None.

    NaN is outside every range.
    """
    kind = "a whole number" if whole else "a number"
    if not isinstance(value, int if whole else int | float) or isinstance(value, bool) or not value >= least:
        return f"must be {kind} of at least {least:g}, not {value!r:.60}"
    return None if value <= MAX_NUMBER else f"must be {kind} of at most {MAX_NUMBER:,}"


@dataclass(slots=True)
class Section:
    """One mapping of the config file. A value that is missing or null is the default."""

    doc: Document
    path: KeyPath
    problems: list[Problem]
    value: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        value = self.doc.value
        for step in self.path:
            value = value.get(step) if isinstance(value, dict) else None
        self.value = value if isinstance(value, dict) else {}
        if value is not None and not isinstance(value, dict):
            self.add_problem(None, "must be a mapping of keys to values")

    def add_problem(self, key: str | None, message: str) -> None:
        """Record a problem of a key, or of the section itself if `key` is None."""
        path = self.path if key is None else (*self.path, key)
        self.problems.append(Problem(self.doc.location(*path), message))

    def reject_unknown_keys(self, *known: str) -> None:
        """Record a problem for every key that is not in `known`."""
        unknown = [key for key in self.value if key not in known]
        for key in unknown[:_MAX_UNKNOWN]:
            self.add_problem(key, yaml_document.unknown_key_message(key, known))
        if len(unknown) > _MAX_UNKNOWN:
            self.add_problem(None, f"has {len(unknown) - _MAX_UNKNOWN:,} more unknown keys")

    def section(self, key: str) -> Section:
        """Return the mapping at a key as a section."""
        return Section(self.doc, (*self.path, key), self.problems)

    def mapping(self, key: str) -> dict[str, Any]:
        """Return the mapping at a key, unchecked."""
        return self.section(key).value

    def text(self, key: str, default: Any) -> Any:
        """Return non-empty text."""
        value = self.value.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or not value or "\0" in value:
            self.add_problem(key, f"must be text, not {value!r:.60}")
            return default
        return value

    def texts(self, key: str) -> list[str]:
        """Return a list of texts, empty if the key is missing."""
        value = self.value.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.add_problem(key, "must be a list of names")
            return []
        return value

    def integer(self, key: str, default: int, *, least: int) -> int:
        """Return a whole number of at least `least`."""
        value = self.value.get(key)
        if value is None:
            return default
        if fault := find_number_fault(value, least, whole=True):
            self.add_problem(key, fault)
            return default
        assert isinstance(value, int)
        return value

    def number(self, key: str, default: Any, *, least: float) -> Any:
        """Return a number of at least `least`."""
        value = self.value.get(key)
        if value is None:
            return default
        if fault := find_number_fault(value, least):
            self.add_problem(key, fault)
            return default
        return float(value)

    def flag(self, key: str) -> bool:
        """Return true or false, the default."""
        value = self.value.get(key)
        if value is not None and not isinstance(value, bool):
            self.add_problem(key, f"must be true or false, not {value!r:.60}")
        return value is True

    def choice(self, key: str, default: Any, known: Sequence[str]) -> Any:
        """Return one of the `known` words."""
        value = self.value.get(key)
        if value is None:
            return default
        return value if self.check_choice(key, value, known) else default

    def check_choice(self, key: str, value: Any, known: Sequence[str]) -> bool:
        """Return whether a value is one of the `known` words; record a problem if it is not."""
        if value in known:
            return True
        close = yaml_document.nearest(value, known) if isinstance(value, str) else None
        hint = f"did you mean `{close}`?" if close else f"write one of {', '.join(known)}"
        self.add_problem(key, f"`{value!s:.60}` is not known; {hint}")
        return False
