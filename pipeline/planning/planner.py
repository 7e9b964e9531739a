"""Turn a job into a `Plan`: expand, validate and identify its requests; every problem is found before any call."""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.config.validation import MAX_NUMBER
from pipeline.errors import JobError
from pipeline.models.prices import price_key
from pipeline.planning import identity
from pipeline.planning.batch_warnings import batch_warnings
from pipeline.planning.diagnostics import Diagnostics
from pipeline.planning.dynamic_prompts import DynamicPrompts
from pipeline.planning.expand import PLANNER_FIELDS, Expansion
from pipeline.planning.ids import RequestIds
from pipeline.planning.input_files import InputFile, InputImages
from pipeline.planning.job import OPERATIONS
from pipeline.planning.mode import ServiceMode
from pipeline.planning.plan import ImageRequest, Plan
from pipeline.planning.validate import RequestValidator, SharedParams

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.config.load import Provider
    from pipeline.models.prices import PriceKey
    from pipeline.models.table import Models
    from pipeline.planning.diagnostics import ExpandedRequest
    from pipeline.planning.job import Job

MAX_REQUESTS = 1_000_000

VARIATION_PROMPT = "A variation of this picture: the same subject, style and colours in a new composition."
"""The prompt of an edit that replaces a variation without a prompt. A part of the content key: it never changes."""

_DIGITS = re.compile(r"[1-9][0-9]{0,8}")
_UNKNOWN_MODEL_N = 10  # images of one call if the model's own limit is not known


def make_plan(
    job: Job,
    provider: Provider,
    models: Models,
    *,
    name: str | None = None,
    limit: int | None = None,
    allow_large: bool = False,
    staging: Path | None = None,
    service: ServiceMode = ServiceMode(),
    members: Sequence[Member] = (),
    other_names: Sequence[str] = (),
    config_folder: Path | None = None,
) -> Plan:
    """Expand and validate a job, up to its first `limit` requests. Raises JobError with every problem.

    `members` are those of a route, and `other_names` those under which the ledger may know the job's requests. If
    `staging` is given, prepared input images are written below it, under their `file`. Wildcard files are beside the
    job, or else in `config_folder`.
    """
    max_requests = None if allow_large or limit is not None else MAX_REQUESTS
    serving = tuple(members) or (Member(provider, models),)
    diagnostics = Diagnostics(job)
    planner = _Planner(
        Expansion(job, models, diagnostics, max_requests, DynamicPrompts.beside(job.folder, config_folder)),
        (provider.name, *other_names),
        diagnostics,
        RequestValidator(provider, models, diagnostics, service.mode, [member.provider for member in serving]),
        InputImages(diagnostics, staging),
        RequestIds(diagnostics),
        _HighestCosts(serving),
    )
    requests = planner.plan(limit, allow_large=allow_large)
    if diagnostics.found:
        raise JobError(diagnostics.all_problems())
    diagnostics.warnings.update(dict.fromkeys(batch_warnings(requests, provider, models, service, time.time())))
    return Plan(
        name=name or job.name,
        provider=provider,
        file=job.file,
        budget_usd=job.budget_usd,
        requests=requests,
        warnings=diagnostics.all_warnings(),
        unpriced=tuple(sorted(diagnostics.unpriced)),
        is_part=limit is not None,
        mode=service.mode,
        deadline=service.deadline,
        members=tuple(member.provider for member in members),
        reads_stdin=bool(job.reads_stdin),
    )


@dataclass(frozen=True, slots=True)
class Member:
    """A provider that may serve a job, with the table of models that holds there."""

    provider: Provider
    models: Models


@dataclass(slots=True)
class _ResolvedRequest:
    """The resolved values of one expanded request, before it is split into parts of at most `max_n` images."""

    operation: str
    served_by: str
    prompt: str | None
    params: Mapping[str, Any]
    n: int
    max_n: int
    inputs: tuple[InputFile, ...]
    contents: Sequence[str]  # under each of the names that it may have in the ledger
    occurrence: int  # among equal requests


@dataclass(slots=True)
class _HighestCosts:
    """What requests cost at the provider that costs most; what is estimated alike is estimated once."""

    serving: tuple[Member, ...]
    _known: dict[PriceKey, float | None] = field(default_factory=dict)

    def of(self, resolved: _ResolvedRequest, n: int) -> float | None:
        """Return the highest cost of `n` images; None if one of the providers has no price."""
        sizes = [(file.width, file.height) for file in resolved.inputs if file.role == "image"]
        key = price_key(resolved.served_by, resolved.prompt, resolved.params, n, len(sizes))
        if key not in self._known:
            self._known[key] = self._highest(resolved, n, sizes)
        return self._known[key]

    def _highest(self, resolved: _ResolvedRequest, n: int, sizes: Sequence[tuple[int, int]]) -> float | None:
        costs = []
        for member in self.serving:
            own = member.models.find(resolved.params.get("model"))
            if own is not None and member.provider.serves(resolved.params.get("model"), resolved.served_by):
                costs.append(own.estimate(resolved.served_by, resolved.prompt, resolved.params, n, sizes).usd)
        known = [usd for usd in costs if usd is not None]
        return max(known) if known and len(known) == len(costs) else None


