"""Downloads of result files: whatever happens on the way, the file is whole under its name, or not there."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.client.file_download import FileGone
from pipeline.errors import (
    DiskFull,
    KeyRefused,
    NotSent,
    OutcomeUnknown,
    QuotaSpent,
    RequestError,
    ServerFault,
    Unusable,
    WrongAddress,
)
from tests.support.scripted_server import KEY, batch_client, response, scripted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.scripted_server import Answer, Request, ScriptedServer

CONTENT = bytes(random.Random(18).choices(b"abcdefghij\n", k=300_000))
SIZE = len(CONTENT)
ETAG = 'ETag: "one"'


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.client.file_download._FIRST_WAIT", 0.001)
    monkeypatch.setattr("pipeline.client.file_download._LONGEST_WAIT", 0.01)


def start_of(request: Request) -> int:
    """Return where the range begins that is asked for."""
    found = re.fullmatch(r"bytes=(\d+)-", request.header("Range") or "bytes=0-")
    assert found is not None
    return int(found[1])


def serve(
    *, cut: int | None = None, content: bytes = CONTENT, headers: tuple[str, ...] = (ETAG,)
) -> Callable[[Request], bytes]:
    """Answer as the service with ranges does; the connection ends after `cut` bytes of the file, if that is set."""

    def answer(request: Request) -> bytes:
        start = start_of(request)
        if start >= len(content):
            return response(416, b"", f"Content-Range: bytes */{len(content)}")
        named = [*headers]
        if start:
            named.append(f"Content-Range: bytes {start}-{len(content) - 1}/{len(content)}")
        return response(206 if start else 200, content[start:cut], *named, length=len(content) - start)

    return answer


def without_ranges(*, cut: int | None = None) -> Callable[[Request], bytes]:
    return lambda _: response(200, CONTENT[:cut], length=SIZE)


def chunked(content: bytes, *, end: bytes = b"0\r\n\r\n", status: int = 200, headers: str = "") -> bytes:
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(piece), piece)
        for piece in (content[at : at + 50_000] for at in range(0, len(content), 50_000))
    )
    return f"HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n{headers}\r\n".encode() + chunks + end


async def fetch(server: ScriptedServer, path: Path, expected: int | None = SIZE, **more: Any) -> None:
    async with batch_client(server.url) as client:
        await client.download("file-1", path, expected, **{"idle_seconds": 5.0, **more})


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def fetched(path: Path, *answers: Answer, expected: int | None = SIZE) -> ScriptedServer:
    """Download from a server with these answers, and require that the file is whole and alone."""
    async with scripted(*answers) as server:
        await fetch(server, path, expected)
    assert _files(path.parent) == {path.name: CONTENT}
    return server


async def refused(path: Path, *answers: Answer, expected: int | None = SIZE) -> Any:
    """Download in vain; return the error and the server."""
    async with scripted(*answers) as server:
        with pytest.raises((RequestError, FileGone)) as caught:
            await fetch(server, path, expected)
    assert path.name not in _files(path.parent)
    assert KEY not in str(caught.value)
    return caught.value, server


@pytest.mark.parametrize("expected", [SIZE, None, 0])
async def test_a_file_is_whole_under_its_name_and_for_its_owner_alone(expected: int | None, tmp_path: Path) -> None:
    server = await fetched(tmp_path / "out.jsonl", serve(), expected=expected)
    assert server.lines == ["GET /v1/files/file-1/content"]
    assert server.requests[0].header("Authorization") == f"Bearer {KEY}"
    assert server.requests[0].header("Accept-Encoding") == "identity"
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o777 == 0o600


async def test_the_mode_of_a_shared_folder_is_left_to_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        async with scripted(serve()) as server:
            await fetch(server, tmp_path / "out.jsonl", mode=0o666)
    finally:
        os.umask(old)
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o777 == 0o644


CUTS: dict[str, Answer] = {
    "before the response": b"",
    "in its status": b"HTTP/1.1 20",
    "in its headers": b"HTTP/1.1 200 OK\r\nContent-Length: 3000",
    "before the first byte": serve(cut=0),
    "after one byte": serve(cut=1),
    "in the middle": serve(cut=SIZE // 2),
    "before the last byte": serve(cut=SIZE - 1),
    "in the middle of chunks": chunked(CONTENT[:120_000], end=b""),
    "in a chunk": chunked(CONTENT[:120_000], end=b"ffff\r\n"),
    "in the end of chunks": chunked(CONTENT, end=b"0\r\n"),
    "as if it were whole": chunked(CONTENT[:120_000]),
    "by a fault": response(500, {"error": {"message": "oh"}}),
    "by a gateway": response(502, b"<html>Bad Gateway</html>", "Content-Type: text/html"),
    "by the limit": response(429, {"error": {"message": "slow down"}}, "Retry-After: 0.01"),
    "by a page": response(200, b"<html>Back soon</html>", "Content-Type: text/html"),
    "by no content": b"HTTP/1.1 204 No Content\r\n\r\n",
}


@pytest.mark.parametrize("kind", CUTS)
async def test_a_download_that_is_cut_goes_on_where_it_was(kind: str, tmp_path: Path) -> None:
    server = await fetched(tmp_path / "out.jsonl", CUTS[kind], serve())
    assert len(server.requests) <= 2


async def test_what_has_come_is_not_asked_for_again(tmp_path: Path) -> None:
    stops = [1, 1000, 1001, 150_000, 150_000, SIZE - 1]
    server = await fetched(tmp_path / "out.jsonl", *(serve(cut=stop) for stop in stops), serve())
    starts = [start_of(request) for request in server.requests]
    assert starts == sorted(starts)
    assert starts[:4] == [0, 1, 1000, 1001]
    assert starts[4] > 1001
    assert [request.header("If-Range") for request in server.requests] == [None, *(['"one"'] * (len(starts) - 1))]


async def test_twenty_cuts_with_progress_are_no_reason_to_give_up(tmp_path: Path) -> None:
    stops = sorted(random.Random(20).sample(range(1, SIZE), 20))
    server = await fetched(tmp_path / "out.jsonl", *(serve(cut=stop) for stop in stops), serve())
    assert len(server.requests) == 21


async def test_progress_makes_up_for_failures(tmp_path: Path) -> None:
    nothing: list[Answer] = [b""] * 5
    answers = [answer for stop in (100, 200, 300) for answer in (*nothing, serve(cut=stop))]
    server = await fetched(tmp_path / "out.jsonl", *answers, serve())
    assert len(server.requests) == 19


@pytest.mark.parametrize("etag", [(), ('ETag: W/"weak"',), ("ETag: bare",)])
async def test_only_a_strong_etag_is_compared(etag: tuple[str, ...], tmp_path: Path) -> None:
    server = await fetched(tmp_path / "out.jsonl", serve(cut=500, headers=etag), serve())
    assert server.requests[1].header("Range") == "bytes=500-"
    assert server.requests[1].header("If-Range") is None


async def test_a_server_without_ranges_starts_anew(tmp_path: Path) -> None:
    server = await fetched(tmp_path / "out.jsonl", without_ranges(cut=20_000), without_ranges())
    assert server.requests[1].header("Range") == "bytes=20000-"


@pytest.mark.parametrize(
    "wrong",
    [
        response(206, CONTENT[5:], f"Content-Range: bytes 5-{SIZE - 1}/{SIZE}"),
        response(206, CONTENT[5 : SIZE - 495], f"Content-Range: bytes 5-{SIZE - 496}/{SIZE}"),
        response(206, CONTENT[500:]),
        response(206, CONTENT[500:], "Content-Range: raw"),
        response(206, CONTENT[500:], f"Content-Range: bytes 500-{SIZE - 1}/{SIZE}", "Content-Encoding: gzip"),
        response(416, b""),
        response(416, b"", "Content-Range: bytes */7"),
    ],
    ids=[
        "of another start",
        "as long as the right one",
        "without a range",
        "of no range",
        "packed",
        "refused",
        "refused as too short",
    ],
)
@pytest.mark.parametrize("expected", [SIZE, None])
async def test_another_range_than_was_asked_for_is_not_taken(
    wrong: bytes, expected: int | None, tmp_path: Path
) -> None:
    server = await fetched(tmp_path / "out.jsonl", serve(cut=500), wrong, serve(), expected=expected)
    assert [request.header("Range") for request in server.requests] == [None, "bytes=500-", None]


async def test_a_range_may_come_in_parts(tmp_path: Path) -> None:
    def part(request: Request) -> bytes:
        start = start_of(request)
        stop = min(start + 90_000, SIZE)
        return response(206, CONTENT[start:stop], f"Content-Range: bytes {start}-{stop - 1}/{SIZE}")

    server = await fetched(tmp_path / "out.jsonl", serve(cut=10), part)
    assert len(server.requests) == 5


async def test_the_part_of_an_earlier_run_is_continued(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.part").write_bytes(CONTENT[:1234])
    server = await fetched(tmp_path / "out.jsonl", serve())
    assert server.requests[0].header("Range") == "bytes=1234-"
    assert server.requests[0].header("If-Range") is None


@pytest.mark.parametrize(("expected", "asked"), [(SIZE, 0), (None, 1)])
async def test_a_part_that_is_whole_gets_its_name(expected: int | None, asked: int, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.part").write_bytes(CONTENT)
    server = await fetched(tmp_path / "out.jsonl", serve(), expected=expected)
    assert len(server.requests) == asked


async def test_a_part_that_is_too_long_starts_anew(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.part").write_bytes(CONTENT + b"more")
    await fetched(tmp_path / "out.jsonl", serve())


async def test_zeros_that_a_power_failure_left_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.part").write_bytes(CONTENT[:1234] + bytes(4096))
    server = await fetched(tmp_path / "out.jsonl", serve())
    assert server.requests[0].header("Range") == "bytes=1234-"


async def test_a_packed_response_is_unpacked_and_its_length_means_nothing(tmp_path: Path) -> None:
    packed = response(200, gzip.compress(CONTENT), "Content-Encoding: gzip", ETAG)
    await fetched(tmp_path / "out.jsonl", packed)
    await fetched(tmp_path / "out.jsonl", packed, expected=None)


@pytest.mark.parametrize(
    ("answer", "error_class", "tries"),
    [
        (response(500, {"error": {"message": "oh"}}), ServerFault, 6),
        (response(502, b"Bad Gateway"), OutcomeUnknown, 6),
        (serve(cut=0), OutcomeUnknown, 6),
        (serve(cut=100), OutcomeUnknown, 7),
        (without_ranges(cut=100), OutcomeUnknown, 7),
        (response(200, CONTENT[:-1]), Unusable, 7),
        (response(200, CONTENT + b"x"), Unusable, 6),
        (response(401, {"error": {"code": "invalid_api_key", "message": "no"}}), KeyRefused, 1),
        (response(403, {"error": {"message": "no"}}), KeyRefused, 1),
        (response(429, {"error": {"code": "insufficient_quota", "message": "no"}}), QuotaSpent, 1),
        (response(302, b"", "Location: http://127.0.0.1:9/elsewhere"), WrongAddress, 1),
        (response(404, {"error": {"message": "No such File object: file-1", "param": "id"}}), FileGone, 1),
    ],
    ids=[
        *("fault", "gateway", "nothing", "a beginning", "no ranges", "too short", "too long", "key", "permission"),
        *("quota", "redirect", "gone"),
    ],
)
async def test_a_download_that_brings_nothing_new_ends_with_its_error(
    answer: Answer, error_class: type[Exception], tries: int, tmp_path: Path
) -> None:
    error, server = await refused(tmp_path / "out.jsonl", answer)
    assert (type(error), len(server.requests)) == (error_class, tries)


async def test_a_file_of_another_size_than_the_service_states_is_named(tmp_path: Path) -> None:
    error, _ = await refused(tmp_path / "out.jsonl", serve(), expected=SIZE + 7)
    assert f"{SIZE} of {SIZE + 7} bytes" in error.message
    error, _ = await refused(tmp_path / "out.jsonl", serve(), expected=SIZE - 7)
    assert f"of {SIZE - 7} bytes" in error.message


async def test_a_server_that_falls_silent_is_left(tmp_path: Path) -> None:
    async with scripted(serve(cut=5000), serve(), stalls_after=0) as server:
        server.answers = [serve(cut=5000), serve(cut=9000)]
        with pytest.raises(OutcomeUnknown, match="no complete response"):
            await fetch(server, tmp_path / "out.jsonl", idle_seconds=0.05)
    assert (tmp_path / "out.jsonl.part").read_bytes() == CONTENT[:9000]


async def test_a_cancelled_download_keeps_its_part_and_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    async with scripted(serve(cut=5000), stalls_after=0) as server:
        task = asyncio.create_task(fetch(server, path))
        part = tmp_path / "out.jsonl.part"
        async with asyncio.timeout(20):
            while _size(part) < 5000:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert part.read_bytes() == CONTENT[:5000]
    server = await fetched(path, serve())
    assert server.requests[0].header("Range") == "bytes=5000-"


async def test_a_download_that_is_cancelled_at_any_moment_leaves_a_beginning(tmp_path: Path) -> None:
    rng = random.Random(7)
    for number in range(40):
        path = tmp_path / f"{number}.jsonl"
        async with scripted(serve()) as server:
            task = asyncio.create_task(fetch(server, path))
            for _ in range(rng.randrange(60)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for one in (path, path.with_name(f"{path.name}.part")):
                assert not one.exists() or CONTENT.startswith(one.read_bytes())
            await fetch(server, path)
        assert path.read_bytes() == CONTENT


async def test_a_folder_that_cannot_be_written_stops(tmp_path: Path) -> None:
    async with scripted(serve()) as server:
        with pytest.raises(DiskFull, match="cannot be written"):
            await fetch(server, tmp_path / "gone" / "out.jsonl")
    assert server.requests == []


async def test_a_full_disk_keeps_what_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def full(descriptor: int, content: Any) -> int:
        if os.fstat(descriptor).st_size >= 10_000:
            raise OSError(28, "No space left on device")
        return write(descriptor, bytes(content)[:4000])

    path = tmp_path / "out.jsonl"
    async with scripted(serve()) as server:
        with monkeypatch.context() as patched:
            patched.setattr("pipeline.files.os.write", full)
            with pytest.raises(DiskFull, match="no room left"):
                await fetch(server, path)
        assert (tmp_path / "out.jsonl.part").read_bytes() == CONTENT[:12_000]
        await fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.requests[1].header("Range") == "bytes=12000-"


async def test_a_disk_may_take_a_part_of_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr("pipeline.files.os.write", lambda descriptor, content: write(descriptor, bytes(content)[:4000]))
    server = await fetched(tmp_path / "out.jsonl", serve())
    assert len(server.requests) == 1


async def test_a_server_that_is_not_there_was_not_asked(tmp_path: Path) -> None:
    async with scripted(b"") as server:
        pass
    with pytest.raises(NotSent):
        await fetch(server, tmp_path / "out.jsonl")


BIG = """
import asyncio, resource, sys, time
from pathlib import Path
from tests.support.scripted_server import batch_client

async def main() -> None:
    async with batch_client(sys.argv[1]) as client:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await client.download("file-1", Path(sys.argv[2]), int(sys.argv[3]), idle_seconds=30)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)

asyncio.run(main())
"""


async def test_200_megabytes_are_downloaded_in_constant_memory(tmp_path: Path) -> None:
    size, piece = 200_000_000, b"x" * 1_000_000

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(size // len(piece)):
            writer.write(piece)
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(pour, "127.0.0.1", 0)
    async with listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", BIG, url, str(tmp_path / "out.jsonl"), str(size)), stdout=subprocess.PIPE
        )
        said, _ = await process.communicate()
    assert process.returncode == 0
    assert (tmp_path / "out.jsonl").stat().st_size == size
    assert int(said) < 20_000, "kilobytes"
