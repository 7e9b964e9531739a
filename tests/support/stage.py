"""A folder with a config, servers that keep books, and the command as people type it.

Servers and commands are processes of their own; `within` lets them run in the test's process, at a fifth of the time,
for tests that ask what a command does and not how a process behaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import yaml
from click.testing import CliRunner

from pipeline.cli.main import main
from pipeline.images.inspect import inspect, inspect_svg
from pipeline.sandbox.server import serve
from pipeline.sandbox.settings import SandboxSettings
from tests.support.forked import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pipeline.sandbox.server import RunningSandbox

RunningCommand = subprocess.Popen[str] | Process

GENERATION = {"model": "dall-e-2", "size": "256x256"}
KEY = "sk-stage-0123456789"
HOME = Path(__file__).parents[2]


@dataclass
class Server:
    """A sandbox that is running."""

    end: Callable[[], None]
    base_url: str
    port: int
    books_file: Path
    life: float  # seconds that its URLs live
    is_running: Callable[[], bool]

    def books(self, kind: str = "call") -> list[dict[str, Any]]:
        """What the server says that it was asked, and what it charged; with how long its URLs live."""
        if not self.books_file.exists():
            return []
        whole, _, _ = self.books_file.read_text().rpartition("\n")  # the server may be in the middle of a line
        entries = [json.loads(line) for line in whole.splitlines()]
        return [{**entry, "life": self.life} for entry in entries if entry["type"] == kind]

    def charged(self) -> int:
        """Pictures that the server charged."""
        return sum(entry["charged"] for entry in self.books())

    def stop(self) -> None:
        """End the server and wait for it."""
        self.end()


@dataclass
class Stage:
    """Everything that one test needs; ended when the test ends."""

    folder: Path
    stack: contextlib.ExitStack
    providers: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    within: bool = False
    spools: dict[int, Path] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        """Where the pipeline leaves its work."""
        return self.folder / "outputs"

    def serve(self, *, port: int = 0, **settings: Any) -> Server:
        """Start a sandbox with these settings; on the port of an earlier one it has the files and batches of that."""
        books = self.folder / f"books-{len(list(self.folder.glob('books-*')))}.jsonl"
        life = settings.get("url_ttl_seconds", 3600.0)
        start = _serve_here if self.within else _serve_in_a_process
        spool = self.spools.get(port, books.with_suffix(".spool"))
        server = start(port, settings, books, spool, life)
        self.spools[server.port] = spool
        self.stack.callback(server.stop)
        return server

    def provider(self, name: str, server: Server | str, **more: Any) -> None:
        """Put a provider into the config; without a limit unless one is given."""
        base_url = server if isinstance(server, str) else server.base_url
        own = {"base_url": base_url, "api_key_env": "STAGE_KEY", "rate_limit": None}
        self.providers[name] = {**own, **more}
        self.write_config()

    def write_config(self) -> None:
        """Write config.yaml; the first provider serves jobs that name none."""
        settings = {"output": "outputs", "provider": next(iter(self.providers)), "providers": self.providers}
        (self.folder / "config.yaml").write_text(yaml.safe_dump({**settings, **self.settings}))

    def job(self, stem: str, requests: list[dict[str, Any]], **more: Any) -> Path:
        """Write a job file."""
        path = self.folder / f"{stem}.yaml"
        path.write_text(yaml.safe_dump({"defaults": GENERATION, "requests": requests, **more}, sort_keys=False))
        return path

    def prompts(self, name: str, count: int, **more: Any) -> Path:
        """Write a job of so many prompts, through a rows file."""
        (self.folder / f"{name}.txt").write_text("".join(f"prompt number {number}\n" for number in range(count)))
        return self.job(name, [{"prompt": "{{ prompt }}", "rows": f"{name}.txt", **more}])

    def start(
        self, *arguments: object, key: str = KEY, sabotage: str | None = None, under: Sequence[str] = ()
    ) -> RunningCommand:
        """Start the command in the folder: with this sabotage around it (see `sabotage.py`), or under another one."""
        environment = {**os.environ, "STAGE_KEY": key, "PYTHONPATH": str(HOME)}
        words = [str(one) for one in arguments]
        if not under:
            module = "pipeline.cli.main" if sabotage is None else "tests.support.sabotage"
            words = words if sabotage is None else [sabotage, *words]
            forked = Process(module, words, folder=self.folder, environment=environment)
            self.stack.callback(forked.end)
            return forked
        process = subprocess.Popen(
            [*under, sys.executable, "-m", "pipeline", *words],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.stack.callback(_end, process)
        return process

    def run(self, *arguments: object, exit_code: int | None = 0, **how: Any) -> Ended:
        """Run the command to its end, and insist on its exit code; None takes any."""
        alone = threading.current_thread() is threading.main_thread()  # only there can a run listen for signals
        here = self.within and alone and not {"sabotage", "under"} & set(how)
        ended = self._run_here(*arguments, **how) if here else finish(self.start(*arguments, **how))
        assert exit_code in {None, ended.exit_code}, (
            f"{arguments}: exit {ended.exit_code}\n{ended.stdout}\n{ended.stderr}"
        )
        return ended

    def _run_here(self, *arguments: object, key: str = KEY) -> Ended:
        words = [str(one) for one in arguments]
        with CliRunner().isolation(env={"STAGE_KEY": key}) as (stdout, stderr, _), contextlib.chdir(self.folder):
            try:
                main(words)
            except SystemExit as ended:
                code = ended.code
            assert isinstance(code, int)
            return Ended(code, stdout.getvalue().decode(), stderr.getvalue().decode())

    def ask(self, question: str, output: str = "outputs") -> list[Any]:
        """Give the rows with which the ledger answers, also beside a run; none where it is not yet made."""
        ledger = self.folder / output / "ledger.sqlite3"
        if not ledger.exists():
            return []
        with contextlib.closing(sqlite3.connect(ledger, timeout=30)) as connection:
            try:
                return connection.execute(question).fetchall()
            except sqlite3.OperationalError:
                return []

    def manifest(self, job: str) -> list[dict[str, Any]]:
        """Read a job's manifest."""
        return [json.loads(line) for line in (self.output / job / "manifest.jsonl").read_text().splitlines()]

    def standings(self) -> dict[str, dict[str, Any]]:
        """Give what `status --json` says of each job."""
        return {one["name"]: one for one in json.loads(self.run("status", "--json").stdout)["jobs"]}

    def standing(self, job: str) -> dict[str, Any]:
        """Give what `status --json` says of a job."""
        return self.standings()[job]

    def check_files(self, job: str) -> int:
        """Check that every image in the manifest is whole on disk as recorded; give their number."""
        recorded = {image["file"]: image for entry in self.manifest(job) for image in entry["images"]}
        for file, image in recorded.items():
            content = (self.output / job / file).read_bytes()
            picture = inspect_svg(content) if file.endswith(".svg") else inspect(content)
            assert hashlib.sha256(content).hexdigest() == image["sha256"]
            assert (len(content), picture.width, picture.height) == (image["bytes"], image["width"], image["height"])
        on_disk = {f"images/{path.name}" for path in (self.output / job / "images").glob("*") if path.suffix != ".part"}
        assert set(recorded) <= on_disk
        return len(recorded)


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    exit_code: int
    stdout: str
    stderr: str


