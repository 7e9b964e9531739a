"""openai 0.28, the SDK of the beta guide, in its own environment: the guide's calls against the sandbox."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image

from tests.support.readme import HOME
from tests.support.sandbox_client import calling

DRIVER = Path(__file__).parents[1].joinpath("support", "guide_calls.py")
REQUIREMENTS = ("openai==0.28.1", "pillow")
INSTALL_SECONDS = 300
pytestmark = pytest.mark.timeout(2 * INSTALL_SECONDS)  # whichever test is the first makes the environment


@pytest.fixture(scope="session")
def old_python(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the old SDK, cached by pytest, so that only the first run of a clone creates it."""
    cache: pytest.Cache | None = getattr(pytestconfig, "cache", None)  # None under `-p no:cacheprovider`
    home = cache.mkdir("sdk-0.28") if cache else tmp_path_factory.mktemp("sdk-0.28")
    folder = home / "venv"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    with FileLock(home / "lock"):
        _make(folder, python)
    return python


def _make(folder: Path, python: Path) -> None:
    if not _works(python):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
            install = ["--python", str(python), "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
            _run(sys.executable, "-m", "pip", *install, *REQUIREMENTS)
        except (subprocess.SubprocessError, OSError) as reason:
            shutil.rmtree(folder, ignore_errors=True)
            what = f"{REQUIREMENTS[0]} cannot be installed here: {getattr(reason, 'stderr', '') or reason}"
            if os.environ.get("CI"):
                pytest.fail(what)
            pytest.skip(what)


def _works(python: Path) -> bool:
    check = "import PIL, openai.version; raise SystemExit(openai.version.VERSION != '0.28.1')"
    try:
        _run(str(python), "-c", check)
    except (subprocess.SubprocessError, OSError):
        return False
    return True


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)


@pytest.fixture
def guide_images(tmp_path: Path) -> Path:
    """Copy the images that the guide's examples use."""
    for name in ("sunlit_lounge.png", "mask.png", "corgi_and_cat_paw.png"):
        shutil.copy(HOME / "jobs" / "images" / name, tmp_path)
    shutil.copy(HOME / "jobs" / "images" / "corgi_and_cat_paw.png", tmp_path / "image.png")
    Image.new("RGB", (64, 32)).save(tmp_path / "oblong.png")
    return tmp_path


async def calls(python: Path, folder: Path, part: str, **settings: Any) -> dict[str, Any]:
    """Run a part of the driver against a sandbox and return its results."""
    async with calling(folder, **settings) as caller:
        process = await asyncio.create_subprocess_exec(
            *(str(python), str(DRIVER), caller.sandbox.base_url, part),
            cwd=folder,
            env={name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PYTHON"))},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    seen: dict[str, Any] = json.loads(out)
    return seen


async def test_the_guides_calls_return_urls_of_images(old_python: Path, guide_images: Path) -> None:
    seen = await calls(old_python, guide_images, "guide")
    assert seen.pop("version") == "0.28.1"
    assert seen == {
        name: {"kind": "PNG", "size": [1024, 1024], "keys": ["created", "data"]}
        for name in ("create", "create_edit", "create_variation", "from memory", "resized")
    }


async def test_the_guides_error_handling_gets_status_and_error(old_python: Path, guide_images: Path) -> None:
    errors = (await calls(old_python, guide_images, "errors"))["errors"]
    oblong = errors.pop("oblong")
    assert (oblong["class"], oblong["http_status"]) == ("InvalidRequestError", 400)
    assert oblong["error"].keys() == {"message", "type", "param", "code"}
    assert "square" in oblong["error"]["message"]
    assert {name: (seen["class"], seen["http_status"], seen["error"]["code"]) for name, seen in errors.items()} == {
        "size": ("InvalidRequestError", 400, "invalid_value"),
        "policy": ("InvalidRequestError", 400, "content_policy_violation"),
        "model": ("InvalidRequestError", 404, "model_not_found"),
        "mime type": ("InvalidRequestError", 400, "unsupported_file_mimetype"),
        "key": ("AuthenticationError", 401, "invalid_api_key"),
    }
    for seen in errors.values():
        assert seen["organization"], "a header of every response"


async def test_base64_and_the_async_variants_work_too(old_python: Path, guide_images: Path) -> None:
    seen = await calls(old_python, guide_images, "more")
    assert seen["base64"] == [{"kind": "PNG", "size": [256, 256]}] * 2
    assert seen["acreate"] == seen["acreate_edit"] == seen["acreate_variation"] == {"kind": "PNG", "size": [256, 256]}
    assert seen["aerror"]["http_status"] == 400
    assert {"dall-e-2", "gpt-image-2"} <= set(seen["models"])


@pytest.mark.parametrize(
    ("settings", "status", "name", "code"),
    [
        ({"rate_limit": {"images": 0}}, 429, "RateLimitError", "rate_limit_exceeded"),
        ({"quota_images": 0}, 429, "RateLimitError", "insufficient_quota"),
        ({"faults": {"http_500": 1}}, 500, "APIError", None),
        ({"faults": {"http_503": 1}}, 503, "ServiceUnavailableError", None),
        ({"faults": {"html_502": 1}}, 502, "APIError", None),
        ({"faults": {"drop_before": 1}}, None, "APIConnectionError", None),
    ],
)
async def test_server_errors_have_their_classes(
    old_python: Path, guide_images: Path, settings: dict[str, Any], status: int | None, name: str, code: str | None
) -> None:
    seen = (await calls(old_python, guide_images, "once", **settings))["error"]
    assert (seen["class"], seen["http_status"], (seen["error"] or {}).get("code")) == (name, status, code)
