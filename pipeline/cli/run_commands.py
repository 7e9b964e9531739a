"""The commands that queue, process and cancel jobs: run, submit, resume and cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.completion import complete_jobs
from pipeline.cli.explained_command import ExplainedCommand
from pipeline.cli.options import PATH, budget_option, common_options, job_options, mode_options, typed_command
from pipeline.cli.output import echo, echo_prose, print_notes, print_put_back, print_result, run_output, warn_if_late
from pipeline.cli.work_line import work_line
from pipeline.config.engine_names import ENGINES
from pipeline.errors import BadInput, LeftToRunAtWork, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pipeline.batch import Batch
    from pipeline.cli.options import Options
    from pipeline.ledger.put_back import JobPutBack
    from pipeline.planning.plan import Plan


def parse_kinds(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return classes of errors as they are spelled. Raises click's BadParameter with the nearest names."""
    from pipeline.config.yaml_document import nearest

    known = _error_kinds()
    for value in values:
        if value.lower() not in known:
            near = nearest(value, known.values())
            hint = f"did you mean {near}?" if near else f"known are {', '.join(sorted(known.values()))}"
            raise click.BadParameter(f"`{value}` is no class of error; {hint}")
    return tuple(known[value.lower()] for value in values)


def _error_kinds() -> dict[str, str]:
    """Return the names of all classes of errors that end a request, by themselves in lower case."""
    found, classes = {}, [RequestError]
    while classes:
        below = classes.pop().__subclasses__()
        classes += below
        found.update({error_class.__name__.lower(): error_class.__name__ for error_class in below})
    return found


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of commands that process the queue."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One event a line on stdout, the summary last."),
        click.option(
            "--on",
            type=click.Choice(ENGINES),
            metavar="ENGINE",
            help="Where calls are made: by workers that Ray places, or here; in place of what the config says.",
        ),
        click.option("--no-wait", is_flag=True, help="Wait for no batch, pause or window: collect what has ended."),
    ):
        command = option(command)
    return budget_option(mode_options(command))


@click.command(
    cls=ExplainedCommand,
    example="pipeline run night.yaml --budget 5",
    exits=(0, 1, 2, 3, 130),
)
@click.argument("jobs", nargs=-1, type=PATH, metavar="[JOB.yaml ...]")
@job_options
@run_options
@common_options
@click.pass_obj
def run(options: Options, /, jobs: tuple[Path, ...], as_json: bool, no_wait: bool, **extra: Any) -> int:
    """Submit these jobs and process them to the end; with no argument, process the whole queue."""
    from pipeline.planning.build import JobOptions
    from pipeline.run import run_in_loop

    if not jobs and (extra["limit"] or extra["provider"]):
        option = "--limit" if extra["limit"] else "--provider"
        raise BadInput(f"{option} is for job files: name one, as in `pipeline run JOB.yaml {option} ...`")
    batch = options.batch()
    if not jobs:
        options.warn_if_empty()
        warn_if_late(options, extra["deadline"])

    def started(plans: list[Plan]) -> None:
        line.close()
        from_stdin.extend(plan.name for plan in plans if plan.reads_stdin)
        for plan in plans:
            print_notes(options, plan)

    from_stdin: list[str] = []
    with run_output(options, batch, "checking and queueing", as_json=as_json) as (emit, line):
        coroutine = batch.run(jobs, JobOptions(wait=not no_wait, **extra), emit=emit, started=started)
        result = run_in_loop(coroutine)
    again = _whole_queue(extra["budget_usd"]) if from_stdin else typed_command()
    if "--limit" in again and not result.unreached:  # the first requests are made: what continues is without it
        place = again.index("--limit")
        del again[place : place + 2]
    return print_result(options, result, again, as_json=as_json)


@click.command(cls=ExplainedCommand, example="pipeline submit night.yaml birds.yaml", exits=(0, 2))
@click.argument("jobs", nargs=-1, type=PATH, required=True, metavar="JOB.yaml ...")
@job_options
@mode_options
@common_options
@click.pass_obj
def submit(options: Options, /, jobs: tuple[Path, ...], **extra: Any) -> int:
    """Check, expand and queue jobs, without calling a provider. With --limit, only the first N are added."""
    from pipeline.planning.build import JobOptions
    from pipeline.reports.status import submission_line

    batch = options.batch()
    with work_line(options, "checking and queueing"):
        submissions = batch.submissions(jobs, JobOptions(**extra))
    for submission in submissions:
        print_notes(options, submission.plan)
        echo(submission_line(submission.plan, submission.claim))
    if not options.quiet:
        for line in _next_lines(options, batch, [submission.plan.name for submission in submissions]):
            echo_prose(line)
    return 0


