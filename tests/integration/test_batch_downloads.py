"""Files of final batches: downloads that break, files that are gone, and collections that died."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from pipeline.config.load import Config, DownloadRules, RetryRules
from pipeline.engine.batches import line_results
from pipeline.engine.batches.lines import read_lines, read_output_line
from tests.support.batch_server import (
    LOST,
    attempts,
    batch_lab,
    batch_service,
    by_prompt,
    collected,
    done,
    fates,
    outcomes,
    painted,
    queue,
    refusal,
    unanswered,
)
from tests.support.workbench import PNG_BASE64, picture

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.workbench import Bench

    Line = dict[str, Any]


@pytest.mark.parametrize("empty", ["", None])
async def test_an_empty_id_is_no_file(bench: Bench, empty: str | None) -> None:
    async with batch_service() as server:
        server.change = lambda batch: batch.update(error_file_id=batch["error_file_id"] or empty)
        await collected(bench, server)
        assert (fates(bench), server.count("GET /files/*/content")) == ({"succeeded": 4}, 1)


async def test_max_bytes_holds_per_picture(bench: Bench) -> None:
    large = base64.b64encode(picture(16) + b"\0" * 4_000).decode()
    async with batch_service() as server:
        server.work = by_prompt(p0=lambda line: [done(line, large, PNG_BASE64, PNG_BASE64, PNG_BASE64)])
        provider = batch_lab(server.url)
        queue(bench, provider, painted(0, n=4))
        runner = bench.runner(provider)
        runner._config = Config(
            None, bench.folder, None, {"lab": provider}, retry=bench.retry, download=DownloadRules(max_bytes=2_000)
        )
        await runner.run()
        assert outcomes(bench) == {"unknown": 1, "answered": 1}
        assert "download.max_bytes" in bench.one("SELECT error FROM attempt WHERE outcome = 'unknown'")


async def test_an_output_file_that_is_gone_is_unknown(bench: Bench) -> None:
    bench.retry = RetryRules(unknown=1, max_wait_seconds=0.01)
    async with batch_service() as server:
        server.script("GET /files/*/content", refusal("No such File object", status=404))
        await collected(bench, server, 2)
        assert outcomes(bench) == {"unknown": 2, "answered": 2}
        assert fates(bench) == {"succeeded": 2}


@pytest.mark.parametrize("counts", [True, False])
async def test_an_output_file_that_is_gone_is_unknown_in_an_expired_batch_too(bench: Bench, counts: bool) -> None:
    bench.retry = RetryRules(unknown=1, max_wait_seconds=0.01)
    async with batch_service() as server:
        server.courses = [("in_progress", "expired")]
        server.change = lambda batch: None if counts else batch.update(request_counts={"total": 2})
        server.work = by_prompt(p0=lambda line: [unanswered(line)])
        server.script("GET /files/*/content", refusal("No such File object", status=404))
        await collected(bench, server, 2)
        assert outcomes(bench) == {"unknown": 1, "refused": 1, "answered": 2}
        assert bench.ask("SELECT maybe_paid FROM request ORDER BY position") == [(0,), (1,)]


async def test_an_error_file_of_an_expired_batch_that_is_gone_leaves_its_lines_not_run(bench: Bench) -> None:
    async with batch_service() as server:
        server.courses = [("in_progress", "expired")]
        server.work = by_prompt(p0=lambda line: [unanswered(line)], p1=lambda line: [unanswered(line)])
        server.script("GET /files/*/content", refusal("No such File object", status=404))
        await collected(bench, server, 2)
        assert outcomes(bench) == {"refused": 2, "answered": 2}


async def test_a_download_that_is_cut_or_refused_is_tried_again(bench: Bench) -> None:
    async with batch_service() as server:

        async def cut(http: web.Request) -> web.StreamResponse:
            content = server.of("batch_output")[0].content
            response = web.StreamResponse()
            await response.prepare(http)
            await response.write(content[: len(content) // 3])
            return response

        server.script("GET /files/*/content", cut, LOST, (500, {}), cut)
        await collected(bench, server)
        assert (fates(bench), outcomes(bench)) == ({"succeeded": 4}, {"answered": 4})


async def test_lines_are_counted_where_the_size_is_not_stated(bench: Bench) -> None:
    async with batch_service() as server:

        async def cut(http: web.Request) -> web.StreamResponse:
            content = server.of("batch_output")[0].content
            server.of("batch_output")[0].size = 0
            half = b"\n".join(content.split(b"\n")[:2]) + b"\n"
            response = web.StreamResponse()
            await response.prepare(http)
            await response.write(half)
            return response

        def unknown(_http: web.Request) -> web.StreamResponse:
            found = server.of("batch_output")[0]
            return web.json_response({**found.as_object(), "bytes": None})

        server.script("GET /files/*", unknown)
        server.script("GET /files/*/content", cut, cut)
        await collected(bench, server)
        assert (fates(bench), outcomes(bench)) == ({"succeeded": 4}, {"answered": 4})
        assert server.count("GET /files/*/content") == 3


async def test_a_collection_that_died_books_nothing_twice(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        queue(bench, provider, *(painted(number) for number in range(6)))
        seen: list[int] = []
        record = line_results.LineResults.record_response

        async def dying(self: Any, line: Any) -> None:
            seen.append(1)
            if len(seen) == 3:
                raise RuntimeError
            await record(self, line)

        with monkeypatch.context() as patch:
            patch.setattr(line_results.LineResults, "record_response", dying)
            with pytest.raises(ExceptionGroup):
                await bench.run(provider)
        assert fates(bench).get("running")
        await bench.run(provider)
        assert fates(bench) == {"succeeded": 6}
        assert outcomes(bench) == {"answered": 6}
        assert server.count("GET /files/*/content") == 1
        assert not list((bench.folder / "job" / "batches").iterdir())
        assert [file.is_deleted for file in server.of("batch")] == [True]


async def test_a_url_in_a_line_is_downloaded_as_in_realtime(bench: Bench) -> None:
    async with batch_service() as server:
        body = {"data": [{"url": f"{server.url}/picture.png"}]}

        def linked(line: Line) -> list[Any]:
            return [{**done(line), "response": {"status_code": 200, "request_id": "r", "body": body}}]

        server.work = linked
        server.script("GET /picture.png", lambda _http: web.Response(body=picture(), content_type="image/png"))
        await collected(bench, server, 1)
        assert fates(bench) == {"succeeded": 1}
        assert attempts(bench) == [1]


async def test_a_mark_at_the_beginning_other_line_ends_and_empty_lines_harm_no_line(bench: Bench) -> None:
    async with batch_service() as server:

        def marked(http: web.Request) -> web.Response:
            content = server.files[http.path.split("/")[-2]].content
            return web.Response(body=b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n\r\n"))

        server.script("GET /files/*/content", marked)
        server.script("GET /files/*", (200, {"id": "file-1", "bytes": None}))
        provider = batch_lab(server.url)
        queue(bench, provider, *(painted(number) for number in range(3)))
        await bench.run(provider)
        assert fates(bench) == {"succeeded": 3}
        assert outcomes(bench) == {"answered": 3}


def test_lines_are_read_with_their_places_and_long_ones_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"ab\n\n" + b"c" * 50 + b"\nde\n" + b"f" * 9)
    assert list(read_lines(path, 10)) == [(0, b"ab\n"), (4, None), (55, b"de\n"), (58, b"f" * 9)]
    path.write_bytes(b"f" * 11)
    assert list(read_lines(path, 10)) == [(0, None)]


def test_a_line_that_was_too_long_says_so() -> None:
    with pytest.raises(ValueError, match="longer"):
        read_output_line(None, "t")
