"""`pipeline doctor`: checks jobs, providers and this machine before a run; only --canary buys images."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.explained_command import ExplainedCommand
from pipeline.cli.options import PATH, budget_option, common_options, job_options, mode_options
from pipeline.cli.output import echo_json, echo_prose
from pipeline.cli.work_line import work_line
from pipeline.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.cli.options import Options
    from pipeline.doctor.check import Check
    from pipeline.planning.build import JobOptions

CANARIES = 3
"""How many kinds of requests --canary buys without a number."""


@click.command(
    cls=ExplainedCommand,
    example="pipeline doctor night.yaml --canary 2 --notify",
    exits=(0, 1, 2, 130),
)
@click.argument("jobs", nargs=-1, type=PATH, metavar="[JOB.yaml ...]")
@job_options
@budget_option
@mode_options
@click.option(
    "--canary",
    is_flag=False,
    flag_value=str(CANARIES),
    metavar="[N]",
    help=f"If all is well, buy the {CANARIES} (or N) cheapest missing requests that differ in model, size and quality.",
)
@click.option("--notify", is_flag=True, help="Send a trial notification.")
@click.option("--strict", is_flag=True, help="Exit with 1 if there is a warning.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@common_options
@click.pass_obj
def doctor(
    options: Options,
    /,
    jobs: tuple[Path, ...],
    canary: str | None,
    notify: bool,
    strict: bool,
    as_json: bool,
    **extra: Any,
) -> int:
    """Check jobs, providers and this machine before a run; buys nothing."""
    import os

    from pipeline.doctor.check import checks_json, exit_code
    from pipeline.doctor.examination import Examination
    from pipeline.doctor.next_run import read_next_run
    from pipeline.planning.build import JobOptions
    from pipeline.run import run_in_loop

    kinds, jobs = _read_canary(canary, jobs)
    config, chosen, ended = options.load(), JobOptions(**extra), None
    with work_line(options, "examining", as_json=as_json):
        next_run = read_next_run(config, os.environ, jobs, chosen)
        checks = run_in_loop(Examination(next_run, notify=notify).run())
    if not as_json:
        _print_checks(checks)
    if kinds:
        bought, ended = _buy(options, jobs, chosen, kinds, checks, as_json=as_json)
        if not as_json:
            _print_checks(bought)
        checks += bought
    if as_json:
        echo_json(checks_json(checks))
    return exit_code(checks, strict=strict) if ended is None else 128 + ended


def _read_canary(given: str | None, jobs: tuple[Path, ...]) -> tuple[int, tuple[Path, ...]]:
    """Return how many kinds are bought, and the jobs: a job file behind --canary is no number of it."""
    if given is None:
        return 0, jobs
    if given.isascii() and given.isdecimal() and 0 < len(given) < 7 and int(given):
        return int(given), jobs
    if given.endswith((".yaml", ".yml")):
        return CANARIES, (Path(given), *jobs)
    raise BadInput(f"--canary takes a whole number of at least 1, not `{given:.60}`; without one it is {CANARIES}")


def _print_checks(checks: Sequence[Check]) -> None:
    from pipeline.doctor.check import check_line

    for check in checks:
        echo_prose(check_line(check), err=False)


def _buy(
    options: Options, jobs: Sequence[Path], chosen: JobOptions, kinds: int, checks: Sequence[Check], *, as_json: bool
) -> tuple[list[Check], int | None]:
    """Buy the canary if no check found a problem; return its checks, and the signal that ended it."""
    import os

    from pipeline.doctor.canary import Canary
    from pipeline.doctor.check import not_checked
    from pipeline.progress.run_log import Log
    from pipeline.run import run_in_loop

    if any(check.status == "problem" for check in checks):
        return [not_checked("canary", "first fix the problems above")], None
    batch = options.batch()
    with (
        work_line(options, "buying the canary", as_json=as_json),
        contextlib.closing(Log(batch.folder, verbose=options.verbose)) as log,
    ):
        canary = Canary(batch.config, os.environ, jobs, chosen, kinds, log)
        return run_in_loop(canary.run()), canary.signal
