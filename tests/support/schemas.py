"""The JSON Schemas in pipeline/schemas; `python -m tests.support.schemas` writes them anew."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from pipeline.cli.schema_command import SCHEMAS, schema_path
from pipeline.reports.forms import PlanForm, StatusForm
from pipeline.reports.manifest_forms import ManifestLine
from tests.support.config_schema import config_schema
from tests.support.form_schemas import event_schema, form_schema
from tests.support.job_schema import job_schema
from tests.support.json_walk import MAPS, walk

if TYPE_CHECKING:
    from collections.abc import Callable

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_LARGE = 300  # characters of JSON
_MADE: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "job": ("A job file", job_schema),
    "config": ("The config of image-batch-pipeline", config_schema),
    "manifest": ("One line of manifest.jsonl", lambda: form_schema(ManifestLine)),
    "event": ("One line of `run --json` and `resume --json`", event_schema),
    "status": ("What `status --json` prints", lambda: form_schema(StatusForm)),
    "plan": ("What `plan --json` prints for one job", lambda: form_schema(PlanForm)),
}


def written(name: str) -> str:
    """Return the text of a schema as the code has it now."""
    title, make = _MADE[name]
    schema = {"$schema": _DIALECT, "title": title, **_shared(walk(make(), _without_noise))}
    return f"{_lines(schema)}\n"


def _lines(schema: dict[str, Any], depth: int = 0) -> str:
    """Return JSON with a line for each key of the schema, and for each name of its maps."""
    indent = " " * (depth + 1)
    rows = [
        f"{indent}{json.dumps(key)}: "
        + (_lines(one, 1) if depth == 0 and key in MAPS else json.dumps(one, ensure_ascii=False))
        for key, one in schema.items()
    ]
    return "{\n" + ",\n".join(rows) + f"\n{indent[1:]}}}"


def _without_noise(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without the title and the null by default that pydantic adds, and without empty lists."""
    noise = {"title", *(["default"] if schema.get("default", 0) is None else [])}
    return {key: one for key, one in schema.items() if key not in noise and (one != [] or key == "enum")}


def _shared(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose large parts are written once each, under `$defs`, if they occur several times."""
    counts: Counter[str] = Counter()
    definitions: dict[str, Any] = {}

    def count(part: dict[str, Any]) -> dict[str, Any]:
        counts[json.dumps(part)] += 1
        return part

    def share(part: dict[str, Any]) -> dict[str, Any]:
        form = json.dumps(part)
        if counts[form] < 2 or len(form) < _LARGE:
            return part
        name = next((name for name, one in definitions.items() if one == part), f"shared-{len(definitions) + 1}")
        definitions[name] = part
        return {"$ref": f"#/$defs/{name}"}

    before = None
    while before != len(definitions):  # what holds parts that are shared may be equal only now
        before = len(definitions)
        counts.clear()
        walk(schema, count)
        schema = walk(schema, share)
    return {**schema, "$defs": {**schema.get("$defs", {}), **definitions}}


if __name__ == "__main__":
    for name in SCHEMAS:
        schema_path(name).write_text(written(name), encoding="utf-8")
