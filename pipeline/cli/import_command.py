"""`pipeline import`: writes a job file for the images of a folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from pipeline.cli.explained_command import ExplainedCommand
from pipeline.cli.options import PATH, common_options
from pipeline.cli.output import echo
from pipeline.errors import BadInput, Problem

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from pipeline.cli.options import Options
    from pipeline.planning.image_folders import Kind


@click.command(
    "import",
    cls=ExplainedCommand,
    example="pipeline import folder photos --job shop.yaml",
    exits=(0, 2),
)
@click.argument("kind", type=click.Choice(["imagefolder", "folder"]), metavar="imagefolder|folder")
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--job", "file", type=PATH, metavar="FILE", help="The job file to write; else DIR/job.yaml.")
@click.option(
    "--operation",
    type=click.Choice(["edit", "variation"]),
    metavar="OPERATION",
    help="`edit` or `variation`, of all images; else an edit of those with a prompt, a variation of the others.",
)
@common_options
@click.pass_obj
def import_command(
    options: Options, kind: Kind, folder: Path, file: Path | None, operation: Literal["edit", "variation"] | None
) -> int:
    """Write a job file for the images of a folder: a Hugging Face imagefolder, or images with x.txt and x.mask.png."""
    from pipeline.planning.image_folders import read_folder
    from pipeline.planning.job_writer import write_job
    from pipeline.reports.facts import counted

    file = file or folder / "job.yaml"
    if os.path.lexists(file):
        raise BadInput([Problem(str(file), "is there already, and is not replaced; name another file with --job")])
    job = write_job(read_folder(kind, folder), folder, file, operation)
    _write(file, job.text)
    echo(file)
    if not options.quiet:
        left_out = f" ({job.left_out:,} with a prompt or a mask, which are left out)" if job.left_out else ""
        echo(f"{counted(job.edits, 'edit')} and {counted(job.variations, 'variation')}{left_out}", err=True)
        echo(f"to see what they cost, run: {options.next_command('plan', str(file))}", err=True)
    return 0


def _write(file: Path, text: str) -> None:
    from pipeline.files import write_new

    try:
        write_new(str(file), text.encode())
    except OSError as reason:
        raise BadInput([Problem(str(file), f"cannot be written: {reason.strerror or reason}")]) from None
