"""Several nodes of Ray on one machine: the limit is kept and used, and kills of anything lose nothing."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import secrets
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.audit import audit
from tests.support.ray_nodes import kill, processes, ray_nodes
from tests.support.stage import KEY, finish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.ray_nodes import Nodes
    from tests.support.stage import RunningCommand, Stage

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")

VICTIMS = ["worker"] * 7 + ["node"] * 2 + ["run"]


@pytest.fixture(scope="module")
def nodes(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    """So many nodes, with room for so many workers each."""
    with ray_nodes(*request.param, STAGE_KEY=KEY) as made:
        yield made


def _until(stage: Stage, process: RunningCommand, question: str) -> bool:
    """Wait until the ledger answers a question with yes; return False if the process ends before."""
    while process.poll() is None:
        if (stage.ask(question) or [[0]])[0][0]:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("nodes", [(2, 1)], indirect=True)
def test_each_node_reads_its_own_environment_unless_keys_are_passed(stage: Stage, nodes: Nodes) -> None:
    server, key = stage.serve(rate_limit=None), f"sk-{secrets.token_hex(16)}"
    stage.settings["workers"] = {"processes": 2, "address": nodes.address}
    stage.provider("lab", server, api_key_env="HERE_ONLY")
    job = stage.prompts("many", 4)
    os.environ["HERE_ONLY"] = key
    try:
        ended = stage.run("run", job, "--on", "ray", exit_code=2)
        assert re.search(r"node \S+: provider `lab` takes its key from \$HERE_ONLY, which is unset", ended.stderr)
        assert server.books() == stage.ask("SELECT * FROM attempt") == []
        stage.settings["workers"]["pass_keys"] = True
        stage.write_config()
        stage.run("run", "--on", "ray")
    finally:
        del os.environ["HERE_ONLY"]
    assert stage.check_files("many") == 4
    for path in (*stage.output.rglob("*"), *nodes.folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            assert key.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("nodes", "requests", "killed"),
    [
        pytest.param((2, 1), 100, ["worker", "worker", "node", "run"], marks=pytest.mark.timeout(300)),
        pytest.param((4, 2), 6000, VICTIMS * 10, marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
    ],
    indirect=["nodes"],
)
def test_kills_of_workers_nodes_and_runs_lose_nothing_and_buy_only_calls_in_flight_again(
    stage: Stage, nodes: Nodes, requests: int, killed: list[str]
) -> None:
    draw = random.Random(42)
    victims, kills = draw.sample(killed, len(killed)), len(killed)
    server = stage.serve(rate_limit=None, latency_seconds=[0.1, 0.6], seed=2, faults={"cut_download": 0.1})
    workers = {"processes": nodes.cpus * len(nodes.nodes), "address": nodes.address}
    stage.settings |= {"retry": {"unknown": 100}, "workers": workers}
    stage.provider("lab", server, concurrency=32)
    stage.run("submit", stage.prompts("many", requests))
    process, cut = stage.start("run", "--on", "ray"), set()
    for number, victim in enumerate(victims, start=1):
        goal = requests * number // (kills + 1)
        assert _until(
            stage, process, f"SELECT total(received) >= {goal} AND EXISTS (SELECT 1 FROM worker) FROM request"
        )
        time.sleep(draw.uniform(0, 0.1))
        if victim == "worker":
            kill(draw.choice(stage.ask("SELECT pid FROM worker"))[0])
        elif victim == "node":
            nodes.kill(draw)
            nodes.add()
        else:
            process.kill()
            finish(process)
            cut.update(stage.ask("SELECT pk FROM attempt WHERE outcome IS NULL"))
            process = stage.start("run", "--on", "ray")
    ended = finish(process)
    assert ended.exit_code == 0, ended.stderr
    log = (stage.output / "run.log").read_text()
    lost = sum(int(calls) for calls in re.findall(r"was lost; (\d+) calls? of unknown outcome", log))
    found = audit(stage, server.books())
    assert (found.pictures, found.lost, found.maybe_paid) == (requests, 0, lost + len(cut))
    assert found.paid_again <= found.maybe_paid
    print(f"{kills} kills: {found.maybe_paid} calls of unknown outcome, {found.paid_again} bought again")


@pytest.mark.long
def test_a_run_whose_ray_loses_its_control_service_finishes_its_calls_and_exits_with_3(stage: Stage) -> None:
    server, key = stage.serve(rate_limit=None, latency_seconds=[3.0, 5.0]), f"sk-{secrets.token_hex(16)}"
    stage.settings["workers"] = 2
    stage.provider("lab", server, concurrency=3)
    process = stage.start("run", stage.prompts("many", 60), "--on", "ray", key=key)
    assert _until(stage, process, "SELECT count(*) > 3 FROM attempt")
    (control,) = [pid for pid, line in processes(key).items() if "/gcs_server" in line]
    kill(control)
    ended = finish(process)
    assert ended.exit_code == 3, ended.stderr
    assert "Ray's control service" in ended.stderr
    found = audit(stage, server.books())
    assert (found.pictures, found.charged, found.maybe_paid) == (server.charged(), server.charged(), 0)
    stage.run("run", "--on", "local")


@pytest.mark.long
@pytest.mark.parametrize("nodes", [(4, 2)], indirect=True)
@pytest.mark.timeout(900)
def test_a_strict_server_refuses_no_call_of_all_workers_and_the_limit_is_used(stage: Stage, nodes: Nodes) -> None:
    images, seconds, windows = 50, 60.0, 5
    server = stage.serve(rate_limit={"images": images, "per_seconds": seconds}, latency_seconds=[0.2, 2.0])
    stage.settings["workers"] = {"processes": nodes.cpus * len(nodes.nodes), "address": nodes.address}
    stage.provider("lab", server, rate_limit={"images": images, "per_seconds": seconds})
    stage.run("run", stage.prompts("many", images * windows + images // 2), "--on", "ray")
    calls = sorted((call for call in server.books()), key=lambda call: call["mono"])
    assert {call["status"] for call in calls} == {200}
    audit(stage, server.books(), limit=(images, seconds))
    moments = [call["mono"] for call in calls]
    use = (len(moments) - 1) * seconds / images / (moments[-1] - moments[0])
    print(f"{use:.4f} of the limit in windows of {seconds:.0f} seconds")
    assert use >= 0.98
