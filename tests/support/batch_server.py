"""A service with a Files API and a Batch API whose every answer a test may decide.

By itself it is healthy: a batch moves one step of its `course` at each look, and each line brings its images. A test
puts answers before that with `script`, decides what lines bring with `work`, and is called back at each call.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from aiohttp import BodyPartReader, web
from aiohttp.test_utils import TestServer

from pipeline.config.batch_rules import BatchRules
from pipeline.planning.input_files import InputFile
from pipeline.planning.plan import ImageRequest
from tests.support.workbench import PNG_BASE64, lab, picture, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection
    from pathlib import Path

    from pipeline.config.load import Provider
    from tests.support.workbench import Bench

    Line = dict[str, Any]
    Answer = Callable[[web.Request], web.StreamResponse | Awaitable[web.StreamResponse]] | tuple[int, Any] | str

LOST, LOST_500, DROPPED = "lost", "lost with a 500", "dropped"
"""An answer that is lost after the call was served, in two forms; and a connection that ends before it is served."""

COURSE = ("validating", "in_progress", "finalizing", "completed")
MODEL, OTHER = "gpt-image-2", "gpt-image-2.5-flare"  # which are not shut down soon
GPT = {"model": MODEL, "size": "1024x1024", "quality": "low"}
USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 10},
    "output_tokens": 272,
    "output_tokens_details": {"image_tokens": 272, "text_tokens": 0},
    "total_tokens": 282,
}


@dataclass
class File:
    """A file at the service."""

    id: str
    name: str
    purpose: str
    content: bytes
    created_at: float
    expires_at: float | None
    is_deleted: bool = False
    size: int | None = None  # that is stated, in place of the true one

    def as_object(self) -> dict[str, Any]:
        size = len(self.content) if self.size is None else self.size
        times = {"created_at": int(self.created_at), "expires_at": self.expires_at and int(self.expires_at)}
        return {"id": self.id, "object": "file", "bytes": size, "filename": self.name, "purpose": self.purpose, **times}


@dataclass
class BatchServer:
    """The service. `calls` are all that were made, such as `POST /files`, with `*` in place of ids."""

    url: str = ""
    calls: list[str] = field(default_factory=list)
    files: dict[str, File] = field(default_factory=dict)
    batches: list[dict[str, Any]] = field(default_factory=list)
    course: tuple[str, ...] = COURSE
    courses: list[tuple[str, ...]] = field(default_factory=list)  # of the next batches, before `course` holds
    work: Callable[[Line], list[Any]] = lambda line: [done(line)]
    errors: list[Any] = field(default_factory=list)  # of a batch that fails
    cancelled_as: tuple[str, ...] = ("cancelling", "cancelled")
    at_call: Callable[[str], None] = lambda _call: None
    change: Callable[[dict[str, Any]], None] = lambda _batch: None  # of each object before it is sent
    tokens: list[str | None] = field(default_factory=list)  # `Authorization` of each call
    most_at_once: int = 0  # uploads
    page: int = 100  # batches and files of one page of a list
    upload_seconds: float = 0.0
    _scripts: dict[str, list[Answer]] = field(default_factory=dict)
    _left: dict[str, list[str]] = field(default_factory=dict)
    _uploading: int = 0

    def script(self, call: str, *answers: Answer) -> None:
        """Answer the next calls of this kind so."""
        self._scripts.setdefault(call, []).extend(answers)

    def forget_script(self) -> None:
        """Answer all further calls as a healthy service does."""
        self._scripts.clear()

    def count(self, call: str) -> int:
        return self.calls.count(call)

    def inputs(self) -> list[list[Line]]:
        """The lines of each input file that was uploaded."""
        files = [file for file in self.files.values() if file.purpose == "batch"]
        return [[json.loads(line) for line in file.content.splitlines()] for file in files]

    def of(self, purpose: str) -> list[File]:
        return [file for file in self.files.values() if file.purpose == purpose]

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """Serve one call, as its script says."""
        steps = http.path.removeprefix("/v1/").split("/")
        call = f"{http.method} /" + "/".join(
            "*" if place == 1 and steps[0] != "images" else step for place, step in enumerate(steps)
        )
        self.calls.append(call)
        self.tokens.append(http.headers.get("Authorization"))
        self.at_call(call)
        script = self._scripts.get(call)
        answer = script.pop(0) if script else None
        if answer == DROPPED:
            return _cut(http)
        if isinstance(answer, tuple):
            return _said(answer)
        if callable(answer):
            said = answer(http)
            return await said if isawaitable(said) else said
        served = await self._serve(call, http, steps)
        if answer == LOST:
            return _cut(http)
        return _said(refusal("an internal error", status=500)) if answer == LOST_500 else served

    async def _serve(self, call: str, http: web.Request, steps: list[str]) -> web.StreamResponse:
        match call:
            case "POST /files":
                return await self._upload(http)
            case "GET /files":
                purpose = http.query["purpose"]
                return self._list(
                    http,
                    [
                        file.as_object()
                        for file in self.files.values()
                        if file.purpose == purpose and not file.is_deleted
                    ],
                )
            case "POST /batches":
                return await self._create(http)
            case "GET /batches":
                return self._list(http, [self._object(batch) for batch in self.batches])
            case "POST /images/generations" | "POST /images/edits":
                return web.json_response({"created": 1, "data": [{"b64_json": PNG_BASE64}], "usage": USAGE})
        found = self._find(steps)
        if found is None:
            return _said(refusal(f"No such object: {steps[1]}", status=404))
        match call:
            case "GET /files/*":
                return web.json_response(found.as_object())
            case "GET /files/*/content":
                return web.Response(body=found.content, content_type="application/octet-stream")
            case "DELETE /files/*":
                found.is_deleted = True
                return web.json_response({"id": found.id, "object": "file", "deleted": True})
            case "GET /batches/*":
                self._move(found)
            case "POST /batches/*/cancel":
                if found["status"] in {"completed", "failed", "expired"}:
                    return _said(refusal("Cannot cancel a batch with this status.", status=409))
                self._left[found["id"]] = list(self.cancelled_as)
                self._move(found)
        return web.json_response(self._object(found))

    def _find(self, steps: list[str]) -> Any:
        if steps[0] == "files":
            file = self.files.get(steps[1])
            return None if file is None or file.is_deleted else file
        return next((batch for batch in self.batches if batch["id"] == steps[1]), None)

    def _list(self, http: web.Request, objects: list[dict[str, Any]]) -> web.Response:
        newest = objects[::-1]
        after = http.query.get("after")
        start = next((place for place, one in enumerate(newest, 1) if one["id"] == after), 0)
        page = newest[start : start + self.page]
        return web.json_response(
            {
                "object": "list",
                "data": page,
                "has_more": start + self.page < len(newest),
                "last_id": page[-1]["id"] if page else None,
            }
        )

    async def _upload(self, http: web.Request) -> web.Response:
        self._uploading += 1
        self.most_at_once = max(self.most_at_once, self._uploading)
        fields, name, content = dict[str, str](), "", b""
        async for part in await http.multipart():
            assert isinstance(part, BodyPartReader)
            if part.name == "file":
                name, content = part.filename or "", bytes(await part.read())
            else:
                fields[part.name or ""] = await part.text()
        await asyncio.sleep(self.upload_seconds)
        self._uploading -= 1
        assert fields.pop("expires_after[anchor]") == "created_at"
        seconds = int(fields.pop("expires_after[seconds]"))
        return web.json_response(self.add(fields.pop("purpose"), name, content, seconds).as_object())

    def add(self, purpose: str, name: str, content: bytes, seconds: int | None = None) -> File:
        now = time.time()
        file = File(f"file-{len(self.files):022d}", name, purpose, content, now, seconds and now + seconds)
        self.files[file.id] = file
        return file

    async def _create(self, http: web.Request) -> web.Response:
        asked = await http.json()
        file = self.files[asked["input_file_id"]]
        assert asked.pop("completion_window") == "24h"
        assert file.purpose == "batch"
        assert file.name.endswith(".jsonl")
        batch = {
            "id": f"batch_{len(self.batches):032x}",
            "object": "batch",
            **asked,
            "status": "",
            "created_at": int(time.time()),
            "expires_at": int(time.time()) + 86_400,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "output_file_id": None,
            "error_file_id": None,
        }
        self._left[batch["id"]] = list(self.courses.pop(0) if self.courses else self.course)
        self.batches.append(batch)
        self._move(batch)
        return web.json_response(self._object(batch))

    def plain(self, batch: dict[str, Any]) -> web.Response:
        """Return a batch as the answer to a look."""
        return web.json_response(self._object(batch))

    def _object(self, batch: dict[str, Any]) -> dict[str, Any]:
        shown = json.loads(json.dumps(batch))
        self.change(shown)
        return dict(shown)

    def _move(self, batch: dict[str, Any]) -> None:
        """Take a batch to the next status of its course; at a final one, write its files."""
        left = self._left[batch["id"]]
        if not left:
            return
        batch["status"] = status = left.pop(0)
        lines = self._lines(batch)
        if status in {"in_progress", "finalizing", "completed", "expired"}:
            batch["request_counts"]["total"] = len(lines)
        if status == "failed":
            batch["errors"] = {"object": "list", "data": self.errors}
        if status in {"completed", "expired", "cancelled"} and batch["request_counts"]["total"]:
            self._finish(batch, lines)

    def _lines(self, batch: dict[str, Any]) -> list[Line]:
        return [json.loads(line) for line in self.files[batch["input_file_id"]].content.splitlines()]

    def _finish(self, batch: dict[str, Any], lines: list[Line]) -> None:
        written: dict[str, list[bytes]] = {"output": [], "error": []}
        for line in lines[::-1]:
            for one in self.work(line):
                is_bytes = isinstance(one, bytes)
                status = None if is_bytes or not one.get("response") else one["response"]["status_code"]
                kind = "output" if status == 200 or is_bytes else "error"
                batch["request_counts"]["completed" if kind == "output" else "failed"] += 1
                written[kind].append(one if is_bytes else json.dumps(one).encode())
        for kind, content in written.items():
            if content:
                name = f"{batch['id']}_{kind}.jsonl"
                batch[f"{kind}_file_id"] = self.add("batch_output", name, b"\n".join([*content, b""])).id


def _cut(http: web.Request) -> web.Response:
    assert http.transport is not None
    http.transport.close()
    return web.Response()


def _said(answer: tuple[int, Any]) -> web.Response:
    return web.json_response(answer[1], status=answer[0])


def refusal(message: str, code: str | None = None, status: int = 400) -> tuple[int, Any]:
    """Return the answer of a service that refuses a call."""
    return status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def done(line: Line, *images: str, **more: Any) -> Line:
    """Return the line of a file that answers this line of the input with images."""
    data = [{"b64_json": one} for one in images or [PNG_BASE64] * line["body"].get("n", 1)]
    body = {"created": 1, "data": data, "usage": USAGE, **more}
    return {
        "custom_id": line["custom_id"],
        "response": {"status_code": 200, "request_id": "f00", "body": body},
        "error": None,
    }


def failed(line: Line, status: int, message: str = "no", code: str | None = None) -> Line:
    """Return a line with an error response."""
    error = {"message": message, "type": "image_generation_user_error", "param": None, "code": code}
    response = {"status_code": status, "request_id": "f00", "body": {"error": error}}
    return {"custom_id": line["custom_id"], "response": response, "error": None}


def unanswered(line: Line, code: str | None = "batch_expired") -> Line:
    """Return a line without a response."""
    return {"custom_id": line["custom_id"], "response": None, "error": {"code": code, "message": "not run"}}


@contextlib.asynccontextmanager
async def batch_service(**how: Any) -> AsyncIterator[BatchServer]:
    """Serve until the block ends; what is left of a script shows that the test has not come so far."""
    server = BatchServer(**how)
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/v1/{rest:.*}", server.handle)
    async with TestServer(app) as running:
        server.url = str(running.make_url("/v1"))
        yield server
    left = {call: script for call, script in server._scripts.items() if script}
    assert not left, left


def batch_lab(url: str, *, more: dict[str, Any] | None = None, **rules: Any) -> Provider:
    """Return a provider whose batches are polled quickly."""
    return lab(url, batch=BatchRules(**{"poll_seconds": (0.02, 0.05), "cancel_seconds": 0.0, **rules}), **(more or {}))


def painted(number: int, *, n: int = 1, **params: Any) -> ImageRequest:
    """Make the generation of this number, by a model that goes by batch."""
    return request(number, n=n, **{**GPT, **params})


def edited(bench: Bench, number: int, *colours: int, mask: int | None = None, job: str = "job") -> ImageRequest:
    """Make the edit of this number, with input images that these sizes tell apart."""
    files = [("image", size) for size in colours] + ([("mask", mask)] if mask else [])
    inputs = tuple(_input(bench.folder, job, role, size) for role, size in files)
    one = painted(number)
    return ImageRequest(one.key, one.id, "edit", "edit", one.prompt, one.params, 1, {}, inputs)


def _input(folder: Path, job: str, role: str, size: int) -> InputFile:
    content = picture(size)
    sha256 = hashlib.sha256(content).hexdigest()
    file = f"inputs/{sha256[:16]}.png"
    (folder / job / "inputs").mkdir(parents=True, exist_ok=True)
    (folder / job / file).write_bytes(content)
    return InputFile(role, f"{size}.png", file, sha256, "image/png", size, size)


def queue(bench: Bench, provider: Provider, *requests: ImageRequest, mode: str = "batch", **job: Any) -> None:
    """Queue a job of this mode, with the columns of its row that are given."""
    columns = {name: job.pop(name) for name in ("deadline", "realtime_since", "cancel_since") if name in job}
    name = job.setdefault("name", "job")
    bench.submit(*requests, provider=provider, **job)
    bench.set("UPDATE job SET mode = ? WHERE name = ?", mode, name)
    for column, value in columns.items():
        bench.set(f"UPDATE job SET {column} = ? WHERE name = ?", value, name)


def outcomes(bench: Bench) -> dict[Any, int]:
    """Count the attempts by their outcome."""
    return dict(bench.ask("SELECT outcome, count(*) FROM attempt GROUP BY outcome"))


def kinds(bench: Bench, kind: type) -> list[Any]:
    """Return the events of a class."""
    return [event for event in bench.events if isinstance(event, kind)]


def fates(bench: Bench, job: str = "job") -> dict[str, int]:
    """Count the requests of a job by their status."""
    statuses: Collection[str] = bench.statuses(job).values()
    return {status: list(statuses).count(status) for status in set(statuses)}


def by_prompt(**what: Callable[[Line], list[Any]]) -> Callable[[Line], list[Any]]:
    """Return work that answers the lines of these prompts, such as `p1`, so, and any other with images."""
    asked: dict[str, int] = {}

    def work(line: Line) -> list[Any]:
        name = f"p{line['body']['prompt'].split()[-1]}"
        asked[name] = asked.get(name, 0) + 1
        return what[name](line) if name in what and asked[name] == 1 else [done(line)]

    return work


async def collected(
    bench: Bench, server: BatchServer, count: int = 4, *, n: int = 1, waits: bool = True, **rules: Any
) -> Any:
    """Run so many requests in batches; return the runner."""
    provider = batch_lab(server.url, **rules)
    queue(bench, provider, *(painted(number, n=n) for number in range(count)))
    return await bench.run(provider, waits=waits)


def attempts(bench: Bench) -> list[int]:
    """Return the attempts of each request, in the order of the job."""
    return [row[0] for row in bench.ask("SELECT attempts FROM request ORDER BY position")]


async def out(bench: Bench, server: BatchServer, count: int = 2, **rules: Any) -> Provider:
    """Send so many requests, and leave their batches out."""
    provider = batch_lab(server.url, **rules)
    queue(bench, provider, *(painted(number) for number in range(count)))
    await bench.run(provider, waits=False)
    return provider
