"""Parse job YAML into a `Job`. Problems name file, line and field; the rest of the job is read all the same."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pipeline.config import yaml_document
from pipeline.config.provider import NAME
from pipeline.errors import JobError, Problem
from pipeline.models.rules import Operation
from pipeline.ordinary_file import open_ordinary
from pipeline.planning.job_schema import RESERVED, form_problems, is_ignored
from pipeline.planning.json_rows import STDIN, STDIN_NAME
from pipeline.planning.mode import mode_faults
from pipeline.storage import OUTPUT_FILES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipeline.config.yaml_document import Document, KeyPath
    from pipeline.planning.mode_names import Mode

OPERATIONS: tuple[Operation, ...] = get_args(Operation)

_OUTPUT_FILES = ("ledger", *OUTPUT_FILES)
_FIELDS = {"id": "custom_id", "operation": "url", "image": "body.images"}  # of an entry, in a line of a Batch file
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|\Z)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of `requests` merged over the job's defaults, before its rows, zipped lists and matrix are expanded.

    `fields` are without null values and without the keys in `invalid`, whose form is wrong and reported already. A rule
    of `exclude` has the values that each variable may have, since a number can be written in several ways.
    """

    index: int
    fields: Mapping[str, Any]
    own_keys: frozenset[str]
    matrix: Mapping[str, list[Any]] | None
    rows: str | None
    invalid: frozenset[str] = frozenset()
    zip: Mapping[str, list[Any]] | None = None
    exclude: tuple[Mapping[str, tuple[Any, ...]], ...] = ()
    sample: tuple[int, int] | None = None  # how many, and the seed
    is_dynamic: bool = False  # its prompt is expanded after its variables are in
    custom_id: str | None = None  # of a line of a Batch input file, whose text is no template
    references: Mapping[str, Any] = field(default_factory=dict)  # images that are not here, as the API takes them

    @property
    def rows_name(self) -> str | None:
        """What messages call the rows."""
        return STDIN_NAME if self.rows == STDIN else self.rows


@dataclass(frozen=True, slots=True)
class Job:
    """A parsed job. Its paths are relative to `folder`; `problems` are mistakes of form."""

    name: str
    provider: str | None
    folder: Path
    file: Path | None
    entries: tuple[Entry, ...]
    budget_usd: float | None
    document: Document
    mode: Mode | None = None
    deadline: str | None = None  # as it is written
    problems: tuple[Problem, ...] = ()
    is_batch_file: bool = False

    @property
    def reads_stdin(self) -> list[Entry]:
        """The entries whose rows are on standard input."""
        return [entry for entry in self.entries if entry.rows == STDIN]

    def is_default(self, entry: Entry, key: str) -> bool:
        """Return whether an entry has a field from the defaults, at a line of the file."""
        return not self.is_batch_file and key not in entry.own_keys and ("defaults", key) in self.document.lines

    def location(self, entry: Entry, key: str | None = None) -> str:
        """Return the location of a field ("size", "mask.edit") of an entry, which may be in the defaults."""
        if self.is_batch_file:
            line = self.document.lines["requests", entry.index]
            return ", ".join(
                [f"{self.document.file}, line {line}", *([_FIELDS.get(key, f"body.{key}")] if key else [])]
            )
        path = [int(step) if step.isdecimal() else step for step in key.split(".")] if key else []
        if path and self.is_default(entry, str(path[0])):
            return self.document.location("defaults", *path)
        return self.document.location("requests", entry.index, *path)


def read_job(path: Path) -> Job:
    """Read a job file. Raises JobError if it is not a job at all; other mistakes are the job's `problems`."""
    try:
        return parse_job(yaml_document.read(path, JobError), file=path)
    except JobError:
        if what := _other_content(path):
            raise JobError([Problem(str(path), what)]) from None
        raise


def _other_content(path: Path) -> str | None:
    """Return what a file is that is no job, None if it may be one with mistakes."""
    from pipeline.images.containers import detect_format

    try:
        with open_ordinary(path) as file:
            head = file.read(4096)
    except (OSError, ValueError):
        return None
    if detect_format(head) is not None:
        return "is an image, not a job file"
    suffix = path.suffix.lower()
    if suffix in {".csv", ".tsv", ".parquet"} or (suffix == ".txt" and b"requests:" not in head):
        return f"is a table: write a job with `rows: {path.name}`"
    return None


