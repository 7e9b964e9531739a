"""`pipeline init`: writes a first config and a first job, and says what to type next."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.explained_command import ExplainedCommand
from pipeline.cli.options import PATH, common_options
from pipeline.cli.output import echo
from pipeline.errors import BadInput, Problem

if TYPE_CHECKING:
    from pipeline.cli.options import Options

_STARTER = Path(__file__).with_name("starter")
_FILES = {"config.yaml": "config", "first.yaml": "job"}
"""The files that are written, and the name of the schema of each."""


@click.command(cls=ExplainedCommand, example="pipeline init pictures", exits=(0, 2))
@click.argument("folder", required=False, type=PATH, metavar="[DIR]")
@common_options
@click.pass_obj
def init(options: Options, folder: Path | None) -> int:
    """Write a config.yaml and a first job for the sandbox into a folder; nothing is replaced."""
    folder = folder or Path()
    for path in write_starter(folder):
        echo(path)
    echo("first.yaml states 6 images on the sandbox, which needs no key and costs nothing; to make them, run:")
    echo(f"    {_next_line(options, folder)}")
    return 0


def write_starter(folder: Path) -> list[Path]:
    """Write both files, or none; return their paths. Raises BadInput if one of them is there, even as a dead link."""
    from pipeline.files import write_new

    paths = [folder / name for name in _FILES]
    if taken := [path for path in paths if os.path.lexists(path)]:
        names = " and ".join(map(str, taken))
        raise BadInput([Problem(names, f"{'is' if len(taken) == 1 else 'are'} there already; nothing was written")])
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            write_new(str(path), starter_text(path.name).encode())
            written.append(path)
    except OSError as reason:
        for path in written:
            path.unlink(missing_ok=True)
        raise BadInput([Problem(str(folder), f"cannot be written to: {reason.strerror or reason}")]) from None
    return paths


def starter_text(name: str) -> str:
    """Return what is written as the file of this name; its first line names its schema, for editors."""
    from pipeline.cli.schema_command import schema_path

    schema = schema_path(_FILES[name])
    is_plain = not set(str(schema)) & set(" \t#%")  # the language server reads up to a space
    named = str(schema) if is_plain else schema.as_uri()
    return f"# yaml-language-server: $schema={named}\n{(_STARTER / name).read_text(encoding='utf-8')}"


def _next_line(options: Options, folder: Path) -> str:
    """Return the command that runs the first job, from the current folder."""
    from pipeline.config.load import FILE_VARIABLE
    from pipeline.reports.next_command import NextCommand

    config = ("--config", "config.yaml") if os.environ.get(FILE_VARIABLE) else ()
    output = ("--output", str(options.output.absolute())) if options.output else ()
    line = NextCommand(None, (*config, *output)).line("run", "first.yaml")
    return line if folder.absolute() == Path.cwd() else f"cd {shlex.quote(str(folder))} && {line}"
