"""The modes in which a job is served, for the command line too, which starts with them."""

from __future__ import annotations

from typing import Literal, get_args

Mode = Literal["realtime", "batch", "auto"]
MODES: tuple[Mode, ...] = get_args(Mode)
