"""The commands that queue and process jobs: run, submit and resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import PATH, common_options, job_options, parse_dollars, typed_command
from pipeline.cli.output import echo, print_result, print_warnings, run_output

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.cli.options import Options


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of commands that process the queue."""
    command = click.option("--json", "as_json", is_flag=True, help="One event a line on stdout, the summary last.")(
        command
    )
    return click.option(
        "--budget", "budget_usd", type=float, callback=parse_dollars, metavar="USD", help="Spend no more on any job."
    )(command)


@click.command()
@click.argument("jobs", nargs=-1, type=PATH, metavar="[JOB.yaml ...]")
@job_options
@run_options
@common_options
@click.pass_obj
def run(options: Options, /, jobs: tuple[Path, ...], budget_usd: float | None, as_json: bool, **extra: Any) -> int:
    """Submit these jobs and process them to the end; with no argument, process the whole queue."""
    from pipeline.batch import run_in_loop
    from pipeline.planning.build import JobOptions

    batch = options.batch()
    with run_output(options, batch, as_json=as_json) as (emit, started):
        coroutine = batch.run(jobs, JobOptions(budget_usd=budget_usd, **extra), emit=emit, started=started)
        result = run_in_loop(coroutine)
    return print_result(options, result, typed_command(), as_json=as_json)


@click.command()
@click.argument("jobs", nargs=-1, type=PATH, required=True, metavar="JOB.yaml ...")
@job_options
@common_options
@click.pass_obj
def submit(options: Options, /, jobs: tuple[Path, ...], **extra: Any) -> int:
    """Check, expand and queue jobs, without calling a provider."""
    from pipeline.planning.build import JobOptions

    for plan in options.batch().submit(jobs, JobOptions(**extra)):
        print_warnings(options, plan)
        echo(f"{plan.name}: {len(plan.requests)} requests for {plan.images} images at provider `{plan.provider.name}`")
    if not options.quiet:
        echo("run `pipeline run` to process the queue", err=True)
    return 0


@click.command()
@click.argument("jobs", nargs=-1, metavar="[JOB ...]")
@run_options
@common_options
@click.pass_obj
def resume(options: Options, jobs: tuple[str, ...], budget_usd: float | None, as_json: bool) -> int:
    """Put failed requests back into the queue, then process it."""
    from pipeline.batch import run_in_loop
    from pipeline.planning.build import JobOptions

    batch = options.batch()
    with run_output(options, batch, as_json=as_json) as (emit, _):
        result = run_in_loop(batch.resume(jobs, JobOptions(budget_usd=budget_usd), emit=emit))
    return print_result(options, result, ["run"], as_json=as_json)
