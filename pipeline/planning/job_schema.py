"""Check the form of a job: keys and types. Every problem is returned with its key path in the file."""

from __future__ import annotations

import functools
import itertools
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.config import yaml_document
from pipeline.config.validation import MAX_NUMBER
from pipeline.models.table import known_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.config.yaml_document import KeyPath

ENTRY_KEYS = frozenset({"id", "matrix", "rows", "zip", "exclude", "sample", "prompts"})
"""Keys that decide how many requests an entry makes and what they are called; they are not allowed in `defaults`."""

REQUEST_KEYS = frozenset({*ENTRY_KEYS, "operation", "prompt", "image", "mask", "n", "fit", "resize", "extra"})
"""Keys of a request that the planner reads; any other key is a parameter of the API call."""

RESERVED = REQUEST_KEYS | {"model", "size", "quality", "response_format", "user"}
"""Keys with the same meaning at every server: a key that is close to one of them is a typing mistake."""

UNSUPPORTED = {
    "stream": "a batch waits for the finished image; leave it out",
    "partial_images": "a batch waits for the finished image; leave it out",
}

NO_MISTAKES = frozenset({"sampler", "samples"})
"""Parameters of other servers whose names are close to a key of a request."""

NOT_IN_EXTRA = {"prompt", "n", "image", "mask", "model", *UNSUPPORTED}
JOB_KEYS = ("name", "provider", "mode", "deadline", "defaults", "budget_usd", "requests")

MAX_KEY_PROBLEMS = 1000
"""Problems of keys that are looked for: the closest known key of each takes a while to find."""

_Scalar = str | int | float | bool
"""Text that YAML may parse as a number or a flag; it counts as it is written."""


class _Parameters(BaseModel):
    """The keys that a request and `defaults` have in common; text may contain {{ variables }}."""

    model_config = ConfigDict(extra="allow", strict=True, arbitrary_types_allowed=True)

    operation: str | None = None
    prompt: _Scalar | None = None
    image: Any = None
    mask: Any = None
    n: Annotated[int, Field(ge=1)] | str | None = None
    fit: str | None = None
    resize: str | None = None
    model: str | None = None
    extra: dict[str, Any] | None = None


class _Sample(BaseModel):
    """How many of an entry's combinations are made, and the seed that chooses them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    n: Annotated[int, Field(ge=1, description="How many; all if there are fewer.")]
    seed: Annotated[int, Field(description="Another seed chooses others.")] = 0


_Lists = Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
_Rule = Annotated[dict[str, _Scalar | None], Field(min_length=1)]


class _Request(_Parameters):
    """One entry of `requests`."""

    id: _Scalar | None = None
    matrix: Annotated[_Lists | None, Field(description="Lists of values: one request for each combination.")] = None
    rows: Annotated[str, Field(min_length=1)] | None = None
    zip: Annotated[
        _Lists | None, Field(description="Lists of one length, whose values go together: one request for each place.")
    ] = None
    exclude: Annotated[
        Annotated[list[_Rule], Field(min_length=1)] | None,
        Field(description="Combinations that are not made: those whose variables have all values of a rule, as text."),
    ] = None
    sample: Annotated[
        _Sample | None, Field(description="Only so many combinations, chosen by a hash of the seed and the variables.")
    ] = None
    prompts: Annotated[
        Literal["dynamic"] | None,
        Field(description="`dynamic`: the prompt has `{a|b}` and `__wildcard__`, of which each request gets one."),
    ] = None


class JobForm(BaseModel):
    """The whole of a job file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: _Scalar | None = None
    provider: str | None = None
    mode: Any = None  # checked with `deadline`, as they are written
    deadline: Any = None
    defaults: _Parameters | None = None
    budget_usd: Annotated[float, Field(ge=0, le=MAX_NUMBER)] | None = None
    requests: Annotated[list[_Request], Field(min_length=1)]


_MESSAGES = {
    "missing": "is missing; a job needs `requests:` with at least one request",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "greater_than_equal": "must be at least {ge}, not {input}",
    "less_than_equal": "must be at most {le:,}, not {input}",
    "list_type": "must be a list, not {input}",
    "dict_type": "must be a mapping, not {input}",
    "model_type": "must be a mapping, not {input}",
    "string_type": "must be text, not {input}",
    "float_type": "must be a number, not {input}",
    "int_type": "must be a whole number, not {input}",
}


def form_problems(value: dict[str, Any]) -> dict[KeyPath, str]:
    """Return the problems of a job's keys and types, one for each key path."""
    value = {key: item for key, item in value.items() if not is_ignored(key)}
    keys = _key_problems(value)
    found = dict(itertools.islice(keys, MAX_KEY_PROBLEMS))
    if next(keys, None) is not None:
        found[()] = f"has more than {MAX_KEY_PROBLEMS:,} keys that are unknown or in the wrong place"
    return {**found, **dict(_type_problems(value))}


def is_ignored(key: str) -> bool:
    """Whether a key, of the job, of `defaults` or of a request, is only a home of YAML anchors."""
    return key.startswith("x-")


