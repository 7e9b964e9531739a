"""The code → the parts of README that are told by it; `python -m tests.support.readme` writes them anew.

A part stands between `<!-- NAME -->` and `<!-- end -->`. test_layout.py holds the README to what this would write.
"""

from __future__ import annotations

import ast
from pathlib import Path

import click

from pipeline.cli.main import cli

HOME = Path(__file__).parents[2]
README = HOME / "README.md"
PACKAGE = HOME / "pipeline"
ARCHITECTURE = PACKAGE / "README.md"
ROOMS = [
    *(
        "",
        "cli",
        "web",
        "notifications",
        "progress",
        "reports",
        "engine",
        "client",
        "ledger",
        "planning",
        "images",
        "models",
    ),
    *("config", "sandbox", "sandbox/rules", "sandbox/drawing"),
]


def summary(path: Path) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]


def modules() -> str:
    """Write a table for each room, in the order in which they depend on each other."""
    tables = []
    for name in ROOMS:
        room = PACKAGE / name
        rows = "".join(
            f"| `{path.stem}` | {summary(path)} |\n" for path in sorted(room.glob("*.py")) if path.stem != "__init__"
        )
        title = f"pipeline/{name}/" if name else "pipeline/"
        tables.append(f"| `{title}` | {summary(room / '__init__.py')} |\n|---|---|\n{rows}")
    return "\n".join(tables)


def commands() -> str:
    """Write a table of the commands, and one of their options, from what click knows."""
    rows = [
        f"| `pipeline {_usage(name, command)}` | {_help(command.help)} |\n" for name, command in cli.commands.items()
    ]
    options: dict[tuple[str, str], list[str]] = {}
    for name, command in cli.commands.items():
        for option in command.params:
            if isinstance(option, click.Option):
                options.setdefault((_spelled(option), _help(option.help)), []).append(name)
    table = "".join(
        f"| `{spelled}` | {'all' if len(names) == len(cli.commands) else ', '.join(names)} | {what} |\n"
        for (spelled, what), names in sorted(options.items(), key=lambda one: len(one[1]) == len(cli.commands))
    )
    head = "| command | what it does |\n|---|---|\n"
    return f"{head}{''.join(rows)}\n| option | of | what it does |\n|---|---|---|\n{table}"


def _usage(name: str, command: click.Command) -> str:
    arguments = [_word(one) for one in command.params if isinstance(one, click.Argument)]
    return " ".join([name, *arguments])


def _word(argument: click.Argument) -> str:
    word = argument.metavar or (argument.name or "").upper()
    return word if argument.required or word.startswith("[") else f"[{word}]"


def _spelled(option: click.Option) -> str:
    if option.is_flag:
        return option.opts[0]
    return f"{option.opts[0]} {option.metavar or option.type.name.upper()}"


def _help(text: str | None) -> str:
    return " ".join((text or "").split()).removesuffix(".").replace("|", "\\|")


PARTS = {README: {"commands": commands}, ARCHITECTURE: {"modules": modules}}


def written(path: Path) -> str:
    """Return the text of a README with each generated part as the code has it now."""
    text = path.read_text()
    for name, write in PARTS[path].items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        assert end, name
        text = before + begin + write() + end + after
    return text


if __name__ == "__main__":
    for readme in PARTS:
        readme.write_text(written(readme))