@dataclass(slots=True)
class _Planner:
    """Makes the requests of one job."""

    expansion: Expansion
    names: tuple[str, ...]  # under which the ledger may know a request, the job's own words first
    diagnostics: Diagnostics
    validator: RequestValidator
    input_images: InputImages
    ids: RequestIds
    costs: _HighestCosts
    _occurrences: Counter[bytes] = field(default_factory=Counter)
    _params: dict[str, SharedParams] = field(default_factory=dict)  # canonical form → parameters

    def plan(self, limit: int | None, *, allow_large: bool) -> list[ImageRequest]:
        """Return the first `limit` requests, with unique ids."""
        stop = limit if allow_large else min(limit or MAX_REQUESTS + 1, MAX_REQUESTS + 1)
        requests = list(itertools.islice(self._requests(), stop))
        if len(requests) > MAX_REQUESTS and not allow_large:
            message = f"makes more than {MAX_REQUESTS:,} requests; if that is intended, add --allow-large"
            self.diagnostics.add_problem(self.diagnostics.job.document.location("requests"), message)
        self.ids.make_unique(requests)
        return requests

    def _requests(self) -> Iterator[ImageRequest]:
        """Yield the requests in the order of the job; problems are recorded, and their requests left out."""
        for expanded in self.expansion.requests():
            before = self.diagnostics.found
            try:
                resolved = self._resolve(expanded)
                if resolved is not None and self.diagnostics.found == before:
                    yield from self._parts(expanded, resolved)
            except UnicodeEncodeError:
                message = "holds half a character (a lone surrogate); correct its encoding"
                self.diagnostics.add_field_problem(expanded, "prompt", message)
            except ValueError as reason:
                location = self.diagnostics.job.location(expanded.entry)
                self.diagnostics.add_problem(location, f"cannot be written as JSON: {reason}")

    def _resolve(self, expanded: ExpandedRequest) -> _ResolvedRequest | None:
        """Validate an expanded request; return None if its operation or its images are not usable."""
        fields, model = expanded.fields, expanded.model
        operation = fields.get("operation", "generation")
        served_by = model.served_by(operation) if model else operation
        prompt: str | None = fields.get("prompt", VARIATION_PROMPT if served_by != operation else None)
        n = self._read_n(expanded)
        params = self._shared({key: value for key, value in fields.items() if key not in PLANNER_FIELDS})
        before = self.diagnostics.found
        options, images = self.input_images.read(expanded)
        is_usable = self.diagnostics.found == before and operation in OPERATIONS
        inputs, input_content = (
            self.input_images.prepare(expanded, options, images, served_by) if is_usable else ((), [])
        )
        extra = fields.get("extra")
        references = expanded.entry.references
        more = {**(extra or {}), **references}
        sent = self._shared({**params.values, **more}) if more else params
        contents = self._contents(expanded, operation, prompt, sent.form, input_content)
        self._occurrences[same := identity.digest(contents[0])] += 1
        occurrence = self._occurrences[same]
        prompt = self.expansion.expand_prompt(expanded, prompt, occurrence)
        has_mask = "mask" in references or (options is not None and options.has_mask)
        images_given = len(images) + len(references.get("images", ()))
        self.validator.validate(expanded, served_by, prompt, params, images_given, has_mask=has_mask)
        if not is_usable:
            return None
        max_n = model.max_n(served_by, sent.values) if model else _UNKNOWN_MODEL_N
        max_requests = self.expansion.max_requests
        if max_requests is not None and n > max_requests * max_n:
            message = f"makes more than {max_requests:,} requests; if that is intended, add --allow-large"
            self.diagnostics.add_field_problem(expanded, "n", message)
        return _ResolvedRequest(operation, served_by, prompt, sent.values, n, max_n, inputs, contents, occurrence)

    def _contents(
        self,
        expanded: ExpandedRequest,
        operation: str,
        prompt: str | None,
        params: str,
        input_content: Sequence[Any],
    ) -> list[str]:
        """Return what a request asks for, under each of the names; of a dynamic prompt before its expansion."""
        dynamic = expanded.variables if expanded.entry.is_dynamic else None
        return [
            identity.canonical_content(operation, name, prompt, params, input_content, dynamic) for name in self.names
        ]

    def _read_n(self, expanded: ExpandedRequest) -> int:
        n = expanded.fields.get("n", 1)
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            hint = f": write it without quotes, `n: {int(n)}`" if isinstance(n, str) and _DIGITS.fullmatch(n) else ""
            message = f"must be a whole number of at least 1, not {n!r:.60}{hint}"
            self.diagnostics.add_field_problem(expanded, "n", message)
            return 1
        if n > MAX_NUMBER:
            message = f"must be at most {MAX_NUMBER:,}"
            self.diagnostics.add_field_problem(expanded, "n", message)
            return 1
        return n

    def _shared(self, values: dict[str, Any]) -> SharedParams:
        """Return one object for all equal parameters: a hundred thousand requests do not hold as many mappings."""
        form = identity.canonical(values)
        shared = self._params.get(form)
        if shared is None:
            shared = self._params[form] = SharedParams(values, form)
        return shared

    def _parts(self, expanded: ExpandedRequest, resolved: _ResolvedRequest) -> Iterator[ImageRequest]:
        """Yield one request for each part of at most `max_n` images."""
        content, *others = resolved.contents
        occurrence = resolved.occurrence
        for part, start in enumerate(range(0, resolved.n, resolved.max_n), 1):
            key = identity.content_key(content, part, occurrence)
            n = min(resolved.max_n, resolved.n - start)
            yield ImageRequest(
                key=key,
                id=self.ids.assign(expanded, key, part, resolved.prompt, resolved.inputs),
                operation=resolved.operation,
                served_by=resolved.served_by,
                prompt=resolved.prompt,
                params=resolved.params,
                n=n,
                variables=expanded.variables,
                inputs=resolved.inputs,
                estimate_usd=None if expanded.model is None else self.costs.of(resolved, n),
                other_keys=tuple(identity.content_key(other, part, occurrence) for other in others),
                custom_id=expanded.entry.custom_id,
                expansion_key=identity.content_key(content, 1, occurrence) if expanded.entry.is_dynamic else None,
            )
