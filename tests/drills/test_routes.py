"""Three providers serve one job at the sum of their limits, through faults and kills, and nothing is bought twice."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.audit import audit, check_window

if TYPE_CHECKING:
    from tests.support.stage import Server, Stage

LIMITS = {"fast": 50, "middle": 20, "slow": 5}
SECONDS = 6.0
LATE = 1.0  # seconds that a call may take to a server on a busy machine; what is promised is when calls are sent
STORM = dict.fromkeys(("http_429", "http_500", "http_503", "html_502", "drop_before", "drop_after", "empty"), 0.05)


def _serve(stage: Stage) -> dict[str, Server]:
    servers = {}
    for name, images in LIMITS.items():
        servers[name] = stage.serve(rate_limit={"images": images, "per_seconds": SECONDS - LATE})
        stage.provider(name, servers[name], rate_limit={"images": images, "per_seconds": SECONDS})
    stage.settings |= {"provider": "all", "routes": {"all": list(LIMITS)}}
    stage.write_config()
    return servers


@pytest.mark.parametrize(
    ("requests", "least_use"),
    [
        (225, 0.95),  # three windows, on a machine at work
        pytest.param(2250, 0.98, marks=[pytest.mark.long, pytest.mark.timeout(600)]),
    ],
)
def test_three_limits_are_kept_and_their_sum_is_used(stage: Stage, requests: int, least_use: float) -> None:
    servers = _serve(stage)
    stage.run("run", stage.prompts("night", requests))
    assert sum(server.charged() for server in servers.values()) == requests
    moments = {}
    for name, images in LIMITS.items():
        rows = stage.ask(f"SELECT sent_at, n FROM attempt WHERE provider = '{name}' AND outcome != 'not_sent'")
        check_window([{"mono": sent_at, "n": n} for sent_at, n in rows], images, SECONDS)
        moments[name] = sorted(sent_at for sent_at, _ in rows)
    began, until = min(found[0] for found in moments.values()), min(found[-1] for found in moments.values())
    sent = sum(moment <= until for found in moments.values() for moment in found)
    use = sent / (sum(LIMITS.values()) / SECONDS * (until - began))
    print(f"{requests} requests: {use:.4f} of the sum of the limits over {until - began:.1f} s")
    assert use >= least_use
    books = [entry for server in servers.values() for entry in server.books()]
    assert all(entry["charged"] for entry in books), "a server refused a call"
    audit(stage, books)


@pytest.mark.parametrize(
    ("seed", "kills"),
    [(1, 3), *(pytest.param(seed, 8, marks=[pytest.mark.long, pytest.mark.timeout(600)]) for seed in range(2, 8))],
)
def test_kills_and_faults_lose_nothing_and_buy_nothing_twice(stage: Stage, seed: int, kills: int) -> None:
    rng = random.Random(seed)
    servers = [stage.serve(rate_limit=None, seed=seed + place, faults=STORM) for place in range(3)]
    stage.settings["retry"] = {"attempts": 60, "unknown": 60, "max_wait_seconds": 0.05}
    names = ["a", "b", "c"]
    for name, server in zip(names, servers, strict=True):
        stage.provider(name, server, concurrency=rng.randint(1, 4))
    job = stage.prompts("night", 150)
    for _ in range(kills):
        policy = rng.choice(["spread", "fallback"])
        members = rng.sample(names, rng.randint(1, 3))
        stage.settings |= {"provider": "all", "routes": {"all": {"providers": members, "policy": policy}}}
        stage.write_config()
        process = stage.start("run", job)
        time.sleep(rng.uniform(1.0, 2.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    stage.run("run", job)
    books = [entry for server in servers for entry in server.books()]
    found = audit(stage, books)
    assert found.pictures == 150
    assert found.paid_again <= found.maybe_paid
