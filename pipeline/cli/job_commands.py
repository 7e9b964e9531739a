"""The commands about jobs that call no provider: status, plan, manifest, report, verify, rename and forget."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.completion import complete_jobs
from pipeline.cli.explained_command import ExplainedCommand
from pipeline.cli.options import PATH, budget_option, common_options, job_options, mode_options, parse_seconds
from pipeline.cli.output import ask, can_ask, echo, echo_json, echo_prose, echo_stderr, thumbnail_work
from pipeline.cli.work_line import work_line
from pipeline.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.cli.options import Options


_MAX_UNKNOWN = 20  # images that are not in the ledger and are named


@click.command(
    cls=ExplainedCommand,
    example="pipeline status night --watch 5",
    exits=(0, 2, 130),
)
@click.argument("job", required=False, shell_complete=complete_jobs)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; with --watch one a line.")
@click.option(
    "--watch",
    callback=parse_seconds,
    is_flag=False,
    flag_value="2",
    metavar="[SECONDS]",
    help="Show it again every 2 seconds, or as many as are given, while a run works and something is queued.",
)
@click.option("--keep", is_flag=True, help="With --watch: go on until Ctrl-C.")
@click.option("--failed", is_flag=True, help="List the requests that failed or came back partial, too.")
@common_options
@click.pass_obj
def status(options: Options, job: str | None, as_json: bool, watch: float | None, keep: bool, failed: bool) -> int:
    """Show whether a run is at work; what is pending, running, succeeded, partial, failed; images; cost; stops."""
    from pipeline.reports.next_command import NextCommand
    from pipeline.reports.status import folder_json, folder_lines, nothing_submitted, read_folder_status

    if failed and watch is not None:
        raise BadInput("--failed lists what failed until now: leave out --watch")
    config = options.load()
    job = job and options.job(job)
    if watch is not None:
        from pipeline.progress.watch import watch as keep_watching

        return keep_watching(config, job, watch, as_json=as_json, keep=keep)
    with work_line(options, "reading the ledger"):
        found = read_folder_status(config.output, job, config.discounts, config.providers, failed=failed)
        command = NextCommand.here(config)
    if as_json:
        echo_json(folder_json(found, command))
    else:
        lines = folder_lines(found, config.services, command, verbose=options.verbose)
        for line in lines if found.summaries else [*lines, nothing_submitted(config)]:
            echo_prose(line, err=False)
    return 0


@click.command(
    cls=ExplainedCommand,
    example="pipeline plan night.yaml --provider sandbox",
    exits=(0, 2),
)
@click.argument("jobs", nargs=-1, type=PATH, required=True, metavar="JOB.yaml ...")
@job_options
@budget_option
@mode_options
@click.option("--preview", type=PATH, metavar="DIR", help="Write the prepared images with their masks drawn over them.")
@click.option(
    "--diff", is_flag=True, help="Show what is new, changed, kept and superseded since the job was submitted."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; for several files a list.")
@common_options
@click.pass_obj
def plan(
    options: Options, /, jobs: tuple[Path, ...], preview: Path | None, diff: bool, as_json: bool, **extra: Any
) -> int:
    """Show what a job would do, without calling a provider: requests, images, minutes at the limit, cost."""
    from pipeline import ledger
    from pipeline.config.load import budget_in_force
    from pipeline.controls import FolderControls
    from pipeline.ledger.job_name_claim import check_claim
    from pipeline.ledger.other_keys import with_known_keys
    from pipeline.planning.build import JobOptions, load_models, make_plans, staging_folder
    from pipeline.reports.estimate import estimate_lines, estimate_plan
    from pipeline.reports.next_command import NextCommand
    from pipeline.reports.plan_diff import diff_lines, read_changes

    config, chosen = options.load(), JobOptions(**extra)
    with staging_folder() as staging:
        with work_line(options, "checking"):
            plans = make_plans(config, jobs, chosen, staging if preview else None)
        if preview is not None:
            from pipeline.reports.mask_preview import write_previews

            for job_plan in plans:
                for path in write_previews(job_plan, staging, preview if len(plans) == 1 else preview / job_plan.name):
                    echo(path, err=True)
    models = load_models(config)
    with work_line(options, "estimating"):
        changes = [read_changes(config.output, job_plan) if diff else None for job_plan in plans]
        estimates = [
            estimate_plan(
                config.output,
                job_plan,
                models,
                budget_usd=budget_in_force(chosen.budget_usd, job_plan.budget_usd, config.budget_usd),
                tables={member.name: load_models(config, member) for member in job_plan.serving if member.own_models},
                changes=changed,
            )
            for job_plan, changed in zip(plans, changes, strict=True)
        ]
    if as_json:
        echo_json(estimates[0] if len(estimates) == 1 else estimates)
    else:
        serving = {member.name for job_plan in plans for member in job_plan.serving}
        for line in FolderControls(config).read().lines(NextCommand.here(config), serving):
            echo_prose(line, err=False)
        for number, estimate in enumerate(estimates):
            if number:
                echo("")
            for line in estimate_lines(estimate):
                echo_prose(line, err=False)
            if (changed := changes[number]) is not None:
                for line in diff_lines(estimate["diff"], changed.kept_unmade):
                    echo_prose(line, err=False)
    with ledger.reading(config.output) as connection:
        for job_plan in plans:
            check_claim(connection, with_known_keys(connection, job_plan), allow_shrink=chosen.allow_shrink)
    return 0


@click.command(cls=ExplainedCommand, example="pipeline manifest night", exits=(0, 2))
@click.argument("job", shell_complete=complete_jobs)
@common_options
@click.pass_obj
def manifest(options: Options, job: str) -> int:
    """Write the job's manifest again from the ledger."""
    batch, job = options.batch(), options.job(job)
    with work_line(options, "writing the manifest"):
        path = batch.manifest(job)
    echo(path)
    return 0