def _next_lines(options: Options, batch: Batch, names: Sequence[str]) -> list[str]:
    """Return what starts jobs that were submitted: a command, or the run at work."""
    from pipeline import ledger
    from pipeline.job_queue import queued_message
    from pipeline.ledger.job_summary import read_job_summaries
    from pipeline.ledger.lock import find_owner

    with ledger.reading(batch.folder) as connection:
        if owner := find_owner(batch.folder, connection):
            return [queued_message(connection, name, owner.who) for name in names]
        if any(summary.unfinished for summary in read_job_summaries(connection, names)):
            return [f"to start, run: {options.next_command('run')}"]
    return ["nothing to start: no request of it is queued"]


@click.command(cls=ExplainedCommand, example="pipeline resume night", exits=(0, 1, 2, 3, 130))
@click.argument("jobs", nargs=-1, metavar="[JOB ...]", shell_complete=complete_jobs)
@click.option("--cancelled", is_flag=True, help="What was cancelled, too, without naming its job.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    callback=parse_kinds,
    help="Only what failed with this class of error, such as ServerFault; may be given several times.",
)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(("failed", "partial", "cancelled")),
    metavar="STATUS",
    help="Only what is `failed`, `partial` or `cancelled`; may be given several times.",
)
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only the request of this id; several times for more.")
@run_options
@common_options
@click.pass_obj
def resume(
    options: Options,
    /,
    jobs: tuple[str, ...],
    kinds: tuple[str, ...],
    statuses: tuple[str, ...],
    ids: tuple[str, ...],
    cancelled: bool,
    as_json: bool,
    no_wait: bool,
    **extra: Any,
) -> int:
    """Put failed requests back into the queue, then process it.

    With --kind, --status and --id, only those that match all of them. Without a job's name, what was cancelled and
    what the content policy refused is left alone.
    """
    from pipeline.planning.build import JobOptions
    from pipeline.run import run_in_loop

    batch, names = options.batch(), [options.job(job) for job in jobs]
    if not jobs:
        options.warn_if_empty()
    warn_if_late(options, extra["deadline"])

    def started(found: list[JobPutBack]) -> None:
        line.close()
        print_put_back(options, batch, found)

    with run_output(options, batch, "reading the ledger", as_json=as_json) as (emit, line):
        coroutine = batch.resume(
            names,
            JobOptions(wait=not no_wait, **extra),
            kinds=kinds,
            statuses=statuses,
            ids=ids,
            cancelled=cancelled,
            emit=emit,
            started=started,
        )
        result = run_in_loop(coroutine)
    return print_result(options, result, _whole_queue(extra["budget_usd"]), as_json=as_json)


def _whole_queue(budget_usd: float | None) -> list[str]:
    """Return the words of the command that processes what is queued, with this budget."""
    return ["run", *([] if budget_usd is None else ["--budget", f"{budget_usd:g}"])]


@click.command(
    cls=ExplainedCommand,
    example="pipeline cancel night",
    exits=(0, 2, 3, 130),
)
@click.argument("job", shell_complete=complete_jobs)
@common_options
@click.pass_obj
def cancel(options: Options, job: str) -> int:
    """Take what is still pending out of the queue, and cancel the job's batches."""
    from pipeline.reports.facts import counted
    from pipeline.reports.status import read_status

    job, batch = options.job(job), options.batch()
    with work_line(options, "taking requests out of the queue"):
        number = batch.cancel(job)
    if number:
        again = f"to put {'it' if number == 1 else 'them'} back: {options.next_command('resume', job)}"
        echo(f"{counted(number, 'request')} of `{job}` taken out of the queue; {again}")
    batches = batch.count_batches(job)
    (summary,) = read_status(batch.folder, job)
    if in_flight := summary.counts["running"] - summary.in_batches.requests:
        echo(f"{counted(in_flight, 'request')} of `{job}` in flight: what comes is kept, and no other call follows")
    elif not number and not batches:
        echo(f"nothing of `{job}` was queued")
    return _cancel_batches(options, batch, job) if batches else 0


def _cancel_batches(options: Options, batch: Batch, job: str) -> int:
    """Cancel the batches of a job, wait until they have ended, and print what they brought; return the exit code."""
    from pipeline.run import run_in_loop

    with run_output(options, batch, "cancelling batches", as_json=False) as (emit, line):
        line.close()
        try:
            result = run_in_loop(batch.cancel_batches(job, emit=emit))
        except LeftToRunAtWork as sentence:
            echo(sentence)
            return 0
    code = print_result(options, result, ["cancel", job], as_json=False)
    return code if code > 1 else 0  # cancelled requests are no failure of this command
