"""`Job` → `ImageRequest`s, each with its content key; every mistake is found here, before anything is called."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from pipeline.config import NAME
from pipeline.errors import JobError, PictureError, Problem
from pipeline.spec.job import OPERATIONS
from pipeline.spec.models import convert, unknown_demands
from pipeline.spec.rows import combinations, read_rows
from pipeline.spec.templates import render

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.config import Provider
    from pipeline.spec.inputs import Inputs, PreparedInput, Recipe
    from pipeline.spec.job import Entry, Job
    from pipeline.spec.models import Model, Models

MOST_REQUESTS = 1_000_000
MOST_PROBLEMS = 100

_UNKNOWN_MODEL_N = 10  # images of one call where the model's own limit is not known
_OURS = frozenset({"operation", "prompt", "image", "mask", "n", "fit", "resize", "extra", "id"})
_CONTENT_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif"}


@dataclass(frozen=True, slots=True)
class InputFile:
    """A picture that goes along with a request. `file` is relative to the job's folder; width and height in pixels."""

    role: str
    source: str
    file: str
    sha256: str
    content_type: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One thing that should exist: `n` images of one prompt. `params` are what the call carries beside prompt and n."""

    key: str
    id: str
    operation: str
    prompt: str | None
    params: Mapping[str, Any]
    n: int
    variables: Mapping[str, Any]
    inputs: tuple[InputFile, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job asks for, checked and in order. `name` is the job's name in the ledger."""

    name: str
    provider: Provider
    file: Path | None
    budget_usd: float | None
    requests: Sequence[ImageRequest]
    warnings: tuple[str, ...]
    unpriced: tuple[str, ...]  # models without a price

    @property
    def images(self) -> int:
        """Images that should exist in the end."""
        return sum(request.n for request in self.requests)


def make_plan(
    job: Job,
    provider: Provider,
    models: Models,
    *,
    name: str | None = None,
    limit: int | None = None,
    allow_large: bool = False,
    spool: Path | None = None,
) -> Plan:
    """Expand and check a job, up to its first `limit` requests. Raises JobError with everything that is wrong.

    Prepared input pictures are kept below `spool`, under their `file`, where one is given.
    """
    planner = _Planner(job, provider, models, spool)
    most = min(limit or MOST_REQUESTS + 1, MOST_REQUESTS + 1) if not allow_large else limit
    requests = list(itertools.islice(planner.requests(), most))
    if planner.problems:
        raise JobError(planner.problems)
    if len(requests) > MOST_REQUESTS and not allow_large:
        what = f"makes more than {MOST_REQUESTS:,} requests; if that is meant, add --allow-large"
        raise JobError([Problem(job.document.file, what)])
    planner.tell_apart(requests)
    if planner.problems:
        raise JobError(planner.problems)
    return Plan(
        name=name or job.name,
        provider=provider,
        file=job.file,
        budget_usd=job.budget_usd,
        requests=requests,
        warnings=tuple(planner.warnings),
        unpriced=tuple(sorted(planner.unpriced)),
    )


