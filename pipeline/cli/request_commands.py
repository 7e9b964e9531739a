"""The commands about single requests: show and redo."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from pipeline.cli.completion import complete_jobs, complete_settings
from pipeline.cli.explained_command import ExplainedCommand
from pipeline.cli.options import PATH, budget_option, common_options
from pipeline.cli.output import ask, can_ask, echo_json, echo_prose, print_result, run_output
from pipeline.cli.work_line import work_line
from pipeline.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.cli.options import Options
    from pipeline.redo.process import Redo


@click.command(
    cls=ExplainedCommand,
    example="pipeline show night a-white-siamese-cat-3f9c2a1b",
    exits=(0, 2),
)
@click.argument("job", shell_complete=complete_jobs)
@click.argument("request_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; for several requests a list.")
@common_options
@click.pass_obj
def show(options: Options, job: str, request_id: str, as_json: bool) -> int:
    """Show everything about one request: what was asked, every attempt, its files, why it stands where it stands, and
    what to type. Superseded ones of the same id follow.
    """
    from pipeline.reports.next_command import NextCommand
    from pipeline.reports.show import read_shown, shown_json, shown_lines

    config = options.load()
    found, command = read_shown(config, options.job(job), request_id), NextCommand.here(config)
    if as_json:
        shown = [shown_json(request, command) for request in found]
        echo_json(shown[0] if len(shown) == 1 else shown)
        return 0
    for request in found:
        for line in shown_lines(request, str(config.output), command, time.time()):
            echo_prose(line, err=False)
    return 0


@click.command(
    cls=ExplainedCommand,
    example="pipeline redo night --picks picks.jsonl",
    exits=(0, 1, 2, 3, 130),
)
@click.argument("job", shell_complete=complete_jobs)
@click.argument("more", nargs=-1, metavar="[--id ID ...]")
@click.option("--id", "ids", multiple=True, metavar="ID", help="The images of this request; several times for more.")
@click.option("--picks", type=PATH, metavar="FILE", help="The images that this file, of the report, marks as rejected.")
@click.option(
    "--flag",
    "flags",
    multiple=True,
    type=click.Choice(("blank", "duplicate", "wrong_size", "wrong_format")),
    metavar="FLAG",
    help="The images with this flag: `blank`, `duplicate`, `wrong_size` or `wrong_format`; several times for more.",
)
@click.option("--all", "everything", is_flag=True, help="Every image of the job.")
@click.option("--prompt-suffix", metavar="TEXT", help="Add this to the prompts, in a job of its own, `<name>.redo`.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete_settings,
    help="Change a parameter, in a job of its own, `<name>.redo`; several times for more.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One event a line on stdout, the summary last.")
@click.option("--no-wait", is_flag=True, help="Collect the batches that have ended, and leave the others.")
@budget_option
@common_options
@click.pass_obj
def redo(
    options: Options,
    /,
    job: str,
    more: tuple[str, ...],
    ids: tuple[str, ...],
    picks: Path | None,
    flags: tuple[str, ...],
    everything: bool,
    prompt_suffix: str | None,
    settings: tuple[str, ...],
    yes: bool,
    as_json: bool,
    no_wait: bool,
    budget_usd: float | None,
) -> int:
    """Make images of a job again, on purpose and paid, after asking. The old ones stay on disk, beside the new ones."""
    from pipeline.planning.build import JobOptions
    from pipeline.redo.changed_job import Change
    from pipeline.redo.choice import Choice
    from pipeline.redo.process import prepared, process
    from pipeline.run import run_in_loop

    if more and not ids:
        raise BadInput(f"`{more[0]}` stands behind the job's name: write --id before the ids of requests")
    choice, change = Choice((*ids, *more), picks, flags, everything), Change.of(prompt_suffix, settings)
    choice.check()
    batch, job = options.batch(), options.job(job)
    with work_line(options, "reading the ledger") as line, prepared(batch, job, choice, change) as found:
        line.close()
        if not _is_meant(options, found, yes=yes):
            return 2
        with run_output(options, batch, "queueing", as_json=as_json) as (emit, work):
            work.close()
            result = run_in_loop(process(batch, found, JobOptions(budget_usd=budget_usd, wait=not no_wait), emit))
    budget = [] if budget_usd is None else ["--budget", f"{budget_usd:g}"]
    return print_result(options, result, ["run", *budget], as_json=as_json)


def _is_meant(options: Options, redo: Redo, *, yes: bool) -> bool:
    """Print what is made again and what it costs, and ask. Raises BadInput if there is nobody to ask."""
    what = redo.sentence
    if not yes and not can_ask():
        raise BadInput(f"there is no terminal to ask on; add --yes if this is meant: {what}")
    if not options.quiet or not yes:
        echo_prose(f"{what[0].upper()}{what[1:]}; the old ones stay on disk")
    return yes or ask("Make them again?")
