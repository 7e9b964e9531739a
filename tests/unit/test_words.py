"""What can be checked of how the package is written: names, first lines, and the size of what stands in it."""

from __future__ import annotations

import ast
import functools
import statistics
from collections import Counter
from typing import TYPE_CHECKING

from tests.support.readme import PACKAGE, syntax_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDING = {
    *("Give", "Gives", "Say", "Says", "Let", "Lets", "Bring", "Brings", "Tell", "Tells", "Take care", "Takes care"),
}
KEYS = {"request", "job", "image", "attempt"}
PLAIN = {
    *("int", "str", "bool", "float", "bytes", "None", "Any", "object", "Path", "Literal", "Sequence", "Collection"),
    *("Mapping", "Callable", "Awaitable", "Iterable", "Iterator", "tuple", "list", "dict", "set", "frozenset", "type"),
}
LONGEST_FUNCTION, SHARE_OF_SHORT_FUNCTIONS = 30, 0.98
LONGEST_MODULE, MEDIAN_MODULE = 320, 160
MOST_COLLABORATORS = 8

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def _modules() -> list[tuple[str, ast.Module]]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return [(str(path.relative_to(PACKAGE)), syntax_tree(path)) for path in paths]


@functools.cache
def _definitions() -> list[tuple[str, Definition]]:
    """Return every class and function with its place: the module and its name."""
    return [
        (f"{module}:{node.name}", node)
        for module, tree in _modules()
        for node in ast.walk(tree)
        if isinstance(node, Definition)
    ]


def _classes() -> Iterator[tuple[str, ast.ClassDef]]:
    for place, node in _definitions():
        if isinstance(node, ast.ClassDef):
            yield place, node


def _names_used_twice() -> set[str]:
    names = Counter(node.name for place, node in _classes() if not place.startswith("sandbox/"))
    return {name for name, number in names.items() if number > 1}


def _commanding_docstrings() -> set[str]:
    found = set()
    for place, node in [*_definitions(), *_modules()]:
        words = (ast.get_docstring(node) or "").split()
        if {" ".join(words[:1]), " ".join(words[:2])} & COMMANDING:
            found.add(place)
    return found


def _keys_without_pk() -> set[str]:
    """Return the fields of classes and the parameters of functions that are integers and named like a row."""
    found = set()
    for place, node in _definitions():
        named = [*_fields(node)] if isinstance(node, ast.ClassDef) else [*_parameters(node)]
        found |= {f"{place}.{name}" for name, annotation in named if name in KEYS and "int" in _names(annotation)}
    return found


def _lengths() -> dict[str, int]:
    return {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}


def _long_modules() -> set[str]:
    return {name for name, length in _lengths().items() if length > LONGEST_MODULE}


def _crowded_classes() -> set[str]:
    """Return the classes with too many collaborators: what they are given that is no plain value, by its annotation."""
    found = set()
    for place, node in _classes():
        made = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
        given = [*_parameters(made[0])] if made else [*_fields(node)] if _is_dataclass(node) else []
        if sum(bool(_names(annotation) - PLAIN) for _, annotation in given) > MOST_COLLABORATORS:
            found.add(place)
    return found


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    for one in node.body:
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            yield one.target.id, one.annotation


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, ast.expr]]:
    for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
        if one.annotation is not None:
            yield one.arg, one.annotation


def _names(annotation: ast.expr) -> set[str]:
    """Return the names of the types in an annotation; a class behind a dot is its last name."""
    attributes = {node.attr for node in ast.walk(annotation) if isinstance(node, ast.Attribute)}
    owners = {
        node.value.id
        for node in ast.walk(annotation)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    return attributes | (names - owners)


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in _names(decorator) for decorator in node.decorator_list)


def test_no_class_name_is_used_twice_outside_the_sandbox() -> None:
    assert _names_used_twice() == set()


def test_no_docstring_begins_with_a_command_to_a_thing() -> None:
    assert _commanding_docstrings() == set()


def test_integers_that_are_primary_keys_end_in_pk() -> None:
    assert _keys_without_pk() == set()


def test_no_module_is_long_and_most_are_short() -> None:
    assert _long_modules() == set()
    assert statistics.median(length for name, length in _lengths().items() if "__init__" not in name) <= MEDIAN_MODULE


def test_nearly_all_functions_are_short() -> None:
    lengths = {
        place: (node.end_lineno or node.lineno) - node.lineno + 1
        for place, node in _definitions()
        if not isinstance(node, ast.ClassDef)
    }
    long = {place: length for place, length in lengths.items() if length > LONGEST_FUNCTION}
    assert len(long) <= (1 - SHARE_OF_SHORT_FUNCTIONS) * len(lengths), long


def test_no_class_has_too_many_collaborators() -> None:
    assert _crowded_classes() == set()
