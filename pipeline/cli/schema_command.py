"""`pipeline schema`: prints the JSON Schema of a file that the program reads or writes."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.explained_command import ExplainedCommand
from pipeline.cli.options import common_options
from pipeline.printable import printable_lines

SCHEMAS = ("job", "config", "manifest", "event", "status", "plan")
_FOLDER = Path(__file__).parents[1] / "schemas"


def schema_path(name: str) -> Path:
    """Return the path of a schema, which is installed with the program."""
    return _FOLDER / f"{name}.schema.json"


@click.command(cls=ExplainedCommand, example="pipeline schema job > job.schema.json", exits=(0, 2))
@click.argument("name", type=click.Choice(SCHEMAS), metavar="|".join(SCHEMAS))
@common_options
def schema(name: str) -> int:
    """Print the JSON Schema (2020-12) of a job file, of the config, or of what scripts read.

    `manifest` and `event` are those of one line: of manifest.jsonl, and of `run --json`.
    """
    click.echo(printable_lines(schema_path(name).read_text(encoding="utf-8")), nl=False)
    return 0
