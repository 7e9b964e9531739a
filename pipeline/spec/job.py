"""Job YAML → `Job`, validated; errors name file, line and field."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import document
from pipeline.config import NAME
from pipeline.errors import JobError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.document import Document, Place

Operation = Literal["generation", "edit", "variation"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

STRUCTURE = frozenset({"id", "matrix", "rows"})
"""Keys that say how many requests an entry is and what they are called; they have no place in `defaults`."""

OURS = frozenset({*STRUCTURE, "operation", "prompt", "image", "mask", "n", "fit", "resize", "extra"})
"""Keys of a request that are ours; any other key is a parameter of the API call."""

RESERVED = OURS | {"model", "size", "quality", "response_format", "user"}
"""Words that mean one thing at every server: a key that nearly is one of them is a slip of the pen."""

REFUSED = {
    "stream": "a batch waits for the finished picture; leave it out",
    "partial_images": "a batch waits for the finished picture; leave it out",
}


class _Parameters(BaseModel):
    """What a request and `defaults` have in common; a value that is text may hold {{ variables }}."""

    model_config = ConfigDict(extra="allow", strict=True, arbitrary_types_allowed=True)

    operation: str | None = None
    prompt: str | int | float | None = None
    image: Any = None
    mask: Any = None
    n: Annotated[int, Field(ge=1)] | str | None = None
    fit: str | None = None
    resize: str | None = None
    model: str | None = None
    extra: dict[str, Any] | None = None


class _Request(_Parameters):
    """One entry of `requests`."""

    id: str | int | None = None
    matrix: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)] | None = None
    rows: Annotated[str, Field(min_length=1)] | None = None


class _JobFile(BaseModel):
    """The whole of a job file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str | int | None = None
    provider: str | None = None
    defaults: _Parameters | None = None
    budget_usd: Annotated[float, Field(ge=0)] | None = None
    requests: Annotated[list[_Request], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of `requests` with the job's defaults under it, still to be multiplied by its matrix and rows."""

    index: int
    fields: Mapping[str, Any]
    own: frozenset[str]
    matrix: Mapping[str, list[Any]] | None
    rows: str | None


@dataclass(frozen=True, slots=True)
class Job:
    """What should exist. `folder` is what the paths in it are relative to."""

    name: str
    provider: str | None
    folder: Path
    file: Path | None
    entries: tuple[Entry, ...]
    budget_usd: float | None
    document: Document

    def where(self, entry: Entry, field: str | None = None) -> str:
        """Say where a field of an entry stands in the file, be it the entry's own or a default."""
        if field is None:
            return self.document.where("requests", entry.index)
        if field not in entry.own and ("defaults", field) in self.document.lines:
            return self.document.where("defaults", field)
        return self.document.where("requests", entry.index, field)


def read_job(path: Path) -> Job:
    """Read a job file. Raises JobError that names every mistake in its form."""
    return parse_job(document.read(path, JobError), file=path)


def parse_job(doc: Document, *, file: Path | None = None, folder: Path | None = None) -> Job:
    """Turn a document into a `Job`. Raises JobError that names every mistake in its form."""
    if not isinstance(doc.value, dict):
        raise JobError([Problem(doc.file, "a job is a mapping with `requests:`; see jobs/quickstart.yaml")])
    problems = [Problem(doc.where(*place), what) for place, what in _strange_keys(doc.value)]
    try:
        read = _JobFile.model_validate(doc.value)
    except ValidationError as reason:
        problems += [Problem(doc.where(*place), what) for place, what in _sentences(reason, doc.value)]
        raise JobError(problems) from None
    name = str(read.name) if read.name is not None else (file.stem if file else "")
    if not NAME.fullmatch(name) or name.lower().startswith("ledger"):
        what = (
            f"`{name}` cannot be a job's name: letters, digits, '.', '_', '-', at most 100, no dot in front, "
            "and not `ledger…`; write one as `name:`"
        )
        problems.append(Problem(doc.where("name"), what))
    if problems:
        raise JobError(problems)
    defaults = doc.value.get("defaults") or {}
    entries = tuple(_entry(index, fields, defaults) for index, fields in enumerate(doc.value["requests"]))
    home = folder or (file.parent if file else Path())
    return Job(name, read.provider, home.absolute(), file and file.absolute(), entries, read.budget_usd, doc)


def _entry(index: int, fields: dict[str, Any], defaults: dict[str, Any]) -> Entry:
    merged = {**defaults, **fields}
    if isinstance(defaults.get("extra"), dict) and isinstance(fields.get("extra"), dict):
        merged["extra"] = {**defaults["extra"], **fields["extra"]}
    matrix, rows = merged.pop("matrix", None), merged.pop("rows", None)
    present = {key: value for key, value in merged.items() if value is not None}
    return Entry(index, present, frozenset(fields), matrix, rows)


def _strange_keys(value: dict[str, Any]) -> list[tuple[Place, str]]:
    """Find keys that nearly are ours, that a batch cannot serve, or that stand where they mean nothing."""
    found: list[tuple[Place, str]] = []
    requests = value.get("requests")
    mappings: list[tuple[Place, Any]] = [(("defaults",), value.get("defaults"))]
    mappings += [
        (("requests", index), item) for index, item in enumerate(requests if isinstance(requests, list) else [])
    ]
    for place, mapping in mappings:
        for key in mapping if isinstance(mapping, dict) else ():
            if key in REFUSED:
                found.append(((*place, key), f"`{key}` is not for batches: {REFUSED[key]}"))
            elif place == ("defaults",) and key in STRUCTURE:
                found.append(((*place, key), f"`{key}` belongs to a single request, not to `defaults`"))
            elif key not in RESERVED and (close := document.nearest(key, RESERVED)):
                found.append(
                    ((*place, key), f"unknown key `{key}`; did you mean `{close}`? (if not, put it in `extra:`)")
                )
    return found


_JOB_KEYS = tuple(_JobFile.model_fields)
_SENTENCES = {
    "missing": "is missing; a job needs `requests:` with at least one request",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "greater_than_equal": "must be at least {ge}, not {input}",
    "list_type": "must be a list, not {input}",
    "dict_type": "must be a mapping, not {input}",
    "model_type": "must be a mapping, not {input}",
    "string_type": "must be text, not {input}; put it in quotes",
    "float_type": "must be a number, not {input}",
    "int_type": "must be a whole number, not {input}",
}


def _sentences(reason: ValidationError, value: Any) -> list[tuple[Place, str]]:
    """Turn pydantic's findings into sentences about places in the file, one a place."""
    found: dict[Place, str] = {}
    for error in reason.errors(include_url=False):
        place = _place(error["loc"], value)
        if error["type"] == "extra_forbidden":
            found[place] = document.unknown_key(str(place[-1]), _JOB_KEYS)
            continue
        sentence = _SENTENCES.get(error["type"], error["msg"])
        shown = repr(error["input"])
        found.setdefault(place, sentence.format(input=shown[:60], **error.get("ctx", {})))
    return list(found.items())


def _place(loc: tuple[str | int, ...], value: Any) -> Place:
    """Drop from pydantic's location the names of union members, which are no keys of the file."""
    place: list[str | int] = []
    for step in loc:
        inside = isinstance(value, dict) and (step in value or not place or step == "requests")
        if inside or (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            place.append(step)
            value = value.get(step) if isinstance(value, dict) else value[step]
    return tuple(place)
