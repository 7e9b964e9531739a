"""The JSON Schema of config.yaml: the code that reads a config is run, and what it asks for is written down.

Values that this code takes as they are and checks itself are stated here.
"""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from pydantic import TypeAdapter

from pipeline.config import load as loading
from pipeline.config import yaml_document
from pipeline.config.dialect import OPERATIONS
from pipeline.config.environment import VARIABLE_NAME
from pipeline.config.notifications import EVENTS
from pipeline.config.provider import NAME
from pipeline.config.validation import MAX_NUMBER, Section
from pipeline.errors import ConfigError
from pipeline.models.model import Model
from pipeline.sandbox.batch_settings import BatchFaults, BatchSettings
from pipeline.sandbox.settings import Faults, SandboxSettings
from tests.support.described import descriptions
from tests.support.json_walk import NEVER, UNKNOWN, walk
from tests.support.readme import HOME

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Schema = dict[str, Any]

_EVERYTHING = """
providers:
  PROVIDER: {base_url: https://api.openai.com/v1, rate_limit: {images: 1}}
routes:
  ROUTE: {providers: [PROVIDER]}
notify: {command: [x]}
workers: {engine: ray}
"""
"""A config by which all that can be read is read."""

_VARIABLE: Schema = {
    "type": "object",
    "properties": {"env": {"type": "string", "pattern": f"^{VARIABLE_NAME.pattern}$"}},
    "required": ["env"],
    "patternProperties": {"^(?!env$)": NEVER},
}
_HEADERS: Schema = {"type": ["object", "null"], "additionalProperties": {"anyOf": [{"type": "string"}, _VARIABLE]}}
_WORDS: Schema = {"type": ["array", "null"], "items": {"type": "string"}}
_AS_IT_IS: dict[str, Schema] = {
    "providers.PROVIDER.api_key_env": {"type": ["string", "null"], "pattern": f"^{VARIABLE_NAME.pattern}$"},
    "providers.PROVIDER.headers": _HEADERS,
    "providers.PROVIDER.batch.poll_seconds": {
        "type": ["array", "null"],
        "items": {"type": "number", "exclusiveMinimum": 0},
        "minItems": 2,
        "maxItems": 2,
    },
    "providers.PROVIDER.query": {"type": ["object", "null"], "additionalProperties": {"type": ["string", "number"]}},
    "providers.PROVIDER.values": {"type": ["object", "null"], "additionalProperties": {"type": ["object", "null"]}},
    "providers.PROVIDER.window": {
        "anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
    },
    "providers.PROVIDER.operations": {**_WORDS, "items": {"enum": list(OPERATIONS)}, "minItems": 1},
    "notify.webhook": {"anyOf": [{"type": "string", "pattern": "^https?://"}, _VARIABLE, {"type": "null"}]},
    "notify.headers": _HEADERS,
    "notify.command": {**_WORDS, "minItems": 1},
    "notify.on": {"type": ["array", "null"], "items": {"enum": list(EVENTS)}},
}
_TYPES = {"bool": "boolean", "int": "integer", "float": "number", "int | None": ["integer", "null"]}
_TABLES = {
    "# Configuration": "",
    "## A provider": "providers.PROVIDER.",
    "## Other servers": "providers.PROVIDER.",
    "## Batches": "providers.PROVIDER.batch.",
    "## Routes": "routes.ROUTE.",
}
"""The headings of the tables that describe keys, and what is in front of these keys."""


class _RecordingSection(Section):
    """A section that writes down which keys are asked for, and what they must be."""

    keys: typing.ClassVar[dict[str, Schema]] = {}
    known: typing.ClassVar[dict[str, tuple[str, ...]]] = {}

    def _record(self, key: str, schema: Schema) -> None:
        self.keys[".".join(map(str, (*self.path, key)))] = schema

    def reject_unknown_keys(self, *known: str) -> None:
        self.known[".".join(map(str, self.path))] = known

    def section(self, key: str) -> Section:
        return _RecordingSection(self.doc, (*self.path, key), self.problems)

    def mapping(self, key: str) -> dict[str, Any]:
        self._record(key, {"type": ["object", "null"]})
        return super().mapping(key)

    def text(self, key: str, default: Any) -> Any:
        self._record(key, {"type": ["string", "null"], "minLength": 1})
        return super().text(key, default)

    def texts(self, key: str) -> list[str]:
        self._record(key, _WORDS)
        return super().texts(key)

    def integer(self, key: str, default: int, *, least: int) -> int:
        self._record(key, {"type": ["integer", "null"], "minimum": least, "maximum": MAX_NUMBER})
        return super().integer(key, default, least=least)

    def number(self, key: str, default: Any, *, least: float) -> Any:
        self._record(key, {"type": ["number", "null"], "minimum": least, "maximum": MAX_NUMBER})
        return super().number(key, default, least=least)

    def flag(self, key: str) -> bool:
        self._record(key, {"type": ["boolean", "null"]})
        return super().flag(key)

    def choice(self, key: str, default: Any, known: Sequence[str]) -> Any:
        self._record(key, {"enum": [*known, None]})
        return super().choice(key, default, known)