def parse_job(doc: Document, *, file: Path | None = None, folder: Path | None = None) -> Job:
    """Parse a document into a `Job`. Raises JobError if it is not a mapping."""
    value = doc.value
    if not isinstance(value, dict):
        message = "a job is a mapping with `requests:`; see jobs/quickstart.yaml"
        raise JobError([*doc.problems, Problem(doc.location(), message)])
    if "requests" not in value and "providers" in value:
        raise JobError([Problem(doc.file, "is a config, not a job; name a file with `requests:`")])
    problems = form_problems(value)
    name = _as_written(doc, value.get("name"), "name") if value.get("name") is not None else (file.stem if file else "")
    if fault := find_name_fault(name):
        problems.setdefault(("name",), f"{fault}; write another one as `name:`")
    mode, deadline = (_as_written(doc, value.get(key), key) for key in ("mode", "deadline"))
    for key, fault in mode_faults(mode, deadline):
        problems.setdefault((key,), fault)
    valid = {key: item for key, item in value.items() if (key,) not in problems}
    base = folder or (file.parent if file else Path())
    return Job(
        name=str(name),
        provider=valid.get("provider"),
        folder=base.absolute(),
        file=file and file.absolute(),
        entries=tuple(_entries(doc, value, frozenset(path[:3] for path in problems))),
        budget_usd=valid.get("budget_usd"),
        document=doc,
        mode=valid.get("mode"),
        deadline=valid.get("deadline"),
        problems=(*doc.problems, *(Problem(doc.location(*path), message) for path, message in problems.items())),
    )


def find_name_fault(name: object) -> str | None:
    """Return why a job cannot have a name, which is that of its folder and a word of the command line; else None."""
    what = f"`{name!s:.100}` cannot be a job's name: "
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return f"{what}letters, digits, '.', '_', '-', at most 100, not beginning with a dot"
    if name.startswith("-"):
        return f"{what}on the command line it is an option"
    if reserved := next((file for file in _OUTPUT_FILES if name.lower().startswith(file)), None):
        return f"{what}names that begin with `{reserved}` are of files of the output folder"
    return f"{what}it is a device of Windows" if _DEVICE.match(name) else None


def _entries(doc: Document, value: Mapping[str, Any], invalid_paths: frozenset[KeyPath]) -> Iterator[Entry]:
    defaults = value.get("defaults")
    defaults = defaults if isinstance(defaults, dict) else {}
    requests = value.get("requests")
    invalid_starts = {path[:2] for path in invalid_paths}
    invalid_defaults = {key for key in defaults if ("defaults", key) in invalid_starts}
    for index, own in enumerate(requests if isinstance(requests, list) else []):
        if not isinstance(own, dict):
            continue
        merged = {**defaults, **own}
        if isinstance(defaults.get("extra"), dict) and isinstance(own.get("extra"), dict):
            merged["extra"] = {**defaults["extra"], **own["extra"]}
        invalid = {key for key in own if ("requests", index, key) in invalid_paths} | (invalid_defaults - own.keys())
        # a misspelt key is not also reported as missing
        intended = {yaml_document.nearest(key, RESERVED) for key in invalid - RESERVED}
        invalid |= {key for key in intended if key and key not in merged}
        fields = {
            key: item for key, item in merged.items() if item is not None and key not in invalid and not is_ignored(key)
        }
        for key in fields.keys() & {"prompt", "id"}:
            path = ("requests", index, key) if key in own else ("defaults", key)
            fields[key] = _as_written(doc, fields[key], *path)
        matrix, rows, zipped = (fields.pop(key, None) for key in ("matrix", "rows", "zip"))
        exclude, sample = fields.pop("exclude", ()), fields.pop("sample", None)
        yield Entry(
            index=index,
            fields=fields,
            own_keys=frozenset(own),
            matrix=matrix,
            rows=rows,
            invalid=frozenset(invalid),
            zip=zipped,
            exclude=tuple(_rule(doc, rule, ("requests", index, "exclude", at)) for at, rule in enumerate(exclude)),
            sample=sample and (sample["n"], sample.get("seed", 0)),
            is_dynamic=fields.pop("prompts", None) is not None,
        )


def _rule(doc: Document, rule: Mapping[str, Any], path: KeyPath) -> dict[str, tuple[Any, ...]]:
    """Return the values of each variable that match a rule: the value itself, and a number as the file has it."""
    return {
        name: (value, doc.written[*path, name]) if (*path, name) in doc.written else (value,)
        for name, value in rule.items()
    }


def _as_written(doc: Document, value: Any, *path: str | int) -> Any:
    return value if isinstance(value, str) else doc.written.get(path, value)
