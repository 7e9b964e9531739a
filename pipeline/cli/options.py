"""Options of all commands, which may stand before or after the command, and options of commands that read job files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.batch import Batch
    from pipeline.config.load import Config


class PathType(click.Path):
    """A path, whose class is imported when a path is given."""

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        from pathlib import Path

        return Path(os.fsdecode(super().convert(value, param, ctx)))


PATH = PathType()


class Options:
    """The values of the options of all commands."""

    loaded: Config | None = None  # the last config that was loaded
    config: Path | None = None
    output: Path | None = None
    quiet: bool = False
    verbose: bool = False
    is_config_named: bool = False  # by --verbose, once
    is_run_begun: bool = False  # stopped at once, it may leave calls to recover

    def next_command(self, *words: str) -> str:
        """Return a command for the same config and the same output folder, to be typed in the current folder."""
        from pipeline.errors import PipelineError
        from pipeline.reports.next_command import NextCommand

        try:
            return NextCommand.here(self.load()).line(*words)
        except PipelineError:  # the config cannot be read any more
            return NextCommand(None, ()).line(*words)

    def load(self) -> Config:
        """Load the config that these options name. Raises ConfigError."""
        from pipeline.config.load import load

        self.loaded = config = load(self.config, output=self.output)
        if self.verbose and not self.is_config_named:
            self.is_config_named = True
            found = config.file.absolute() if config.file else "built in, since none was found here or above"
            from pipeline.printable import printable

            click.echo(printable(f"config: {found}; output: {config.output}"), err=True)
        return config

    def job(self, given: str) -> str:
        """Return the name of the job that is called `given` or whose file it is. Raises BadInput."""
        from pipeline import ledger
        from pipeline.ledger.job_names import find_job
        from pipeline.reports.status import nothing_submitted

        config = self.load()
        with ledger.reading(config.output) as connection:
            return find_job(connection, given, nothing_submitted(config))

    def warn_if_empty(self) -> bool:
        """Return whether nothing has been submitted to the output folder; print that, unless --quiet is given."""
        from pipeline import ledger
        from pipeline.ledger.job_names import has_jobs
        from pipeline.printable import printable
        from pipeline.reports.status import nothing_submitted

        config = self.load()
        with ledger.reading(config.output) as connection:
            if has_jobs(connection):
                return False
        if not self.quiet:
            click.echo(printable(nothing_submitted(config)), err=True)
        return True

    def batch(self) -> Batch:
        """Return the batch of the output folder that these options name. Raises ConfigError."""
        from pipeline.batch import Batch

        return Batch(self.load())


def typed_command() -> list[str]:
    """Return the words of the current command with its own options, so that it can be typed again."""
    context = click.get_current_context()
    words, options = [context.info_name or ""], []
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if value is None or value is False or value == ():  # 0 is an amount
            continue
        values = [str(word) for word in (value if isinstance(value, tuple) else (value,))]
        if isinstance(parameter, click.Argument):
            words += values
        else:
            options += [parameter.opts[0], *(values if value is not True else [])]
    return words + options


def parse_seconds(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """Parse a number of seconds. Raises click's BadParameter."""
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        raise click.BadParameter(
            f"`{value}` is not a number of seconds; write a job's name before the option"
        ) from None
    if not 0.1 <= number <= 86400:
        raise click.BadParameter("must be from 0.1 to 86400 seconds")
    return number


def parse_dollars(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """Parse an amount of dollars; `nan` and `inf` are none. Raises click's BadParameter."""
    from pipeline.config.validation import find_number_fault

    if value is None:
        return None
    try:
        amount = float(value)
    except ValueError:
        raise click.BadParameter(f"takes US dollars, such as 5 or 0.50, not {value!r:.60}") from None
    if fault := find_number_fault(amount, 0):
        raise click.BadParameter(fault)
    return amount


def parse_limit(_context: click.Context, _parameter: click.Parameter, value: int | None) -> int | None:
    """Return a number of requests. Raises click's BadParameter."""
    from pipeline.config.validation import find_number_fault

    if value is not None and (fault := find_number_fault(value, 1, whole=True)):
        raise click.BadParameter(fault)
    return value


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    options = context.ensure_object(Options)
    if value and parameter.name:
        setattr(options, parameter.name, value)


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of all commands."""
    for option in (
        click.option(
            "--verbose", "-v", is_flag=True, expose_value=False, callback=_remember, help="Print more on stderr."
        ),
        click.option(
            "--quiet", "-q", is_flag=True, expose_value=False, callback=_remember, help="Print only errors on stderr."
        ),
        click.option(
            "--output",
            "-o",
            type=PATH,
            expose_value=False,
            callback=_remember,
            help="The folder of the ledger and all images.",
        ),
        click.option(
            "--config",
            "-c",
            type=PATH,
            expose_value=False,
            callback=_remember,
            help="The config; else $PIPELINE_CONFIG, else the nearest config.yaml.",
        ),
    ):
        command = option(command)
    return command


def budget_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option of commands that a budget stops, or that say where it would."""
    return click.option(
        "--budget", "budget_usd", callback=parse_dollars, metavar="USD", help="Spend no more on any job."
    )(command)


def parse_deadline(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Return a deadline as it is written. Raises click's BadParameter that says what to write."""
    from pipeline.planning.mode import find_deadline_fault

    if value is not None and (fault := find_deadline_fault(value)):
        raise click.BadParameter(fault)
    return value


def mode_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of how jobs are served."""
    from pipeline.planning.mode_names import MODES

    command = click.option(
        "--deadline",
        callback=parse_deadline,
        metavar="TIME",
        help='With mode auto: when all is to be made, as "07:00" or "2026-11-29T07:00+01:00".',
    )(command)
    return click.option(
        "--mode",
        type=click.Choice(MODES),
        metavar="MODE",
        help="`realtime`, `batch` (half the price, within a day), or `auto` (by batch until the deadline is near).",
    )(command)


def job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of commands that read job files."""
    from pipeline.cli.completion import complete_providers

    for option in (
        click.option("--allow-unpriced", is_flag=True, help="Allow models without a price although there is a budget."),
        click.option(
            "--allow-shrink", is_flag=True, help="Allow a job to lose most of its queue, or to take a lost file's name."
        ),
        click.option("--allow-large", is_flag=True, help="Allow a job of more than 1,000,000 requests."),
        click.option(
            "--limit",
            type=int,
            callback=parse_limit,
            metavar="N",
            help="The first N requests only; the others stay as they are.",
        ),
        click.option(
            "--provider",
            metavar="NAME",
            shell_complete=complete_providers,
            help="Use another provider, for a rehearsal, for example; each job is then `<name>.NAME`.",
        ),
    ):
        command = option(command)
    return command
