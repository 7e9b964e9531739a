"""YAML text → plain values, each with the line it stands on.

One reading for job files and config: plain scalars are JSON numbers, true, false, null or text (no sexagesimals, no
yes/no, no octals, no dates), a key stands once, and neither size nor aliases can blow up the program.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.config.yaml_nodes import MERGE, Unreadable, compose
from pipeline.errors import BadInput, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Place = tuple[str | int, ...]
"""A value's way from the top of the document: ("requests", 3, "size")."""

MAX_BYTES = 64 * 1024 * 1024
MOST_PROBLEMS = 100
"""Mistakes that are named at once; nobody reads more."""

_MAPPING, _SEQUENCE = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML file, read: its value, and the line (from 1) of every place in it. What is no file has line 0.

    `problems` are mistakes beside which the rest could be read: who reads the value, names them with its own.
    """

    file: str
    value: Any
    lines: Mapping[Place, int]
    written: Mapping[Place, str] = field(default_factory=dict)  # numbers, true and false as they stand in the file
    problems: tuple[Problem, ...] = ()

    def where(self, *place: str | int) -> str:
        """Say where a place stands: `jobs/a.yaml, line 12, requests[3].size`; the nearest parent that has a line."""
        known = place
        while known and known not in self.lines:
            known = known[:-1]
        return _where(self.file, self.lines.get(known, 1), place)


def dotted(place: Place) -> str:
    """Write a place as people do: requests[3].size, counted from 0 as in the file's list."""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{_short(step)}" if text else _short(step)
    return text


def read(path: Path, error: type[BadInput]) -> Document:
    """Read a YAML file. Raises `error`, which names file and line, where it is no YAML."""
    name = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as reason:  # ValueError: a name with a zero byte
        raise error([Problem(name, f"cannot be read: {getattr(reason, 'strerror', None) or reason}")]) from None
    if len(content) > MAX_BYTES:
        raise error([Problem(name, f"is larger than {MAX_BYTES // 2**20} MB; put the prompts into a `rows:` file")])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        line = content.count(b"\n", 0, reason.start) + 1
        raise error([Problem(f"{name}, line {line}", f"is not UTF-8 (byte {reason.start} of the file)")]) from None
    return parse(text, name, error)


def parse(text: str, name: str, error: type[BadInput]) -> Document:
    """Turn YAML text into a document called `name`. Raises `error` where it is no YAML."""
    try:
        node = compose(text)
    except Unreadable as reason:
        raise error([Problem(f"{name}, line {reason.line}", reason.what)]) from None
    reading = _Reading(name)
    value = None if node is None else reading.value(node, ())
    return Document(name, value, reading.lines, reading.written, tuple(reading.problems))


class _Reading:
    """The construction of one document: values, lines, and what is wrong."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Place, int] = {}
        self.written: dict[Place, str] = {}
        self.problems: list[Problem] = []

    def value(self, node: yaml.Node, place: Place) -> Any:
        self.lines[place] = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        if node.tag not in {_MAPPING, _SEQUENCE}:
            self._wrong(node, place, f"`{_short(node.tag)}` is a tag that is not known here; leave it out")
        elif isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        elif isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]
        return None

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == MERGE:
                self._merge(value_node, place, result)
        self.lines[place] = node.start_mark.line + 1
        own: set[str] = set()
        for key_node, value_node in node.value:
            if key_node.tag == MERGE:
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._wrong(key_node, place, "a key must be a word")
                continue
            key = key_node.value
            if key in own:
                self._wrong(key_node, (*place, key), f"`{_short(key)}` stands here twice; keep one")
                continue
            own.add(key)
            result[key] = self.value(value_node, (*place, key))
            self.lines[*place, key] = key_node.start_mark.line + 1
        return result

    def _merge(self, node: yaml.Node, place: Place, into: dict[str, Any]) -> None:
        """Lay what `<<` names under a mapping: of several, the first that has a key gives it."""
        for source in reversed(node.value) if isinstance(node, yaml.SequenceNode) else [node]:
            value = self.value(source, place)
            if isinstance(value, dict):
                into.update(value)
            else:
                self._wrong(source, place, "`<<` merges mappings only")

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        text: str = node.value
        match node.tag:
            case "tag:yaml.org,2002:null":
                return None
            case "tag:yaml.org,2002:bool" if text.lower() in {"true", "false"}:
                self.written[place] = text
                return text.lower() == "true"
            case "tag:yaml.org,2002:int" if len(text) <= 400 and re.fullmatch(r"[-+]?[0-9]+", text):
                self.written[place] = text
                return int(text)
            case "tag:yaml.org,2002:float" if (number := _finite(text)) is not None:
                self.written[place] = text
                return number
            case "tag:yaml.org,2002:str" if not _is_whole(text):
                self._wrong(node, place, "holds half a character (a lone surrogate); mend its encoding")
                return None
            case "tag:yaml.org,2002:str" | "tag:yaml.org,2002:merge":
                return text
        self._wrong(node, place, f"`{_short(text)}` cannot be read as {node.tag.removeprefix('tag:yaml.org,2002:')}")
        return None

    def _wrong(self, node: yaml.Node, place: Place, what: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(Problem(_where(self.name, node.start_mark.line + 1, place), what))


def _where(file: str, line: int, place: Place) -> str:
    return ", ".join([file, *([f"line {line}"] if line else []), *([dotted(place)] if place else [])])


def _finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def _is_whole(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Give the known word that a person probably meant, or None."""
    words = {one.lower(): one for one in known}
    close = difflib.get_close_matches(word.lower(), list(words), n=1, cutoff=0.75)
    return words[close[0]] if close else None


def unknown_key(word: str, known: Iterable[str]) -> str:
    """Say that a key is unknown, with the nearest right spelling, else with all of them."""
    known = sorted(known)
    close = nearest(word, known)
    hint = f"did you mean `{close}`?" if close else f"known are {', '.join(known)}"
    return f"unknown key `{_short(word)}`; {hint}"
