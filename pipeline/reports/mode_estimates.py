"""Estimate what the missing requests of a plan cost and how long they take: in realtime, by batch, and as chosen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.models.batch_deadline import is_late, realtime_seconds
from pipeline.models.batch_eligibility import batch_fault, realtime_reason
from pipeline.models.batch_estimate import ParamsEstimate, count_waves, cut_batches
from pipeline.planning.mode import ServiceMode, local_time
from pipeline.reports.controls import images_seconds, work_seconds
from pipeline.reports.facts import counted, dollars, duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.models.batch_estimate import BatchEstimate, LineEstimate
    from pipeline.models.table import Models
    from pipeline.planning.plan import ImageRequest, Plan
    from pipeline.reports.forms import BatchedForm, ModesForm, PlanForm, RealtimeForm

Missing = tuple["ImageRequest", int, float | None]
"""A request, how many of its images are missing, and what they cost in realtime; None if that is unknown."""

_Endpoint = tuple[str, str | None]  # the operation that serves, and the model


@dataclass(slots=True)
class ModeEstimates:
    """What the missing requests take. `costs` are those of each request in the mode that will be in force."""

    mode: str
    realtime: RealtimeForm
    batch: BatchedForm
    costs: list[float | None]
    warnings: list[str]

    def json(self) -> ModesForm:
        """Return both modes as `plan --json` shows them."""
        return {"realtime": self.realtime, "batch": self.batch}

    @property
    def chosen(self) -> RealtimeForm:
        """The mode that will be in force."""
        return self.batch if self.mode == "batch" else self.realtime


def estimate_modes(plan: Plan, missing: Sequence[Missing], models: Models, now: float) -> ModeEstimates:
    """Estimate the missing requests of a plan in both modes."""
    batched = _Batched(plan, models, now)
    costs = [batched.add(request, n, usd) for request, n, usd in missing]
    full = [usd for _, _, usd in missing]
    images = sum(n for _, n, _ in missing)
    realtime: RealtimeForm = {"cost_usd": _total(full), "minutes": _minutes(plan, images, now)}
    batch = batched.json(costs)
    is_batch, warnings = _in_force(plan, images, batch["batches"], now)
    chosen = costs if is_batch else full
    return ModeEstimates("batch" if is_batch else "realtime", realtime, batch, chosen, warnings)


@dataclass(slots=True)
class _Batched:
    """The missing requests that can go by batch, by endpoint and model, and the images of those that cannot."""

    plan: Plan
    models: Models
    now: float
    _lines: dict[_Endpoint, list[LineEstimate] | None] = field(default_factory=dict)  # None: made in realtime
    _params: dict[tuple[str, int], ParamsEstimate] = field(default_factory=dict)  # by identity: requests share them
    _realtime_images: int = 0

    def add(self, request: ImageRequest, n: int, usd: float | None) -> float | None:
        """Count a request for `n` images that costs so much in realtime; return what it costs in this mode."""
        endpoint = request.served_by, request.params.get("model")
        if endpoint not in self._lines:
            self._lines[endpoint] = None if self._is_rejected(*endpoint) else []
        lines = self._lines[endpoint]
        if lines is None:
            self._realtime_images += n
            return usd
        sizes = [(input_file.width, input_file.height) for input_file in request.inputs]
        lines.append(self._estimate_params(request).line(request.prompt, n, sizes))
        rules = self.plan.provider.batch
        return None if usd is None or rules is None else usd * (1 - rules.discount)

    def _is_rejected(self, served_by: str, name: str | None) -> bool:
        """Return whether requests of an endpoint and a model are made in realtime all the same."""
        model, provider = self.models.find(name), self.plan.provider
        if self.plan.mode == "batch":
            return batch_fault(name, model, served_by, provider.batch) is not None
        return realtime_reason(name, model, served_by, provider, self.now) is not None

    def _estimate_params(self, request: ImageRequest) -> ParamsEstimate:
        known = self._params.get(key := (request.served_by, id(request.params)))
        if known is None:
            model = self.models.find(request.params.get("model"))
            known = self._params[key] = ParamsEstimate.of(request.params, request.served_by, model)
        return known

    def json(self, costs: Sequence[float | None]) -> BatchedForm:
        """Return what is shown of the mode: without a batch, no cost and no time."""
        rules = self.plan.provider.batch
        lines_of = {endpoint: lines for endpoint, lines in self._lines.items() if lines is not None}
        lines = sum(map(len, lines_of.values()))
        if rules is None or not lines:
            nothing = None if costs else 0.0
            return {"cost_usd": nothing, "minutes": nothing, "batches": 0, "ineligible": len(costs)}
        by_model: dict[str | None, list[BatchEstimate]] = {}
        for (_, name), own in lines_of.items():
            by_model.setdefault(name, []).extend(cut_batches(own, rules))
        waves = max(count_waves(batches, rules) for batches in by_model.values())
        minutes = max(waves * rules.expires_hours * 60, _minutes(self.plan, self._realtime_images, self.now) or 0.0)
        return {
            "cost_usd": _total(costs),
            "minutes": round(minutes, 2),
            "batches": sum(map(len, by_model.values())),
            "ineligible": len(costs) - lines,
        }


def _total(costs: Sequence[float | None]) -> float | None:
    known = [usd for usd in costs if usd is not None]
    return round(sum(known), 6) if len(known) == len(costs) else None


def _minutes(plan: Plan, images: int, now: float) -> float | None:
    """Return how many minutes pass until these images are made in realtime, hours outside the window included."""
    seconds = images_seconds(plan.serving, images, now)
    return None if seconds is None else round(seconds / 60, 2)


def _in_force(plan: Plan, images: int, batches: int, now: float) -> tuple[bool, list[str]]:
    """Return whether batches are sent now, and a warning if the deadline is too near for them, or for anything."""
    rules, deadline = plan.provider.batch, plan.deadline
    if plan.mode == "realtime" or ServiceMode(plan.mode, deadline).has_passed(now):
        return False, []
    warnings = []
    is_batch = rules is not None and batches > 0
    if deadline is not None and images:
        seconds = work_seconds(plan.provider, realtime_seconds(images, plan.provider), now)
        if rules is not None and is_late(now, deadline, images, plan.provider, rules):
            is_batch = False
        if now + seconds > deadline:
            takes = f"{counted(images, 'image')} take {duration(seconds)} in realtime"
            warnings.append(f"the deadline, {local_time(deadline)}, cannot be met: {takes}")
        elif rules is not None and batches and not is_batch:
            warnings.append(f"the deadline, {local_time(deadline)}, is too near for batches: all is made in realtime")
    return is_batch, warnings


def mode_lines(view: PlanForm) -> Iterator[str]:
    """Yield both prices and both durations, if anything can go by batch."""
    realtime, batch = view["modes"]["realtime"], view["modes"]["batch"]
    if not batch["batches"]:
        return
    about = f", about {duration(realtime['minutes'] * 60)}" if realtime["minutes"] else ""
    within = f"within {duration((batch['minutes'] or 0.0) * 60)}, in {counted(batch['batches'], 'batch')}"
    rest = f"; {counted(batch['ineligible'], 'request')} cannot go by batch" if batch["ineligible"] else ""
    yield f"  realtime: {_price(realtime)}{about}; by batch: {_price(batch)}, {within}{rest}"


def _price(mode: RealtimeForm) -> str:
    return "cost unknown" if mode["cost_usd"] is None else dollars(mode["cost_usd"])