def config_schema() -> Schema:
    """Return the schema of config.yaml."""
    _RecordingSection.keys, _RecordingSection.known = {}, {}
    document = yaml_document.parse(_EVERYTHING, "config.yaml", ConfigError)
    with mock.patch.object(loading, "Section", _RecordingSection):
        loading._read_config(document, Path("config.yaml"), None)
    texts: dict[str, str] = {}
    for heading, prefix in _TABLES.items():
        found = descriptions(HOME / "pipeline" / "config" / "README.md", heading)
        texts |= {f"{prefix}{key}": text for key, text in found.items()}
    models = _partial(TypeAdapter(Model).json_schema(ref_template="#/$defs/Model/$defs/{model}"))
    del models["properties"]["name"]
    models["properties"]["inherits"] = {"type": ["string", "null"]}
    schema = _Tree({**_RecordingSection.keys, **_AS_IT_IS}, _RecordingSection.known, texts).section()
    return {**schema, "$defs": {"Model": models, "Sandbox": _settings(SandboxSettings)}}


def _settings(kind: type[Any]) -> Schema:
    """Return the schema of the sandbox's settings, or of those of one kind within them."""
    within: dict[tuple[str, type[Any]], type[Any]] = {
        ("faults", SandboxSettings): Faults,
        ("batch", SandboxSettings): BatchSettings,
    }
    within["faults", BatchSettings] = BatchFaults
    share: Schema = {"type": "number", "minimum": 0, "maximum": 1}
    properties = {
        one.name: _settings(within[one.name, kind])
        if (one.name, kind) in within
        else share
        if kind in {Faults, BatchFaults}
        else {"type": _TYPES[str(one.type)]}
        if str(one.type) in _TYPES
        else {}
        for one in dataclasses.fields(kind)
    }
    return {
        "type": "object",
        "properties": properties,
        "patternProperties": {f"^(?!(?:{'|'.join(properties)})$)": UNKNOWN},
    }


def _partial(schema: Schema) -> Schema:
    """Return the schema of what is merged over an entry: no key is required, and null removes one."""

    def change(part: Schema) -> Schema:
        part = {key: one for key, one in part.items() if key != "required"}
        if isinstance(part.get("type"), str) and part["type"] != "null":
            part["type"] = [part["type"], "null"]
        if "enum" in part:
            part["enum"] = [*part["enum"], None]
        return part

    return {**_walked(schema, change), "additionalProperties": False}


def _walked(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    found: Schema = walk(schema, change)
    return found


class _Tree:
    """What was written down, as nested schemas."""

    def __init__(self, keys: dict[str, Schema], known: dict[str, tuple[str, ...]], texts: dict[str, str]) -> None:
        self.keys = keys
        self.known = known
        self.texts = texts

    def section(self, path: str = "") -> Schema:
        """Return the schema of the mapping at a path."""
        properties = {key: self._key(f"{path}.{key}".lstrip(".")) for key in self.known[path]}
        return {
            "type": ["object", "null"],
            "properties": properties,
            "patternProperties": {f"^(?!(?:{'|'.join(self.known[path])})$)": UNKNOWN},
        }

    def _key(self, path: str) -> Schema:
        text = self.texts.get(path)
        return {**self._value(path), **({} if text is None else {"description": text})}

    def _value(self, path: str) -> Schema:
        model = {"$ref": "#/$defs/Model"}
        match path:
            case "providers" | "routes":
                return self._named(f"{path}.{path[:-1].upper()}")
            case "models":
                return {"type": ["object", "null"], "additionalProperties": model}
            case "providers.PROVIDER.models":
                return {"anyOf": [{**_WORDS, "minItems": 1}, {"type": "object", "additionalProperties": model}]}
            case "workers":
                return {"anyOf": [{"type": ["integer", "null"], "minimum": 1}, self.section(path)]}
            case "providers.PROVIDER.sandbox":
                return {"anyOf": [{"type": ["boolean", "null"]}, {"$ref": "#/$defs/Sandbox"}]}
        return self.section(path) if path in self.known else self.keys[path]

    def _named(self, path: str) -> Schema:
        """Return the schema of a mapping of names, a provider's or a route's, to their entries."""
        entry = self.section(path)
        if path == "routes.ROUTE":
            entry = {"anyOf": [_WORDS, entry]}
        else:
            entry["anyOf"] = [{"required": ["base_url"]}, {"required": ["sandbox"]}]
        return {
            "type": ["object", "null"],
            "patternProperties": {f"^{NAME.pattern}$": entry},
            "additionalProperties": False,
        }
