"""`pipeline doctor`: finds what would ruin the night and buys nothing; with --canary, a few images first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.command import ExplainedCommand
from pipeline.cli.options import PATH, budget_option, common_options, job_options, mode_options
from pipeline.cli.output import echo_json, echo_prose
from pipeline.cli.work_line import work_line

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.cli.options import Options


@click.command(
    cls=ExplainedCommand,
    example="pipeline doctor night.yaml --canary 2 --notify",
    exits=(0, 1, 2, 130),
    short_help="Find what would ruin the night, before it; buys nothing.",
)
@click.argument("jobs", nargs=-1, type=PATH, metavar="[JOB.yaml ...]")
@job_options
@budget_option
@mode_options
@click.option("--notify", is_flag=True, help="Send a trial notification.")
@click.option("--strict", is_flag=True, help="Exit with 1 if there is a warning.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@common_options
@click.pass_obj
def doctor(options: Options, /, jobs: tuple[Path, ...], notify: bool, strict: bool, as_json: bool, **extra: Any) -> int:
    """Find what would ruin the night, of these jobs or of what is queued, and buy nothing."""
    import os

    from pipeline.doctor.check import check_line, checks_json, exit_code
    from pipeline.doctor.evening import read_evening
    from pipeline.doctor.examination import Examination
    from pipeline.planning.build import JobOptions
    from pipeline.run import run_in_loop

    config = options.load()
    with work_line(options, "examining", as_json=as_json):
        evening = read_evening(config, os.environ, jobs, JobOptions(**extra))
        checks = run_in_loop(Examination(evening, notify=notify).run())
    if as_json:
        echo_json(checks_json(checks))
    else:
        for check in checks:
            echo_prose(check_line(check), err=False)
    return exit_code(checks, strict=strict)
