"""The entry point: runs a command, and exits with the code of what it returns or raises."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
from typing import TYPE_CHECKING

import click

from pipeline.cli.command_table import CommandGroup
from pipeline.cli.options import Options, common_options
from pipeline.progress.output_queue import LONGEST_WAIT_SECONDS, deliver, open_closed_streams, output_restored
from pipeline.signals import ending_process

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMPLETE_VARIABLE = "_PIPELINE_COMPLETE"  # in which a shell's script asks for completions

_SHOW_CURSOR = "\x1b[?25h"

_STOPPED_SECONDS = 0.7  # for a reader that reads nothing, after a signal
_WORDS_SECONDS = 0.15  # for the last line of a command that is stopped at once

_GC_THRESHOLD = 10_000
"""New objects between two garbage collections: thousands of objects live as long as a call, and with Python's default
of 700 the collections took a tenth of the event loop's time.
"""


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, "--version", "-V", package_name="image-batch-pipeline", prog_name="pipeline")
@common_options
def cli() -> None:
    """Generate images in bulk through the OpenAI Images API and compatible servers."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    open_closed_streams()
    default = gc.get_threshold()
    gc.set_threshold(_GC_THRESHOLD, *default[1:])
    try:
        sys.exit(_main(arguments))
    finally:
        gc.set_threshold(*default)


def _main(arguments: Sequence[str] | None) -> int:
    """Run the command line and return its exit code, which belongs to the class of the error."""
    options = Options()
    if os.environ.get(_COMPLETE_VARIABLE):
        return _complete(arguments, options)
    with ending_process(lambda: _say_stopped(options)) as end, output_restored():
        try:
            code = _run_command(arguments, options)
            code = _delivered(code, _STOPPED_SECONDS if end.is_stopping else LONGEST_WAIT_SECONDS, options)
        except (KeyboardInterrupt, click.Abort):
            if end.number is not None:
                end.finish()
            end.arm()
            _say_stopped(options)
            return 130
        return code


def _delivered(code: int, longest_wait: float, options: Options) -> int:
    """Wait until what was printed is read; return the exit code, which is another if there is no room for it."""
    try:
        deliver(longest_wait)
    except OSError as error:
        from pipeline.cli.error_output import print_error

        code = print_error(error, options)
        deliver(longest_wait)
    return code


def _complete(arguments: Sequence[str] | None, options: Options) -> int:
    """Print completions; whatever is wrong, nothing on stderr disturbs the line that is being typed."""
    from pipeline.cli.completion_command import register

    register()
    with contextlib.redirect_stderr(io.StringIO()):
        return _run_command(arguments, options)


def _say_stopped(options: Options) -> None:
    from pipeline.cli.output import echo_stderr

    if sys.stderr.isatty():
        with contextlib.suppress(OSError):
            click.echo(_SHOW_CURSOR, nl=False, err=True)  # which a live screen hides; not printable
    recover = f"; run `{options.next_command('run')}` to recover and continue" if options.is_run_begun else ""
    echo_stderr(f"stopped at once{recover}")
    deliver(_WORDS_SECONDS)


def _run_command(arguments: Sequence[str] | None, options: Options) -> int:
    try:
        words = None if arguments is None else list(arguments)
        code = cli.main(args=words, standalone_mode=False, complete_var=_COMPLETE_VARIABLE, obj=options)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as reason:
        return reason.exit_code
    except click.Abort:
        raise
    except Exception as error:  # noqa: BLE001 - the one place where a bug is reported to the user
        from pipeline.cli.error_output import print_error

        return print_error(error, options)