def _key_problems(value: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Find keys that are misspelt, that a batch does not support, or that are in the wrong place."""
    requests = value.get("requests")
    mappings: list[tuple[KeyPath, Any]] = [(("defaults",), value.get("defaults"))]
    mappings += [
        (("requests", index), item) for index, item in enumerate(requests if isinstance(requests, list) else [])
    ]
    for path, mapping in mappings:
        for key in mapping if isinstance(mapping, dict) else ():
            if message := _key_problem(key, in_defaults=path == ("defaults",)):
                yield (*path, key), message
        extra = mapping.get("extra") if isinstance(mapping, dict) else None
        for key in extra if isinstance(extra, dict) else ():
            if key in UNSUPPORTED:
                yield (*path, "extra", key), f"`{key}` is not for batches: {UNSUPPORTED[key]}"
            elif key in NOT_IN_EXTRA:
                yield (*path, "extra", key), f"`{key}` is a key of the request itself; take it out of `extra`"


@functools.lru_cache(maxsize=4096)
def _key_problem(key: str, *, in_defaults: bool) -> str | None:
    if is_ignored(key):
        return None
    if key in UNSUPPORTED:
        return f"`{key}` is not for batches: {UNSUPPORTED[key]}"
    if key in JOB_KEYS:
        return f"`{key}` is a key of the whole job, not of a request; a parameter of that name goes into `extra:`"
    if in_defaults and key in ENTRY_KEYS:
        return f"`{key}` is a key of a single request, not of `defaults`"
    if key not in RESERVED | NO_MISTAKES | known_parameters() and (close := yaml_document.nearest(key, RESERVED)):
        return f"unknown key `{key}`; did you mean `{close}`? (if not, put it in `extra:`)"
    if re.search(r"\s", key):
        return f"`{key:.60}` is not a key: text with a colon, or with a comma in {{ }}, needs quotes"
    return None if key else "a key is empty"


def _type_problems(value: Any) -> Iterator[tuple[KeyPath, str]]:
    """Validate the job with pydantic; yield a message for each key path."""
    try:
        JobForm.model_validate(value)
    except ValidationError as reason:
        seen: set[KeyPath] = set()
        for error in reason.errors(include_url=False):
            path = _key_path(error["loc"], value)
            if path in seen:
                continue
            seen.add(path)
            if special := _special_message(error["type"], path, str(error["loc"][-1])):
                yield path, special
                continue
            message = _MESSAGES.get(error["type"], "{reason}, not {input}")
            values = {"reason": error["msg"], "input": _as_yaml(error["input"]), **error.get("ctx", {})}
            yield path, message.format(**values) + _what_to_write(error["type"], path, error["input"])


def _special_message(kind: str, path: KeyPath, key: str) -> str | None:
    """Return the message of a mistake that depends on the place, None for any other."""
    field = path[2] if len(path) > 2 else None
    if field == "exclude" and len(path) == 5:
        return "must be one value, not a list or a mapping; write one rule for each value"
    if field == "sample" and kind == "extra_forbidden":
        return yaml_document.unknown_key_message(key, _Sample.model_fields)
    if field == "sample" and kind == "missing":
        return "needs `n`, how many are made: write `sample: {n: 12}`"
    if field == "prompts":
        return "must be `dynamic`, or left out; the text of a request is its `prompt`"
    return _unknown_job_key(key) if kind == "extra_forbidden" else None


def _what_to_write(kind: str, path: KeyPath, value: Any) -> str:
    """Return what to write instead of a value of another type, for the end of a message."""
    if path == ("requests",) and kind == "list_type":
        return ": begin each request with `- `, as in `- prompt: a cat`"
    if path[0] == "requests" and len(path) == 2 and isinstance(value, str):
        if re.match(r"[a-z_]+:\S", value):
            return ": write a space behind the colon"
        return f": write `prompt: {value:.60}`"
    if kind != "string_type":
        return ""
    if path[0] == "requests" and isinstance(value, list):
        return f": for a request of each, write `{path[-1]}: '{{{{ {path[-1]} }}}}'` and put the list under `matrix:`"
    return "; write it like 512x512" if path[-1] == "resize" else "; put it in quotes"


def _unknown_job_key(key: str) -> str:
    if key in RESERVED and key not in ENTRY_KEYS:
        return f"`{key}` is a key of requests; put it under `defaults:` or into a request"
    return yaml_document.unknown_key_message(key, JOB_KEYS)


def _as_yaml(value: Any) -> str:
    """Format a value as in YAML, cut after 60 characters."""
    words = {True: "true", False: "false"}
    return words[value] if isinstance(value, bool) else "null" if value is None else f"{value!r:.60}"


def _key_path(loc: tuple[str | int, ...], value: Any) -> KeyPath:
    """Return pydantic's location without the names of union members, which are not keys of the file."""
    path: list[str | int] = []
    for step in loc:
        is_key = isinstance(value, dict) and (step in value or not path or step == "requests")
        if is_key or (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            path.append(step)
            value = value.get(step) if isinstance(value, dict) else value[step]
    return tuple(path)
