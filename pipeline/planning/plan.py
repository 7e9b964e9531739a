"""`Job` → `ImageRequest`s, each with its content key; every mistake is found here, before anything is called."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from pipeline.errors import JobError
from pipeline.models.validation import validate
from pipeline.planning import identity
from pipeline.planning.expand import OURS, Expansion, Findings
from pipeline.planning.input_files import InputFile, InputImages
from pipeline.planning.job import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.config.load import Provider
    from pipeline.models.model import Model
    from pipeline.models.table import Models
    from pipeline.models.validation import FieldProblem
    from pipeline.planning.expand import Draft
    from pipeline.planning.job import Job

MAX_REQUESTS = 1_000_000

VARIATION_PROMPT = "A variation of this picture: the same subject, style and colours in a new composition."
"""What an edit is told that stands for a variation, where the request gives no prompt of its own."""

_UNKNOWN_MODEL_N = 10  # images of one call where the model's own limit is not known


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One thing that should exist: `n` images of one prompt. `params` are what the call carries beside prompt and n."""

    key: str
    id: str
    operation: str
    served_by: str  # the operation whose endpoint is called
    prompt: str | None
    params: Mapping[str, Any]
    n: int
    variables: Mapping[str, Any]
    inputs: tuple[InputFile, ...]
    estimate_usd: float | None = None  # of all n images; None without a price


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
    findings = Findings(job, dict.fromkeys(job.problems))
    most = None if allow_large or limit is not None else MAX_REQUESTS
    planner = _Planner(provider, models, findings, most, InputImages(findings, spool))
    cut = limit if allow_large else min(limit or MAX_REQUESTS + 1, MAX_REQUESTS + 1)
    requests = list(itertools.islice(planner.requests(), cut))
    if len(requests) > MAX_REQUESTS and not allow_large:
        what = f"makes more than {MAX_REQUESTS:,} requests; if that is meant, add --allow-large"
        findings.wrong(job.document.location("requests"), what)
    planner.tell_apart(requests)
    if findings.problems:
        raise JobError(findings.problems)
    return Plan(
        name=name or job.name,
        provider=provider,
        file=job.file,
        budget_usd=job.budget_usd,
        requests=requests,
        warnings=tuple(findings.warnings),
        unpriced=tuple(sorted(findings.unpriced)),
    )


@dataclass(slots=True)
class _Params:
    """Parameters that many requests share: kept, written and judged once."""

    values: Mapping[str, Any]
    complaints: dict[str, list[FieldProblem]] = field(default_factory=dict)  # by operation


