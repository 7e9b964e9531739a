"""The commands about single requests: show."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from pipeline.cli.command import ExplainedCommand
from pipeline.cli.options import common_options
from pipeline.cli.output import echo_json, echo_prose

if TYPE_CHECKING:
    from pipeline.cli.options import Options


@click.command(
    cls=ExplainedCommand,
    example="pipeline show night a-white-siamese-cat-3f9c2a1b",
    exits=(0, 2),
    short_help="Show everything about one request, with its attempts.",
)
@click.argument("job")
@click.argument("request_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; for several requests a list.")
@common_options
@click.pass_obj
def show(options: Options, job: str, request_id: str, as_json: bool) -> int:
    """Show everything about one request: what was asked, every attempt, its files, why it stands where it stands, and
    what to type. Superseded ones of the same id follow.
    """
    from pipeline.reports.next_command import NextCommand
    from pipeline.reports.show import read_shown, shown_json, shown_lines

    config = options.load()
    found, command = read_shown(config, options.job(job), request_id), NextCommand.here(config)
    if as_json:
        shown = [shown_json(one, command) for one in found]
        echo_json(shown[0] if len(shown) == 1 else shown)
        return 0
    for one in found:
        for line in shown_lines(one, str(config.output), command, time.time()):
            echo_prose(line, err=False)
    return 0
