"""Composes the command lines that people type next, with the options that lead to this config and output folder."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.load import find_default, load
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config.load import Config


@dataclass(frozen=True, slots=True)
class NextCommand:
    """Writes command lines that hold in `folder`; in any folder, if it is None."""

    folder: Path | None
    options: tuple[str, ...]

    @classmethod
    def here(cls, config: Config) -> NextCommand:
        """Return the commands for somebody who is in the current folder: with as few options as possible."""
        folder = Path.cwd()
        options: list[str] = []
        default = find_default()
        if config.file is not None and (default is None or config.file.absolute() != default.absolute()):
            options += ["--config", _seen_from(folder, config.file)]
        if config.output != _configured_output(config, folder):
            options += ["--output", _seen_from(folder, config.output)]
        return cls(folder, tuple(options))

    @classmethod
    def anywhere(cls, config: Config) -> NextCommand:
        """Return the commands for somebody who may be in any folder, such as the reader of a notification."""
        named = ("--config", str(config.file.absolute())) if config.file is not None else ()
        return cls(None, (*named, "--output", str(config.output)))

    def line(self, *words: str) -> str:
        """Return a command, quoted for a shell: the program, the words, then the options."""
        return shlex.join(["pipeline", *words, *self.options])


WITHOUT_OPTIONS = NextCommand(None, ())
"""Writes command lines that hold where the config and the output folder are the default ones."""


def _seen_from(folder: Path, path: Path) -> str:
    """Return a path relative to `folder` if it is in it, else absolute."""
    path = path.absolute()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _configured_output(config: Config, folder: Path) -> Path | None:
    """Return the output folder that the config itself names, None if the config can no longer be read."""
    if config.file is None:
        return folder / "outputs"
    try:
        return load(config.file).output
    except ConfigError:
        return None
