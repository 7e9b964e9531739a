"""The expressions within {{ }}: Jinja2's, with only those filters, methods and operators whose work is bounded.

All that is allowed takes time in proportion to the size of what it reads, times the size of its arguments (`replace`
and `join` make that much). Both are limited, and so are the sizes of variables and of results.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from jinja2 import StrictUndefined, Template, TemplateError, Undefined, nodes
from jinja2.filters import FILTERS
from jinja2.sandbox import SandboxedEnvironment
from jinja2.visitor import NodeTransformer

from pipeline.config.yaml_document import nearest

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SIZE = 100_000
"""Maximum of characters and items in a variable or in the result of a filter, a method or an operator."""

FILTER_NAMES = frozenset({
    *("abs", "capitalize", "count", "d", "default", "first", "float", "int", "join", "last", "length", "list"),
    *("lower", "map", "max", "min", "replace", "reverse", "round", "sort", "string", "title", "trim", "truncate"),
    *("unique", "upper", "wordcount"),
})  # fmt: skip
METHOD_NAMES = frozenset({
    *("capitalize", "casefold", "count", "endswith", "find", "lower", "lstrip", "removeprefix", "removesuffix"),
    *("replace", "rstrip", "split", "startswith", "strip", "swapcase", "title", "upper"),
})  # fmt: skip
_BEFORE_ATTRIBUTE = {"join": 1, "max": 1, "min": 1, "sort": 2, "unique": 1}  # arguments that come before `attribute`
_RETURNS_ARGUMENT = frozenset({"d", "default"})

_MAX_WORK = 5_000_000  # size of what is read, times size of the arguments
_MAX_NODES, _MAX_OPERATIONS = 2_000, 100  # of one template
_MAX_NUMBER = 10**18
_MAX_DIGITS = 15  # of `round`
_OPERATIONS = (nodes.BinExpr, nodes.Call, nodes.Concat, nodes.Filter, nodes.Slice)


class ExpressionEnvironment(SandboxedEnvironment):
    """Jinja2's sandbox without statements, comments and globals, with the filters and methods of the lists."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, finalize: Callable[[Any], Any]) -> None:
        super().__init__(
            block_start_string="\0{%",
            block_end_string="%\0}",
            comment_start_string="\0{#",
            comment_end_string="#\0}",
            undefined=StrictUndefined,
            finalize=lambda value: finalize(_called(value)),
            keep_trailing_newline=True,
            autoescape=False,
        )
        self.globals.clear()  # `range`, `lipsum` and others, which are not variables of the job
        self.filters = {name: _bounded(name, _round if name == "round" else FILTERS[name]) for name in FILTER_NAMES}

    def compiled(self, text: str) -> tuple[Template, frozenset[str]]:
        """Return a template and the names of its variables. Raises TemplateError."""
        if "\0{" in text:
            raise TemplateError("the text holds a zero character before `{`")
        if len(text) > MAX_SIZE:
            raise TemplateError(f"a text with expressions has at most {MAX_SIZE:,} characters")
        parsed = self.parse(text)
        found = list(parsed.find_all(nodes.Node))
        operations = sum(isinstance(node, _OPERATIONS) for node in found)
        if len(found) > _MAX_NODES or operations > _MAX_OPERATIONS:
            raise TemplateError(f"a text has at most {_MAX_OPERATIONS} filters, calls and operators")
        for node in found:
            if isinstance(node, nodes.Filter) and node.name not in FILTER_NAMES:
                raise TemplateError(f"there is no filter `{node.name:.60}`; {_hint(node.name, FILTER_NAMES)}")
        names = frozenset(node.name for node in found if isinstance(node, nodes.Name))
        tree = _ConcatToJoin().visit(parsed)
        tree.set_environment(self)
        return self.from_string(tree), names

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute with numbers, or join two texts with `+`. Raises TemplateError."""
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return _checked("+", left + right)
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if not numbers or (operator == "**" and (abs(left) > 1000 or abs(right) > 10)):
            raise TemplateError(f"`{operator}` works on {'texts and ' if operator == '+' else ''}small numbers only")
        result = super().call_binop(context, operator, left, right)
        if not abs(result) <= _MAX_NUMBER:
            raise TemplateError(f"`{operator}` makes a number beyond {_MAX_NUMBER:,}")
        return result

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return the item of a mapping, or a method of a text; nothing else has attributes."""
        if isinstance(obj, Undefined):
            return getattr(obj, attribute)  # raises UndefinedError
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        if not isinstance(obj, str):
            return self.undefined(obj=obj, name=attribute)
        if attribute in METHOD_NAMES:
            return functools.partial(_METHODS[attribute], obj)
        return self.undefined(f"a text has no method `{attribute:.60}`; {_hint(attribute, METHOD_NAMES)}")

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return an item of a list, a mapping or a text."""
        try:
            return obj[argument]
        except (AttributeError, LookupError, TypeError):
            return self.undefined(obj=obj, name=argument)

    def call(self, _context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method of a text. Raises TemplateError for anything else."""
        if isinstance(obj, functools.partial | Undefined):
            return obj(*args, **kwargs)
        raise TemplateError(f"only methods of texts are called: {', '.join(sorted(METHOD_NAMES))}")