def finish(process: RunningCommand) -> Ended:
    """Wait for a command's end."""
    stdout, stderr = process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, stdout, stderr)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    process.communicate()


def _serve_in_a_process(port: int, settings: dict[str, Any], books: Path, spool: Path, life: float) -> Server:
    arguments = ["--with-stdin", "--port", str(port), "--settings", json.dumps(settings), "--books", str(books)]
    arguments += ["--spool", str(spool)]
    process = Process("pipeline.sandbox.__main__", arguments, folder=HOME, environment=os.environ, keep_stdin=True)
    said = json.loads(process.stdout.readline())
    return Server(process.end, said["base_url"], said["port"], books, life, lambda: process.poll() is None)


def _serve_here(port: int, settings: dict[str, Any], books: Path, spool: Path, life: float) -> Server:
    """Serve in a thread of this process."""
    started: SimpleQueue[tuple[RunningSandbox, asyncio.AbstractEventLoop, asyncio.Event]] = SimpleQueue()

    async def work() -> None:
        stop = asyncio.Event()
        async with serve(SandboxSettings.from_mapping(settings), port=port, request_log=books, spool=spool) as running:
            started.put((running, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(work(),), daemon=True)
    thread.start()
    running, loop, stop = started.get(timeout=20)

    def end() -> None:
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
            thread.join()

    return Server(end, running.base_url, running.port, books, life, thread.is_alive)


@contextlib.contextmanager
def staged(folder: Path, *, within: bool = False) -> Iterator[Stage]:
    """Set the stage in a folder."""
    with contextlib.ExitStack() as stack:
        yield Stage(folder, stack, within=within)
