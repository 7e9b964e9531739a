"""The commands: results to stdout, everything else to stderr, and an exit code that says what became of it."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import PATH, Options, as_typed, everywhere, for_jobs, seconds
from pipeline.errors import BadInput, PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pipeline.batch import Batch
    from pipeline.engine.events import Event
    from pipeline.planning.build import JobOptions
    from pipeline.planning.plan import Plan
    from pipeline.result import Result

BUG = 70

_NEW_OBJECTS = 10_000
"""Between two looks for garbage, since the process is ours: thousands of objects live as long as a call, and looking at
them after every 700, as is usual, took a tenth of the event loop's time.
"""


class Commands(click.Group):
    """Lists the commands in the order of a night's work, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own signature
        """Give the names in the order they were made."""
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="image-batch-pipeline", prog_name="pipeline")
@everywhere
def cli() -> None:
    """Make pictures in bulk through the OpenAI Images API and the servers that speak it."""


@cli.command()
@click.argument("jobs", nargs=-1, type=PATH, metavar="[JOB.yaml ...]")
@for_jobs
@click.option("--budget", "budget_usd", type=click.FloatRange(min=0), metavar="USD", help="Spend no more on any job.")
@click.option("--json", "as_json", is_flag=True, help="One event a line on stdout, the summary last.")
@everywhere
@click.pass_obj
def run(options: Options, /, jobs: tuple[Path, ...], budget_usd: float | None, as_json: bool, **extra: Any) -> int:
    """Submit these jobs and work them to the end; with no argument, work the whole queue."""
    job_options = _job_options(budget_usd=budget_usd, **extra)
    from pipeline.batch import wait_for

    batch = options.batch()
    with _watching(options, batch, as_json=as_json) as (emit, started):
        result = wait_for(batch.run(jobs, job_options, emit=emit, started=started))
    return _end(options, result, as_typed(), as_json=as_json)


@cli.command()
@click.argument("jobs", nargs=-1, type=PATH, required=True, metavar="JOB.yaml ...")
@for_jobs
@everywhere
@click.pass_obj
def submit(options: Options, /, jobs: tuple[Path, ...], **extra: Any) -> int:
    """Check, expand and queue; calls nobody."""
    for plan in options.batch().submit(jobs, _job_options(**extra)):
        _say_warnings(options, plan)
        click.echo(
            f"{plan.name}: {len(plan.requests)} requests for {plan.images} images at provider `{plan.provider.name}`"
        )
    if not options.quiet:
        click.echo("`pipeline run` works the queue", err=True)
    return 0


@cli.command()
@click.argument("jobs", nargs=-1, metavar="[JOB ...]")
@click.option("--budget", "budget_usd", type=click.FloatRange(min=0), metavar="USD", help="Spend no more on any job.")
@click.option("--json", "as_json", is_flag=True, help="One event a line on stdout, the summary last.")
@everywhere
@click.pass_obj
def resume(options: Options, jobs: tuple[str, ...], budget_usd: float | None, as_json: bool) -> int:
    """Put failed requests back into the queue, then work."""
    from pipeline.batch import wait_for

    batch = options.batch()
    with _watching(options, batch, as_json=as_json) as (emit, _):
        result = wait_for(batch.resume(jobs, _job_options(budget_usd=budget_usd), emit=emit))
    return _end(options, result, ["run"], as_json=as_json)


