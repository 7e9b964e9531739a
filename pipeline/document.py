"""YAML text → plain values, each with the line it stands on.

One reading for job files and config: plain scalars are JSON numbers, true, false, null or text (no sexagesimals, no
yes/no, no octals, no dates), a key stands once, and neither size nor aliases can blow up the program.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.errors import BadInput, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Place = tuple[str | int, ...]
"""A value's way from the top of the document: ("requests", 3, "size")."""

MAX_BYTES = 64 * 1024 * 1024
MAX_VALUES = 1_000_000  # after aliases are expanded
MAX_DEPTH = 60

_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_BOOL = "tag:yaml.org,2002:bool"
_NULL = "tag:yaml.org,2002:null"
_STR = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"

_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _CoreLoader(_Loader):  # type: ignore[misc]  # the C loader where libyaml is there, else the Python one
    """Composes nodes whose plain scalars follow JSON, not YAML 1.1."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - the class that we extend says so


def _resolve(tag: str, pattern: str, first: str) -> None:
    _CoreLoader.add_implicit_resolver(tag, re.compile(rf"^(?:{pattern})$"), list(first))


_resolve(_INT, r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789")
_resolve(_FLOAT, r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)", "-+0123456789")
_resolve(_BOOL, "true|True|TRUE|false|False|FALSE", "tTfF")
_resolve(_NULL, "null|Null|NULL|~|", "nN~\0")
_CoreLoader.add_implicit_resolver(_NULL, re.compile(r"^$"), [""])
_resolve(_MERGE, "<<", "<")


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML file, read: its value, and the line (from 1) of every place in it."""

    file: str
    value: Any
    lines: Mapping[Place, int]

    def where(self, *place: str | int) -> str:
        """Say where a place stands: `jobs/a.yaml, line 12, requests[3].size`; the nearest parent that has a line."""
        known = place
        while known and known not in self.lines:
            known = known[:-1]
        line = self.lines.get(known, 1)
        return f"{self.file}, line {line}" + (f", {dotted(place)}" if place else "")


def dotted(place: Place) -> str:
    """Write a place as people do: requests[3].size, counted from 0 as in the file's list."""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def read(path: Path, error: type[BadInput]) -> Document:
    """Read a YAML file. Raises `error`, which names file and line, for whatever is wrong with it."""
    name = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as reason:
        raise error([Problem(name, f"cannot be read: {reason.strerror or reason}")]) from None
    if len(content) > MAX_BYTES:
        raise error([Problem(name, f"is larger than {MAX_BYTES // 2**20} MB; put the prompts into a `rows:` file")])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error([Problem(name, f"is not UTF-8 (byte {reason.start})")]) from None
    return parse(text, name, error)


def parse(text: str, name: str, error: type[BadInput]) -> Document:
    """Turn YAML text into a document called `name`. Raises `error`."""
    try:
        _refuse_depth(text)
        node = yaml.compose(text, Loader=_CoreLoader)
    except yaml.MarkedYAMLError as reason:
        mark = reason.problem_mark or reason.context_mark
        where = f"{name}, line {mark.line + 1}, column {mark.column + 1}" if mark else name
        raise error([Problem(where, f"is not YAML: {reason.problem or reason.context}")]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as reason:
        raise error([Problem(name, f"is not YAML: {reason}")]) from None
    reading = _Reading(name, error)
    value = None if node is None else reading.value(node, ())
    if reading.problems:
        raise error(reading.problems)
    return Document(name, value, reading.lines)


def _refuse_depth(text: str) -> None:
    """Refuse what is nested so deep that composing it would exhaust the stack."""
    if text.count("[") + text.count("{") + text.count("- ") + text.count(":") < MAX_DEPTH:
        return
    depth = 0
    for event in yaml.parse(text, Loader=_CoreLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            line = event.start_mark.line + 1 if event.start_mark else "?"
            raise ValueError(f"line {line} is nested deeper than {MAX_DEPTH} levels")


class _Reading:
    """The construction of one document: values, lines, and what is wrong."""

    def __init__(self, name: str, error: type[BadInput]) -> None:
        self.name = name
        self.error = error
        self.lines: dict[Place, int] = {}
        self.problems: list[Problem] = []
        self._values = 0

    def value(self, node: yaml.Node, place: Place) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise self.error([Problem(self.name, f"is too large: its aliases expand beyond {MAX_VALUES:,} values")])
        if len(place) > MAX_DEPTH:
            self._wrong(node, "an alias contains itself")
            return None
        self.lines[place] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                self._merge(value_node, place, merged)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._wrong(key_node, "a key must be a word")
                continue
            key = key_node.value
            if key in result:
                self._wrong(key_node, f"`{key}` stands here twice; keep one")
                continue
            result[key] = self.value(value_node, (*place, key))
            self.lines[*place, key] = key_node.start_mark.line + 1
        return {**merged, **result}

    def _merge(self, node: yaml.Node, place: Place, into: dict[str, Any]) -> None:
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            value = self.value(source, place)
            if not isinstance(value, dict):
                self._wrong(source, "`<<` merges mappings only")
                continue
            for key, item in value.items():
                into.setdefault(key, item)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        match node.tag:
            case "tag:yaml.org,2002:null":
                return None
            case "tag:yaml.org,2002:bool" if text.lower() in {"true", "false"}:
                return text.lower() == "true"
            case "tag:yaml.org,2002:int" if len(text) <= 400 and re.fullmatch(r"[-+]?[0-9]+", text):
                return int(text)
            case "tag:yaml.org,2002:float" if (number := _finite(text)) is not None:
                return number
            case "tag:yaml.org,2002:str":
                return text
        self._wrong(node, f"`{text[:60]}` cannot be read as {node.tag.removeprefix('tag:yaml.org,2002:')}")
        return None

    def _wrong(self, node: yaml.Node, what: str) -> None:
        self.problems.append(Problem(f"{self.name}, line {node.start_mark.line + 1}", what))


def _finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Give the known word that a person probably meant, or None."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.75)
    return close[0] if close else None


def unknown_key(word: str, known: Iterable[str]) -> str:
    """Say that a key is unknown, with the nearest right spelling, else with all of them."""
    known = sorted(known)
    close = nearest(word, known)
    hint = f"did you mean `{close}`?" if close else f"known are {', '.join(known)}"
    return f"unknown key `{word}`; {hint}"
