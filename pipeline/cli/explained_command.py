"""A command whose help ends with an example and its exit codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

EXITS = {
    0: "everything asked for is there, or was done",
    1: "the end was reached, with failures; damage, what is unexplained, or a warning (doctor --strict) was found",
    2: "bad input: nothing was changed, nobody was called; or doctor found a problem",
    3: "stopped before the end, or another run is at work; the rest is queued",
    70: "a bug in this program, with a traceback",
    130: "stopped by Ctrl-C (129: SIGHUP, 143: SIGTERM); safe to run again",
}
"""What an exit code means, in a line of help."""


def write_explanation(formatter: click.HelpFormatter, example: str, exits: Sequence[int]) -> None:
    """Write an example and the meaning of the exit codes."""
    with formatter.section("Example"):
        formatter.write(f"  {example}\n")
    with formatter.section("Exit codes"):
        formatter.write_dl([(str(code), EXITS[code]) for code in exits])


class ExplainedCommand(click.Command):
    """A command with an example and exit codes at the end of its help."""

    def __init__(self, *arguments: Any, example: str, exits: Sequence[int], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.example = example
        self.exits = exits

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's own
        """Write the end of the help."""
        write_explanation(formatter, self.example, self.exits)
