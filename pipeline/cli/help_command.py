"""`pipeline help KIND`: prints the section of jobs/TROUBLESHOOTING.md about a class of errors, without a network."""

from __future__ import annotations

import re
from pathlib import Path

import click

from pipeline.cli.explained_command import ExplainedCommand
from pipeline.cli.options import common_options
from pipeline.errors import BadInput
from pipeline.printable import printable_lines

_PLACES = (
    Path(__file__).with_name("TROUBLESHOOTING.md"),  # in a wheel
    Path(__file__).parents[2] / "jobs" / "TROUBLESHOOTING.md",  # in a clone, also for an editable installation
)


def read_sections() -> dict[str, str]:
    """Return the text about each kind of error, in the order of the page."""
    page = next(path for path in _PLACES if path.exists()).read_text(encoding="utf-8")
    _, *parts = re.split(r"^## (\w+)\n+", page, flags=re.MULTILINE)
    return dict(zip(parts[::2], map(str.rstrip, parts[1::2]), strict=True))


@click.command(
    "help",
    cls=ExplainedCommand,
    example="pipeline help KeyRefused",
    exits=(0, 2),
)
@click.argument("kind", required=False, metavar="[KIND]")
@common_options
@click.pass_context
def help_command(context: click.Context, kind: str | None) -> None:
    """Explain a kind of error or stop: what happened, what it cost, what to type."""
    sections = read_sections()
    if kind is None:
        lines = ["pipeline help KIND explains one of these errors and stops:", ""]
        lines += [f"  {name:17} {_first_words(text)}" for name, text in sections.items()]
        click.echo(printable_lines("\n".join(lines)))
        return
    by_word = {name.lower(): name for name in sections}
    group = context.parent and context.parent.command
    commands = group.commands if isinstance(group, click.Group) else {}
    if found := by_word.get(kind.lower()):
        click.echo(printable_lines(f"{found}\n\n{sections[found]}"))
    elif command := commands.get(kind):
        help_text = command.get_help(click.Context(command, parent=context.parent, info_name=kind))
        click.echo(printable_lines(help_text))
    else:
        raise BadInput(_unknown(kind, [*sections, *commands]))


def _first_words(text: str) -> str:
    """Return how a section begins, up to the first stop or comma."""
    return re.split(r"[.:;,](?:\s|$)| \(", " ".join(text.removeprefix("What happened: ").split()))[0]


def _unknown(kind: str, known: list[str]) -> str:
    from pipeline.config.yaml_document import nearest

    close = nearest(kind, known)
    hint = f"did you mean `{close}`?" if close else "`pipeline help` lists the kinds"
    return f"there is no kind of error `{kind:.80}`; {hint}"
