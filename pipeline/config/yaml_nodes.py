"""YAML text → nodes, no larger and no deeper than the program can hold.

Plain scalars follow JSON and line ends follow YAML 1.2: in a prompt, U+0085, U+2028 and U+2029 are characters like any.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

MAX_VALUES = 1_000_000  # after aliases are expanded
MAX_DEPTH = 60

MERGE = "tag:yaml.org,2002:merge"

_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BREAKS = "\x85\u2028\u2029"  # line ends in YAML 1.1, which PyYAML reads
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Unreadable(ValueError):
    """The text is not YAML, or more than we take; `line` counts from 1."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line
        self.what = what


class _CoreLoader(_Loader):  # type: ignore[misc]  # the C loader where libyaml is there, else the Python one
    """Composes nodes whose plain scalars follow JSON, not YAML 1.1."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - the class that we extend says so


def _resolve(kind: str, pattern: str, first: str) -> None:
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(rf"(?:{pattern})\Z"), list(first))


_resolve("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789")
_resolve("float", r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)", "-+0123456789")
_resolve("bool", "true|True|TRUE|false|False|FALSE", "tTfF")
_resolve("null", "null|Null|NULL|~", "nN~")
_CoreLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"\Z"), [""])
_resolve("merge", "<<", "<")


def compose(text: str) -> yaml.Node | None:
    """Read the one document in `text`; None where it is empty. Raises Unreadable."""
    if bad := _UNPRINTABLE.search(text):
        what = f"holds the raw character U+{ord(bad[0]):04X}, which YAML takes as an escape in double quotes only"
        raise Unreadable(text.count("\n", 0, bad.start()) + 1, what)
    stand_ins = _stand_ins(text)
    text = text.translate(stand_ins)
    try:
        _refuse_depth(text)
        node: yaml.Node | None = yaml.compose(text, Loader=_CoreLoader)
    except yaml.MarkedYAMLError as reason:
        mark = reason.problem_mark or reason.context_mark
        said = ", ".join(part for part in (reason.context, reason.problem) if part)
        last = text.rstrip().count("\n")  # libyaml says of what is open at the end that it ends on the next line
        raise Unreadable(min(mark.line, last) + 1 if mark else 1, f"is not YAML: {said}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as reason:
        raise Unreadable(getattr(reason, "line", 1), getattr(reason, "what", f"is not YAML: {reason}")) from None
    if node is not None:
        _Scales({ord(mark): chr(code) for code, mark in stand_ins.items()}).weigh(node)
    return node


def _stand_ins(text: str) -> dict[int, str]:
    """Give, for each of YAML 1.1's own line ends in the text, a private character that the text does not use."""
    found = [mark for mark in _BREAKS if mark in text]
    free = (chr(code) for code in range(0xE000, 0xF900) if not found or chr(code) not in text)
    return {ord(mark): stand_in for mark, stand_in in zip(found, free, strict=False)}


def _refuse_depth(text: str) -> None:
    """Refuse what is nested so deep that composing it would exhaust the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_CoreLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise Unreadable(line, f"is nested deeper than {MAX_DEPTH} levels")


class _Scales:
    """Weighs what a document becomes once its aliases are expanded, without expanding them; puts line ends back."""

    def __init__(self, originals: dict[int, str]) -> None:
        self._originals = originals
        self._known: dict[yaml.Node, tuple[int, int] | None] = {}  # values and depth; None while it is being weighed

    def weigh(self, node: yaml.Node) -> tuple[int, int]:
        if node in self._known:
            known = self._known[node]
            if known is None:
                raise Unreadable(node.start_mark.line + 1, "an alias contains itself")
            return known
        self._known[node] = None
        values, depth = 1, 0
        for inner, is_key in _inside(node):
            inner_values, inner_depth = self.weigh(inner)
            values += 0 if is_key else inner_values
            depth = max(depth, inner_depth)
        if isinstance(node, yaml.ScalarNode) and self._originals:
            node.value = node.value.translate(self._originals)
        if values > MAX_VALUES or depth >= MAX_DEPTH:
            what = f"its aliases expand beyond {MAX_VALUES:,} values or {MAX_DEPTH} levels"
            raise Unreadable(node.start_mark.line + 1, f"is too large: {what}; put the prompts into a `rows:` file")
        self._known[node] = values, depth + 1
        return values, depth + 1


def _inside(node: yaml.Node) -> list[tuple[yaml.Node, bool]]:
    if isinstance(node, yaml.MappingNode):
        return [(one, index == 0) for pair in node.value for index, one in enumerate(pair)]
    return [(one, False) for one in node.value] if isinstance(node, yaml.SequenceNode) else []
