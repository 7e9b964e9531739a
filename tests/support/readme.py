"""The parts of READMEs that the code can write; `python -m tests.support.readme` writes them anew.

A part stands between `<!-- NAME -->` and `<!-- end -->`. test_layout.py compares them with what this writes.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import sqlite3
from pathlib import Path

import click

from pipeline.cli.main import cli
from pipeline.ledger.migrations import MIGRATIONS

HOME = Path(__file__).parents[2]
README = HOME / "README.md"
PACKAGE = HOME / "pipeline"
ARCHITECTURE = PACKAGE / "README.md"
COMMAND_LINE = PACKAGE / "cli" / "README.md"
ROOMS = [
    *(
        "",
        "cli",
        "web",
        "doctor",
        "reconcile",
        "redo",
        "notifications",
        "progress",
        "exports",
        "reports",
        "engine",
        "engine/batches",
        "ray",
        "client",
        "ledger",
        "planning",
        "images",
        "models",
    ),
    *("stores", "config", "sandbox", "sandbox/batch", "sandbox/rules", "sandbox/drawing"),
]
WAY = (
    *("ledger/queue", "engine/dispatcher", "engine/worker"),
    *("engine/admission", "engine/refusal_guard", "engine/delivery_breaker", "engine/circuit_breaker"),
    *("engine/throttle", "engine/window", "engine/records", "engine/caller"),
    *("client/request", "client/client", "client/session", "client/response", "client/response_forms"),
    *("client/download", "engine/image_writer", "storage", "ledger/attempts", "ledger/writer"),
)
"""The modules on the way of a request that succeeds, from the queue to its record, in the order of the meeting."""

BATCH_WAY = (
    *("engine/batches/modes", "engine/batches/executor", "engine/batches/drafts", "engine/batches/groups"),
    *("ledger/batches", "engine/batches/outstanding", "engine/batches/creation", "engine/batches/inputs"),
    *("ledger/uploaded_files", "engine/batches/lines", "client/batch_client", "client/batch_objects"),
    *("engine/batches/unpaid_retry", "engine/batches/verdicts", "engine/batches/collection", "client/file_download"),
    *("engine/batches/line_room", "engine/batches/line_results", "ledger/batch_lines", "engine/records"),
)
"""The modules that a batch meets between the queue and its end, in the order of the meeting."""

FORMS = {
    "Entry": "one entry of `requests:`, with the job's defaults under it",
    "ExpandedRequest": "one combination of row and matrix, variables filled in",
    "ImageRequest": "checked, with its key, its id and its prepared inputs",
    "request": "a row of the ledger, with its status",
    "QueuedRequest": "what a worker needs of the row",
}
"""The forms of a request before its last one, the manifest's: the name of a class or of the table, and what it is."""


@functools.cache
def syntax_tree(path: Path) -> ast.Module:
    """Return a module as Python parses it, once in a process: several tests read all modules."""
    return ast.parse(path.read_text("utf-8"))


def summary(path: Path) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(syntax_tree(path)) or "").splitlines()[0]


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


def way() -> str:
    """Write the modules that one request meets between the queue and its record."""
    return _numbered(WAY)


def batch_way() -> str:
    """Write the modules that one batch meets between the queue and its end."""
    return _numbered(BATCH_WAY)


def _numbered(names: tuple[str, ...]) -> str:
    rows = [
        f"| {number} | `{name}` | {summary(PACKAGE / f'{name}.py')} |\n" for number, name in enumerate(names, start=1)
    ]
    return "| | module | what it does |\n|---|---|---|\n" + "".join(rows)


def forms() -> str:
    """Write the forms that a request takes, with the fields of each."""
    rows = []
    for number, (name, what) in enumerate(FORMS.items(), start=1):
        place, fields = _table(name) if name.islower() else _class(name)
        rows.append(f"| {number} | `{name}` in `{place}` | {what} | {', '.join(fields)} |\n")
    last = f"| {len(FORMS) + 1} | a line of `manifest.jsonl` | what people and their scripts read |"
    fields_of_last = "see [jobs/README.md](../jobs/README.md#manifest)"
    return f"| | form | what it is | fields |\n|---|---|---|---|\n{''.join(rows)}{last} {fields_of_last} |\n"


def _table(name: str) -> tuple[str, list[str]]:
    """Return where a table of the ledger is defined, and its columns."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for migrate in MIGRATIONS:
            migrate(connection)
        return "ledger/schema.sql", [str(row[1]) for row in connection.execute(f"PRAGMA table_info({name})")]


def _class(name: str) -> tuple[str, list[str]]:
    """Return the module of a class, and its fields; a name stands for one class outside the sandbox."""
    ((path, found),) = [
        (path, node)
        for path in PACKAGE.rglob("*.py")
        if "sandbox" not in path.relative_to(PACKAGE).parts
        for node in syntax_tree(path).body
        if isinstance(node, ast.ClassDef) and node.name == name
    ]
    fields = [
        one.target.id for one in found.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    ]
    return str(path.relative_to(PACKAGE).with_suffix("")), fields


def commands() -> str:
    """Write a table of the commands, from what click knows."""
    rows = [
        f"| `pipeline {_usage(name, command)}` | {_help(command.help)} |\n" for name, command in cli.commands.items()
    ]
    return f"| command | what it does |\n|---|---|\n{''.join(rows)}"


def options() -> str:
    """Write a table of the commands' options, from what click knows."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, command in cli.commands.items():
        for option in command.params:
            if isinstance(option, click.Option):
                found.setdefault((_spelled(option), _help(option.help)), []).append(name)
    table = "".join(
        f"| `{spelled}` | {'all' if len(names) == len(cli.commands) else ', '.join(names)} | {what} |\n"
        for (spelled, what), names in sorted(found.items(), key=lambda one: len(one[1]) == len(cli.commands))
    )
    return f"| option | of | what it does |\n|---|---|---|\n{table}"


def _usage(name: str, command: click.Command) -> str:
    arguments = [_word(one) for one in command.params if isinstance(one, click.Argument)]
    required = [_spelled(one) for one in command.params if isinstance(one, click.Option) and one.required]
    return " ".join([name, *arguments, *required]).replace("|", "\\|")


def _word(argument: click.Argument) -> str:
    word = argument.metavar or (argument.name or "").upper()
    return word if argument.required or word.startswith("[") else f"[{word}]"


def _spelled(option: click.Option) -> str:
    short = "".join(f"{one}`, `" for one in option.opts[1:])
    if option.is_flag:
        return short + option.opts[0]
    return f"{short}{option.opts[0]} {option.metavar or option.type.name.upper()}"


def _help(text: str | None) -> str:
    return " ".join((text or "").split()).removesuffix(".").replace("|", "\\|")


PARTS = {
    README: {"commands": commands},
    COMMAND_LINE: {"options": options},
    ARCHITECTURE: {"forms": forms, "way": way, "batch way": batch_way, "modules": modules},
}


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