@dataclass(slots=True)
class _Planner:
    """The expansion of one job. Problems and warnings are kept in the order they are met, each once."""

    job: Job
    provider: Provider
    models: Models
    spool: Path | None
    problems: dict[Problem, None] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)
    unpriced: set[str] = field(default_factory=set)
    _occurrences: Counter[bytes] = field(default_factory=Counter)
    _params: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # equal ones are kept once
    _given: dict[str, str] = field(default_factory=dict)  # key → where, of requests whose id the job gives
    _inputs: Inputs | None = None
    _today: date = field(default_factory=lambda: datetime.now(UTC).date())

    def requests(self) -> Iterator[ImageRequest]:
        """Yield the requests in the order of the job; what is wrong is noted and left out."""
        for entry in self.job.entries:
            try:
                for row, variables in self._variables(entry):
                    if len(self.problems) >= MOST_PROBLEMS:
                        self._wrong(self.job.document.file, "there may be more; these come first")
                        return
                    yield from self._expand(entry, row, variables)
            except JobError as error:
                self.problems.update(dict.fromkeys(error.problems))

    def tell_apart(self, requests: list[ImageRequest]) -> None:
        """Lengthen ids that we made and that collide; name those that the job gave twice."""
        seen: dict[str, int] = {}
        for index, request in enumerate(requests):
            first = seen.setdefault(request.id.lower(), index)
            if first == index:
                continue
            for one in (first, index):
                if requests[one].key not in self._given:
                    slug = requests[one].id.rpartition("-")[0]
                    requests[one] = dataclasses.replace(requests[one], id=f"{slug}-{requests[one].key[:16]}")
            if requests[first].id.lower() == request.id.lower():
                other = self._given.get(requests[first].key, "another request")
                where = self._given.get(request.key, self.job.document.file)
                self._wrong(where, f"id `{request.id}` is also that of {other}; ids are unique, without regard to case")

    def _variables(self, entry: Entry) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (where it stands, variables) for each request that the entry makes: rows times matrix."""
        axes = list(combinations(entry.matrix)) if entry.matrix else [{}]
        if entry.rows is None:
            yield from (("", axis) for axis in axes)
            return
        for line, row in read_rows(self.job.folder / entry.rows, entry.rows):
            for axis in axes:
                yield f"{entry.rows}, line {line}", {**row, **axis}

    def _expand(self, entry: Entry, row: str, variables: dict[str, Any]) -> Iterator[ImageRequest]:
        before = len(self.problems)
        model = self._model(entry, variables)
        filled = {key: self._fill(entry, row, key, raw, variables, model) for key, raw in entry.fields.items()}
        fields = {key: value for key, value in filled.items() if value is not None}
        operation = fields.get("operation", "generation")
        if operation not in OPERATIONS:
            self._wrong_field(entry, row, "operation", f"`{operation}` is none; there are {', '.join(OPERATIONS)}")
        n = fields.get("n", 1)
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            self._wrong_field(entry, row, "n", f"must be a whole number of at least 1, not {n!r}")
        prompt = None if fields.get("prompt") is None else str(fields["prompt"])
        params = {key: value for key, value in fields.items() if key not in _OURS}
        recipe, images = self._pictures(entry, row, fields)
        masked = recipe is not None and recipe.masks
        if model is not None:
            for complaint in model.check(operation, prompt, params, len(images), masked):
                self._wrong_field(entry, row, complaint.field, complaint.what)
        else:
            self._check_unknown(entry, row, operation, prompt, len(images))
        extra = fields.get("extra") or {}
        shared = self._shared({**params, **extra})
        if len(self.problems) > before:
            return
        prepared, sources = self._prepare(entry, row, recipe, images, model, operation)
        if len(self.problems) > before:
            return
        content = {
            "operation": operation,
            "provider": self.provider.name,
            "prompt": prompt,
            "params": shared,
            "inputs": sources,
        }
        try:
            yield from self._parts(entry, row, content, fields.get("id"), n, model, variables, prepared)
        except UnicodeEncodeError:
            self._wrong_field(entry, row, "prompt", "holds half a character (a lone surrogate); mend its encoding")

    def _parts(
        self,
        entry: Entry,
        row: str,
        content: dict[str, Any],
        given: Any,
        n: int,
        model: Model | None,
        variables: dict[str, Any],
        prepared: tuple[InputFile, ...],
    ) -> Iterator[ImageRequest]:
        """Split `n` into parts of what the model makes in one call; each part is a request with a key of its own."""
        operation, prompt, params = content["operation"], content["prompt"], content["params"]
        most = model.max_n(operation, params) if model else _UNKNOWN_MODEL_N
        base = hashlib.sha256(_canonical(content)).digest()[:16]
        self._occurrences[base] += 1
        for part, start in enumerate(range(0, n, most), 1):
            identity = {**content, "part": part, "occurrence": self._occurrences[base]}
            key = hashlib.sha256(_canonical(identity)).hexdigest()
            name = self._id(entry, row, given, part) if given is not None else f"{_slug(prompt, prepared)}-{key[:8]}"
            if given is not None:
                self._given[key] = self._where(entry, row, "id")
            yield ImageRequest(key, name, operation, prompt, params, min(most, n - start), variables, prepared)

    def _id(self, entry: Entry, row: str, given: Any, part: int) -> str:
        name = str(given) if part == 1 else f"{given}.{part}"
        if not NAME.fullmatch(name):
            rule = "letters, digits, '.', '_', '-', no dot in front, at most 100 characters"
            self._wrong_field(entry, row, "id", f"`{name[:120]}` cannot name files: {rule}")
        return name

    def _fill(self, entry: Entry, row: str, key: str, raw: Any, variables: dict[str, Any], model: Model | None) -> Any:
        """Fill a field's variables in. None leaves the field out, as an empty cell does."""
        try:
            value = render(raw, variables)
        except ValueError as reason:
            self._wrong_field(entry, row, key, str(reason))
            return None
        if isinstance(value, str) and value is not raw and key not in {"prompt", "id"}:
            value = value.strip()
            if not value:
                return None
            if key == "n":
                return int(value) if re.fullmatch(r"[0-9]{1,9}", value) else value
            if key not in _OURS:
                return model.convert(key, value) if model else convert(key, value)
        return value

    def _model(self, entry: Entry, variables: dict[str, Any]) -> Model | None:
        """Find the model in the table, and warn once of what is to be known about it."""
        try:
            name = render(entry.fields.get("model"), variables)
        except ValueError:
            return None  # named when the field is filled
        if name is None or name == "":
            what = "no `model` is given: the server chooses one, and nothing can be checked or priced before"
            self.warnings[what] = None
            self.unpriced.add("(none)")
            return None
        model = self.models.find(str(name))
        if model is None:
            self.warnings[self.models.warn_unknown(str(name))] = None
            self.unpriced.add(str(name))
        elif self.provider.sandbox is None:
            self.warnings.update(dict.fromkeys(model.warnings(self._today)))
        if model is not None and model.prices is None:
            self.unpriced.add(str(name))
        return model

    def _check_unknown(self, entry: Entry, row: str, operation: str, prompt: str | None, images: int) -> None:
        """Check what holds for every model."""
        if operation != "variation" and not prompt:
            self._wrong_field(entry, row, "prompt", "is missing or empty; say what the picture should show")
        if operation in {"edit", "variation"} and not images:
            self._wrong_field(entry, row, "image", f"is missing; `{operation}` starts from a picture")
        if operation == "generation" and images:
            self._wrong_field(entry, row, "image", "is not for a generation; write `operation: edit`")

    def _pictures(self, entry: Entry, row: str, fields: Mapping[str, Any]) -> tuple[Recipe | None, list[Any]]:
        """Read what a request says of its pictures; nothing is opened yet."""
        if not any(key in fields for key in ("image", "mask", "fit", "resize")):
            return None, []
        from pipeline.spec.inputs import Source, parse_recipe

        given = fields.get("image")
        values = given if isinstance(given, list) else [] if given is None else [given]
        sources = []
        for value in values:
            try:
                sources.append(Source.of(value, folder=self.job.folder))
            except PictureError as error:
                for problem in error.problems:
                    self._wrong_field(entry, row, "image", str(problem))
        recipe, complaints = parse_recipe(fields.get("fit"), fields.get("resize"), fields.get("mask"), self.job.folder)
        for complaint in complaints:
            self._wrong_field(entry, row, complaint.field, complaint.what)
        return recipe, sources

    def _prepare(
        self, entry: Entry, row: str, recipe: Recipe | None, images: list[Any], model: Model | None, operation: str
    ) -> tuple[tuple[InputFile, ...], list[Any]]:
        """Make the pictures ready; give them, and what of them enters the content key."""
        if recipe is None or not images:
            return (), []
        from pipeline.spec.inputs import Inputs

        self._inputs = self._inputs or Inputs()
        demands = model.demands(operation) if model else unknown_demands()
        try:
            prepared = self._inputs.prepare(images, recipe, demands, model.name if model else None)
            sources = [*(one.source_sha256 for one in prepared if one.role == "image"), recipe.canonical()]
        except PictureError as error:
            for problem in error.problems:
                self._wrong_field(entry, row, "image", str(problem))
            return (), []
        if self.spool is not None:
            self._inputs.store(self.spool, prepared)
        return tuple(_input_file(one) for one in prepared), sources

    def _shared(self, params: dict[str, Any]) -> Mapping[str, Any]:
        """Give one mapping for all equal parameters, so that a hundred thousand requests do not hold as many."""
        return self._params.setdefault(json.dumps(params, default=str), params)

    def _where(self, entry: Entry, row: str, key: str) -> str:
        where = self.job.where(entry, key)
        return f"{where} ({row})" if row else where

    def _wrong_field(self, entry: Entry, row: str, key: str, what: str) -> None:
        self._wrong(self._where(entry, row, key), what)

    def _wrong(self, where: str, what: str) -> None:
        self.problems[Problem(where, what)] = None


def _input_file(prepared: PreparedInput) -> InputFile:
    kind = _CONTENT_TYPES.get(prepared.format, f"image/{prepared.format}")
    return InputFile(
        prepared.role, prepared.source, prepared.file, prepared.sha256, kind, prepared.width, prepared.height
    )


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _slug(prompt: str | None, inputs: tuple[InputFile, ...]) -> str:
    stem = re.sub(r"\.[^.]*$", "", re.split(r"[/\\]", inputs[0].source)[-1]) if inputs else ""
    return _words(prompt or "") or _words(stem) or "image"


def _words(text: str) -> str:
    ascii_text = unicodedata.normalize("NFKD", text[:400]).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")[:40].strip("-")
