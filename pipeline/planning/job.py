"""Job YAML → `Job`, its form checked; what is wrong names file, line and field, and the rest is read on."""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.config import yaml_document
from pipeline.config.provider import NAME
from pipeline.config.yaml_document import MAX_PROBLEMS
from pipeline.errors import JobError, Problem
from pipeline.models.table import known_parameters

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pipeline.config.yaml_document import Document, KeyPath

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


_NOT_EXTRA = {"prompt", "n", "image", "mask", "model", *REFUSED}
_OF_THE_JOB = ("name", "provider", "defaults", "budget_usd", "requests")
_RESERVED_NAMES = re.compile(r"ledger|run\.(?:lock|log)", re.IGNORECASE)  # files of the output folder begin so

_Written = str | int | float | bool
"""Text that YAML may take for a number or a flag; it counts as it is written."""


class _Parameters(BaseModel):
    """What a request and `defaults` have in common; a value that is text may hold {{ variables }}."""

    model_config = ConfigDict(extra="allow", strict=True, arbitrary_types_allowed=True)

    operation: str | None = None
    prompt: _Written | None = None
    image: Any = None
    mask: Any = None
    n: Annotated[int, Field(ge=1)] | str | None = None
    fit: str | None = None
    resize: str | None = None
    model: str | None = None
    extra: dict[str, Any] | None = None


class _Request(_Parameters):
    """One entry of `requests`."""

    id: _Written | None = None
    matrix: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)] | None = None
    rows: Annotated[str, Field(min_length=1)] | None = None


class _JobFile(BaseModel):
    """The whole of a job file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: _Written | None = None
    provider: str | None = None
    defaults: _Parameters | None = None
    budget_usd: Annotated[float, Field(ge=0)] | None = None
    requests: Annotated[list[_Request], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of `requests` with the job's defaults under it, still to be multiplied by its matrix and rows.

    `fields` is without what is null and what is `faulty`, that is wrong in form and named already.
    """

    index: int
    fields: Mapping[str, Any]
    own: frozenset[str]
    matrix: Mapping[str, list[Any]] | None
    rows: str | None
    faulty: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Job:
    """What should exist. `folder` is what the paths in it are relative to; `problems` are mistakes of form."""

    name: str
    provider: str | None
    folder: Path
    file: Path | None
    entries: tuple[Entry, ...]
    budget_usd: float | None
    document: Document
    problems: tuple[Problem, ...] = ()

    def location(self, entry: Entry, field: str | None = None) -> str:
        """Say where a field ("size", "mask.edit") of an entry stands in the file, be it its own or a default."""
        way = field.split(".") if field else []
        if way and way[0] not in entry.own and ("defaults", way[0]) in self.document.lines:
            return self.document.location("defaults", *way)
        return self.document.location("requests", entry.index, *way)


def read_job(path: Path) -> Job:
    """Read a job file. Raises JobError where it is no job at all; lesser mistakes are the job's `problems`."""
    return parse_job(yaml_document.read(path, JobError), file=path)


def parse_job(doc: Document, *, file: Path | None = None, folder: Path | None = None) -> Job:
    """Turn a document into a `Job`. Raises JobError where it is no mapping."""
    value = doc.value
    if not isinstance(value, dict):
        what = "a job is a mapping with `requests:`; see jobs/quickstart.yaml"
        raise JobError([*doc.problems, Problem(doc.location(), what)])
    faults = dict(itertools.islice(itertools.chain(_strange_keys(value), _wrong_forms(value)), MAX_PROBLEMS))
    name = _as_written(doc, value.get("name"), "name") if value.get("name") is not None else (file.stem if file else "")
    if not isinstance(name, str) or not NAME.fullmatch(name) or _RESERVED_NAMES.match(name):
        what = (
            f"`{name!s:.100}` cannot be a job's name: letters, digits, '.', '_', '-', at most 100, no dot in front, "
            "and not `ledger…`; write one as `name:`"
        )
        faults.setdefault(("name",), what)
    good = {key: item for key, item in value.items() if (key,) not in faults}
    home = folder or (file.parent if file else Path())
    return Job(
        name=str(name),
        provider=good.get("provider"),
        folder=home.absolute(),
        file=file and file.absolute(),
        entries=tuple(_entries(doc, value, frozenset(place[:3] for place in faults))),
        budget_usd=good.get("budget_usd"),
        document=doc,
        problems=(*doc.problems, *(Problem(doc.location(*place), what) for place, what in faults.items())),
    )


