"""The forms of what scripts read of `status`, `plan` and the end of a run. Their schemas follow them.

Fields may be added to each.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from pipeline.reports.manifest_forms import ErrorForm  # noqa: TC001 - its schema is made at run time


class BatchForm(TypedDict):
    """One batch of a job; moments are in UTC."""

    id: str | None
    provider: str
    model: str | None
    status: str
    requests: int
    completed: int
    failed: int
    sent_at: str | None
    expires_at: str | None


class ProviderShare(TypedDict):
    """What one provider made of a job."""

    name: str
    images: int
    cost_usd: float | None


class JobStatus(TypedDict):
    """How one job stands; `counts` are its requests by status."""

    name: str
    provider: str
    providers: list[ProviderShare]
    counts: dict[str, int]
    images: int
    cost_usd: float | None
    expected_usd: float | None
    maybe_paid: int
    paid_waiting: int
    priority: int
    rehearsal: bool
    mode: str
    deadline: str | None
    batches: list[BatchForm]


class JobsForm(TypedDict):
    """How the jobs of an output folder stand."""

    jobs: list[JobStatus]


class RunForm(TypedDict):
    """The run that is at work; `since` is in seconds since 1970."""

    who: str
    since: float


class StopForm(TypedDict):
    """A stop that holds, with what fixes it and the commands that continue; `at` is in seconds since 1970."""

    kind: str
    message: str
    reach: str
    job: str | None
    provider: str | None
    model: str | None
    at: float
    advice: str | None
    commands: list[str]


class LimitForm(TypedDict):
    """The limit of a provider in force."""

    images: int
    per_seconds: float


class ControlForm(TypedDict):
    """What is set for a provider of the config, and its outage if a run at work met one; moments are in UTC."""

    name: str
    paused: bool
    paused_since: str | None
    throttle: int | None
    limit: LimitForm | None
    window: list[str] | None
    open: bool
    changes_at: str | None
    down_since: str | None
    down_until: str | None
    down_reason: str | None


class WorkerForm(TypedDict):
    """A worker of the run at work, and what it has made in this run."""

    id: int
    node: str
    pid: int
    calls: int
    images: int


class FailedForm(TypedDict):
    """A request that failed or came back partial."""

    job: str
    id: str
    status: str
    images: int
    n: int
    attempts: int
    error: ErrorForm | None


class StatusForm(JobsForm):
    """What `status --json` prints; with `--failed` it has `failed`."""

    run: RunForm | None
    stops: list[StopForm]
    providers: list[ControlForm]
    workers: list[WorkerForm]
    failed: NotRequired[list[FailedForm]]


class FirstRequest(TypedDict):
    """One of the first requests of a plan."""

    id: str
    operation: str
    model: Any
    size: Any
    n: int
    prompt: str | None
    inputs: list[str]


class Missing(TypedDict):
    """What is still to be made."""

    requests: int
    images: int


class RealtimeForm(TypedDict):
    """What is missing, made in realtime."""

    cost_usd: float | None
    minutes: float | None


class BatchedForm(RealtimeForm):
    """What is missing, made by batch; `ineligible` requests are made in realtime all the same."""

    batches: int
    ineligible: int


class ModesForm(TypedDict):
    """What is missing, in both modes."""

    realtime: RealtimeForm
    batch: BatchedForm


class ChangeForm(TypedDict):
    """Requests of one kind of change, with all their ids."""

    count: int
    cost_usd: float | None
    ids: list[str]


class DiffForm(TypedDict):
    """What submitting a plan would change: every id is in one of these."""

    new: ChangeForm
    changed: ChangeForm
    kept: ChangeForm
    superseded: ChangeForm


class PlanForm(TypedDict):
    """What `plan --json` prints; with `--diff` it has `diff`."""

    job: str
    provider: str
    providers: list[ControlForm]
    open_minutes: float | None
    requests: int
    images: int
    first: list[FirstRequest]
    last_id: str | None
    missing: Missing
    superseded: int
    mode: str
    in_force: str
    deadline: str | None
    minutes: float | None
    cost_usd: float | None
    least_usd: float | None
    modes: ModesForm
    assumed: list[str]
    budget_usd: float | None
    spent_usd: float
    budget_requests: int | None
    rehearsal: bool
    warnings: list[str]
    notes: list[str]
    diff: NotRequired[DiffForm]


class CauseExample(TypedDict):
    """A request that failed, and what was said."""

    id: str
    message: str | None


class CauseForm(TypedDict):
    """Requests of one job that failed for one cause."""

    job: str
    kind: str
    code: str | None
    http_status: int | None
    count: int
    example: CauseExample
    advice: str
    commands: list[str]


class SummaryForm(JobsForm):
    """The last event of a run: how it ended."""

    event: str
    at: str
    exit: int
    stops: list[str]
    limits: dict[str, LimitForm]
    manifests: list[str]
    reports: list[str]
    failures: list[CauseForm]


class EventsLostForm(TypedDict):
    """So many events stood here; they were left out, since their reader had stopped reading."""

    event: str
    at: str
    count: int
