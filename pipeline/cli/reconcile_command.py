"""`pipeline reconcile`: compares the ledger with what a provider says that it made and charged."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from pipeline.cli.completion import complete_providers
from pipeline.cli.explained_command import ExplainedCommand
from pipeline.cli.options import common_options
from pipeline.cli.output import echo_json, echo_prose
from pipeline.cli.work_line import work_line
from pipeline.errors import BadInput

if TYPE_CHECKING:
    from pipeline.cli.options import Options

_SPAN = re.compile(r"([0-9]{1,6})([mhd])")
_UNITS = {"m": 60, "h": 3600, "d": 86400}
_HOW = "write a day or a moment, as in 2026-11-27 or 2026-11-27T22:00, or how long ago it was: 90m, 12h, 7d"


@click.command(
    cls=ExplainedCommand,
    example="pipeline reconcile openai --since 2026-11-27 --apply",
    exits=(0, 1, 2, 3),
)
@click.argument("provider", required=False, shell_complete=complete_providers)
@click.option("--since", metavar="T", help=f"Compare from this moment on: {_HOW.removeprefix('write ')}.")
@click.option("--apply", is_flag=True, help="Settle in the ledger what became of calls of unknown outcome.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@common_options
@click.pass_obj
def reconcile(options: Options, provider: str | None, since: str | None, apply: bool, as_json: bool) -> int:
    """Compare the ledger with a provider's usage and costs: which calls of unknown outcome were charged, and what was
    charged that is not ours. Needs OPENAI_ADMIN_KEY.
    """
    import os

    from pipeline.reconcile.comparison import compare
    from pipeline.reconcile.text import comparison_json, comparison_lines
    from pipeline.run import run_in_loop

    start = None if since is None else _read_since(since)
    config = options.load()
    with work_line(options, "reading usage and costs", as_json=as_json):
        found = run_in_loop(compare(config, os.environ, provider, start, apply=apply))
    if as_json:
        echo_json(comparison_json(found))
    else:
        words = ["reconcile", *([provider] if provider else []), *(["--since", since] if since else []), "--apply"]
        for line in comparison_lines(found, applied=apply, apply_command=options.next_command(*words)):
            echo_prose(line, err=False)
    return int(not all(comparison.is_explained for comparison in found))


def _read_since(text: str) -> float:
    """Return a moment in seconds since 1970; without an offset from UTC, by the local clock. Raises BadInput."""
    import time
    from datetime import UTC, datetime

    if span := _SPAN.fullmatch(text):
        return max(0.0, time.time() - int(span[1]) * _UNITS[span[2]])
    try:
        moment = datetime.fromisoformat(text)
        seconds = moment.timestamp() if moment.tzinfo else moment.astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        raise BadInput(f"--since `{text:.60}` is no moment; {_HOW}") from None
    if seconds < 0 or seconds > time.time():
        fault = "lies in the future" if seconds > 0 else "is before 1970"
        raise BadInput(f"--since `{text:.60}` {fault} ({datetime.now(UTC):%Y-%m-%dT%H:%MZ} is now); {_HOW}")
    return seconds
