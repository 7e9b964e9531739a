"""Job files, jobs made in Python, and the config → plans: all of them, or none."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.provider import NAME, Provider
from pipeline.config.yaml_document import Document
from pipeline.errors import BadInput, ConfigError, JobError, Problem
from pipeline.sandbox_process import check_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pipeline.config.load import Config
    from pipeline.models.table import Models
    from pipeline.planning.job import Job
    from pipeline.planning.plan import Plan


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What the command line adds to a job file: another provider to rehearse on, and a cut."""

    provider: str | None = None
    limit: int | None = None
    allow_large: bool = False
    allow_unpriced: bool = False
    budget_usd: float | None = None


def make_job(
    name: str,
    requests: Sequence[Mapping[str, Any]],
    *,
    defaults: Mapping[str, Any] | None = None,
    provider: str | None = None,
    budget_usd: float | None = None,
    folder: Path | None = None,
) -> Job:
    """Make a job in Python: `requests` and `defaults` say what they say in a job file.

    Where a file has the path of a picture, a request may also have bytes, a binary stream or a Pillow image. Paths are
    relative to `folder`, else to the current one. What is wrong is said when the job is submitted or run.
    """
    from pipeline.planning.job import parse_job

    stated = {"defaults": defaults and _with_sources(defaults), "provider": provider, "budget_usd": budget_usd}
    value: dict[str, Any] = {"name": name, **{key: item for key, item in stated.items() if item is not None}}
    value["requests"] = [_with_sources(request) for request in requests]
    return parse_job(Document(f"job `{name}`", value, {(): 0}), folder=folder)


def _with_sources(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Read pictures that are in memory once, since a stream can be read once only. Raises PictureError."""
    return {key: _source(item) if key in {"image", "mask"} else item for key, item in fields.items()}


def _source(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_source(item) for item in value]
    if isinstance(value, dict):
        return {key: _source(item) if key == "image" else item for key, item in value.items()}
    from pipeline.images.source import ImageSource

    return ImageSource.of(value)


def load_models(config: Config) -> Models:
    """Read the table of models, the config's own laid over it. Raises ConfigError."""
    from pipeline.models.table import Models

    return Models.load(config.models)


def make_plans(
    config: Config, jobs: Iterable[Path | Job], options: JobOptions, spool: Path | None = None
) -> list[Plan]:
    """Read, expand and check job files, or jobs made in Python: all of them, or none.

    Raises BadInput with the mistakes of all.
    """
    models = load_models(config)
    plans: list[Plan] = []
    problems: list[Problem] = []
    for job in jobs:
        try:
            plans.append(_make_plan(config, models, job, options, spool))
        except BadInput as error:
            problems += error.problems
    problems += _name_twins(plans)
    if problems:
        raise JobError(dict.fromkeys(problems))
    return plans


@contextlib.contextmanager
def spooling() -> Iterator[Path]:
    """Give a folder for prepared pictures that is gone after the block. Raises ConfigError where there is no room."""
    try:
        with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
            yield Path(folder)
    except OSError as reason:
        spool = str(Path(tempfile.gettempdir(), "pipeline-"))
        if reason.filename is None or not str(reason.filename).startswith(spool):
            raise
        what = f"{tempfile.gettempdir()} takes no pictures: {reason.strerror or reason}; make room, or set TMPDIR"
        raise ConfigError(what) from None


def _make_plan(config: Config, models: Models, given: Path | Job, options: JobOptions, spool: Path | None) -> Plan:
    from pipeline.planning.job import read_job
    from pipeline.planning.plan import make_plan

    job = read_job(given) if isinstance(given, Path) else given
    name = f"{job.name}.{options.provider}" if options.provider else job.name
    problems: list[Problem] = []
    try:
        provider = _choose_provider(config, job, options.provider)
    except BadInput as error:
        problems += error.problems
        provider = Provider("unknown", None, sandbox={})  # so that the job's other mistakes are named beside this one
    if NAME.fullmatch(job.name) and not NAME.fullmatch(name):
        problems.append(
            Problem(job.document.location("name"), f"`{name:.120}` is too long a name; 100 characters at most")
        )
    try:
        plan = make_plan(
            job, provider, models, name=name, limit=options.limit, allow_large=options.allow_large, spool=spool
        )
    except JobError as error:
        raise JobError([*problems, *error.problems]) from None
    if problems:
        raise JobError(problems)
    _check_budget(config, plan, options)
    return plan


def _choose_provider(config: Config, job: Job, asked: str | None) -> Provider:
    where = job.document.location("provider")
    name = asked or job.provider or config.provider
    if name is None:
        known = ", ".join(sorted(config.providers))
        what = f"names no provider, and there is no default: add a line `provider: NAME` ({known})"
        raise JobError([Problem(where, what)])
    if asked is None and job.provider is not None and name not in config.providers:
        raise JobError([Problem(where, config.unknown_provider(name))])
    provider = config.find_provider(name)
    if provider.sandbox is not None:
        check_settings(config, provider)
    return provider


def _check_budget(config: Config, plan: Plan, options: JobOptions) -> None:
    """Refuse a budget that could not be kept, because a model has no price."""
    budgets = (options.budget_usd, plan.budget_usd, config.budget_usd)
    if (
        plan.unpriced
        and plan.provider.sandbox is None
        and not options.allow_unpriced
        and any(b is not None for b in budgets)
    ):
        models = ", ".join(f"`{model}`" for model in plan.unpriced)
        what = f"has a budget, and {models} has no price: add prices under `models:` in the config, or --allow-unpriced"
        raise JobError([Problem(str(plan.file), what)])


def _name_twins(plans: list[Plan]) -> list[Problem]:
    """Find job files of one command that claim one name."""
    seen: dict[str, Plan] = {}
    problems = []
    for plan in plans:
        first = seen.setdefault(plan.name.lower(), plan)
        if first is not plan and first.file != plan.file:
            problems.append(
                Problem(str(plan.file), f"has the name `{plan.name}`, as {first.file} has; give it another")
            )
    return problems
