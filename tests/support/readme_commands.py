"""Stands for the programs that blocks of READMEs call, under their names: `readme_commands.install` puts it there.

`pipeline` is the real command; what would serve until stopped is stopped after its first line. Programs that install,
test or measure for minutes only have their arguments checked.
"""

from __future__ import annotations

import shlex
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_STUBS = ("pip", "ruff", "mypy", "lint-imports", "apt-get", "chromium")
_PYTEST = """for one; do
    case "$one" in */*) [ -e "${one%%::*}" ] || { echo "pytest: there is no $one" >&2; exit 64; } ;; esac
done"""
_COMMAND = """case "$*" in
    serve*|sandbox*|*--watch*) exec {python} {this} pipeline "$@" ;;
    *) exec {python} -m pipeline "$@" ;;
esac"""
_PIPELINE = ("pipeline", "image-batch-pipeline")
_PYTHON = ("python", "python3")


def install(folder: Path) -> Path:
    """Make `.venv` in a folder, as `python3 -m venv` and `pip install` would; return its folder of programs."""
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f"PATH={shlex.quote(str(programs))}:$PATH\n")
    python, this = shlex.quote(sys.executable), shlex.quote(__file__)
    texts = {
        **dict.fromkeys(_STUBS, ""),
        "pytest": _PYTEST,
        **dict.fromkeys(_PIPELINE, _COMMAND.format(python=python, this=this)),
        **dict.fromkeys(_PYTHON, f'exec {python} {this} python "$@"'),
    }
    for name, text in texts.items():
        program = programs / name
        program.write_text(f"#!/bin/sh\nunset PYTHONSAFEPATH\n{text}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return programs


def main(name: str, arguments: list[str]) -> int:
    """Do as the program called `name`; return its exit code."""
    return _serving(arguments) if name == "pipeline" else _python(arguments)


def _serving(arguments: list[str]) -> int:
    """Run a command that serves until it is stopped, and stop it after its first line."""
    command = [sys.executable, "-m", "pipeline", *arguments]
    if "--port" in arguments:
        command[command.index("--port") + 1] = "0"
    elif "serve" in arguments:
        command += ["--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    return 0 if line and process.returncode in {0, 130} else _refuse(f"{arguments}: {line!r}, {process.returncode}")


def _python(arguments: list[str]) -> int:
    if arguments[:2] == ["-m", "venv"]:
        return 0
    if arguments[:2] != ["-m", "tests.bench"]:
        return subprocess.run([sys.executable, *arguments], check=False).returncode
    usage = subprocess.run([sys.executable, "-m", "tests.bench", "--help"], capture_output=True, text=True, check=True)
    unknown = [one for one in arguments if one.startswith("--") and one not in usage.stdout]
    return _refuse(f"tests.bench knows no {unknown[0]}") if unknown else 0


def _refuse(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 64


if __name__ == "__main__":
    sys.path.pop(0)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