@click.command(
    cls=ExplainedCommand,
    example="pipeline report night --sheet night.png",
    exits=(0, 2),
)
@click.argument("job", shell_complete=complete_jobs)
@click.option("--sheet", type=PATH, metavar="FILE.png", help="Write a contact sheet with captions, too.")
@click.option("--open", "in_browser", is_flag=True, help="Open the report in a browser.")
@common_options
@click.pass_obj
def report(options: Options, job: str, sheet: Path | None, in_browser: bool) -> int:
    """Write the job's report again from the ledger: a page of its images."""
    from pipeline.reports.write import write_job_report

    config = options.load()
    with thumbnail_work(options, config, "writing the report") as work:
        paths = write_job_report(config, options.job(job), sheet, work)
    for sentence in work.unwritten:
        echo_stderr(f"warning: {sentence}")
    for path in paths:
        echo(path)
    if in_browser:
        import webbrowser

        if not webbrowser.open(paths[0].absolute().as_uri()):
            echo_stderr(f"warning: no browser was found; open this page in one: {paths[0].absolute()}")
    return 0


@click.command(cls=ExplainedCommand, example="pipeline verify --repair", exits=(0, 1, 2))
@click.argument("job", required=False, shell_complete=complete_jobs)
@click.option("--repair", is_flag=True, help="Move damaged files to quarantine/ and queue what is missing.")
@click.option("--deep", is_flag=True, help="Also read every byte of images in an object store; it costs egress.")
@common_options
@click.pass_obj
def verify(options: Options, job: str | None, repair: bool, deep: bool) -> int:
    """Read every image again and compare it with the ledger."""
    if job is None and options.warn_if_empty():
        return 0
    batch, job = options.batch(), job and options.job(job)
    with work_line(options, "checking images") as line:
        count = functools.partial(line.count, "checking images")
        images, damages = batch.verify(job, repair=repair, deep=deep, count=count)
    for damage in damages:
        echo(f"{damage.file}: {damage.what}")
    if not options.quiet:
        unknown = batch.unknown_images(job)
        for name in unknown[:_MAX_UNKNOWN]:
            echo(f"{name}: is not in the ledger; it stays as it is", err=True)
        if len(unknown) > _MAX_UNKNOWN:
            echo(f"and {len(unknown) - _MAX_UNKNOWN:,} more images that are not in the ledger", err=True)
        bad = sum(damage.image is not None for damage in damages)
        again = sum(damage.image_pk is not None for damage in damages)
        command = options.next_command("run") if repair else options.next_command("verify", "--repair")
        outcome = (
            f"queued again; to make them, run: {command}" if repair else f"not; to queue them again, run: {command}"
        )
        counted = f"{images - bad:,} of {images:,} images are complete"
        echo(counted + (f"; {again if repair else bad:,} {outcome}" if again else ""), err=True)
        if damages.c2pa_marks:
            echo(f"{damages.c2pa_marks:,} of {images:,} images have a C2PA mark", err=True)
    return int(bool(damages))


@click.command(
    cls=ExplainedCommand,
    example="pipeline rename night birds",
    exits=(0, 2, 3),
)
@click.argument("old", shell_complete=complete_jobs)
@click.argument("new")
@common_options
@click.pass_obj
def rename(options: Options, old: str, new: str) -> int:
    """Change a job's name; its images and all that is known of it go along. Not while a run is at work."""
    batch, old_name = options.batch(), options.job(old)
    with work_line(options, "renaming"):
        batch.rename(old_name, new)
    echo(f"job `{old}` is job `{new}` now; put `name: {new}` into its file, unless the file is called {new}.yaml")
    return 0


@click.command(
    cls=ExplainedCommand,
    example="pipeline forget night",
    exits=(0, 2, 3, 130),
)
@click.argument("job", shell_complete=complete_jobs)
@click.option("--files", is_flag=True, help="Delete the job's folder with its images, too.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options
@click.pass_obj
def forget(options: Options, job: str, files: bool, yes: bool) -> int:
    """Take a job out of the ledger, after asking. Its files stay. Not while a run is at work."""
    from pipeline.reports.status import forget_question, forgotten, read_status

    batch = options.batch()
    (summary,) = read_status(batch.folder, options.job(job))
    question = forget_question(summary, files=files)
    if not yes:
        if not can_ask():
            raise BadInput(f"there is no terminal to ask on; add --yes if this is meant: {question}")
        if not ask(question):
            return 2
    with work_line(options, "forgetting, and deleting files" if files else "forgetting"):
        batch.forget(summary.name, files=files)
    echo(forgotten(summary, files=files))
    return 0