@dataclass(slots=True)
class _Planner:
    """The judgement of one job's drafts. `most` is how many parts one entry may have; None for any number."""

    provider: Provider
    models: Models
    findings: Findings
    most: int | None
    pictures: InputImages
    _occurrences: Counter[bytes] = field(default_factory=Counter)
    _params: dict[str, _Params] = field(default_factory=dict)  # canonical form → parameters
    _given: dict[str, str] = field(default_factory=dict)  # key → where, of requests whose id the job gives
    _today: date = field(default_factory=lambda: datetime.now(UTC).date())

    def requests(self) -> Iterator[ImageRequest]:
        """Yield the requests in the order of the job; what is wrong is noted and left out."""
        for draft in Expansion(self.findings.job, self.models, self.findings, self.most).drafts():
            try:
                yield from self._requests(draft)
            except UnicodeEncodeError:
                self.findings.wrong_field(
                    draft, "prompt", "holds half a character (a lone surrogate); mend its encoding"
                )
            except ValueError as reason:
                where = self.findings.job.location(draft.entry)
                self.findings.wrong(where, f"cannot be written as JSON: {reason}")

    def tell_apart(self, requests: list[ImageRequest]) -> None:
        """Lengthen ids that we made and that collide; name those that the job gives twice."""
        seen: dict[str, int] = {}
        for index, request in enumerate(requests):
            first = seen.setdefault(request.id.lower(), index)
            if first == index or self.findings.full:
                continue
            both = [requests[first].key, request.key]
            if all(key in self._given for key in both):
                what = (
                    f"`{request.id}` is also the id at {self._given[both[0]]}; ids are unique, without regard to case"
                )
                self.findings.wrong(self._given[both[1]], what)
            for one in (first, index):
                if requests[one].key not in self._given:
                    longer = identity.lengthen(requests[one].id, requests[one].key)
                    requests[one] = dataclasses.replace(requests[one], id=longer)

    def _requests(self, draft: Draft) -> Iterator[ImageRequest]:
        """Judge a draft and make its requests: one for each part of what a single call can bring."""
        before = len(self.findings.problems)
        fields = draft.fields
        operation = fields.get("operation", "generation")
        served_by = draft.model.served_by(operation) if draft.model else operation
        prompt: str | None = fields.get("prompt", VARIATION_PROMPT if served_by != operation else None)
        n = fields.get("n", 1)
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            self.findings.wrong_field(draft, "n", f"must be a whole number of at least 1, not {n!r:.60}")
            n = 1
        params = self._shared({key: value for key, value in fields.items() if key not in OURS})
        unread = len(self.findings.problems)
        options, images = self.pictures.read(draft)
        readable = len(self.findings.problems) == unread
        self._judge(draft, served_by, prompt, params, len(images), masked=options is not None and options.has_mask)
        if not readable or operation not in OPERATIONS:
            return
        prepared, sources = self.pictures.prepare(draft, options, images, served_by)
        extra = fields.get("extra")
        sent = self._shared({**params.values, **extra}).values if extra else params.values
        most = draft.model.max_n(served_by, sent) if draft.model else _UNKNOWN_MODEL_N
        if self.most is not None and n > self.most * most:
            what = f"makes more than {self.most:,} requests; if that is meant, add --allow-large"
            self.findings.wrong_field(draft, "n", what)
        if len(self.findings.problems) > before:
            return
        content = identity.content_of(operation, self.provider.name, prompt, sent, sources)
        self._occurrences[same := identity.digest(content)] += 1
        for part, start in enumerate(range(0, n, most), 1):
            key = identity.key_of(content, part, self._occurrences[same])
            name = self._name(draft, key, part, prompt, prepared)
            yield ImageRequest(
                key=key,
                id=name,
                operation=operation,
                served_by=served_by,
                prompt=prompt,
                params=sent,
                n=min(most, n - start),
                variables=draft.variables,
                inputs=prepared,
                estimate_usd=self._estimate(draft.model, served_by, prompt, sent, min(most, n - start), prepared),
            )

    def _estimate(
        self,
        model: Model | None,
        operation: str,
        prompt: str | None,
        params: Mapping[str, Any],
        n: int,
        inputs: tuple[InputFile, ...],
    ) -> float | None:
        if model is None:
            return None
        sizes = [(one.width, one.height) for one in inputs if one.role == "image"]
        return model.estimate(operation, prompt, params, n, sizes).usd

    def _name(self, draft: Draft, key: str, part: int, prompt: str | None, prepared: tuple[InputFile, ...]) -> str:
        given = draft.fields.get("id")
        if given is None:
            return identity.made_id(prompt, prepared[0].source if prepared else None, key)
        self._given[key] = self.findings.location(draft, "id")
        name = identity.given_id(given, part)
        if not identity.is_name(name):
            self.findings.wrong_field(draft, "id", f"`{name:.120}` cannot name files: {identity.NAME_RULE}")
        return name

    def _judge(
        self, draft: Draft, operation: str, prompt: str | None, params: _Params, images: int, *, masked: bool
    ) -> None:
        model = draft.model
        if model is None:
            self._judge_unknown(draft, operation, prompt, params, images, masked=masked)
            return
        if self.provider.sandbox is None:
            self.findings.warnings.update(dict.fromkeys(model.warnings(self._today)))
        complaints = validate(model, operation, prompt, {}, images, mask=masked)
        if operation not in params.complaints:
            both = validate(model, operation, prompt, params.values, images, mask=masked)
            params.complaints[operation] = [one for one in both if one not in complaints]
        if operation not in OPERATIONS:
            complaints = [one for one in complaints if one.field == "operation"]
        for complaint in (*complaints, *params.complaints[operation]):
            self.findings.wrong_field(draft, complaint.field, complaint.message)

    def _judge_unknown(
        self, draft: Draft, operation: str, prompt: str | None, params: _Params, images: int, *, masked: bool
    ) -> None:
        """Judge by what holds for every model."""
        if operation not in OPERATIONS:
            self.findings.wrong_field(draft, "operation", f"is `{operation:.60}`; there are {', '.join(OPERATIONS)}")
            return
        if operation != "variation" and (prompt is None or not prompt.strip()):
            self.findings.wrong_field(draft, "prompt", "is missing or empty; say what the picture should show")
        if operation != "generation" and not images:
            self.findings.wrong_field(draft, "image", f"is missing; `{operation}` starts from a picture")
        if operation == "generation" and images:
            self.findings.wrong_field(draft, "image", "is not for a generation; write `operation: edit`")
        if operation != "edit" and masked:
            self.findings.wrong_field(draft, "mask", "is for an edit; leave it out")
        if operation not in params.complaints:
            params.complaints[operation] = []
            for name in params.values:
                if name != "model" and not self._is_known(name):
                    what = f"`{name}` is a parameter of no known model: it is sent as it is, unchecked"
                    self.findings.warnings[what] = None

    def _is_known(self, parameter: str) -> bool:
        known = (self.models.find(name) for name in self.models.names())
        return any(model is not None and parameter in model.parameters for model in known)

    def _shared(self, values: dict[str, Any]) -> _Params:
        """Give one mapping for all equal parameters, so that a hundred thousand requests do not hold as many."""
        form = identity.canonical(values)
        shared = self._params.get(form)
        if shared is None:
            shared = self._params[form] = _Params(values)
        return shared
