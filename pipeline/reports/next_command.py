"""A config and a job → the line that a person types to go on with it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.load import DEFAULT_FILE, load
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config.load import Config


@dataclass(frozen=True, slots=True)
class Commands:
    """What to type, and where: without `--config` a line holds in the folder in which the config was found."""

    folder: Path
    options: tuple[str, ...]

    def line(self, *words: str) -> str:
        """Write a command, quoted for a shell, with the options that lead it to this config and output folder."""
        return shlex.join(["pipeline", *words, *self.options])


def commands(config: Config) -> Commands:
    """Find out which options lead to this config from the current folder; as few as do."""
    here = Path.cwd()
    options: list[str] = []
    if config.file is not None and config.file.absolute() != here / DEFAULT_FILE:
        options += ["--config", str(config.file.absolute())]
    if config.output != _said_output(config, here):
        options += ["--output", str(config.output)]
    return Commands(here, tuple(options))


def _said_output(config: Config, here: Path) -> Path | None:
    """Give the output folder that the config itself names; None where it can no longer be read."""
    if config.file is None:
        return here / "outputs"
    try:
        return load(config.file).output
    except ConfigError:
        return None
