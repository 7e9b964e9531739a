"""What a process wrote, as the kernel saw it → the folder as a power cut at any moment could leave it.

strace writes down each write, fsync, rename, and their like. A replay builds the tree again up to a moment, in which
only what was brought to disk is sure: of a file what it held at its last fsync, of a folder the names that it had at
its own. What came after that may be lost, be there, or be there in part, and of that a replay takes its choice.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

_CALLS = "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,link,linkat,unlink,unlinkat,mkdir,mkdirat"
_LINE = re.compile(r"(\d+) +([\d.]+) (.*)")
_CALL = re.compile(r"(\w+)\((.*)\) = (\d+)")
_PATH = re.compile(r"[<\"]((?:\\x[0-9a-f]{2})*)[>\"]")
_PLACE = re.compile(r"<((?:\\x[0-9a-f]{2})*)>, \"((?:\\x[0-9a-f]{2})*)\"")  # a folder's descriptor, and a name in it

Choice = Literal["nothing", "names", "contents", "chance"]
"""What survives of what no fsync had covered: nothing, the names alone, the contents alone, or as chance has it."""

Tree = dict[str, bytes | None]
"""What a folder holds: contents by path, None for a folder."""

CHOICES: tuple[Choice, ...] = ("nothing", "names", "contents", "chance")


def recorder(trace: Path) -> list[str]:
    """Give the command under which a process is to run so that what it writes is recorded."""
    return ["strace", "-f", "-qq", "-ttt", "-y", "-xx", "-s", "100000000", "-e", f"trace={_CALLS}", "-o", str(trace)]


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the kernel that changed the disk, or brought it up to date; it began and ended in these lines."""

    name: str
    paths: tuple[str, ...]  # relative to the folder that is watched; "" is the folder itself
    content: bytes
    offset: int  # -1: at the end
    begin: int
    end: int
    moment: float


def read_steps(trace: Path, folder: Path) -> list[Step]:
    """Read what a recorded process did to the files of a folder."""
    steps, begun = [], {}
    for number, line in enumerate(trace.read_text().splitlines()):
        found = _LINE.match(line)
        assert found, line[:200]
        process, moment, said = found.groups()
        began = number
        if said.endswith("<unfinished ...>"):
            begun[process] = (number, said.removesuffix("<unfinished ...>").rstrip())
            continue
        if said.startswith("<... "):
            began, first = begun.pop(process)
            said = first + said.partition(" resumed>")[2]
        step = _step(said, folder, began, number, float(moment))
        if step is not None:
            steps.append(step)
    return steps


def _step(said: str, folder: Path, begin: int, end: int, moment: float) -> Step | None:
    call = _CALL.match(said)
    if call is None:  # it failed
        return None
    name, arguments, result = call.groups()
    if name.endswith("at"):
        if name == "openat" and "O_CREAT" not in arguments:
            return None
        texts = [os.path.join(*map(_bytes, place)) for place in _PLACE.findall(arguments)]  # noqa: PTH118 - bytes
        name = name if name == "openat" else name.removesuffix("at")
    else:
        texts = [_bytes(text) for text in _PATH.findall(arguments)]
    content = texts.pop() if name in {"write", "pwrite64"} and len(texts) > 1 else b""
    paths = tuple(text.decode() for text in texts)
    if not paths or not all(path == str(folder) or path.startswith(f"{folder}/") for path in paths):
        return None
    if paths[0].endswith("-shm"):  # made anew from the rest at every start
        return None
    offset = -1
    if name in {"pwrite64", "ftruncate"}:
        offset = int(arguments.rpartition(", ")[2])
    assert name != "write" or len(content) == int(result)
    relative = tuple(path.removeprefix(str(folder)).lstrip("/") for path in paths)
    return Step(name, relative, content, offset, begin, end, moment)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass(slots=True)
