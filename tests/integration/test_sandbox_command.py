"""`python -m pipeline.sandbox`: output, exit codes, signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.support.sandbox_client import CAT


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipeline.sandbox", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_process_prints_its_address_and_ends_with_its_stdin() -> None:
    with start("--with-stdin") as process:
        assert process.stdout
        line = json.loads(process.stdout.readline())
        assert line == {
            "base_url": f"http://127.0.0.1:{line['port']}/v1",
            "port": line["port"],
            "pid": process.pid,
        }
        with socket.create_connection(("127.0.0.1", line["port"])):
            out, err = process.communicate(timeout=20)  # closes stdin
        assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_process_quietly_even_during_a_call(number: signal.Signals) -> None:
    with start("--settings", json.dumps({"latency_seconds": [60, 60]})) as process:
        assert process.stdout
        port = json.loads(process.stdout.readline())["port"]
        with socket.create_connection(("127.0.0.1", port)) as call:
            body = json.dumps(CAT).encode()
            head = (
                f"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n"
                f"Expect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            call.sendall(head.encode())
            assert call.recv(100).startswith(b"HTTP/1.1 100"), "the call has arrived"
            call.sendall(body)
            os.kill(process.pid, number)
            out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "", "")


def test_a_taken_port_is_exit_3_with_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with start("--port", str(taken.getsockname()[1])) as process:
            out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (3, "")
    assert "address already in use" in err
    assert len(err.splitlines()) == 1


def test_invalid_settings_are_exit_2_with_one_line() -> None:
    with start("--settings", '{"fault": {}}') as process:
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (2, "settings: fault: unknown key; did you mean 'faults'?\n")


def test_a_stdin_closed_from_the_start_ends_the_process() -> None:
    command = [sys.executable, "-m", "pipeline.sandbox", "--with-stdin"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["port"] > 0
