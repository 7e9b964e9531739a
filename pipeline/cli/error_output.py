"""Print the error that ended a command, and return its exit code, which belongs to the class of the error."""

from __future__ import annotations

import contextlib
import io
import os
from typing import TYPE_CHECKING

import click

from pipeline.cli.output import echo, echo_prose, print_text
from pipeline.errors import BadInput, DiskFull, LedgerError, LeftToRunAtWork, PipelineError
from pipeline.file_descriptors import is_exhausted, none_was_free
from pipeline.printable import printable_lines
from pipeline.progress.output_queue import NO_ROOM

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.cli.options import Options

EXIT_BUG = 70


def print_error(error: Exception, options: Options) -> int:
    """Print an error that is being handled; return the exit code."""
    match error:
        case click.ClickException():
            _show(error)
            return BadInput.exit_code
        case PipelineError():
            _print_sentences(error)
            return error.exit_code
        case OSError() if error.errno in NO_ROOM:  # as behind the stdout of `--help`
            return print_error(DiskFull(f"{error.strerror}; free some space, then type the command again"), options)
        case OSError() if is_exhausted(error):
            return print_error(none_was_free(f"{error.filename or 'a file'} cannot be opened"), options)
    bug = "this is a bug in pipeline, not in your input; please report it with the traceback below"
    echo(f"error: {bug}; what was recorded before is kept", err=True)
    import traceback

    print_text(printable_lines(_without_secrets(traceback.format_exc(), options)), err=True)
    return EXIT_BUG


def _print_sentences(error: PipelineError) -> None:
    prefix = "" if isinstance(error, LeftToRunAtWork) else "error: "
    for line in _error_lines(error):
        echo_prose(f"{prefix}{line}")
    is_explained = isinstance(error, LedgerError) or not isinstance(error, BadInput | LeftToRunAtWork)
    if is_explained:
        echo(f"see: pipeline help {type(error).__name__}", err=True)


def _show(error: click.ClickException) -> None:
    """Print how a command line is wrong, as click does."""
    buffer = io.StringIO()
    error.show(buffer)
    text = buffer.getvalue().replace("\n\t", "\n    ")  # click's list of choices
    for line in text.rstrip("\n").split("\n"):
        echo_prose(line)


def _error_lines(error: PipelineError) -> Iterable[object]:
    if not isinstance(error, BadInput):
        return str(error).splitlines()
    from pipeline.cli.mistakes import mistake_lines

    return mistake_lines(error.problems)


def _without_secrets(text: str, options: Options) -> str:
    """Remove keys from a traceback, since the message of an error may contain values that it was given."""
    with contextlib.suppress(Exception):  # it would hide the error that is printed
        config = options.loaded or options.load()
        for secret in config.secrets(os.environ):
            text = text.replace(secret, "***")
    return text
