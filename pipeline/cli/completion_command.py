"""`pipeline completion`: prints the script by which a shell completes the command line, and answers that script."""

from __future__ import annotations

import os
from typing import ClassVar

import click
from click.shell_completion import (
    BashComplete,
    ShellComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from pipeline.cli.command import ExplainedCommand
from pipeline.cli.options import common_options
from pipeline.printable import printable_lines

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
%(complete_func)s() {
    local line="${COMP_LINE:0:$COMP_POINT}" word start="" type value
    word="${line##*[[:space:]]}"
    if [[ "$word" == *[=:]* ]]; then  # Bash replaces only what is behind these
        start="${word%%"${word##*[=:]}"}"
    fi
    COMPREPLY=()
    while IFS=',' read -r type value; do
        case "$type" in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                COMPREPLY+=("${value#"$start"}")
                if [[ "$value" == *= ]]; then compopt -o nospace; fi
                ;;
        esac
    done < <(COMP_WORDS="$line" %(complete_var)s=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _WholeWords(BashComplete):
    """Completion for Bash that reads the whole line, since Bash itself breaks words at `=`."""

    source_template: ClassVar[str] = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one that is completed, and what there is of that one."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        return (words, "") if not words or line[-1:].isspace() else (words[:-1], words[-1])


def register() -> None:
    """Make click answer Bash by whole words."""
    add_completion_class(_WholeWords, "bash")


@click.command(cls=ExplainedCommand, example='eval "$(pipeline completion bash)"', exits=(0, 2))
@click.argument("shell", type=click.Choice(SHELLS), metavar="|".join(SHELLS))
@common_options
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Print the script by which a shell completes commands, options, jobs, providers and models."""
    register()
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(context.find_root().command, {}, "pipeline", "_PIPELINE_COMPLETE")
    click.echo(printable_lines(ShellComplete.source(script)), nl=False)
    return 0
