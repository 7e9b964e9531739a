"""A provider that is a sandbox gets a process of its own and the same address every time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pipeline import sandbox_process
from pipeline.config.load import Config, Provider
from pipeline.errors import ConfigError
from pipeline.sandbox_process import check_settings, sandbox_processes
from tests.support.workbench import lab, until

SANDBOX = Provider("sandbox", None, sandbox={"rate_limit": None})


async def _models(base_url: str) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{base_url}/models", headers={"Authorization": "Bearer x"}) as response,
    ):
        return response.status


async def test_it_answers_until_the_run_ends_and_is_started_once(tmp_path: Path) -> None:
    async with sandbox_processes(tmp_path) as processes:
        base_url = await processes.base_url(SANDBOX)
        assert await processes.base_url(SANDBOX) == base_url
        assert await _models(base_url) == 200
    with pytest.raises(aiohttp.ClientConnectorError):
        await _models(base_url)
    async with sandbox_processes(tmp_path) as processes:
        assert await processes.base_url(SANDBOX) == base_url, "its URLs survive a restart"


async def test_it_is_started_again_if_it_is_killed(tmp_path: Path) -> None:
    async with sandbox_processes(tmp_path) as processes:
        base_url = await processes.base_url(SANDBOX)
        killed = processes._at_work[SANDBOX.name].process
        killed.kill()
        await until(lambda: processes._at_work[SANDBOX.name].process is not killed)
        assert await processes.base_url(SANDBOX) == base_url
        assert await _models(base_url) == 200
    with pytest.raises(aiohttp.ClientConnectorError):
        await _models(base_url)


async def test_an_unexpected_error_of_a_restart_ends_what_waits_for_the_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise TypeError("a bug")

    async def wait() -> None:
        async with sandbox_processes(tmp_path) as processes:
            await processes.base_url(SANDBOX)
            monkeypatch.setattr(sandbox_process, "_start", fail)
            processes._at_work[SANDBOX.name].process.kill()
            await asyncio.Event().wait()

    with pytest.raises(TypeError, match="a bug"):
        await wait()


async def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    async with sandbox_processes(tmp_path) as processes:
        with pytest.raises(ConfigError, match="the sandbox `sandbox` does not start: No space left on device"):
            await processes.base_url(SANDBOX)


async def test_its_files_are_there_again_at_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    async def files(*, upload: bool) -> int:
        async with AsyncExitStack() as stack:
            processes = await stack.enter_async_context(sandbox_processes(tmp_path))
            base_url = await processes.base_url(SANDBOX)
            session = await stack.enter_async_context(aiohttp.ClientSession(headers={"Authorization": "Bearer x"}))
            form = aiohttp.FormData({"purpose": "vision"})
            form.add_field("file", b"x", filename="x.png")
            if upload:
                await session.post(f"{base_url}/files", data=form)
            async with session.get(f"{base_url}/files") as response:
                return len((await response.json())["data"])

    assert await files(upload=True) == 1
    assert await files(upload=False) == 1


async def test_where_its_port_is_taken_it_takes_the_next(tmp_path: Path) -> None:
    first, second, *_ = sandbox_process._ports(tmp_path, "sandbox")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", first))
        taken.listen()
        async with sandbox_processes(tmp_path) as processes:
            assert f":{second}/" in await processes.base_url(SANDBOX)


async def test_a_provider_with_an_address_needs_no_sandbox(tmp_path: Path) -> None:
    async with sandbox_processes(tmp_path) as processes:
        assert await processes.base_url(lab("http://x/v1")) == "http://x/v1"


async def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    async with sandbox_processes(tmp_path) as processes:
        broken = Provider("sandbox", None, sandbox={"latency": 3})
        with pytest.raises(ConfigError, match=r"does not start.*latency"):
            await processes.base_url(broken)


async def test_a_folder_of_uploads_that_is_a_link_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / f"image-batch-pipeline-sandbox-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    async with sandbox_processes(tmp_path) as processes:
        with pytest.raises(ConfigError, match=r"does not start.*is a link or a file, not a folder; remove it"):
            await processes.base_url(SANDBOX)


def test_wrong_settings_are_named_before_anything_is_queued(tmp_path: Path) -> None:
    provider = Provider("sandbox", None, sandbox={"seeed": 3})
    config = Config(tmp_path / "config.yaml", tmp_path, None, {"sandbox": provider})
    with pytest.raises(ConfigError, match=r"config\.yaml: providers\.sandbox\.sandbox: seeed.*seed"):
        check_settings(config, provider)
    check_settings(config, SANDBOX)


async def test_an_interpreter_that_cannot_be_started_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    async with sandbox_processes(tmp_path) as processes:
        with pytest.raises(ConfigError, match="the sandbox `sandbox` does not start: No such file or directory"):
            await processes.base_url(SANDBOX)


async def test_its_process_has_no_secret_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    start = asyncio.create_subprocess_exec

    async def look(*words: str, env: dict[str, str], **more: Any) -> asyncio.subprocess.Process:
        process = await start(*words, env=env, **more)
        seen.append(repr(env))
        with contextlib.suppress(OSError):  # a system without /proc
            seen.append(await asyncio.to_thread(Path(f"/proc/{process.pid}/environ").read_text))
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", look)
    for name in ("OPENAI_API_KEY", "STRANGE_TOKEN", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/sk-0123456789")
    async with sandbox_processes(tmp_path) as processes:
        assert await _models(await processes.base_url(SANDBOX)) == 200
    assert seen
    assert not any("sk-0123456789" in one for one in seen)
