"""Names of where calls may be made, for options and settings alike."""

from __future__ import annotations

from typing import Final, Literal, get_args

Engine = Literal["ray", "local"]
"""Workers that Ray places, or the process of the run."""

ENGINES: Final[tuple[Engine, ...]] = get_args(Engine)
