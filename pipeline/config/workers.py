"""Read `workers:` of the config: processes on other machines, placed by Ray, that make a run's calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.config.engine_names import ENGINES
from pipeline.config.validation import find_number_fault

if TYPE_CHECKING:
    from pipeline.config.engine_names import Engine
    from pipeline.config.validation import Section


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How many workers Ray places, and in which Ray.

    `address` is that of a running Ray, `auto` for the one that Ray's own rules find, None to start one on this machine.
    With `pass_keys` the workers get the values of the keys, else each node reads its own environment.
    """

    engine: Engine = "ray"
    address: str | None = None
    processes: int = 8
    cpus: float = 1.0
    pass_keys: bool = False


def read_workers(top: Section) -> WorkerSettings | None:
    """Read the number of workers, or a mapping; problems are recorded in the section."""
    value = top.value.get("workers")
    if value is None:
        return None
    if not isinstance(value, dict):
        if fault := find_number_fault(value, 1, whole=True):
            top.add_problem("workers", f"{fault}; or a mapping of engine, address, processes, cpus and pass_keys")
            return None
        return WorkerSettings(processes=value)
    section = top.section("workers")
    section.reject_unknown_keys("engine", "address", "processes", "cpus", "pass_keys")
    return WorkerSettings(
        engine=section.choice("engine", "ray", ENGINES),
        address=_read_address(section),
        processes=section.integer("processes", 8, least=1),
        cpus=section.number("cpus", 1.0, least=0),
        pass_keys=section.flag("pass_keys"),
    )


def _read_address(section: Section) -> str | None:
    address: str | None = section.text("address", None)
    if address is not None and address != "auto" and not is_address(address):
        what = f"must be host:port as `ray start` prints it, `auto`, or null to start Ray here, not {address!r:.60}"
        section.add_problem("address", what)
        return None
    return address


def is_address(text: str) -> bool:
    """Return whether a text is the address of a machine and a port."""
    try:
        url = urlsplit(f"//{text}")
        return bool(url.hostname and url.port and url.netloc == text and "@" not in text)
    except ValueError:
        return False
