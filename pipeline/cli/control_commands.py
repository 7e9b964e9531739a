"""The commands that a run at work follows: pause, unpause, throttle and priority."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline.cli.completion import complete_jobs, complete_providers
from pipeline.cli.explained_command import ExplainedCommand
from pipeline.cli.options import common_options
from pipeline.cli.output import echo
from pipeline.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.cli.options import Options
    from pipeline.controls import FolderControls


@click.command(
    cls=ExplainedCommand,
    example="pipeline pause openai",
    exits=(0, 2),
)
@click.argument("provider", required=False, shell_complete=complete_providers)
@common_options
@click.pass_obj
def pause(options: Options, provider: str | None) -> int:
    """Have no call sent to a provider, or to any, also by a run at work, until `unpause`.

    Downloads and calls in flight go on.
    """
    controls = options.batch().controls
    changed = controls.pause(provider)
    for name in changed:
        echo(f"provider `{name}` is paused; to end that: {options.next_command('unpause', name)}")
    if not changed:
        echo("every provider is paused already" if provider is None else f"provider `{provider}` is paused already")
    return 0


@click.command(
    cls=ExplainedCommand,
    example="pipeline unpause openai",
    exits=(0, 2),
)
@click.argument("provider", required=False, shell_complete=complete_providers)
@common_options
@click.pass_obj
def unpause(options: Options, provider: str | None) -> int:
    """End the pause of a provider, or all pauses; a run at work goes on."""
    changed = options.batch().controls.unpause(provider)
    for name in changed:
        echo(f"provider `{name}` is not paused any more")
    if not changed:
        echo("no provider is paused" if provider is None else f"provider `{provider}` is not paused")
    return 0


@click.command(
    cls=ExplainedCommand,
    example="pipeline throttle openai 10",
    exits=(0, 2),
)
@click.argument("provider", required=False, shell_complete=complete_providers)
@click.argument("images", required=False)
@click.option("--reset", is_flag=True, help="Take the lower limit back.")
@common_options
@click.pass_obj
def throttle(options: Options, provider: str | None, images: str | None, reset: bool) -> int:
    """Lower the limit of a provider to IMAGES per window, also for a run at work, until `--reset`; or show it.

    The window is that of the configured limit.
    """
    controls = options.batch().controls
    if reset and images is not None:
        raise BadInput("--reset takes the lower limit back: leave out the number of images, or --reset")
    if provider is None:
        if reset:
            raise BadInput("--reset needs the name of a provider, as in `pipeline throttle openai --reset`")
        names = list(controls.config.providers)
    else:
        names = [provider]
        if reset or images is not None:
            controls.throttle(provider, None if images is None else _whole(images, "IMAGES"))
    for line in _throttle_lines(controls, names):
        echo(line)
    return 0


def _throttle_lines(controls: FolderControls, names: list[str]) -> Iterator[str]:
    """Yield the limit in force of each provider. Raises BadInput for a route and for an unknown provider."""
    from pipeline.reports.controls import limit_words

    facts = controls.read().facts
    for name in names:
        provider, images = controls.provider(name, "throttle"), facts.of(name).throttle
        limit = provider.rate_limit
        if limit is None:
            yield f"provider `{name}` has no limit"
        elif images is None or images >= limit.images:
            share = "" if provider.shared_limit is None else f", its share of {provider.shared_limit.images:,}"
            yield f"provider `{name}`: {limit.images:,} images per {limit.per_seconds:g} s{share}, as configured"
        else:
            yield f"provider `{name}` is throttled to {limit_words(provider, images)}"


@click.command(
    cls=ExplainedCommand,
    context_settings={"ignore_unknown_options": True},  # a negative number is none
    example="pipeline priority night 10",
    exits=(0, 2),
)
@click.argument("job", shell_complete=complete_jobs)
@click.argument("number", metavar="N")
@common_options
@click.pass_obj
def priority(options: Options, job: str, number: str) -> int:
    """Have a job go before those with a lower priority, also in a run at work; 0 is the default.

    N is a whole number, and may be negative.
    """
    chosen, name = _whole(number, "N"), options.job(job)
    options.batch().controls.prioritise(name, chosen)
    echo(f"job `{name}` has priority {chosen}")
    return 0


def _whole(text: str, name: str) -> int:
    """Return a whole number. Raises BadInput."""
    try:
        return int(text)
    except ValueError:
        raise BadInput(f"{name} must be a whole number, not `{text:.60}`") from None
