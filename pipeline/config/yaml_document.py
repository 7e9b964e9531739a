"""Parse YAML text into plain values, each with its line number.

Used for job files and the config: plain scalars are JSON numbers, true, false, null or text (no sexagesimals, no
yes/no, no octals, no dates), a key is unique in its mapping, and size and alias expansion are limited.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.config.yaml_nodes import MERGE, InvalidYaml, compose, quoted
from pipeline.errors import BadInput, Problem
from pipeline.ordinary_file import open_ordinary, read_up_to

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

KeyPath = tuple[str | int, ...]
"""The keys and indexes from the top of the document to a value: ("requests", 3, "size")."""

MAX_BYTES = 64 * 1024 * 1024

_MAX_WORD = 200  # characters of a word for which the closest one is sought

_MAPPING, _SEQUENCE = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed YAML file: its value, and the line (from 1) of every key path. A job made in Python has line 0.

    `problems` are mistakes that did not prevent reading the rest: the caller reports them together with its own.
    """

    file: str
    value: Any
    lines: Mapping[KeyPath, int]
    written: Mapping[KeyPath, str] = field(default_factory=dict)  # numbers, true and false as written in the file
    problems: tuple[Problem, ...] = ()

    def location(self, *path: str | int) -> str:
        """Return a value's location, with the line of its nearest parent: `jobs/a.yaml, line 12, requests[3].size`."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        return _location(self.file, self.lines.get(known, 1), path)


def dotted(path: KeyPath) -> str:
    """Format a key path: requests[3].size, with indexes from 0."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{_short(step)}" if text else _short(step)
    return text


def read(path: Path, error: type[BadInput]) -> Document:
    """Read a YAML file. Raises `error`, which names file and line, if it is not YAML."""
    name = str(path)
    try:
        with open_ordinary(path) as file:
            content = read_up_to(file, MAX_BYTES)
    except (OSError, ValueError) as reason:  # ValueError: a name with a zero byte
        hint = _nearest_file(path) if isinstance(reason, FileNotFoundError) else ""
        raise error([Problem(name, f"cannot be read: {getattr(reason, 'strerror', None) or reason}{hint}")]) from None
    if len(content) > MAX_BYTES:
        raise error([Problem(name, f"is larger than {MAX_BYTES // 2**20} MB; put the prompts into a `rows:` file")])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        line = content.count(b"\n", 0, reason.start) + 1
        raise error(
            [Problem(f"{name}, line {line}", f"is not UTF-8 (byte {reason.start} of the file); save it as UTF-8")]
        ) from None
    return parse(text, name, error)


def _nearest_file(path: Path) -> str:
    """Return which YAML file of the same folder may be meant, for the end of a message."""
    try:
        files = [file for file in path.parent.iterdir() if file.suffix in {".yaml", ".yml"}]
    except OSError:
        return ""
    close = nearest(path.stem if path.suffix in {".yaml", ".yml"} else path.name, [file.stem for file in files])
    return next((f"; did you mean `{file}`?" for file in files if file.stem == close), "")


def parse(text: str, name: str, error: type[BadInput]) -> Document:
    """Parse YAML text into a document called `name`. Raises `error` if it is not YAML."""
    try:
        node = compose(text)
    except InvalidYaml as reason:
        raise error([Problem(f"{name}, line {reason.line}", reason.message)]) from None
    constructor = _Constructor(name, text)
    value = None if node is None else constructor.value(node, ())
    return Document(name, value, constructor.lines, constructor.written, tuple(constructor.problems))


class _Constructor:
    """Constructs the values of one document from its nodes; collects line numbers and problems."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.lines: dict[KeyPath, int] = {}
        self.written: dict[KeyPath, str] = {}
        self.problems: list[Problem] = []

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if _is_template(node):
            written = self.text[node.start_mark.index : node.end_mark.index]
            key = f"{path[-1]}: " if path and isinstance(path[-1], str) else ""
            self._add_problem(node, path, f"text that begins with {{{{ needs quotes: write {key}{quoted(written):.120}")
            return written
        if node.tag not in {_MAPPING, _SEQUENCE}:
            self._add_problem(node, path, f"`{_short(node.tag)}` is not a supported tag; leave it out")
        elif isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        return None

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == MERGE:
                self._merge(value_node, path, result)
        self.lines[path] = node.start_mark.line + 1
        own: set[str] = set()
        for key_node, value_node in node.value:
            if key_node.tag == MERGE:
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._add_problem(key_node, path, "a key must be a word")
                continue
            key = key_node.value
            if key in own:
                self._add_problem(key_node, (*path, key), f"`{_short(key)}` is given twice; keep one")
                continue
            own.add(key)
            result[key] = self.value(value_node, (*path, key))
            self.lines[*path, key] = key_node.start_mark.line + 1
        return result

    def _merge(self, node: yaml.Node, path: KeyPath, into: dict[str, Any]) -> None:
        """Merge the mappings that `<<` names; if several have a key, the first one's value counts."""
        for source in reversed(node.value) if isinstance(node, yaml.SequenceNode) else [node]:
            value = self.value(source, path)
            if isinstance(value, dict):
                into.update(value)
            else:
                self._add_problem(source, path, "`<<` merges mappings only")

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        text: str = node.value
        match node.tag:
            case "tag:yaml.org,2002:null":
                return None
            case "tag:yaml.org,2002:bool" if text.lower() in {"true", "false"}:
                self.written[path] = text
                return text.lower() == "true"
            case "tag:yaml.org,2002:int" if len(text) <= 400 and re.fullmatch(r"[-+]?[0-9]+", text):
                self.written[path] = text
                return int(text)
            case "tag:yaml.org,2002:float" if (number := _finite(text)) is not None:
                self.written[path] = text
                return number
            case "tag:yaml.org,2002:str" if _has_surrogate(text):
                self._add_problem(node, path, "holds half a character (a lone surrogate); correct its encoding")
                return None
            case "tag:yaml.org,2002:str" | "tag:yaml.org,2002:merge":
                return text
        hint = "; if that is text, put all of it in quotes" if node.tag.startswith("!") else ""
        message = f"`{_short(text)}` cannot be read as {node.tag.removeprefix('tag:yaml.org,2002:')}{hint}"
        self._add_problem(node, path, message)
        return None

    def _add_problem(self, node: yaml.Node, path: KeyPath, message: str) -> None:
        self.problems.append(Problem(_location(self.name, node.start_mark.line + 1, path), message))


def _is_template(node: yaml.Node) -> bool:
    """Return whether a node is `{{ name }}` without quotes, which YAML reads as a mapping in a mapping."""
    return isinstance(node, yaml.MappingNode) and any(isinstance(key, yaml.MappingNode) for key, _ in node.value)


def _location(file: str, line: int, path: KeyPath) -> str:
    return ", ".join([file, *([f"line {line}"] if line else []), *([dotted(path)] if path else [])])


def _finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is closest to `word`, or None if none is close."""
    if len(word) > _MAX_WORD:
        return None
    words = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(words), n=1, cutoff=0.75)
    return words[close[0]] if close else None


def unknown_key_message(word: str, known: Iterable[str]) -> str:
    """Return the message for an unknown key, with the closest known key, else with all of them."""
    known = sorted(known)
    close = nearest(word, known)
    hint = f"did you mean `{close}`?" if close else f"known are {', '.join(known)}"
    return f"unknown key `{_short(word)}`; {hint}"
