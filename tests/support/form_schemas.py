"""JSON Schemas of what scripts read, made of the forms in which the program writes it. All fields may be added to."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from typing import Any, Literal, NotRequired

from pipeline.engine import events
from pipeline.errors import RequestError
from pipeline.reports.forms import EventsLostForm, SummaryForm
from pipeline.reports.manifest_forms import ErrorForm, ManifestLine
from tests.support.described import descriptions
from tests.support.readme import HOME

Schema = dict[str, Any]

_TYPES: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def form_schema(form: type[Any]) -> Schema:
    """Return the schema of a form, with what jobs/README.md says of the manifest's fields."""
    schema = _form(form)
    if form is ManifestLine:
        for key, text in descriptions(HOME / "jobs" / "README.md", "## Manifest").items():
            if key in schema["properties"]:
                schema["properties"][key]["description"] = text
    return schema


def event_schema() -> Schema:
    """Return the schema of one event: what a known one has; an unknown one has its name and its moment."""
    forms = {"summary": SummaryForm, "events_lost": EventsLostForm}
    known: list[Schema] = [_when(name, {**form_schema(one), "description": _said(one)}) for name, one in forms.items()]
    for kind in typing.get_args(events.Event):
        hints = typing.get_type_hints(kind, {**vars(events), "RequestError": RequestError})
        fields = {one.name: schema_of(hints[one.name]) for one in dataclasses.fields(kind)}
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
        known.append(_when(name, {"description": _said(kind), "properties": fields, "required": list(fields)}))
    common: Schema = {"event": {"type": "string"}, "at": {"type": "string", "format": "date-time"}}
    return {"type": "object", "properties": common, "required": ["event", "at"], "allOf": known}


def _when(event: str, then: Schema) -> Schema:
    return {"if": {"properties": {"event": {"const": event}}, "required": ["event"]}, "then": then}


def _form(form: type[Any]) -> Schema:
    hints = typing.get_type_hints(form, include_extras=True)
    properties = {name: schema_of(hint) for name, hint in hints.items()}
    required = [name for name, hint in hints.items() if typing.get_origin(hint) is not NotRequired]
    return {"type": "object", "description": _said(form), "properties": properties, "required": required}


def _said(kind: type[Any]) -> str:
    return " ".join((inspect.getdoc(kind) or "").split())


def schema_of(hint: Any) -> Schema:
    """Return the schema of a type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if hint in _TYPES:
        return {"type": _TYPES[hint]}
    if typing.is_typeddict(hint):
        return _form(hint)
    if hint is RequestError:
        return _form(ErrorForm)
    if origin is NotRequired:
        return schema_of(arguments[0])
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in {list, tuple}:
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    assert origin in {typing.Union, types.UnionType}, hint
    one, nothing = (one for one in arguments if one is not type(None)), type(None) in arguments
    schema = schema_of(*one)
    return {**schema, "type": [schema["type"], "null"]} if nothing else schema