class _ConcatToJoin(NodeTransformer):
    """Replaces `a ~ b` by a filter, whose size is checked before the text is made."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - jinja2's own name
        items = nodes.List([self.visit(item) for item in node.nodes], lineno=node.lineno)
        return nodes.Filter(items, "join", [nodes.Const("")], [], None, None, lineno=node.lineno)


def size_of(value: Any) -> int:
    """Return the characters and items in a value; above `MAX_SIZE` some number above it."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, int):
        return 1 + value.bit_length() // 3
    if isinstance(value, Mapping):
        value = (*value.keys(), *value.values())
    if not isinstance(value, list | tuple):
        return 1
    total = 0
    for item in value:
        total += 1 + size_of(item)
        if total > MAX_SIZE:
            break
    return total


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter or method that checks sizes before and after; `name` is for its messages."""
    first = int(hasattr(function, "jinja_pass_arg"))  # before it comes Jinja2's context

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        own = args[first:]
        if len(own) > _BEFORE_ATTRIBUTE.get(name, 9) + 1 or "." in str(kwargs.get("attribute", "")):
            raise TemplateError(f"`{name}` takes no path of attributes")
        size, *arguments = (size_of(value) for value in (*own, *kwargs.values()))
        if max(size, *arguments, 0) > MAX_SIZE:
            raise _too_large(name)
        if size * sum(arguments) > _MAX_WORK and name not in _RETURNS_ARGUMENT:
            raise TemplateError(f"`{name}` has too much to do: shorten what it reads or its arguments")
        result = function(*args, **kwargs)
        return _checked(name, list(result) if isinstance(result, Iterator) else result)

    return call


def _checked(name: str, value: Any) -> Any:
    if size_of(value) > MAX_SIZE:
        raise _too_large(name)
    return value


def _too_large(name: str) -> TemplateError:
    return TemplateError(f"`{name}` reads or makes more than {MAX_SIZE:,} characters or items")


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    """Jinja2's `round`, with a limit on the digits, since it computes 10 to their power."""
    if abs(precision) > _MAX_DIGITS:
        raise TemplateError(f"`round` takes at most {_MAX_DIGITS} digits")
    return FILTERS["round"](value, precision, method)


def _called(value: Any) -> Any:
    if isinstance(value, functools.partial):
        raise TemplateError("a method is not text: write `()` behind its name")
    return value


def _hint(word: str, known: frozenset[str]) -> str:
    close = nearest(word[:60], known)
    return f"did you mean `{close}`?" if close else f"known are {', '.join(sorted(known))}"


_METHODS = {name: _bounded(name, getattr(str, name)) for name in METHOD_NAMES}
