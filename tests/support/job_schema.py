"""The JSON Schema of a job file, made of the models and the table of models that check a job.

What depends on the model or the operation of a request, its own or that of `defaults`, is a condition on both.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from pipeline.images.options import MAX_EDGE, Fit, MaskEdit
from pipeline.models.table import Models
from pipeline.planning.job import OPERATIONS
from pipeline.planning.job_schema import ENTRY_KEYS, JOB_KEYS, NOT_IN_EXTRA, RESERVED, UNSUPPORTED, JobForm
from pipeline.planning.json_rows import STDIN
from pipeline.planning.mode_names import MODES
from pipeline.planning.rows import SUFFIXES
from pipeline.storage import OUTPUT_FILES
from tests.support.described import descriptions
from tests.support.json_patterns import between, free_size, in_any_case, near
from tests.support.json_walk import NEVER, UNKNOWN, never, walk
from tests.support.readme import HOME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pipeline.models.model import Model
    from pipeline.models.rules import Operation, ParameterRule

Schema = dict[str, Any]

NULL: Schema = {"type": "null"}
TEMPLATE: Schema = {"type": "string", "pattern": r"\{\{"}
_RESERVED_NAMES = "|".join(in_any_case(re.escape(one)) for one in ("ledger", *OUTPUT_FILES))
_DEVICES = "|".join(in_any_case(one) for one in ("con", "prn", "aux", "nul", "com[0-9]", "lpt[0-9]"))
_DEADLINE = (
    r"^\s*(?:(?:[01]?[0-9]|2[0-3]):[0-5][0-9]|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}"
    r"(?::[0-9]{2}(?:\.[0-9]+)?)?(?:Z|[+-][0-9]{2}:?[0-9]{2}(?::?[0-9]{2})?))\s*$"
)
_EDGES: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 4, "maxItems": 4}


def any_of(*schemas: Schema) -> Schema:
    """Return what one of the schemas, null, or a text with variables fits."""
    return {"anyOf": [*schemas, TEMPLATE, NULL]}


def words(known: Iterable[str]) -> Schema:
    """Return what one of these words fits."""
    return any_of({"enum": list(known)})


_FILE: Schema = {
    "type": "string",
    "minLength": 1,
    "not": {"pattern": r"^(?:[A-Za-z][A-Za-z0-9+.-]+://|[Dd][Aa][Tt][Aa]:)"},
}
_VARIABLE = r"\{\{-?\s*(?!(?:true|false|none|not|True|False|None)\b)[A-Za-z_]"
_NO_VARIABLE: Schema = {
    "if": {"type": "string", "pattern": _VARIABLE},
    "then": {"enum": [], "errorMessage": "a variable, and the request has neither a matrix nor rows"},
}
_READ_LATER: dict[str, Schema] = {
    "operation": words(OPERATIONS),
    "n": any_of({"type": "integer", "minimum": 1}),
    "fit": words(get_args(Fit)),
    "resize": any_of({"type": "string", "pattern": f"^(?:{between(1, MAX_EDGE)})x(?:{between(1, MAX_EDGE)})$"}),
    "image": any_of(_FILE, {"type": "array", "items": any_of(_FILE)}),
    "mask": {
        "type": ["string", "object", "null"],
        "properties": {"image": _FILE, "edit": words(get_args(MaskEdit)), "box": any_of(_EDGES)},
        "propertyNames": {"enum": ["image", "edit", "box"]},
        "if": {"type": "object"},
        "then": {"oneOf": [{"required": ["image"]}, {"required": ["box"]}]},
        "dependentSchemas": {"box": {"patternProperties": {"^edit$": NEVER}}},
    },
    "rows": {
        "anyOf": [
            {
                "type": "string",
                "pattern": rf"^{STDIN}$|[^/\\](?:{'|'.join(in_any_case(re.escape(one)) for one in SUFFIXES)})$",
            },
            NULL,
        ]
    },
    "id": any_of({"type": ["string", "number", "boolean"], "pattern": r"^(?!\.)[A-Za-z0-9._-]{1,100}$"}),
}
"""Keys of a request that the model of its form leaves to the planner."""

_OF_THE_JOB: dict[str, Schema] = {
    "name": {
        "type": ["string", "number", "boolean", "null"],
        "pattern": rf"^(?![.-])(?!{_RESERVED_NAMES})(?!(?:{_DEVICES})(?:\.|$))[A-Za-z0-9._-]{{1,100}}$",
    },
    "mode": {"anyOf": [{"enum": list(MODES)}, NULL]},
    "deadline": {"anyOf": [{"type": "string", "pattern": _DEADLINE}, NULL]},
}


def job_schema() -> Schema:
    """Return the schema of a job file."""
    form = json.dumps(JobForm.model_json_schema()).replace("_Request", "Request").replace("_Parameters", "Defaults")
    schema = with_precise_nulls(json.loads(form))
    definitions = schema.pop("$defs")
    request, defaults = definitions.pop("Request"), definitions.pop("Defaults")
    models = {name: group.model for name, group in _groups().items()}
    parameters = sorted(_parameters())
    texts = descriptions(HOME / "jobs" / "README.md", "## A request")
    not_of_requests = {*UNSUPPORTED, *JOB_KEYS}
    _complete(request, texts, not_of_requests, parameters)
    request["allOf"] = [
        {"if": _lacks_all(ENTRY_KEYS - {"id"}), "then": {"patternProperties": {"^(?!x-)": _NO_VARIABLE}}}
    ]
    _complete(defaults, texts, not_of_requests | ENTRY_KEYS, parameters)
    for key, own in _OF_THE_JOB.items():
        schema["properties"][key] = own
    for key, text in descriptions(HOME / "jobs" / "README.md", "## The job").items():
        if key in schema["properties"]:
            schema["properties"][key]["description"] = text
    schema["patternProperties"] = {rf"^(?!x-|(?:{'|'.join(JOB_KEYS)})$)": never("unknown key of a job")}
    deadline_elsewhere = {"properties": {"deadline": NULL}}
    auto = {"properties": {"mode": {"const": "auto"}}, "required": ["mode"]}
    schema["allOf"] = [{"if": auto, "else": deadline_elsewhere}, *_Conditions(models, parameters).all()]
    rules = {f"{group}:{one}": _rules(model, one) for group, model in models.items() for one in OPERATIONS}
    needs = {f"{group}:needs": found for group, model in models.items() if (found := _needs(model))}
    any_model = {f"any:{one}": _rules(None, one) for one in OPERATIONS}
    return {
        **schema,
        "$defs": {"Request": request, "Defaults": defaults, **definitions, **rules, **any_model, **needs},
    }


@dataclass(frozen=True)
class _Group:
    """Models that take the same, by all their names."""

    names: tuple[str, ...]
    model: Model


@functools.cache
def _groups() -> dict[str, _Group]:
    """Return the groups of models that take the same, each by its first name."""
    found: dict[str, list[str]] = {}
    table = Models.load().by_name
    for name, model in table.items():
        found.setdefault(repr((model.operations, model.prompt, model.parameters, model.pictures)), []).append(name)
    return {names[0]: _Group(tuple(names), table[names[0]]) for names in found.values()}


def _complete(schema: Schema, texts: Mapping[str, str], refused: set[str], parameters: list[str]) -> None:
    """Add to the form of a request, or of the defaults, what the planner checks, and what each key means."""
    properties = schema["properties"]
    properties.update({key: own for key, own in _READ_LATER.items() if key in properties})
    names = [name for group in _groups().values() for name in group.names]
    properties["model"] = any_of({"enum": names}, {"type": "string"})
    within = {rf"^(?:{'|'.join(sorted(NOT_IN_EXTRA))})$": never("a key of the request itself, not of `extra`")}
    properties["extra"] = {"type": ["object", "null"], "patternProperties": within}
    for key, own in properties.items():
        if key in texts:
            properties[key] = {**own, "description": texts[key]}
    known = "|".join(sorted({*RESERVED, *parameters}))
    schema["patternProperties"] = {
        rf"^(?!(?:{known})$)(?:{near(RESERVED)})$": never("unknown key, close to a known one"),
        r"^$|\s": never("not a key: text with a colon needs quotes"),
        rf"^(?:{'|'.join(sorted(refused - UNSUPPORTED.keys()))})$": never("a key of another place"),
        **{f"^{key}$": never(f"not for batches: {reason}") for key, reason in UNSUPPORTED.items()},
    }
    schema.pop("additionalProperties", None)
    schema.pop("title", None)


def _rules(model: Model | None, operation: Operation) -> Schema:
    """Return what holds for the keys of a request of its own, by its operation and its model; None is any other.

    What is not taken has a pattern, not a property: a language server offers properties.
    """
    served_by = model.served_by(operation) if model else operation
    limits = _image_limits(model, served_by)
    if model is None:
        return {"properties": {name: {} for name in sorted(_parameters())}, "patternProperties": limits}
    if served_by not in model.operations:
        limits["^operation$"] = never(f"{model.name} takes {' and '.join(model.operations)} only")
    is_prompted = operation != served_by or served_by != "variation"
    limits["^prompt$"] = {"anyOf": [{"maxLength": model.prompt}, TEMPLATE]} if is_prompted else NULL
    taken = {name: _parameter(rule) for name, rule in model.rules(served_by).items()}
    for name, rule in model.parameters.items():
        if name not in taken and name not in UNSUPPORTED:
            limits[f"^{name}$"] = _untaken(rule)
    own = sorted({*RESERVED - _parameters(), *model.parameters, *UNSUPPORTED})
    limits[rf"^(?!x-|(?:{'|'.join(own)})$)"] = NULL
    pairs = [_pair(*pair) for pair in _pairs(model, served_by)]
    return {"properties": taken, "patternProperties": limits, "allOf": pairs}


def _image_limits(model: Model | None, served_by: str) -> dict[str, Schema]:
    """Return patterns for the keys of images: which of them an operation takes, and how many."""
    limits: dict[str, Schema] = {}
    requirements = model and model.image_requirements(served_by)
    if served_by == "generation":
        limits["^image$"] = {"anyOf": [NULL, {"type": "array", "maxItems": 0}]}
    elif requirements and requirements.most is not None:
        limits["^image$"] = {"type": ["string", "array", "null"], "maxItems": requirements.most}
    if served_by != "edit" or (requirements and not requirements.mask):
        limits["^mask$"] = NULL
    return limits


def _pair(name: str, values: list[str], other: str, allowed: list[str]) -> Schema:
    """Return that a parameter, or some values of it, is taken only with these values of another one."""
    why = f"taken only with {other} {' or '.join(allowed)}"
    fits = {"if": _has(other, any_of({"enum": allowed})), "else": {"patternProperties": {f"^{name}$": never(why)}}}
    stated = _has(name, _not_open({"enum": values} if values else {}))
    return {"if": stated, "then": {"if": {"required": [other]}, "then": fits}}


@functools.cache
def _parameters() -> frozenset[str]:
    """Return the names of the parameters that any model of the table knows, be it only to refuse them."""
    return frozenset({name for group in _groups().values() for name in group.model.parameters} - {*UNSUPPORTED})


def _needs(model: Model) -> Schema | None:
    """Return what holds if neither a request nor the defaults have the parameter that another one needs."""
    found = [
        {
            "if": {
                "allOf": [
                    _has(name, _not_open({"enum": list(values)} if values else {})),
                    {"not": {"required": [other]}},
                ]
            },
            "then": {"patternProperties": {f"^{name}$": never(f"taken only with {other} {' or '.join(allowed)}")}},
        }
        for name, values, other, allowed in _pairs(model, None)
        if model.parameters[other].default not in allowed
    ]
    return {"allOf": found} if found else None


def _pairs(model: Model, operation: str | None) -> Iterator[tuple[str, list[str], str, list[str]]]:
    """Yield (parameter, its values or all, the parameter that it needs, that one's values)."""
    rules = model.parameters if operation is None else model.rules(operation)
    for name, rule in rules.items():
        for other, allowed in rule.needs.items():
            yield name, [], other, list(allowed)
        for value, needed in rule.value_needs.items():
            for other, allowed in needed.items():
                yield name, [value], other, list(allowed)


def _has(key: str, schema: Schema) -> Schema:
    return {"properties": {key: schema}, "required": [key]}


def _not_open(schema: Schema) -> Schema:
    """Return what a value that is stated, and is no text with variables, fits."""
    return {"allOf": [schema, {"not": {"anyOf": [NULL, TEMPLATE]}}]}


def _parameter(rule: ParameterRule) -> Schema:
    """Return what a parameter takes, with the same in words."""
    kinds: list[Schema] = [{"enum": list(rule.values)}] if rule.values else []
    if rule.free_size is not None:
        kinds.append({"type": "string", "pattern": free_size(rule.free_size)})
    match rule.takes:
        case "text":
            kinds.append({"type": "string", **({"maxLength": rule.longest} if rule.longest else {})})
        case "whole":
            least, most = rule.range or (None, None)
            kinds.append({"type": "integer", **({} if least is None else {"minimum": least, "maximum": most})})
        case "flag":
            kinds.append({"type": "boolean"})
        case "mapping":
            kinds.append({"type": "object"})
    default = "" if rule.default is None else f" Default: {rule.default}."
    return {**any_of(*kinds), "description": f"{rule.allowed()[:1].upper()}{rule.allowed()[1:]}.{default}"}


def _untaken(rule: ParameterRule) -> Schema:
    """Return what a parameter is if the model, or the operation, does not take it."""
    why = rule.refused or f"only for {' and '.join(rule.only)}"
    return {"type": "null", "description": f"Not taken: {why}.", "errorMessage": f"Not taken: {why}."}


class _Conditions:
    """Conditions on `defaults` and a request together: each of them may state the operation, the model, the rest."""

    def __init__(self, groups: Mapping[str, Model], parameters: list[str]) -> None:
        self.groups = groups
        self.parameters = parameters
        self.reserved = "|".join(sorted({*RESERVED, *parameters}))
        self.names = {name: list(group.names) for name, group in _groups().items()}
        self.known = [name for names in self.names.values() for name in names]

    def all(self) -> list[Schema]:
        """Return all of them, for the whole job."""
        return [*self._rules(), *self._needed(), *self._dependent(), *self._of_defaults()]

    def _rules(self) -> Iterator[Schema]:
        """Yield what each request has to meet, by the operation and the model that are in force for it."""
        own = [(operation, group) for operation in OPERATIONS for group in (*self.groups, "any")]
        yield _items(*({"if": _both(_own_operation(o), self._own_model(g)), "then": _ref(f"{g}:{o}")} for o, g in own))
        for group in (*self.groups, "any"):
            left = ({"if": _both(_own_operation(o), _lacks("model")), "then": _ref(f"{group}:{o}")} for o in OPERATIONS)
            yield {"if": _defaults(self._default_model(group)), "then": _items(*left)}
        for operation in OPERATIONS:
            left = (
                {"if": _both(_lacks("operation"), self._own_model(g)), "then": _ref(f"{g}:{operation}")}
                for g in (*self.groups, "any")
            )
            yield {"if": _default_operation(operation), "then": _items(*left)}
            inner = [
                {
                    "if": _defaults(self._default_model(group)),
                    "then": _items(
                        {"if": _both(_lacks("operation"), _lacks("model")), "then": _ref(f"{group}:{operation}")}
                    ),
                }
                for group in (*self.groups, "any")
            ]
            yield {"if": _default_operation(operation), "then": {"allOf": inner}}

    def _needed(self) -> Iterator[Schema]:
        """Yield that a prompt or an image is required, unless the defaults have it."""
        stated: dict[str, Schema] = {
            "prompt": {"anyOf": [{"type": ["number", "boolean"]}, {"type": "string", "pattern": r"\S"}]},
            "image": {"not": {"enum": [None, [], ""]}},
        }
        for key, operations in {"prompt": ("generation", "edit"), "image": ("edit", "variation")}.items():
            misspelt = rf"^(?!(?:{self.reserved})$)(?:{near([key])})$"
            need = {"if": {"patternProperties": {misspelt: NEVER}}, "then": _has(key, stated[key])}
            needs = [
                _items(*({"if": _own_operation(one), "then": need} for one in operations)),
                *(
                    {"if": _default_operation(one), "then": _items({"if": _lacks("operation"), "then": need})}
                    for one in operations
                ),
            ]
            yield {"if": _defaults(_has(key, stated[key])), "else": {"allOf": needs}}

    def _dependent(self) -> Iterator[Schema]:
        """Yield that a parameter needs another one, of requests whose defaults do not have that."""
        others = {other for model in self.groups.values() for _, _, other, _ in _pairs(model, None)}
        for other in sorted(others):
            rules = [group for group, model in self.groups.items() if _needs(model)]
            own = _items(*({"if": self._own_model(group), "then": _ref(f"{group}:needs")} for group in rules))
            left = [
                {
                    "if": _defaults(self._default_model(group)),
                    "then": _items({"if": _lacks("model"), "then": _ref(f"{group}:needs")}),
                }
                for group in rules
            ]
            yield {"if": _defaults({"required": [other]}), "else": {"allOf": [own, *left]}}

    def _of_defaults(self) -> Iterator[Schema]:
        """Yield what the parameters in `defaults` have to meet for the requests that do not state them."""
        for name in self.parameters:
            by_rule: dict[str, list[str]] = {}
            schemas: dict[str, Schema] = {}
            for group, model in self.groups.items():
                rule = model.parameters.get(name)
                schema = NULL if rule is None else _untaken(rule) if rule.refused else _parameter(rule)
                schemas[repr(schema)] = schema
                by_rule.setdefault(repr(schema), []).append(group)
            for form, groups in by_rule.items():
                yield from self._for_requests(groups, _lacks(name), {"properties": {name: schemas[form]}})
        unknown = rf"^(?!x-|(?:{'|'.join([self.reserved, *UNSUPPORTED])})$)"
        yield from self._for_requests(self.groups, {}, {"patternProperties": {unknown: NULL}})
        for key, limit in _image_limits(None, "generation").items():
            which = _lacks(key.strip("^$"))
            then: Schema = {"properties": {"defaults": {"patternProperties": {key: limit}}}}
            yield {"if": _some(_both(_own_operation("generation"), which)), "then": then}
            left = _some(_both(_lacks("operation"), which))
            yield {"if": _both(_default_operation("generation"), left), "then": then}

    def _for_requests(self, groups: Iterable[str], which: Schema, then: Schema) -> Iterator[Schema]:
        """Yield a condition on `defaults` that holds if a request of these models, and of this kind, is there."""
        names = _one_of([name for group in groups for name in self.names[group]])
        result = {"properties": {"defaults": then}}
        yield {"if": _some(_both(_has("model", names), which)), "then": result}
        left = _some(_both(_lacks("model"), which))
        yield {"if": _both(_defaults(_has("model", names)), left), "then": result}

    def _own_model(self, group: str) -> Schema:
        if group == "any":
            return _has("model", {"not": {"anyOf": [_one_of(self.known), TEMPLATE]}})
        return _has("model", _one_of(self.names[group]))

    def _default_model(self, group: str) -> Schema:
        own = self._own_model(group)
        return {"anyOf": [own, _lacks("model")]} if group == "any" else own


def with_precise_nulls(schema: Schema) -> Schema:
    """Return pydantic's schema in a form in which each mistake has a place of its own: nulls are among the types."""

    def precise(part: Schema) -> Schema:
        match part:
            case {"anyOf": [{"type": str()} as one, {"type": "null"}]}:
                return {**_without_choice(part), **one, "type": [one["type"], "null"]}
            case {"anyOf": [{"$ref": str() as reference} as one, {"type": "null"}]}:
                nullable.add(reference.rpartition("/")[2])
                return {**_without_choice(part), **one}
            case {"additionalProperties": False, "properties": dict() as known}:
                part = {key: one for key, one in part.items() if key != "additionalProperties"}
                return {**part, "patternProperties": {f"^(?!(?:{'|'.join(known)})$)": UNKNOWN}}
        return part

    nullable: set[str] = set()
    schema = walk(schema, precise)
    for name in nullable:
        definitions = schema["$defs"]
        definitions[name] = {**definitions[name], "type": ["object", "null"]}
    return schema


def _without_choice(schema: Schema) -> Schema:
    return {key: one for key, one in schema.items() if key != "anyOf"}


def _one_of(names: Sequence[str]) -> Schema:
    """Return what these names fit; a list of values would let a language server complete those of longer names."""
    return {"type": "string", "pattern": f"^(?:{'|'.join(map(re.escape, names))})$"}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _both(*schemas: Schema) -> Schema:
    return {"allOf": [one for one in schemas if one]}


def _items(*schemas: Schema) -> Schema:
    return {"properties": {"requests": {"items": {"allOf": list(schemas)}}}}


def _some(schema: Schema) -> Schema:
    own: Schema = {"type": "object", **schema}
    return {"properties": {"requests": {"type": "array", "contains": own}}, "required": ["requests"]}


def _lacks(key: str) -> Schema:
    return {"not": {"required": [key]}}


def _lacks_all(keys: Iterable[str]) -> Schema:
    return {"not": {"anyOf": [{"required": [key]} for key in sorted(keys)]}}


def _own_operation(operation: str) -> Schema:
    return _has("operation", {"const": operation})


def _default_operation(operation: str) -> Schema:
    stated = _defaults(_own_operation(operation))
    return (
        {"anyOf": [stated, {"not": _defaults(_has("operation", {"not": NULL}))}]}
        if operation == "generation"
        else stated
    )


def _defaults(schema: Schema) -> Schema:
    """Return what a job fits whose defaults fit a schema; without defaults they are empty."""
    empty_fits = "required" not in schema and "allOf" not in schema
    return (
        _has("defaults", {"type": "object", **schema})
        if not empty_fits
        else {"anyOf": [{"not": {"required": ["defaults"]}}, _has("defaults", schema)]}
    )
