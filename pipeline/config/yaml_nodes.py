"""Compose YAML text into nodes, with limits on size and depth.

Plain scalars follow JSON and line ends follow YAML 1.2: in a prompt, U+0085, U+2028 and U+2029 are ordinary characters.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

MAX_VALUES = 1_000_000  # with aliases expanded
MAX_DEPTH = 60

MERGE = "tag:yaml.org,2002:merge"

_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INDICATORS = ("*", "&", "!", "@", "%", "`", "[", "{", "|", ">", "?", "-", ",", "]", "}", '"', "'")
_ESCAPE_HINT = "; in double quotes a backslash begins an escape: write `/`, or single quotes"
_FLOW_HINT = "; within { } or [ ], text with `: `, a comma or a bracket needs quotes"
_KEY_AND_VALUE = re.compile(r" *(?:- +)*([\w-]+): +(\S.*)")
_PAIR = re.compile(r"((?<!\\)(?:\\\\)*)\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE)
_PAIR_HINT = "; in YAML that is not JSON, write one escape such as \\U0001f3a8, or the character itself"
_BREAKS = "\x85\u2028\u2029"  # line ends in YAML 1.1, which PyYAML reads
_NO_SPACE = re.compile(r"\s*(?:-[a-z_]+:(?: |$)|(?:- )?[a-z_]+:[^\s:/])")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class InvalidYaml(ValueError):
    """Text that is not YAML, or that exceeds a limit; `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class _CoreLoader(_Loader):  # type: ignore[misc]  # the C loader if libyaml is installed, else the Python one
    """A loader whose plain scalars follow JSON, not YAML 1.1."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own class attribute


def _add_resolver(type_name: str, pattern: str, first_characters: str) -> None:
    tag = f"tag:yaml.org,2002:{type_name}"
    _CoreLoader.add_implicit_resolver(tag, re.compile(rf"(?:{pattern})\Z"), list(first_characters))


_add_resolver("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789")
_add_resolver("float", r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)", "-+0123456789")
_add_resolver("bool", "true|True|TRUE|false|False|FALSE", "tTfF")
_add_resolver("null", "null|Null|NULL|~", "nN~")
_CoreLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"\Z"), [""])
_add_resolver("merge", "<<", "<")


def compose(text: str) -> yaml.Node | None:
    """Return the root node of the one document in `text`, or None if it is empty. Raises InvalidYaml."""
    if bad := _UNPRINTABLE.search(text):
        message = f"holds the raw character U+{ord(bad[0]):04X}, which YAML allows only as an escape in double quotes"
        raise InvalidYaml(text.count("\n", 0, bad.start()) + 1, message)
    text = _with_whole_escapes(text)
    placeholders = _placeholders(text)
    originals = {ord(mark): chr(code) for code, mark in placeholders.items()}
    text = text.translate(placeholders)
    try:
        _check_depth(text)
        node: yaml.Node | None = yaml.compose(text, Loader=_CoreLoader)
    except yaml.MarkedYAMLError as reason:
        mark = reason.problem_mark or reason.context_mark
        if is_open := "quoted scalar" in (reason.context or "") and "end of stream" in (reason.problem or ""):
            mark = reason.context_mark  # where it begins
        details = ", ".join(part for part in (reason.context, reason.problem) if part)
        last = text.rstrip().count("\n")  # libyaml reports an unclosed value on the line after the last
        line = _blamed_line(text, min(mark.line, last) if mark else 0, details)
        lines = [raw_line.translate(originals) for raw_line in text.splitlines()[line : line + 1]]
        hint = _PAIR_HINT if lines and _PAIR.search(lines[0]) else "" if is_open else _quoting_hint(lines)
        raise InvalidYaml(line + 1, f"is not YAML: {_plain_reason(details, ''.join(lines))}{hint}") from None
    except InvalidYaml:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as reason:
        raise InvalidYaml(1, f"is not YAML: {reason}") from None
    if node is not None:
        _Expansion(originals).measure(node)
    return node


def _with_whole_escapes(text: str) -> str:
    """Write an escaped surrogate pair of JSON as the one escape that YAML has for the character.

    Every JSON text is YAML 1.2, and JSON's encoders write an emoji as two escapes. In other YAML a backslash may be
    text, so that only a text that is JSON is changed.
    """
    if not text.lstrip().startswith(("{", "[")) or not _PAIR.search(text):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return _PAIR.sub(_whole_escape, text)


def _whole_escape(found: re.Match[str]) -> str:
    code = 0x10000 + ((int(found[2], 16) - 0xD800) << 10) + (int(found[3], 16) - 0xDC00)
    return f"{found[1]}\\U{code:08x}"


def _blamed_line(text: str, line: int, details: str) -> int:
    """Return the line of a mistake, from 0: a missing space in the line above is found only in the next one."""
    lines = text.splitlines()[: line + 1]
    is_key = details.startswith(("mapping values are not allowed", "while scanning a simple key"))
    if is_key and len(lines) > 1 and lines[-1].count(": ") < 2 and _NO_SPACE.match(lines[-2]):
        return line - 1
    return line


def _plain_reason(details: str, line: str) -> str:
    """Return what is wrong with a line, in plain words for the frequent slips."""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "its indentation holds a tab"
    if ": {{" in line or line.lstrip(" -").startswith("{{"):
        return "text that begins with {{ needs quotes"
    if _NO_SPACE.match(line) and not line.count(": ") > 1:
        return "a `-` or a `:` needs a space behind it"
    if details.startswith("mapping values are not allowed"):
        return "`: ` stands twice in the line"
    if "quoted scalar" in details and "end of stream" in details:
        return "a quote is opened in this line and never closed"
    if details.endswith("did not find expected '-' indicator"):
        return f"{details}; compare its indentation with the lines above"
    return details


def quoted(text: str) -> str:
    """Return text in single quotes, or in double ones if it can stand in them and holds a single one."""
    is_double = "'" in text and not {'"', "\\"}.intersection(text)
    return f'"{text}"' if is_double else "'" + text.replace("'", "''") + "'"


def _quoting_hint(lines: list[str]) -> str:
    """Return what to write if a line has a value that needs quotes to be text, for the end of a message."""
    match = _KEY_AND_VALUE.fullmatch(lines[0]) if lines else None
    if match is None:
        start = lines[0].lstrip(" -") if lines else ""
        is_flow = start.startswith(("{", "["))
        is_tab = start.startswith("\t") or (lines and "\t" in lines[0][: -len(lines[0].lstrip())])
        return _FLOW_HINT if is_flow else "; indent with spaces, not with tabs" if is_tab else ""
    key, value = match[1], match[2].rstrip(" ")
    if value.startswith(('"', "'")) and value.endswith(value[0]) and len(value) > 1:
        if value[0] not in value[1:-1]:
            return _ESCAPE_HINT if value[0] == '"' and "\\" in value else ""
        value = value[1:-1]
    elif value.startswith(("{", "[")) and value.endswith(("}", "]")):
        return _FLOW_HINT
    elif not (": " in value or value.endswith(":") or value.startswith(_INDICATORS)):
        return ""
    return f"; if that is text, put it in quotes: {key}: {quoted(value):.120}"


def _placeholders(text: str) -> dict[int, str]:
    """Map each YAML 1.1 line end in the text to a private-use character that the text does not contain."""
    found = [mark for mark in _BREAKS if mark in text]
    free = (chr(code) for code in range(0xE000, 0xF900) if not found or chr(code) not in text)
    return {ord(mark): placeholder for mark, placeholder in zip(found, free, strict=False)}


def _check_depth(text: str) -> None:
    """Raise InvalidYaml if the text is nested so deep that composing it would exhaust the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_CoreLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise InvalidYaml(line, f"is nested deeper than {MAX_DEPTH} levels")


class _Expansion:
    """The size of a document with its aliases expanded, counted without expanding them.

    The same walk restores the line ends that were replaced.
    """

    def __init__(self, originals: dict[int, str]) -> None:
        self._originals = originals
        self._known: dict[yaml.Node, tuple[int, int] | None] = {}  # None while the node is being measured

    def measure(self, node: yaml.Node) -> tuple[int, int]:
        """Return (values, depth) of a node. Raises InvalidYaml if they exceed the limits."""
        if node in self._known:
            known = self._known[node]
            if known is None:
                raise InvalidYaml(node.start_mark.line + 1, "an alias contains itself")
            return known
        self._known[node] = None
        values, depth = 1, 0
        for inner, is_key in _children(node):
            inner_values, inner_depth = self.measure(inner)
            values += 0 if is_key else inner_values
            depth = max(depth, inner_depth)
        if isinstance(node, yaml.ScalarNode) and self._originals:
            node.value = node.value.translate(self._originals)
        if values > MAX_VALUES or depth >= MAX_DEPTH:
            excess = f"its aliases expand beyond {MAX_VALUES:,} values or {MAX_DEPTH} levels"
            raise InvalidYaml(node.start_mark.line + 1, f"is too large: {excess}; put the prompts into a `rows:` file")
        self._known[node] = values, depth + 1
        return values, depth + 1


def _children(node: yaml.Node) -> list[tuple[yaml.Node, bool]]:
    if isinstance(node, yaml.MappingNode):
        return [(child, index == 0) for pair in node.value for index, child in enumerate(pair)]
    return [(child, False) for child in node.value] if isinstance(node, yaml.SequenceNode) else []
