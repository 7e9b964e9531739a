"""`pipeline export`: writes a job's images in a form that another tool reads."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.completion import complete_jobs
from pipeline.cli.explained_command import ExplainedCommand
from pipeline.cli.options import PATH, common_options
from pipeline.cli.output import echo, echo_json, echo_prose
from pipeline.cli.work_line import work_line
from pipeline.exports.kinds import KINDS, ExportOptions

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.cli.options import Options


@click.command(
    cls=ExplainedCommand,
    example="pipeline export night --to webdataset --dest shards",
    exits=(0, 1, 2, 3),
)
@click.argument("job", shell_complete=complete_jobs)
@click.option("--to", "kind", required=True, metavar="KIND", help=f"What to write: {', '.join(KINDS)}.")
@click.option("--dest", type=PATH, metavar="PATH", help="Where it goes; else `export-KIND` in the job's folder.")
@click.option(
    "--link", is_flag=True, help="Make hard links of the images, not copies: for who will not write into them."
)
@click.option("--embed", is_flag=True, help="Put the images into the parquet file.")
@click.option("--no-images", is_flag=True, help="Leave base64 out of the batch output.")
@click.option("--picks", type=PATH, metavar="FILE", help="Only what is accepted in this picks.jsonl of the report.")
@click.option("--force", is_flag=True, help="Replace an export that is there already.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@common_options
@click.pass_obj
def export(options: Options, /, job: str, kind: str, dest: Path | None, as_json: bool, **chosen: Any) -> int:
    """Write the job's stored images in a form that another tool reads: whole, or not at all."""
    from pipeline.exports.originals import DamagedImages
    from pipeline.reports.facts import counted

    if kind == "sidecar" and dest is not None and not options.quiet:
        echo_prose("warning: --dest changes nothing for sidecar: each file is written beside its image")
    batch, name = options.batch(), options.job(job)
    with work_line(options, "exporting", as_json=as_json) as line:
        count = functools.partial(line.count, "exporting", with_bar=True)
        try:
            found = batch.export(name, kind, dest, ExportOptions(**chosen), count=count)
        except DamagedImages as reason:
            damaged = reason.damaged
        else:
            damaged = ()
    if as_json:
        whole = {} if damaged else {"path": str(found.path), "images": found.images, "bytes": found.bytes}
        files = [{"file": file.file, "what": file.what} for file in damaged]
        echo_json({"job": name, "kind": kind, "path": None, "images": 0, "bytes": 0, **whole, "damaged": files})
    elif damaged:
        for file in damaged:
            echo(f"{file.file}: {file.what}")
    else:
        echo(found.path)
    if not options.quiet and damaged:
        command = options.next_command("verify", name, "--repair")
        echo(f"nothing was exported, since {counted(len(damaged), 'image')} cannot be read; run: {command}", err=True)
    elif not options.quiet:
        echo(f"{counted(found.images, 'image')} exported", err=True)
    return int(bool(damaged))
