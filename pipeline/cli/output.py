"""Print a run: events and progress while it works, then its summary and its exit code."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any, TextIO

import click

from pipeline.cli.work_line import work_line
from pipeline.errors import DiskFull, PipelineError
from pipeline.printable import printable, printable_json
from pipeline.progress.output_queue import NO_ROOM, begin_end, queue_output

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.batch import Batch
    from pipeline.cli.options import Options
    from pipeline.cli.work_line import WorkLine
    from pipeline.config.load import Config
    from pipeline.engine.events import Event, Listener
    from pipeline.errors import Stop
    from pipeline.ledger.put_back import JobPutBack
    from pipeline.planning.plan import Plan
    from pipeline.reports.forms import EventsLostForm, SummaryForm
    from pipeline.reports.write import ThumbnailWork
    from pipeline.result import Result


_COMMAND = re.compile(r"(^ *|: )pipeline ")

_UNCHANGED = "nothing was changed"
_INTERRUPTED = 130


def echo(line: object, *, err: bool = False) -> None:
    """Print a line on stdout or stderr; what it holds from outside is escaped. The only way to print a text."""
    print_text(printable(line), err=err)


def echo_json(value: Any) -> None:
    """Print a value as one line of JSON on stdout."""
    print_text(printable_json(value), err=False)


def print_text(printable_text: str, *, err: bool) -> None:
    """Print a text without control characters, unless nobody reads it any longer: that must not change the exit code.

    Raises DiskFull if stdout is a file for which there is no room.
    """
    try:
        click.echo(printable_text, err=err)
    except OSError as reason:
        if not err and reason.errno in NO_ROOM:
            what = f"stdout cannot be written: {reason.strerror}"
            raise DiskFull(f"{what}; free some space, then type the command again") from None
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2 if err else 1)  # else the interpreter fails at its exit, too
        os.close(null)


def can_ask() -> bool:
    """Return whether stdin is a terminal, at which a person can answer."""
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


def echo_stderr(line: str) -> None:
    """Print a line on stderr; a terminal that is gone must not change the exit code."""
    with contextlib.suppress(OSError):
        echo(line, err=True)


def ask(question: str) -> bool:
    """Ask on stderr; print that nothing was changed unless the answer is yes. Ctrl-C and Ctrl-D exit with 130."""
    *lines, last = _pieces(f"{question} [y/N]:", sys.stderr)
    for line in lines:
        echo_stderr(line)
    try:
        is_meant = click.confirm(printable(last), prompt_suffix=" ", show_default=False, err=True)
    except click.Abort:
        echo_stderr("")  # the question's line ends
        echo_stderr(_UNCHANGED)
        raise click.exceptions.Exit(_INTERRUPTED) from None
    if not is_meant:
        echo_stderr(_UNCHANGED)
    return is_meant


def echo_prose(line: str, *, err: bool = True) -> None:
    """Print a line; on a terminal it breaks between words. A command stays whole, so that it can be copied."""
    for piece in _pieces(line, sys.stderr if err else sys.stdout):
        if err:
            echo_stderr(piece)
        else:
            echo(piece)


def _pieces(line: str, stream: TextIO) -> list[str]:
    if stream.isatty() and not _COMMAND.search(line):
        with contextlib.suppress(OSError):  # the terminal is gone
            return _wrapped(line, os.get_terminal_size(stream.fileno()).columns)
    return [line]


def _wrapped(line: str, columns: int) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    wrapper = textwrap.TextWrapper(
        max(20, columns), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.wrap(line) or [line]


def print_notes(options: Options, plan: Plan) -> None:
    """Print the warnings and notes of a plan, and whether it goes by batch, on stderr, unless --quiet is given."""
    from pipeline.reports.status import mode_line

    if not options.quiet:
        for warning in plan.warnings:
            echo_prose(f"warning: {plan.name}: {warning}")
        for note in plan.notes:
            echo_prose(f"note: {plan.name}: {note}")
        if line := mode_line(plan, time.time()):
            echo_prose(line)


def warn_if_late(options: Options, deadline: str | None) -> None:
    """Print on stderr that a deadline has passed, unless --quiet is given: for jobs that are not submitted again."""
    from pipeline.planning.mode import local_time, read_deadline

    if deadline is None or options.quiet:
        return
    if (moment := read_deadline(deadline, now := time.time())) <= now:
        echo_prose(f"warning: the deadline, {local_time(moment)}, has passed: everything is made in realtime")


def print_put_back(options: Options, batch: Batch, found: Sequence[JobPutBack]) -> None:
    """Print on stderr what is put back and what that may cost, unless --quiet is given."""
    from pipeline.reports.next_command import NextCommand
    from pipeline.reports.put_back import put_back_lines

    if not options.quiet:
        for line in put_back_lines(found, NextCommand.here(batch.config)):
            echo_stderr(line)


@contextlib.contextmanager
def run_output(options: Options, batch: Batch, what: str, *, as_json: bool) -> Iterator[tuple[Listener, WorkLine]]:
    """Show the progress of a run, write its log and, with --json, print its events.

    Yields a listener for the events, and a line that says `what` until it is closed, when the run starts.
    """
    from pipeline.engine.worker_events import EngineOutput
    from pipeline.progress.event_text import event_json
    from pipeline.progress.run_log import Log

    options.is_run_begun = True
    queue_output({"stdout": _lost_events if as_json else _lost_lines, "stderr": _lost_lines})
    with contextlib.ExitStack() as stack:
        stack.callback(begin_end)
        listeners: list[Listener] = [
            stack.enter_context(contextlib.closing(Log(batch.folder, verbose=options.verbose)))
        ]
        if not options.quiet:
            from pipeline.progress.display import Progress

            live = not (as_json and sys.stdout.isatty())  # no live screen between lines of JSON
            windows = {
                name: provider.window
                for name, provider in batch.config.providers.items()
                if provider.window is not None
            }
            progress = Progress(batch.summaries, verbose=options.verbose, live=live, windows=windows)
            listeners.append(stack.enter_context(progress))
        else:
            listeners.append(_failed_notifications())
        if as_json:
            listeners.append(lambda event: None if isinstance(event, EngineOutput) else echo_json(event_json(event)))
        yield _broadcast(listeners), stack.enter_context(work_line(options, what, as_json=as_json))


def _lost_events(count: int) -> str:
    from pipeline.reports.facts import rfc3339

    lost: EventsLostForm = {"event": "events_lost", "at": rfc3339(time.time()), "count": count}
    return f"{printable_json(lost)}\n"


def _lost_lines(count: int) -> str:
    from pipeline.reports.facts import counted

    return f"… {counted(count, 'line')} left out, since nobody read them\n"


def _broadcast(listeners: Sequence[Listener]) -> Listener:
    def emit(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return emit


def _failed_notifications() -> Listener:
    """Return a listener that prints what must be said even with --quiet."""
    from pipeline.engine.events import NotificationFailed
    from pipeline.progress.event_text import describe

    def emit(event: Event) -> None:
        if isinstance(event, NotificationFailed):
            echo_stderr(describe(event))

    return emit


@contextlib.contextmanager
def thumbnail_work(options: Options, config: Config, what: str) -> Iterator[ThumbnailWork]:
    """Yield work on thumbnails that counts them on a terminal, and that the first Ctrl-C ends.

    `what` is said before the first one.
    """
    from pipeline.reports.write import ThumbnailWork
    from pipeline.signals import first_interrupt

    with work_line(options, what) as line:
        work = ThumbnailWork(config, lambda _job, made, total: line.count("thumbnails", made, total))
        with first_interrupt(work.stop.set):
            yield work


def print_result(options: Options, result: Result, again: Sequence[str], *, as_json: bool) -> int:
    """Print how a run ended; return its exit code. `again` is the command that continues it."""
    from pipeline.cli.summary import summary_lines
    from pipeline.reports.next_command import NextCommand

    if as_json:
        echo_json(summary_json(result))
    for sentence in result.unwritten:
        echo(f"warning: {sentence}", err=True)
    members = {id(stop): name for name, stop in result.passed_on}
    for stop in {(members.get(id(stop)), stop.message): stop for stop in result.stops}.values():
        member = members.get(id(stop))
        who, where = ("", _reach(result, stop)) if member is None else (f"provider `{member}`: ", "")
        echo_prose(f"stopped: {who}{stop.message}{where}")
        echo_stderr(f"see: pipeline help {type(stop).__name__}")
    if not options.quiet:
        for line in summary_lines(result, NextCommand.here(result.config), again):
            echo_prose(line)
    if not as_json:
        for path in (*result.manifests, *result.reports):
            echo(path)
    return result.exit_code


def _reach(result: Result, stop: Stop) -> str:
    """Return which calls a stop ends, as far as the ledger says so and the message does not."""
    from pipeline import ledger
    from pipeline.ledger.stops import read_stops

    with contextlib.suppress(PipelineError), ledger.reading(result.folder) as connection:
        found = read_stops(connection, [summary.name for summary in result.summaries])
        reach = next((recorded.reach for recorded in found if recorded.message == stop.message), None)
        if reach is not None and reach not in stop.message:
            return f" (no further calls for {reach})"
    return ""


def summary_json(result: Result) -> SummaryForm:
    """Return the last event of `--json`: how the run ended, its jobs and the causes of failure."""
    from pipeline import ledger
    from pipeline.reports.facts import rfc3339
    from pipeline.reports.failure_report import causes_json, read_causes
    from pipeline.reports.next_command import NextCommand
    from pipeline.reports.status import status_json

    with ledger.reading(result.folder) as connection:
        causes = read_causes(connection, [summary.name for summary in result.summaries])
    return {
        "event": "summary",
        "at": rfc3339(time.time()),
        "exit": result.exit_code,
        "stops": [stop.message for stop in result.stops],
        "limits": {
            name: {"images": limit.images, "per_seconds": limit.per_seconds} for name, limit in result.lowered.items()
        },
        "manifests": [str(path) for path in result.manifests],
        "reports": [str(path) for path in result.reports],
        "failures": causes_json(causes, NextCommand.here(result.config)),
        **status_json(result.summaries),
    }
