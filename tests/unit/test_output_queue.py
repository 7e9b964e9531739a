"""Output that never waits for its reader: what is kept, what is left out, and that it says so."""

from __future__ import annotations

import io
import os
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pipeline.progress import output_queue
from pipeline.progress.output_queue import OutputQueue, QueuedStream, deliver, output_restored, queue_output

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

FULL = 65_536  # bytes that a pipe takes


@contextmanager
def pipe() -> Iterator[tuple[int, TextIO]]:
    """Yield both ends of a pipe: the descriptor that is read, and a text stream that writes."""
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        try:
            yield ours, stream
        finally:
            os.close(ours)


def all_of(ours: int, *, until: bytes) -> bytes:
    """Read until the text ends so."""
    read = b""
    while not read.endswith(until):
        read += os.read(ours, 65_536)
    return read


def left_out(count: int) -> str:
    return f"<{count}>\n"


def test_a_writer_does_not_wait_and_a_late_reader_gets_everything_in_order() -> None:
    lines = [f"line {number} of a long night\n" for number in range(20_000)]
    with pipe() as (ours, inner):
        stream = QueuedStream(inner, OutputQueue(), left_out)
        for line in lines:
            stream.write(line)  # which would wait for ever
        assert stream.is_behind
        assert all_of(ours, until=lines[-1].encode()) == "".join(lines).encode()
        assert stream.queue.drain(10)
        assert not stream.is_behind


def test_memory_is_bounded_and_a_line_says_how_many_were_left_out() -> None:
    line = "x" * 99 + "\n"
    with pipe() as (ours, inner):
        stream = QueuedStream(inner, OutputQueue(2 * FULL), left_out)
        for _ in range(10_000):
            stream.write(line)
        assert stream.queue.waiting <= 2 * FULL
        stream.begin_end()
        stream.write("the end\n")
        read = all_of(ours, until=b"the end\n").decode().splitlines()
    kept = [one for one in read if one == line[:-1]]
    assert read == [*kept, f"<{10_000 - len(kept)}>", "the end"]
    assert len(kept) * 100 >= 2 * FULL - 100


def test_a_reader_that_reads_again_sees_where_lines_are_missing() -> None:
    with pipe() as (ours, inner):
        stream = QueuedStream(inner, OutputQueue(FULL), left_out)
        for number in range(3000):
            stream.write(f"{number:099}\n")
        read = os.read(ours, FULL)
        while not stream.queue.drain(0.01):
            read += os.read(ours, FULL)
        stream.write("again\n")
        read += all_of(ours, until=b"again\n")
    lines = read.decode().splitlines()
    numbers = [int(one) for one in lines[:-2]]
    assert numbers == list(range(len(numbers)))
    assert lines[-2:] == [f"<{3000 - len(numbers)}>", "again"]


def test_a_notice_is_a_line_of_its_own() -> None:
    with pipe() as (ours, inner):
        stream = QueuedStream(inner, OutputQueue(4), left_out)
        stream.write("half")
        stream.write(" a line\n")
        stream.begin_end()
        assert all_of(ours, until=b">\n") == b"half\n<1>\n"


def test_a_reader_that_is_gone_is_not_waited_for() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "w", encoding="utf-8") as inner:
        stream = QueuedStream(inner, OutputQueue(FULL), left_out)
        for _ in range(10 * FULL // 100):
            stream.write("x" * 99 + "\n")
        assert stream.queue.drain(10)
        stream.write("more\n")
        assert stream.queue.waiting == 0


def test_a_pipe_that_does_not_block_is_written_all_the_same() -> None:
    with pipe() as (ours, inner):
        os.set_blocking(inner.fileno(), False)  # as another program that has it, too, may do
        stream = QueuedStream(inner, OutputQueue(), left_out)
        stream.write("x" * (4 * FULL) + "\n")
        assert len(all_of(ours, until=b"\n")) == 4 * FULL + 1


def test_a_disk_without_room_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_queue, "_RETRY_SECONDS", 0.01)
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        stream = QueuedStream(full, OutputQueue(), left_out)
        stream.write("lost\n")
        assert not stream.queue.drain(0.1), "there may be room again"


def test_the_end_waits_for_no_reader_for_ever_and_names_what_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe() as (_, out), pipe() as (said, err), output_restored():
        monkeypatch.setattr("sys.stdout", out)
        monkeypatch.setattr("sys.stderr", err)
        queue_output({"stdout": left_out, "stderr": left_out})
        print("x" * (2 * FULL))
        ended = threading.Timer(30, os._exit, (1,))
        ended.start()
        deliver(0.1)
        ended.cancel()
        assert all_of(said, until=b"\n") == b"warning: nobody reads stdout: the last lines were not written\n"


def test_two_streams_to_one_file_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe() as (ours, out), os.fdopen(os.dup(out.fileno()), "w", encoding="utf-8") as err, output_restored():
        monkeypatch.setattr("sys.stdout", out)
        monkeypatch.setattr("sys.stderr", err)
        queue_output({"stdout": left_out, "stderr": left_out})
        for number in range(100):
            print(number, file=(sys.stdout, sys.stderr)[number % 2], flush=True)
        deliver(10)
        assert all_of(ours, until=b"99\n").decode().split() == [str(number) for number in range(100)]


def test_a_stream_of_a_test_is_left_alone_and_streams_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe() as (_, err), output_restored():
        text = io.StringIO()
        monkeypatch.setattr("sys.stdout", text)
        monkeypatch.setattr("sys.stderr", err)
        with output_restored():
            queue_output({"stdout": left_out, "stderr": left_out})
            assert sys.stdout is text
            assert isinstance(sys.stderr, QueuedStream)
        restored: object = sys.stderr
        assert restored is err
