"""The commands that serve until they are stopped: the web page and the sandbox."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from pipeline.cli.explained_command import ExplainedCommand
from pipeline.cli.options import common_options
from pipeline.cli.output import echo

if TYPE_CHECKING:
    from pipeline.cli.options import Options


@click.command(cls=ExplainedCommand, example="pipeline serve --port 8080", exits=(0, 2, 130))
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8787, metavar="N", help="8787 by default; 0 takes a free one."
)
@click.option(
    "--host", default="127.0.0.1", metavar="H", help="Where to listen; any but loopback needs the token it prints."
)
@common_options
@click.pass_obj
def serve(options: Options, port: int, host: str) -> int:
    """Serve a live page of all jobs until stopped."""
    import asyncio

    from pipeline.web.server import serve as serve_page

    return asyncio.run(serve_page(options.batch(), host, port, echo))


@click.command(cls=ExplainedCommand, example="pipeline sandbox --port 9000", exits=(0, 2, 130))
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="The port to listen on; 0 takes a free one."
)
@common_options
@click.pass_obj
def sandbox(options: Options, port: int) -> int:
    """Serve the sandbox until stopped."""
    from pipeline.sandbox.__main__ import main as serve_sandbox

    config = options.load()
    first = [config.providers[name] for name in (config.provider, "sandbox") if name and name in config.providers]
    all_settings = (provider.sandbox for provider in (*first, *config.providers.values()))
    settings = next((dict(settings) for settings in all_settings if settings is not None), {})
    return serve_sandbox(["--port", str(port), "--settings", json.dumps(settings)])
