"""Two signals at any moment end a run within a second, whatever it decodes, and leave a ledger that is whole."""

from __future__ import annotations

import asyncio
import base64
import itertools
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.drills.test_hostile import SUBJECTS, bomb, jpeg_of_empty_scans, tiff_bomb
from tests.support.stage import finish
from tests.support.workbench import answer_with, picture, vendor

if TYPE_CHECKING:
    from aiohttp import web

    from tests.support.stage import RunningCommand, Stage

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _images() -> list[str]:
    """Bombs and damaged images, in base64, among whole ones: three broken ones in a row would stop the run."""
    draw = next(one.draw for one in SUBJECTS if one.name == "images")
    hostile = [bomb(), tiff_bomb(), jpeg_of_empty_scans(), *(draw(random.Random(number)) for number in range(40))]
    images = [one for image in hostile for one in (*[picture()] * 5, image)]
    return [base64.b64encode(image).decode() for image in images]


def _heard(process: RunningCommand) -> None:
    """Wait until a run says that it has heard a signal: the same one is no second one before."""
    assert process.stderr is not None
    for line in process.stderr:
        if "a second signal stops at once" in line:
            break


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has no such signals")
@pytest.mark.parametrize(
    ("moments", "seconds"),
    [(3, 1.5), pytest.param(50, 1.0, marks=pytest.mark.long)],  # the long form runs alone
)
@pytest.mark.timeout(600)
async def test_the_second_signal_ends_a_run_of_hostile_images_at_any_moment(
    stage: Stage, moments: int, seconds: float
) -> None:
    images, called = itertools.cycle(_images()), asyncio.Event()

    async def answer(_body: dict[str, Any]) -> web.Response:
        if not called.is_set():  # the first call of each run is never answered, so that the run is at work
            called.set()
            await asyncio.sleep(60)
        return answer_with({"b64_json": next(images)})

    async with vendor(answer) as base_url:
        stage.provider("lab", base_url, concurrency=4)
        stage.run("submit", stage.prompts("many", 300 * moments, response_format="b64_json"))
        for number in range(moments):
            draw = random.Random(number)
            called.clear()
            process = stage.start("run")
            await called.wait()
            await asyncio.sleep(draw.uniform(0, 1.5))
            process.send_signal(draw.choice(SIGNALS))
            await asyncio.to_thread(_heard, process)
            await asyncio.sleep(draw.uniform(0, 0.4))
            assert process.poll() is None
            second, began = draw.choice(SIGNALS), time.monotonic()
            process.send_signal(second)
            ended = await asyncio.to_thread(finish, process)
            assert time.monotonic() - began < seconds, (number, ended)
            assert ended.exit_code == 128 + second, ended.stderr
            assert "Traceback" not in ended.stderr, ended.stderr
    assert stage.ask("PRAGMA integrity_check") == [("ok",)]