@cli.command()
@click.argument("job", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; with --watch one a line.")
@click.option(
    "--watch",
    callback=seconds,
    is_flag=False,
    flag_value="2",
    metavar="[SECONDS]",
    help="Show it again every 2 seconds, or as many as are given, until Ctrl-C.",
)
@everywhere
@click.pass_obj
def status(options: Options, job: str | None, as_json: bool, watch: float | None) -> int:
    """Show what is pending, running, succeeded, partial, failed; images; cost; time left."""
    from pipeline.reports.status import read_status, status_json, status_lines

    config = options.load()
    if watch is not None:
        from pipeline.progress.watch import watch as keep_watching

        return keep_watching(config, job, watch, as_json=as_json)
    summaries = read_status(config.output, job)
    if as_json:
        click.echo(json.dumps(status_json(summaries), ensure_ascii=False))
    else:
        for line in status_lines(summaries, config.providers):
            click.echo(line)
    return 0


@cli.command()
@click.argument("job", type=PATH, metavar="JOB.yaml")
@for_jobs
@click.option(
    "--preview", type=PATH, metavar="DIR", help="Write the prepared pictures with their masks drawn over them."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@everywhere
@click.pass_obj
def plan(options: Options, /, job: Path, preview: Path | None, as_json: bool, **extra: Any) -> int:
    """Show what a job would do: requests, images, minutes at the limit, cost; calls nobody."""
    from pipeline.planning.build import load_models, make_plans, staging_folder
    from pipeline.reports.estimate import estimate_lines, estimate_plan

    config = options.load()
    with staging_folder() as staging:
        (made,) = make_plans(config, [job], _job_options(**extra), staging if preview else None)
        if preview is not None:
            from pipeline.reports.mask_preview import write_previews

            for path in write_previews(made, staging, preview):
                click.echo(path, err=True)
    view = estimate_plan(config.output, made, load_models(config))
    if as_json:
        click.echo(json.dumps(view, ensure_ascii=False))
    else:
        for line in estimate_lines(view):
            click.echo(line)
    return 0


@cli.command()
@click.argument("job")
@everywhere
@click.pass_obj
def manifest(options: Options, job: str) -> int:
    """Write the job's manifest again from the ledger."""
    click.echo(options.batch().manifest(job))
    return 0


@cli.command()
@click.argument("job")
@click.option("--sheet", type=PATH, metavar="FILE.png", help="Write a contact sheet with captions, too.")
@everywhere
@click.pass_obj
def report(options: Options, job: str, sheet: Path | None) -> int:
    """Write the job's report again from the ledger: a page of its pictures."""
    for path in options.batch().report(job, sheet):
        click.echo(path)
    return 0


@cli.command()
@click.argument("job", required=False)
@click.option("--repair", is_flag=True, help="Move damaged files to quarantine/ and queue what is missing.")
@everywhere
@click.pass_obj
def verify(options: Options, job: str | None, repair: bool) -> int:
    """Read every image again and compare it with the ledger."""
    images, damages = options.batch().verify(job, repair=repair)
    for damage in damages:
        click.echo(f"{damage.file}: {damage.what}")
    if not options.quiet:
        bad = sum(damage.image_pk is not None for damage in damages)
        word = "queued again: `pipeline run` makes them" if repair and bad else "not as recorded"
        click.echo(f"{images - bad} of {images} images are whole" + (f"; {bad} {word}" if bad else ""), err=True)
    return int(bool(damages))


@cli.command()
@click.argument("job")
@everywhere
@click.pass_obj
def cancel(options: Options, job: str) -> int:
    """Take what is still pending out of the queue."""
    number = options.batch().cancel(job)
    click.echo(f"{number} requests of `{job}` taken out of the queue; `pipeline resume {job}` puts them back")
    return 0


@cli.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8787, metavar="N", help="8787 by default; 0 takes a free one."
)
@click.option(
    "--host", default="127.0.0.1", metavar="H", help="Where to listen; any but loopback needs the token it prints."
)
@everywhere
@click.pass_obj
def serve(options: Options, port: int, host: str) -> int:
    """Serve a live page of all jobs until stopped."""
    import asyncio

    from pipeline.web.server import serve as serve_page

    return asyncio.run(serve_page(options.batch(), host, port, click.echo))


@cli.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="The port to listen on; 0 takes a free one."
)
@everywhere
@click.pass_obj
def sandbox(options: Options, port: int) -> int:
    """Serve the sandbox until stopped."""
    from pipeline.sandbox.__main__ import main as serve_sandbox

    config = options.load()
    first = [config.providers[name] for name in (config.provider, "sandbox") if name and name in config.providers]
    chosen = (provider.sandbox for provider in (*first, *config.providers.values()))
    settings = next((dict(settings) for settings in chosen if settings is not None), {})
    return serve_sandbox(["--port", str(port), "--settings", json.dumps(settings)])


def _job_options(**given: Any) -> JobOptions:
    from pipeline.planning.build import JobOptions

    return JobOptions(**given)


