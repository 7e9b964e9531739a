"""Build the plans of several jobs at once: all of them, or none."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.batch_rules import BatchRules
from pipeline.config.load import budget_in_force
from pipeline.config.provider import Provider
from pipeline.config.routes import shared_limit_warnings
from pipeline.config.validation import find_number_fault
from pipeline.errors import BadInput, ConfigError, JobError, Problem
from pipeline.planning.json_rows import STDIN_TWICE
from pipeline.planning.mode import (
    ModeOptions,
    ServiceMode,
    deadline_fault,
    find_deadline_fault,
    find_mode_fault,
    no_batch_api,
    read_deadline,
)
from pipeline.sandbox_process import check_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.config.engine_names import Engine
    from pipeline.config.load import Config
    from pipeline.models.table import Models
    from pipeline.planning.job import Job
    from pipeline.planning.mode_names import Mode
    from pipeline.planning.plan import Plan


@dataclass(frozen=True, slots=True)
class JobOptions:
    """Options of a command for its jobs: another provider, a limit on the requests, permissions, a budget, a mode.

    `deadline` is for mode auto, in the forms of a job file. Without `wait`, a run collects the batches that have ended
    and leaves the others. `on` is where calls are made, in place of what the config says.

    Raises ConfigError for a value that is not in its range.
    """

    provider: str | None = None
    limit: int | None = None
    allow_large: bool = False
    allow_unpriced: bool = False
    allow_shrink: bool = False
    budget_usd: float | None = None
    mode: Mode | None = None
    deadline: str | None = None
    wait: bool = True
    on: Engine | None = None

    def __post_init__(self) -> None:
        faults = {
            "limit": self.limit is not None and find_number_fault(self.limit, 1, whole=True),
            "budget_usd": self.budget_usd is not None and find_number_fault(self.budget_usd, 0),
            "mode": self.mode is not None and find_mode_fault(self.mode),
            "deadline": self.deadline is not None and self._deadline_fault(),
        }
        if problems := [Problem(name, fault) for name, fault in faults.items() if fault]:
            raise ConfigError(problems)

    def mode_options(self, now: float) -> ModeOptions | None:
        """Return the mode and the deadline that are asked for, None if neither is."""
        if self.mode is None and self.deadline is None:
            return None
        return ModeOptions(self.mode, None if self.deadline is None else read_deadline(self.deadline, now))

    def _deadline_fault(self) -> str | None:
        if self.mode not in {None, "auto"}:
            return f"is for mode auto only, not for mode {self.mode!s:.60}: leave it out, or ask for mode auto"
        return find_deadline_fault(self.deadline)


def load_models(config: Config, provider: Provider | None = None) -> Models:
    """Load the table of models with the config's `models:` merged over it, and a provider's own. Raises ConfigError."""
    from pipeline.models.table import Models

    return Models.load(config.models, provider.own_models if provider else None)


def make_plans(
    config: Config, jobs: Iterable[Path | str | Job], options: JobOptions, staging: Path | None = None
) -> list[Plan]:
    """Build the plans of job files, or of jobs made in Python: all of them, or none.

    Raises BadInput with the problems of all.
    """
    if isinstance(jobs, str | os.PathLike) or not isinstance(jobs, Iterable):
        raise JobError("jobs are a list: write `[job]` for one")
    models = load_models(config)
    plans: list[Plan] = []
    problems: list[Problem] = []
    is_stdin_read = False
    for given in jobs:
        try:
            job = _read(given)
            if is_stdin_read and job.reads_stdin:
                raise JobError([Problem(job.location(job.reads_stdin[0], "rows"), STDIN_TWICE)])
            is_stdin_read = is_stdin_read or bool(job.reads_stdin)
            plans.append(_make_plan(config, models, job, options, staging))
        except BadInput as error:
            problems += error.problems
    problems += _duplicate_names(plans)
    if problems:
        raise JobError(dict.fromkeys(problems))
    return plans


@contextlib.contextmanager
def staging_folder() -> Iterator[Path]:
    """Make a temporary folder for prepared images. Raises ConfigError if it cannot be made or the disk is full."""
    try:
        with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
            yield Path(folder)
    except OSError as reason:
        prefix = str(Path(tempfile.gettempdir(), "pipeline-"))
        if reason.filename is None or not str(reason.filename).startswith(prefix):
            raise
        message = f"cannot write images to {tempfile.gettempdir()}: {reason.strerror or reason}"
        raise ConfigError(f"{message}; free some space, or set TMPDIR") from None


def _read(given: Path | str | Job) -> Job:
    """Return a job as it is; read a job file, or an input file of the Batch API. Raises JobError."""
    from pipeline.planning.job import Job, read_job

    if isinstance(given, Job):
        return given
    if not isinstance(given, str | os.PathLike):
        raise JobError(f"{given!r:.80} is no job: give the path of a job file, or what `make_job` returns")
    path = Path(given)
    if path.suffix.lower() == ".jsonl":
        from pipeline.planning.batch_file_reader import read_batch_file

        return read_batch_file(path)
    return read_job(path)


def _make_plan(config: Config, models: Models, job: Job, options: JobOptions, staging: Path | None) -> Plan:
    from pipeline.planning.job import find_name_fault

    problems: list[Problem] = []
    try:
        provider = _choose_provider(config, job, options.provider)
    except BadInput as error:
        problems += error.problems
        provider = Provider("unknown", None, sandbox={}, batch=BatchRules())  # to report the job's other problems too
    name = f"{job.name}.{options.provider}" if options.provider else job.name
    if not find_name_fault(job.name) and (fault := find_name_fault(name)):
        problems.append(Problem(job.document.location("name"), f"{fault}; write another one as `name:`"))
    service, faults = _choose_service(job, provider, options)
    problems += faults
    try:
        plan = _plan_at(config, models, job, provider, name, service, options, staging)
    except JobError as error:
        raise JobError([*problems, *error.problems]) from None
    if problems:
        raise JobError(problems)
    _check_budget(config, plan, options)
    return replace(plan, warnings=(*plan.warnings, *shared_limit_warnings(plan.members)))


def _plan_at(
    config: Config,
    models: Models,
    job: Job,
    provider: Provider,
    name: str,
    service: ServiceMode,
    options: JobOptions,
    staging: Path | None,
) -> Plan:
    """Return the plan of a job at a provider or a route. Raises JobError."""
    from pipeline.planning.planner import Member, make_plan

    members = config.members(provider.name) if provider.name in config.routes else []
    own = {candidate.name: load_models(config, candidate) for candidate in (provider, *members) if candidate.own_models}
    return make_plan(
        job,
        provider,
        own.get(provider.name, models),
        name=name,
        limit=options.limit,
        allow_large=options.allow_large,
        staging=staging,
        service=service,
        members=[Member(member, own.get(member.name, models)) for member in members],
        other_names=[other.name for other in members or config.routes_with(provider.name)],
        config_folder=config.file and config.file.absolute().parent,
    )


def _choose_provider(config: Config, job: Job, asked: str | None) -> Provider:
    location = str(job.file) if job.is_batch_file else job.document.location("provider")
    name = asked or job.provider or config.provider
    if name is None:
        known = ", ".join(sorted(config.services))
        place = "add a line `provider: NAME`" + (" to the config" if job.is_batch_file else "")
        if job.file is None:
            place = "pass `provider=` to `make_job` or to `Batch.open`"
        message = f"names no provider, and there is no default: {place} ({known})"
        raise JobError([Problem(location, message)])
    if asked is None and job.provider is not None and name not in config.services:
        raise JobError([Problem(location, config.unknown_provider(name))])
    for member in config.members(name):
        if member.sandbox is not None:
            check_settings(config, member)
    return config.find_provider(name)


def _choose_service(job: Job, provider: Provider, options: JobOptions) -> tuple[ServiceMode, list[Problem]]:
    """Return the mode and the deadline of a job, and what is wrong with them: an option counts before the file."""
    mode = options.mode or job.mode or "realtime"
    problems = []
    if options.deadline is not None and mode != "auto":
        problems.append(deadline_fault(mode))
    if mode == "batch" and provider.batch is None:
        problems.append(no_batch_api(provider.name))
    written = options.deadline or (job.deadline if mode == "auto" else None)
    deadline = None if written is None or mode != "auto" else read_deadline(written, time.time())
    location = job.document.location("mode")
    return ServiceMode(mode, deadline), [Problem(location, message) for message in problems]


def _check_budget(config: Config, plan: Plan, options: JobOptions) -> None:
    """Raise JobError for a budget that cannot be enforced, because a model has no price."""
    if (
        plan.unpriced
        and plan.provider.sandbox is None
        and not options.allow_unpriced
        and budget_in_force(options.budget_usd, plan.budget_usd, config.budget_usd) is not None
    ):
        models = ", ".join(f"`{model}`" for model in plan.unpriced)
        message = f"has a budget, and {models} has no price: add one under `models:` in the config, or --allow-unpriced"
        raise JobError([Problem(str(plan.file), message)])


def _duplicate_names(plans: list[Plan]) -> list[Problem]:
    """Return a problem for each job file with the name of another one."""
    seen: dict[str, Plan] = {}
    problems = []
    for plan in plans:
        first = seen.setdefault(plan.name.lower(), plan)
        if first is not plan and first.file != plan.file:
            problems.append(
                Problem(str(plan.file), f"has the same name as {first.file}, `{plan.name}`; rename one of them")
            )
    return problems
