"""`pipeline completion`: prints the script by which a shell completes the command line, and answers that script."""

from __future__ import annotations

import os
from typing import ClassVar

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from pipeline.cli.explained_command import ExplainedCommand
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


class _WithOption(ShellComplete):
    """Completion for shells that replace the whole word: a value of `--provider=s` comes with its option."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Return what the word that is completed may become."""
        items = super().get_completions(args, incomplete)
        option, sign, _ = incomplete.partition("=")
        if sign and option.startswith("-"):
            for item in items:
                if item.type == "plain" and not item.value.startswith(f"{option}="):
                    item.value = f"{option}={item.value}"
        return items


class _Zsh(_WithOption, ZshComplete):
    """The same for Zsh, which writes no space behind a parameter that waits for its value."""

    source_template: ClassVar[str] = ZshComplete.source_template.replace(
        "compadd -U -V unsorted -a completions",
        "local -a open=(${(M)completions:#*=}) closed=(${completions:#*=})\n"
        "        compadd -U -V unsorted -S '' -a open\n"
        "        compadd -U -V unsorted -a closed",
    )


class _Fish(_WithOption, FishComplete):
    """The same for Fish; a description may have commas."""

    source_template: ClassVar[str] = FishComplete.source_template.replace(
        'string split ","', 'string split --max 1 ","'
    )


def register() -> None:
    """Make click answer by whole words."""
    add_completion_class(_WholeWords, "bash")
    add_completion_class(_Zsh, "zsh")
    add_completion_class(_Fish, "fish")


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