@contextlib.contextmanager
def _watching(options: Options, batch: Batch, *, as_json: bool) -> Iterator[tuple[Any, Any]]:
    """Show the run on the terminal, write its log, and with --json its events on stdout."""
    from pipeline.progress.display import Progress
    from pipeline.progress.event_text import event_json
    from pipeline.progress.run_log import Log

    with contextlib.ExitStack() as stack:
        log = stack.enter_context(contextlib.closing(Log(batch.folder, verbose=options.verbose)))
        listeners: list[Any] = [log]
        if not options.quiet:
            crowded = as_json and sys.stdout.isatty()  # a screen among lines of JSON would be neither
            progress = stack.enter_context(Progress(batch.summaries, verbose=options.verbose, live=not crowded))
            listeners.append(progress)
        else:
            listeners.append(_say_failed_notice)
        if as_json:
            listeners.append(lambda event: click.echo(event_json(event)))

        def emit(event: Any) -> None:
            for listener in listeners:
                listener(event)

        def started(plans: Sequence[Plan]) -> None:
            for made in plans:
                _say_warnings(options, made)

        yield emit, started


def _say_failed_notice(event: Event) -> None:
    from pipeline.engine.events import NotificationFailed
    from pipeline.progress.event_text import describe

    if isinstance(event, NotificationFailed):
        _say(describe(event))


def _say_warnings(options: Options, plan: Plan) -> None:
    if not options.quiet:
        for warning in plan.warnings:
            click.echo(f"warning: {plan.name}: {warning}", err=True)


def _end(options: Options, result: Result, again: Sequence[str], *, as_json: bool) -> int:
    """Say how a run ended and how to go on: by the command `again`."""
    from pipeline.cli.summary import closing_lines
    from pipeline.reports.next_command import NextCommand

    if as_json:
        click.echo(json.dumps(_summary_json(result), ensure_ascii=False))
    for sentence in result.unwritten:
        click.echo(f"warning: {sentence}", err=True)
    for stop in {stop.message: stop for stop in result.stops}.values():
        _say(f"stopped: {stop.message}")
    if not options.quiet:
        for line in closing_lines(result, NextCommand.here(result.config), again):
            _say(line)
    if not as_json:
        for path in (*result.manifests, *(() if options.quiet else result.reports)):
            click.echo(path)
    return result.exit_code


def _say(line: str) -> None:
    """Say something on stderr; where its terminal is gone, that is no reason to end otherwise."""
    with contextlib.suppress(OSError):
        click.echo(line, err=True)


def _summary_json(result: Result) -> dict[str, Any]:
    from pipeline import ledger
    from pipeline.reports.failures import causes_json, read_causes
    from pipeline.reports.status import status_json

    with ledger.reading(result.folder) as connection:
        causes = read_causes(connection, [summary.name for summary in result.summaries])
    return {
        "event": "summary",
        "exit": result.exit_code,
        "stops": [stop.message for stop in result.stops],
        "limits": {
            name: {"images": limit.images, "per_seconds": limit.per_seconds} for name, limit in result.lowered.items()
        },
        "manifests": [str(path) for path in result.manifests],
        "reports": [str(path) for path in result.reports],
        "failures": causes_json(causes),
        **status_json(result.summaries),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: the code belongs to the class of the error."""
    usual = gc.get_threshold()
    gc.set_threshold(_NEW_OBJECTS, *usual[1:])
    try:
        sys.exit(_main(arguments))
    finally:
        gc.set_threshold(*usual)


def _main(arguments: Sequence[str] | None) -> int:
    options = Options()
    try:
        code = cli.main(args=None if arguments is None else list(arguments), standalone_mode=False, obj=options)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as wrong:
        wrong.show()
        return BadInput.exit_code
    except PipelineError as error:
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _say(f"stopped at once; run `{options.next_command('run')}` to recover and continue")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception:  # noqa: BLE001 - the one place where a bug reaches a person
        click.echo("error: this is a bug of ours; what it was doing stands below", err=True)
        import traceback

        click.echo(_without_secrets(traceback.format_exc(), options), err=True)
        return BUG


def _without_secrets(text: str, options: Options) -> str:
    """Take the keys out of a traceback: an error's message may hold what it was given."""
    with contextlib.suppress(PipelineError):
        for secret in options.load().secrets(os.environ):
            text = text.replace(secret, "***")
    return text
