"""Nights of mode `auto`: whatever batches do, the job ends before its deadline, at about the least possible cost."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pipeline.config.load import RateLimit
from pipeline.engine import runner
from pipeline.engine.batches import executor, groups
from tests.support.batch_server import MODEL, USAGE, BatchServer, batch_lab, done, fates, painted, queue, unanswered
from tests.support.workbench import benched, models

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tests.support.workbench import Bench

REQUESTS, A_BATCH = 24, 4
SECONDS, CANCEL_SECONDS = 8.0, 2.0  # a night, and how long a cancelled batch may take
LIMIT = RateLimit(40, 1.0, 1.0)
VALIDATING, CANCELLING = 0.05, 0.1


@dataclass
class Course:
    """What a batch does by itself: when it ends and how, and when each of its lines is done, by their prompts."""

    status: str
    began: float
    end: float
    lines: dict[str, float]
    cancelled_at: float | None = None


@dataclass
class Night(BatchServer):
    """A service whose batches are slow, expire or fail, as a seed decides."""

    draw: random.Random = field(default_factory=random.Random)
    courses_of: dict[str, Course] = field(default_factory=dict)

    def _course(self, prompts: list[str]) -> Course:
        now, duration = time.time(), self.draw.uniform(0.4, 3.0)
        status = self.draw.choices(["completed", "slow", "expired", "failed"], [5, 2, 2, 1])[0]
        if status == "slow":
            duration = self.draw.uniform(6.0, 30.0)
        end = now + VALIDATING + (self.draw.random() * duration if status == "expired" else duration)
        self.draw.shuffle(prompts)
        moments = {
            prompt: now + VALIDATING + duration * place / len(prompts) for place, prompt in enumerate(prompts, 1)
        }
        return Course("completed" if status == "slow" else status, now, end, moments)

    def _move(self, batch: dict[str, Any]) -> None:
        sent, now = self._lines(batch), time.time()
        course = self.courses_of.get(batch["id"])
        if course is None:
            course = self._course([line["body"]["prompt"] for line in sent])
            self.courses_of[batch["id"]] = course
        if batch["status"] in {"completed", "failed", "expired", "cancelled"}:
            return
        if self.calls[-1].endswith("/cancel"):
            course.cancelled_at = now
        over = now if course.cancelled_at is None else course.cancelled_at
        if course.cancelled_at is not None:
            batch["status"] = "cancelling" if now < course.cancelled_at + CANCELLING else "cancelled"
        elif now < course.began + VALIDATING:
            batch["status"] = "validating"
        else:
            batch["status"] = course.status if course.status == "failed" or now >= course.end else "in_progress"
        if batch["status"] != "validating":
            batch["request_counts"]["total"] = len(sent)
        if batch["status"] in {"completed", "expired", "cancelled"}:
            finished = {prompt for prompt, moment in course.lines.items() if moment <= min(over, course.end)}
            self.work = lambda line: [done(line) if line["body"]["prompt"] in finished else unanswered(line)]
            self._finish(batch, sent)


def oracle(courses: Iterable[Course], prompts: Iterable[str], deadline: float) -> float:
    """Return the cost, in prices of a picture, for one who knows what each batch brings and when.

    It pays half for what is done by the moment of the switch, which follows from what is still missing then.
    """
    ways = [(prompt, moment, course.end) for course in courses for prompt, moment in course.lines.items()
            if course.status != "failed" and moment <= course.end]  # fmt: skip
    collected: dict[str, float] = {}
    for prompt, _, end in ways:
        collected[prompt] = min(end, collected.get(prompt, end))
    wanted = list(prompts)
    switch = deadline - SECONDS
    while switch < deadline:
        missing = sum(collected.get(prompt, deadline) > switch for prompt in wanted)
        if not missing or switch >= deadline - 1.1 * missing / LIMIT.images - CANCEL_SECONDS:
            break
        switch += 0.01
    cheap = {prompt for prompt, moment, _ in ways if moment <= switch}
    return sum(0.5 if prompt in cheap else 1.0 for prompt in wanted)


async def night(folder: Path, seed: int) -> Mapping[str, float]:
    """Live through one night; return when it ended, before its deadline, and its cost beside the oracle's."""
    server = Night(draw=random.Random(seed), errors=[{"code": "server_error", "message": "an internal error"}])
    app = web.Application()
    app.router.add_route("*", "/v1/{rest:.*}", server.handle)
    with benched(folder) as bench:
        async with TestServer(app) as running:
            url = str(running.make_url("/v1"))
            provider = batch_lab(
                url, most_requests=A_BATCH, poll_seconds=(0.05, 0.1), cancel_seconds=CANCEL_SECONDS,
                more={"rate_limit": LIMIT},
            )  # fmt: skip
            deadline = time.time() + SECONDS
            requests = [painted(number) for number in range(REQUESTS)]
            queue(bench, provider, *requests, mode="auto", deadline=deadline)
            await bench.run(provider)
            ended = time.time()
        assert fates(bench) == {"succeeded": REQUESTS}
        best = oracle(server.courses_of.values(), [str(one.prompt) for one in requests], deadline)
        return {"early": deadline - ended, "cost": _cost(bench), "oracle": best}


def _cost(bench: Bench) -> float:
    model, one = models().find(MODEL), painted(1)
    assert model is not None
    price = model.cost("generation", one.params, 1, USAGE).usd
    return float(bench.one("SELECT sum(cost_usd) FROM attempt")) / (price or 1.0)


@pytest.mark.parametrize(
    "seeds", [pytest.param(range(4), id="short"), pytest.param(range(20), id="long", marks=pytest.mark.long)]
)
async def test_auto_ends_before_its_deadline_at_about_the_cost_of_an_oracle(
    tmp_path_factory: pytest.TempPathFactory, seeds: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((executor, "_SECONDS"), (runner, "POLL_SECONDS"), (groups, "_REACTION")):
        monkeypatch.setattr(module, name, 0.05)  # what takes a second in a night of hours
    for first in range(0, len(seeds), 4):
        some = seeds[first : first + 4]
        nights = await asyncio.gather(*(night(tmp_path_factory.mktemp(f"night-{seed}"), seed) for seed in some))
        for seed, found in zip(some, nights, strict=True):
            print(seed, {name: round(value, 2) for name, value in found.items()})
            assert found["early"] > 0, (seed, found)
            assert found["cost"] <= 1.10 * found["oracle"], (seed, found)