def _entries(doc: Document, value: Mapping[str, Any], faults: frozenset[KeyPath]) -> Iterator[Entry]:
    defaults = value.get("defaults")
    defaults = defaults if isinstance(defaults, dict) else {}
    requests = value.get("requests")
    wrong_defaults = {key for key in defaults if ("defaults", key) in _starts(faults)}
    for index, own in enumerate(requests if isinstance(requests, list) else []):
        if not isinstance(own, dict):
            continue
        merged = {**defaults, **own}
        if isinstance(defaults.get("extra"), dict) and isinstance(own.get("extra"), dict):
            merged["extra"] = {**defaults["extra"], **own["extra"]}
        faulty = {key for key in own if ("requests", index, key) in faults} | (wrong_defaults - own.keys())
        meant = {
            yaml_document.nearest(key, RESERVED) for key in faulty - RESERVED
        }  # what is misspelt is not missing besides
        faulty |= {key for key in meant if key and key not in merged}
        fields = {key: item for key, item in merged.items() if item is not None and key not in faulty}
        for key in fields.keys() & {"prompt", "id"}:
            place = ("requests", index, key) if key in own else ("defaults", key)
            fields[key] = _as_written(doc, fields[key], *place)
        matrix, rows = fields.pop("matrix", None), fields.pop("rows", None)
        yield Entry(index, fields, frozenset(own), matrix, rows, frozenset(faulty))


def _starts(faults: Iterable[KeyPath]) -> set[KeyPath]:
    return {place[:2] for place in faults}


def _as_written(doc: Document, value: Any, *place: str | int) -> Any:
    return value if isinstance(value, str) else doc.written.get(place, value)


def _strange_keys(value: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Find keys that nearly are ours, that a batch cannot serve, or that stand where they mean nothing."""
    requests = value.get("requests")
    mappings: list[tuple[KeyPath, Any]] = [(("defaults",), value.get("defaults"))]
    mappings += [
        (("requests", index), item) for index, item in enumerate(requests if isinstance(requests, list) else [])
    ]
    for place, mapping in mappings:
        for key in mapping if isinstance(mapping, dict) else ():
            if what := _strange(key, in_defaults=place == ("defaults",)):
                yield (*place, key), what
        extra = mapping.get("extra") if isinstance(mapping, dict) else None
        for key in extra if isinstance(extra, dict) else ():
            if key in REFUSED:
                yield (*place, "extra", key), f"`{key}` is not for batches: {REFUSED[key]}"
            elif key in _NOT_EXTRA:
                yield (*place, "extra", key), f"`{key}` is a key of the request itself; take it out of `extra`"


@functools.lru_cache(maxsize=4096)
def _strange(key: str, *, in_defaults: bool) -> str | None:
    if key in REFUSED:
        return f"`{key}` is not for batches: {REFUSED[key]}"
    if key in _OF_THE_JOB:
        return f"`{key}` belongs to the whole job, not here; a parameter of that name goes into `extra:`"
    if in_defaults and key in STRUCTURE:
        return f"`{key}` belongs to a single request, not to `defaults`"
    if key not in RESERVED | known_parameters() and (close := yaml_document.nearest(key, RESERVED)):
        return f"unknown key `{key}`; did you mean `{close}`? (if not, put it in `extra:`)"
    return None if key else "a key is empty"


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


def _wrong_forms(value: Any) -> Iterator[tuple[KeyPath, str]]:
    """Turn pydantic's findings into sentences about places in the file, one a place."""
    try:
        _JobFile.model_validate(value)
    except ValidationError as reason:
        seen: set[KeyPath] = set()
        for error in reason.errors(include_url=False):
            place = _place(error["loc"], value)
            if place in seen:
                continue
            seen.add(place)
            if error["type"] == "extra_forbidden":
                yield place, _unknown(str(place[-1]))
                continue
            sentence = _SENTENCES.get(error["type"], "{said}, not {input}")
            words = {"said": error["msg"], "input": _shown(error["input"]), **error.get("ctx", {})}
            yield place, sentence.format(**words)


def _unknown(key: str) -> str:
    if key in RESERVED and key not in STRUCTURE:
        return f"`{key}` says something of requests; put it under `defaults:` or into a request"
    return yaml_document.unknown_key_message(key, _OF_THE_JOB)


def _shown(value: Any) -> str:
    """Show a value as YAML has it, and not at length."""
    words = {True: "true", False: "false"}
    return words[value] if isinstance(value, bool) else "null" if value is None else f"{value!r:.60}"


def _place(loc: tuple[str | int, ...], value: Any) -> KeyPath:
    """Drop from pydantic's location the names of union members, which are no keys of the file."""
    place: list[str | int] = []
    for step in loc:
        inside = isinstance(value, dict) and (step in value or not place or step == "requests")
        if inside or (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            place.append(step)
            value = value.get(step) if isinstance(value, dict) else value[step]
    return tuple(place)
