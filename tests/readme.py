"""The code → the parts of README that are told by it; `python -m tests.readme` writes them anew.

A part stands between `<!-- NAME -->` and `<!-- end -->`. test_layout.py holds the README to what this would write.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click

from pipeline.cli import cli

HOME = Path(__file__).parents[1]
README = HOME / "README.md"
PACKAGE = HOME / "pipeline"
ROOMS = ["", "spec", "engine", "results", "live", "progress", "sandbox"]  # in the order of the data


def listed(room: Path) -> tuple[str, dict[str, str]]:
    """Read a room's docstring: its first line, and what each of its modules does."""
    docstring = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
    return docstring.splitlines()[0], dict(re.findall(r"^(\w+) {2,}(\S.*)$", docstring, re.MULTILINE))


def modules() -> str:
    """Write a table for each room."""
    tables = []
    for name in ROOMS:
        first, lines = listed(PACKAGE / name)
        title = f"pipeline/{name}/" if name else "pipeline/"
        rows = "".join(f"| `{module}` | {what} |\n" for module, what in lines.items())
        tables.append(f"| `{title}` | {first} |\n|---|---|\n{rows}")
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


PARTS = {"commands": commands, "modules": modules}


def written(text: str) -> str:
    """Give the README's text with each generated part as the code tells it now."""
    for name, write in PARTS.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        assert end, name
        text = before + begin + write() + end + after
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
