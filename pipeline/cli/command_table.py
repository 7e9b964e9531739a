"""The table of all commands: a command's module is imported when the command is used, so that `--help` starts fast."""

from __future__ import annotations

import importlib
from collections import UserDict
from typing import Any, cast

import click

from pipeline.cli.explained_command import EXITS, write_explanation

COMMANDS = {
    "run": ("run_commands:run", "Submit jobs and process them to the end; or the whole queue."),
    "submit": ("run_commands:submit", "Check, expand and queue jobs, without calling a provider."),
    "resume": ("run_commands:resume", "Put failed requests back into the queue, then process it."),
    "redo": ("request_commands:redo", "Make images again, on purpose and paid."),
    "status": ("job_commands:status", "Show who works, requests by status, images, cost, stops."),
    "show": ("request_commands:show", "Show everything that is known of one request."),
    "plan": ("job_commands:plan", "Check jobs; show their requests, images, time and cost."),
    "doctor": ("doctor_command:doctor", "Check jobs, providers and this machine before a run; buys nothing."),
    "manifest": ("job_commands:manifest", "Write the job's manifest again from the ledger."),
    "report": ("job_commands:report", "Write the job's report again: a page of its images."),
    "verify": ("job_commands:verify", "Read every image again and compare it with the ledger."),
    "reconcile": ("reconcile_command:reconcile", "Compare the ledger with what a provider charged."),
    "export": ("export_command:export", "Write the job's images as another tool reads them."),
    "cancel": ("run_commands:cancel", "Take what is pending out of the queue; cancel batches."),
    "rename": ("job_commands:rename", "Change a job's name; its images go along."),
    "forget": ("job_commands:forget", "Take a job out of the ledger, after asking."),
    "pause": ("control_commands:pause", "Send no call to a provider, until `unpause`."),
    "unpause": ("control_commands:unpause", "End the pause of a provider, or all pauses."),
    "throttle": ("control_commands:throttle", "Lower a provider's limit for now, or show it."),
    "priority": ("control_commands:priority", "Have a job go before others, or after them."),
    "init": ("init_command:init", "Write a config and a first job, for the sandbox."),
    "schema": ("schema_command:schema", "Print the JSON Schema of a file, for editors and scripts."),
    "completion": ("completion_command:completion", "Print the script that completes commands in a shell."),
    "import": ("import_command:import_command", "Write a job for the images of a folder."),
    "serve": ("server_commands:serve", "Serve a live page of all jobs until stopped."),
    "help": ("help_command:help_command", "Explain an error or a stop: its cost, and what to type."),
    "sandbox": ("server_commands:sandbox", "Serve the sandbox until stopped."),
}
"""Of each command: its module in this room with its attribute, and its line in `pipeline --help`.

The order is that of their use: in `--help`, in README.md, and in the options' table.
"""


class LazyCommands(UserDict[str, Any]):
    """The commands by their names, each imported when it is looked up."""

    def __getitem__(self, name: str) -> click.Command:
        """Return a command. Raises KeyError."""
        module, _, attribute = self.data[name][0].partition(":")
        importlib.import_module("pipeline.cli.error_output")  # while files can still be opened
        return cast("click.Command", getattr(importlib.import_module(f"pipeline.cli.{module}"), attribute))


class CommandGroup(click.Group):
    """The group of the commands in the table; its own help imports none of them."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, commands=LazyCommands(COMMANDS), **options)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return what click finds; a job file in place of a command is named as such. Raises UsageError."""
        if args[0] not in self.commands and args[0].lower().endswith((".yaml", ".yml", ".jsonl")):
            ctx.fail(f"'{args[0]}' is a file, not a command: write `{ctx.command_path} run {args[0]}`")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own signature
        """Return the names in the order of the table, which is not that of the alphabet."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the same
        """Write the commands, each with its line of the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the same
        """Write the end of the help: the exit codes of all commands."""
        write_explanation(formatter, "pipeline run jobs/quickstart.yaml", list(EXITS))