class _File:
    writes: list[Step] = field(default_factory=list)
    synced: int = 0  # writes that an fsync has covered

    def content(self, writes: int, torn: int | None = None) -> bytes:
        """Give what the file holds after so many writes, the last one cut after `torn` bytes."""
        run_lock = bytearray()
        for number, step in enumerate(self.writes[:writes], 1):
            if step.name == "ftruncate":
                del run_lock[step.offset :]
                run_lock += bytes(step.offset - len(run_lock))
                continue
            piece = step.content if number < writes else step.content[:torn]
            place = len(run_lock) if step.offset < 0 else step.offset
            run_lock += bytes(max(0, place - len(run_lock)))
            run_lock[place : place + len(piece)] = piece
        return bytes(run_lock)


class Disk:
    """A folder's files and names: as they are to the process, and as far as they are sure."""

    def __init__(self) -> None:
        self._names: dict[str, _File | None] = {}  # None: a folder
        self._changes: dict[str, list[tuple[Step, _File | None]]] = defaultdict(list)  # by folder
        self._synced: dict[str, int] = defaultdict(int)

    def take(self, step: Step) -> None:
        """Let one step happen."""
        path = step.paths[0]
        match step.name:
            case "openat" if path not in self._names:
                self._change(step, _File())
            case "mkdir" | "unlink":
                self._change(step, None)
            case "rename" | "link":
                self._change(step, self._names[path])
            case "write" | "pwrite64" | "ftruncate":
                file = self._names[path]
                assert file is not None
                file.writes.append(step)
            case "fsync" | "fdatasync":
                self._sync(step)

    def _change(self, step: Step, file: _File | None) -> None:
        self._changes[_parent(step.paths[0])].append((step, file))
        _apply(self._names, step, file)

    def _sync(self, step: Step) -> None:
        path = step.paths[0]
        file = self._names.get(path)
        if file is not None:
            file.synced = max(file.synced, sum(write.end < step.begin for write in file.writes))
        else:
            changes = self._changes[path]
            self._synced[path] = max(self._synced[path], sum(change.end < step.begin for change, _ in changes))

    def cut(self, choice: Choice, draw: random.Random) -> Tree:
        """Give the tree as a power cut leaves it."""
        names: dict[str, _File | None] = {"": None}
        kept = []
        for folder, changes in self._changes.items():
            kept += changes[: self._count(self._synced[folder], len(changes), choice, "names", draw)]
        for step, file in sorted(kept, key=lambda one: one[0].end):
            if step.name == "unlink" or _parent(step.paths[-1]) in names:
                _apply(names, step, file)
        tree: Tree = {}
        for path, file in names.items():
            if file is None:
                tree[path] = None
                continue
            writes = self._count(file.synced, len(file.writes), choice, "contents", draw)
            torn = draw.randint(0, 4096) if choice == "chance" and writes > file.synced else None
            tree[path] = file.content(writes, torn)
        return tree

    @staticmethod
    def _count(sure: int, known: int, choice: Choice, survives: Choice, draw: random.Random) -> int:
        if choice == "chance":
            return draw.randint(sure, known)
        return known if choice == survives else sure


def _apply(names: dict[str, _File | None], step: Step, file: _File | None) -> None:
    match step.name:
        case "unlink":
            names.pop(step.paths[0], None)
        case "rename":
            names.pop(step.paths[0], None)
            names[step.paths[1]] = file
        case "link":
            names[step.paths[1]] = file
        case _:
            names[step.paths[0]] = file


def _parent(path: str) -> str:
    return path.rpartition("/")[0] if path else "/"


def cuts(steps: list[Step], moments: list[int], draw: random.Random) -> Iterator[tuple[Step, Choice, Tree]]:
    """Cut the power just after each of these steps; what survives is chosen in turn."""
    disk = Disk()
    for number, step in enumerate(steps):
        disk.take(step)
        if number in moments:
            choice = CHOICES[moments.index(number) % len(CHOICES)]
            yield step, choice, disk.cut(choice, draw)


def lay(tree: Tree, folder: Path) -> None:
    """Write a tree into a folder."""
    for path, content in sorted(tree.items()):
        if content is None:
            (folder / path).mkdir(parents=True, exist_ok=True)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
