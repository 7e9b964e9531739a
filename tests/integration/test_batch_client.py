"""The calls of the Files API and the Batch API: what leaves, what is made of what comes back, and every refusal."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
import tracemalloc
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pipeline.client.batch_objects import BatchError, RemoteFile, moment
from pipeline.client.limits import BATCH_ERRORS, ID_CHARACTERS, OBJECT_BYTES
from pipeline.config.dialect import Dialect
from pipeline.errors import (
    Invalid,
    KeyRefused,
    NotSent,
    OutcomeUnknown,
    QuotaSpent,
    RateLimited,
    RequestError,
    ServerFault,
    Unusable,
    WrongAddress,
    WrongPath,
)
from tests.support.scripted_server import KEY, batch_client, response, scripted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from pipeline.client.batch_client import BatchClient
    from tests.support.scripted_server import Answer, Request, ScriptedServer

    Use = Callable[[BatchClient], Awaitable[Any]]

NOW = 1_796_000_000
FILE = {"id": "file-1", "object": "file", "bytes": 6, "created_at": NOW, "expires_at": NOW + 9, "filename": "a.jsonl"}
BATCH = {
    "id": "batch_1",
    "object": "batch",
    "endpoint": "/v1/images/generations",
    "errors": None,
    "input_file_id": "file-1",
    "completion_window": "24h",
    "status": "in_progress",
    "output_file_id": None,
    "error_file_id": None,
    "created_at": NOW,
    "expires_at": NOW + 86_400,
    "request_counts": {"total": 80, "completed": 12, "failed": 1},
    "metadata": {"pipeline": "token"},
}
UNKNOWN = response(404, {"error": {"message": "No such File object: file-1", "type": "invalid_request_error"}})


async def used(use: Use, *answers: Answer, **settings: Any) -> tuple[Any, ScriptedServer]:
    """Make one use of a client, and return what it returned and the server."""
    async with scripted(*answers) as server, batch_client(server.url, **settings) as client:
        result = await use(client)
    assert all(request.header("Authorization") == f"Bearer {KEY}" for request in server.requests)
    return result, server


async def refused(use: Use, *answers: Answer, **settings: Any) -> tuple[RequestError, ScriptedServer]:
    """Make one use of a client that fails, and return its error and the server."""
    async with scripted(*answers) as server, batch_client(server.url, **settings) as client:
        with pytest.raises(RequestError) as caught:
            await use(client)
    assert KEY not in repr(caught.value.__dict__) + str(caught.value)
    return caught.value, server


async def listed(client: BatchClient, since: float = 0.0) -> list[str]:
    return [batch.id async for batch in client.list_batches(since)]


def create(client: BatchClient) -> Awaitable[Any]:
    return client.create("file-1", "/v1/images/edits", {"pipeline": "token"}, lambda: None)


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"a\r\nb\r\n")
    return path


async def test_an_upload_is_a_form_with_the_file_under_its_name(jsonl: Path) -> None:
    found, server = await used(
        lambda client: client.upload(jsonl, "a.jsonl", "batch", "application/jsonl", 259_200), response(200, FILE)
    )
    assert found == RemoteFile("file-1", "a.jsonl", 6, NOW + 9)
    assert server.lines == ["POST /v1/files"]
    *fields, file = server.requests[0].parts
    assert [(name, filename, content) for name, filename, _, content in fields] == [
        ("purpose", None, b"batch"),
        ("expires_after[anchor]", None, b"created_at"),
        ("expires_after[seconds]", None, b"259200"),
    ]
    assert file == ("file", "a.jsonl", "application/jsonl", b"a\r\nb\r\n")


async def test_an_upload_that_never_expires_says_nothing_of_it(jsonl: Path) -> None:
    _, server = await used(
        lambda client: client.upload(jsonl, "a.png", "vision", "image/png", None), response(200, FILE)
    )
    assert [name for name, *_ in server.requests[0].parts] == ["purpose", "file"]


async def test_an_upload_of_a_file_that_is_gone_sends_nothing(tmp_path: Path) -> None:
    error, server = await refused(
        lambda client: client.upload(tmp_path / "gone", "a.jsonl", "batch", "application/jsonl", None), b""
    )
    assert (type(error), server.requests) == (Invalid, [])


async def test_a_large_upload_takes_constant_memory(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    with path.open("wb") as file:
        file.truncate(60_000_000)
    received = 0

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        head = await reader.readuntil(b"\r\n\r\n")
        left = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
        while left:
            piece = await reader.read(65_536)
            left -= len(piece)
            received += len(piece)
        writer.write(response(200, FILE))
        writer.close()

    listening = await asyncio.start_server(swallow, "127.0.0.1", 0)
    async with listening, batch_client(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1") as client:
        tracemalloc.start()
        await client.upload(path, "in.jsonl", "batch", "application/jsonl", None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert received > 60_000_000
    assert peak < 4_000_000


async def test_a_file_is_found_by_its_name_on_any_page() -> None:
    def page(request: Request) -> bytes:
        query = parse_qs(urlsplit(request.line).query)
        start = int(query.get("after", ["file-0"])[0].removeprefix("file-")) + 1
        data = [{**FILE, "id": f"file-{one}", "filename": f"{one}.jsonl"} for one in range(start, start + 3)]
        return response(200, {"data": data, "has_more": True, "last_id": data[-1]["id"]})

    found, server = await used(lambda client: client.find_file("8.jsonl", "batch", NOW - 60), page)
    assert found == RemoteFile("file-8", "8.jsonl", 6, NOW + 9)
    assert server.lines == [
        "GET /v1/files?purpose=batch&limit=1000",
        "GET /v1/files?purpose=batch&limit=1000&after=file-3",
        "GET /v1/files?purpose=batch&limit=1000&after=file-6",
    ]


async def test_a_file_that_is_not_there_is_none_and_is_deleted_already() -> None:
    empty = response(200, {"data": [], "has_more": False})
    assert (await used(lambda client: client.find_file("a", "batch", 0), empty))[0] is None
    assert (await used(lambda client: client.get_file("file-1"), UNKNOWN))[0] is None
    _, server = await used(lambda client: client.delete_file("file-1"), UNKNOWN)
    assert server.lines == ["DELETE /v1/files/file-1"]


async def test_a_file_is_looked_up_and_deleted() -> None:
    found, server = await used(lambda client: client.get_file("file-1"), response(200, FILE))
    assert (found.id, server.lines) == ("file-1", ["GET /v1/files/file-1"])
    await used(lambda client: client.delete_file("file-1"), response(200, {"id": "file-1", "deleted": True}))
    await used(lambda client: client.delete_file("file-1"), b"HTTP/1.1 204 No Content\r\n\r\n")
    error, _ = await refused(lambda client: client.delete_file("file-1"), response(503, b""))
    assert type(error) is ServerFault


async def test_a_batch_is_created_with_its_token_and_tells_that_it_left() -> None:
    told: list[None] = []
    batch, server = await used(
        lambda client: client.create("file-1", "/v1/images/edits", {"pipeline": "t"}, lambda: told.append(None)),
        response(200, BATCH),
    )
    assert (server.lines, len(told)) == (["POST /v1/batches"], 1)
    assert server.requests[0].json == {
        "input_file_id": "file-1",
        "endpoint": "/v1/images/edits",
        "completion_window": "24h",
        "metadata": {"pipeline": "t"},
    }
    assert (batch.id, batch.status, batch.endpoint) == ("batch_1", "in_progress", "/v1/images/generations")
    assert (batch.input_file_id, batch.output_file_id, batch.error_file_id) == ("file-1", None, None)
    assert (batch.total, batch.completed, batch.failed, batch.errors) == (80, 12, 1, ())
    assert (batch.created_at, batch.expires_at, batch.metadata) == (NOW, NOW + 86_400, {"pipeline": "token"})


async def test_a_batch_is_polled_and_cancelled() -> None:
    batch, server = await used(lambda client: client.get_batch("batch_1"), response(200, BATCH))
    assert (batch.id, server.lines) == ("batch_1", ["GET /v1/batches/batch_1"])
    batch, server = await used(
        lambda client: client.cancel("batch_1"), response(200, {**BATCH, "status": "cancelling"})
    )
    assert (batch.status, server.lines) == ("cancelling", ["POST /v1/batches/batch_1/cancel"])
    assert server.requests[0].body == b""


@pytest.mark.parametrize("status", [404, 409])
async def test_a_batch_that_has_ended_or_is_unknown_cannot_be_cancelled(status: int) -> None:
    said = {"error": {"message": "Cannot cancel a batch with status 'completed'."}}
    assert (await used(lambda client: client.cancel("batch_1"), response(status, said)))[0] is None
    if status == 404:
        assert (await used(lambda client: client.get_batch("batch_1"), response(status, said)))[0] is None


async def test_the_dialect_s_query_and_headers_go_with_every_call(jsonl: Path, tmp_path: Path) -> None:
    dialect = Dialect(auth_header="api-key", auth_scheme=None, query={"api-version": "2026-08-01"})
    page = response(200, {"data": []})
    answers = [response(200, FILE), page, *([response(200, FILE)] * 2), *([response(200, BATCH)] * 2), page]
    async with (
        scripted(*answers, response(200, BATCH), response(200, b"text")) as server,
        batch_client(server.url, dialect=dialect, headers={"X-Project": "p1"}) as client,
    ):
        await client.upload(jsonl, "a.jsonl", "batch", "application/jsonl", None)
        await client.find_file("a", "batch", 0)
        await client.get_file("file-1")
        await client.delete_file("file-1")
        await create(client)
        await client.get_batch("batch_1")
        await listed(client)
        await client.cancel("batch_1")
        await client.download("file-1", tmp_path / "out", None, idle_seconds=5)
    assert len(server.requests) == 9
    for request in server.requests:
        assert "api-version=2026-08-01" in request.line
        assert (request.header("api-key"), request.header("X-Project")) == (KEY, "p1")
        assert request.header("Authorization") is None


@pytest.mark.parametrize(
    "odd", ["a/../b", "a b", "", ".", "..", "a\nb", "\u00e9", "x" * (ID_CHARACTERS + 1), 7, None, {}]
)
async def test_what_is_no_id_is_none(odd: Any) -> None:
    batch, _ = await used(
        lambda client: client.get_batch("batch_1"), response(200, {**BATCH, "output_file_id": odd, "error_file_id": ""})
    )
    assert batch.output_file_id in {None, "a/../b"}
    assert batch.error_file_id is None


async def test_an_id_cannot_lead_to_another_path() -> None:
    _, server = await used(lambda client: client.get_file("a/../b?c#d%2f"), response(200, FILE))
    assert server.lines == ["GET /v1/files/a%2F..%2Fb%3Fc%23d%252f"]


COUNTS: list[tuple[Any, tuple[int, int, int]]] = [
    (None, (0, 0, 0)),
    ({}, (0, 0, 0)),
    ("many", (0, 0, 0)),
    ({"total": None, "completed": "7", "failed": 2.0}, (0, 7, 2)),
    ({"total": -1, "completed": True, "failed": 1e300}, (0, 0, 0)),
    ({"total": 10**15, "completed": 10**400, "failed": float("nan")}, (0, 0, 0)),
    ({"total": float("inf"), "completed": "1" * 5000, "failed": [1]}, (0, 0, 0)),
]


@pytest.mark.parametrize(("counts", "read"), COUNTS, ids=range(len(COUNTS)))
async def test_counts_may_be_anything(counts: Any, read: tuple[int, int, int]) -> None:
    batch, _ = await used(lambda client: client.get_batch("b"), response(200, {**BATCH, "request_counts": counts}))
    assert (batch.total, batch.completed, batch.failed) == read


MOMENTS: list[tuple[Any, float | None]] = [
    *((NOW, NOW), (float(NOW), NOW), (str(NOW), NOW), (f"{NOW}.0", NOW), ("2026-11-30T00:53:20Z", NOW)),
    *(("2026-11-30T00:53:20", NOW), ("2026-11-30T00:53:20.5+00:00", NOW + 0.5), ("2026-11-30T02:53:20+02:00", NOW)),
]
NO_MOMENTS: list[Any] = [
    *(None, "", "soon", True, [], {}, 0, -1, 1e18, 10**400, float("nan"), float("inf"), NOW * 1000, "9" * 400),
    *("0001-01-01T00:00:00Z", "9999-99-99", "\u0663"),
]


@pytest.mark.parametrize(
    ("stated", "read"), [*MOMENTS, *((one, None) for one in NO_MOMENTS)], ids=lambda one: f"{one!r:.30}"
)
def test_a_moment_may_be_a_number_a_text_or_a_date(stated: Any, read: float | None) -> None:
    assert moment(stated) == read


def test_a_date_without_a_zone_is_in_utc_wherever_this_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        assert moment("2026-11-30T00:53:20") == NOW
    time.tzset()


async def test_azure_s_forms_are_understood() -> None:
    azure = {
        **BATCH,
        "status": "Completed",
        "created_at": "2026-11-30T00:53:20Z",
        "expires_at": None,
        "request_counts": None,
        "metadata": None,
        "output_file_id": "",
        "errors": {"data": None},
    }
    batch, _ = await used(lambda client: client.get_batch("b"), response(200, azure))
    assert (batch.status, batch.created_at, batch.expires_at, batch.total) == ("completed", NOW, None, 0)
    assert (batch.metadata, batch.output_file_id, batch.errors) == ({}, None, ())


async def test_errors_of_a_batch_are_bounded_and_without_secrets() -> None:
    errors = [
        {"code": "invalid_json_line", "message": f"bad {KEY}\x1b[31m", "param": f"body.{KEY}", "line": 3},
        {"code": None, "message": "x" * 9000, "param": None, "line": None},
        "no object",
        *({"code": "c", "line": "4", "message": None} for _ in range(2 * BATCH_ERRORS)),
    ]
    said = {
        **BATCH,
        "errors": {"object": "list", "data": errors},
        "metadata": {"a": f"m {KEY}", "b": 5, "c": "x" * 9000},
    }
    batch, _ = await used(lambda client: client.get_batch("b"), response(200, said))
    assert batch.errors[0] == BatchError("invalid_json_line", "bad ***key*** [31m", "body.***key***", 3)
    assert batch.errors[1] == BatchError(None, "x" * 1000, None, None)
    assert batch.errors[2] == BatchError("c", "", None, 4)
    assert len(batch.errors) == BATCH_ERRORS
    assert batch.metadata == {"a": "m ***key***", "c": "x" * 1000}
    assert KEY not in repr(batch)


def batches(count: int, per_page: int, **more: Any) -> Callable[[Request], bytes]:
    """Answer with pages of batches, newest first; the one with the number 0 is the newest, each is a minute older."""

    def page(request: Request) -> bytes:
        after = parse_qs(urlsplit(request.line).query).get("after")
        start = int(after[0].removeprefix("batch_")) + 1 if after else 0
        numbers = range(start, min(start + per_page, count))
        data = [{**BATCH, "id": f"batch_{number}", "created_at": NOW - 60 * number} for number in numbers]
        return response(200, {"object": "list", "data": data, "has_more": numbers.stop < count, **more})

    return page


async def test_all_batches_are_listed_through_all_pages() -> None:
    found, server = await used(listed, batches(7, 3))
    assert found == [f"batch_{number}" for number in range(7)]
    assert server.lines == [
        "GET /v1/batches?limit=100",
        "GET /v1/batches?limit=100&after=batch_2",
        "GET /v1/batches?limit=100&after=batch_5",
    ]


async def test_a_list_is_read_up_to_the_moment_that_is_asked_for() -> None:
    found, server = await used(lambda client: listed(client, NOW - 60 * 4), batches(1000, 3))
    assert found == [f"batch_{number}" for number in range(5)]
    assert len(server.requests) == 2


async def test_a_list_in_another_order_is_read_to_its_end() -> None:
    pages = [
        response(
            200,
            {"data": [{**BATCH, "id": f"batch_{one}", "created_at": NOW + one} for one in numbers], "has_more": more},
        )
        for numbers, more in (((1, 2), True), ((3, 4), True), ((5, 6), False))
    ]
    found, _ = await used(lambda client: listed(client, NOW + 5), *pages)
    assert found == ["batch_5", "batch_6"]


async def test_batches_of_no_known_moment_are_listed_and_objects_that_are_none_are_left_out() -> None:
    data = ["text", None, {}, {**BATCH, "created_at": None}, {**BATCH, "id": "..", "created_at": 5}]
    found, _ = await used(lambda client: listed(client, NOW), response(200, {"data": data}))
    assert found == ["batch_1"]


async def test_300_pages_are_read_in_bounded_time() -> None:
    start = time.perf_counter()
    found, server = await used(listed, batches(6_000, 20))
    assert (len(found), len(server.requests)) == (6_000, 300)
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize(
    "page",
    [
        response(200, {"data": [BATCH], "has_more": True}),  # whatever is asked for
        response(200, {"data": [], "has_more": True}),
        response(200, {"data": [{"created_at": 5}], "has_more": True}),
        response(200, {"data": None}),
        response(200, {}),
    ],
    ids=["repeats", "empty", "without ids", "null", "no list"],
)
async def test_a_list_that_cannot_be_read_to_its_end_is_no_list(page: bytes) -> None:
    error, server = await refused(listed, page)
    assert type(error) is Unusable
    assert len(server.requests) <= 2


async def test_a_list_from_which_the_last_object_was_deleted_is_no_wrong_path() -> None:
    error, _ = await refused(listed, batches(7, 3), UNKNOWN)
    assert type(error) is Unusable
    error, _ = await refused(listed, UNKNOWN)
    assert type(error) is WrongPath


CALLS: dict[str, Use] = {
    "create": create,
    "get_batch": lambda client: client.get_batch("batch_1"),
    "list_batches": listed,
    "cancel": lambda client: client.cancel("batch_1"),
    "find_file": lambda client: client.find_file("a", "batch", 0),
    "get_file": lambda client: client.get_file("file-1"),
    "delete_file": lambda client: client.delete_file("file-1"),
}
ERRORS: list[tuple[bytes, type[RequestError]]] = [
    (response(401, {"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}), KeyRefused),
    (response(403, {"error": {"message": "no"}}), KeyRefused),
    (
        response(429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}),
        QuotaSpent,
    ),
    (response(400, {"error": {"message": "no", "code": "billing_hard_limit_reached"}}), QuotaSpent),
    (response(429, {"error": {"message": "slow down"}}, "Retry-After: 7"), RateLimited),
    (response(500, {"error": {"message": "oh"}}), ServerFault),
    (response(503, b"", "Retry-After: 7"), ServerFault),
    (response(502, b"<html>"), OutcomeUnknown),
    (response(524, b"<html>"), OutcomeUnknown),
    (response(400, {"error": {"message": "bad", "code": "c", "param": "p"}}), Invalid),
    (response(413, b"<html>too large"), Invalid),
    (response(302, b"", "Location: http://127.0.0.1:9/v1"), WrongAddress),
    (b"", OutcomeUnknown),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", OutcomeUnknown),
]


@pytest.mark.parametrize("name", CALLS)
async def test_every_call_raises_the_error_that_its_response_means(name: str) -> None:
    for answer, error_class in ERRORS:
        error, server = await refused(CALLS[name], answer)
        assert type(error) is error_class, answer
        assert server.requests
        if error.http_status == 429 and error_class is RateLimited:
            assert error.retry_after == 7
        if error.code == "c":
            assert (error.http_status, error.param, error.message) == (400, "p", "bad")


async def test_an_upload_raises_the_error_that_its_response_means(jsonl: Path) -> None:
    for answer, error_class in [*ERRORS, (UNKNOWN, WrongPath)]:
        error, _ = await refused(lambda client: client.upload(jsonl, "a", "batch", "text/plain", None), answer)
        assert type(error) is error_class, answer


@pytest.mark.parametrize("name", ["create", "list_batches", "find_file"])
async def test_a_server_without_a_batch_api_has_a_wrong_path(name: str) -> None:
    error, _ = await refused(CALLS[name], response(404, b"404 page not found"))
    assert type(error) is WrongPath


@pytest.mark.parametrize("name", ["create", "get_batch", "cancel", "get_file", "list_batches", "find_file"])
async def test_a_success_that_cannot_be_understood_is_unusable(name: str) -> None:
    for body in (b"", b"{", b"[]", b'"text"', b"{}", b'{"error": {"message": "no"}}', b"[" * 9000, b'{"id": 5}'):
        error, _ = await refused(CALLS[name], response(200, body))
        assert type(error) is Unusable, body
    error, _ = await refused(CALLS[name], response(200, b"<html><title>Hi</title>", "Content-Type: text/html"))
    assert type(error) is WrongAddress
    error, _ = await refused(CALLS[name], response(200, b" " * (OBJECT_BYTES + 1)))
    assert (type(error), error.deterministic) == (Unusable, True)


async def test_the_words_of_an_error_in_a_success_are_told() -> None:
    error, _ = await refused(create, response(200, {"error": {"message": f"too old {KEY}"}}))
    assert error.message.endswith("not a batch: too old ***key***")


async def test_a_proxy_is_named_and_a_server_that_is_not_there_was_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted(response(200, BATCH)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://me:pass-word@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        async with batch_client("http://api.invalid/v1") as client:
            assert (await client.get_batch("b")) is not None
            proxy.answers = [response(407, b"<html>Denied")]
            with pytest.raises(WrongAddress, match="through the proxy") as caught:
                await client.get_batch("b")
    assert proxy.lines[0] == "GET http://api.invalid/v1/batches/b"
    async with batch_client("http://api.invalid/v1") as client:
        with pytest.raises(NotSent, match="cannot be reached") as unsent:
            await client.get_batch("b")
    assert "pass-word" not in f"{caught.value} {unsent.value}"


async def test_a_response_that_does_not_come_is_waited_for_no_longer_than_the_timeout() -> None:
    async with (
        scripted(b"HTTP/1.1 200 OK\r\n", stalls_after=0) as server,
        batch_client(server.url, timeout=0.2) as client,
    ):
        with pytest.raises(OutcomeUnknown, match="no complete response"):
            await create(client)


async def test_the_key_goes_nowhere_but_to_the_server(tmp_path: Path) -> None:
    async with scripted(response(200, BATCH)) as other:
        away = response(307, b"", f"Location: {other.url}/batches")
        for use in (*CALLS.values(), lambda client: client.download("f", tmp_path / "o", None, idle_seconds=5)):
            error, _ = await refused(use, away)
            assert type(error) is WrongAddress
    assert other.requests == []


async def test_hostile_objects_are_read_or_refused() -> None:
    rng = random.Random(5)
    values: list[Any] = [
        None,
        True,
        -1,
        10**400,
        1e308,
        "",
        "x" * 5000,
        "\ud800",
        [],
        [[]],
        {},
        {"data": [{}]},
        {"a": None},
    ]
    async with scripted(b"") as server, batch_client(server.url) as client:
        for _ in range(300):
            body = {name: rng.choice([value, *values]) for name, value in BATCH.items()}
            server.answers = [response(200, body)]
            try:
                batch = await client.get_batch("b")
            except Unusable:
                continue
            assert batch is not None
            json.dumps(batch.metadata).encode()
            assert all(type(count) is int and 0 <= count < 10**15 for count in (batch.total, batch.completed))
            repr(batch).encode()
