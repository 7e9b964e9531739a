"""The command group and the entry point: run a command, print errors, and exit with the code of the error's class."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
from typing import TYPE_CHECKING

import click

from pipeline.cli.command import EXITS, write_explanation
from pipeline.cli.help_command import help_command
from pipeline.cli.job_commands import forget, manifest, plan, rename, report, status, verify
from pipeline.cli.options import Options, common_options
from pipeline.cli.output import echo, echo_stderr
from pipeline.cli.run_commands import cancel, resume, run, submit
from pipeline.cli.server_commands import sandbox, serve
from pipeline.errors import BadInput, LedgerError, LeftToRunAtWork, PipelineError
from pipeline.printable import printable_lines
from pipeline.signals import ending_process

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EXIT_BUG = 70

_SHOW_CURSOR = "\x1b[?25h"

_GC_THRESHOLD = 10_000
"""New objects between two garbage collections: thousands of objects live as long as a call, and with Python's default
of 700 the collections took a tenth of the event loop's time.
"""


class CommandGroup(click.Group):
    """Lists the commands in the order in which they are used, not in the order of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own signature
        """Return the names in the order in which they were added."""
        return list(self.commands)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the same
        """Write the end of the help: the exit codes of all commands."""
        write_explanation(formatter, "pipeline run jobs/quickstart.yaml", list(EXITS))


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, "--version", "-V", package_name="image-batch-pipeline", prog_name="pipeline")
@common_options
def cli() -> None:
    """Generate images in bulk through the OpenAI Images API and compatible servers."""


for _command in (run, submit, resume, status, plan, manifest, report, verify, cancel, rename, forget):
    cli.add_command(_command)
for _command in (serve, help_command, sandbox):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    default = gc.get_threshold()
    gc.set_threshold(_GC_THRESHOLD, *default[1:])
    try:
        sys.exit(_main(arguments))
    finally:
        gc.set_threshold(*default)


def _main(arguments: Sequence[str] | None) -> int:
    """Run the command line and return its exit code, which belongs to the class of the error."""
    options = Options()
    with ending_process(lambda: _say_stopped(options)) as end:
        try:
            return _run_command(arguments, options)
        except (KeyboardInterrupt, click.Abort):
            if end.number is not None:
                end.finish()
            end.arm()
            _say_stopped(options)
            return 130


def _say_stopped(options: Options) -> None:
    if sys.stderr.isatty():
        with contextlib.suppress(OSError):
            click.echo(_SHOW_CURSOR, nl=False, err=True)  # which a live screen hides; not printable
    echo_stderr(f"stopped at once; run `{options.next_command('run')}` to recover and continue")


def _run_command(arguments: Sequence[str] | None, options: Options) -> int:
    try:
        code = cli.main(args=None if arguments is None else list(arguments), standalone_mode=False, obj=options)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as reason:
        return reason.exit_code
    except click.ClickException as error:
        _show(error)
        return BadInput.exit_code
    except PipelineError as error:
        prefix = "" if isinstance(error, LeftToRunAtWork) else "error: "
        for line in _error_lines(error):
            echo(f"{prefix}{line}", err=True)
        is_explained = isinstance(error, LedgerError) or not isinstance(error, BadInput | LeftToRunAtWork)
        if is_explained:
            echo(f"see: pipeline help {type(error).__name__}", err=True)
        return error.exit_code
    except click.Abort:
        raise
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception:  # noqa: BLE001 - the one place where a bug is reported to the user
        bug = "this is a bug in pipeline, not in your input; please report it with the traceback below"
        echo(f"error: {bug}; what was recorded before is kept", err=True)
        import traceback

        click.echo(printable_lines(_without_secrets(traceback.format_exc(), options)), err=True)
        return EXIT_BUG


def _show(error: click.ClickException) -> None:
    """Print how a command line is wrong, as click does."""
    buffer = io.StringIO()
    error.show(buffer)
    click.echo(printable_lines(buffer.getvalue().rstrip("\n")), err=True)


def _error_lines(error: PipelineError) -> Iterable[object]:
    if not isinstance(error, BadInput):
        return str(error).splitlines()
    from pipeline.cli.mistakes import mistake_lines

    return mistake_lines(error.problems)


def _without_secrets(text: str, options: Options) -> str:
    """Remove keys from a traceback, since the message of an error may contain values that it was given."""
    with contextlib.suppress(PipelineError):
        for secret in options.load().secrets(os.environ):
            text = text.replace(secret, "***")
    return text
