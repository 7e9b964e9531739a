"""The seven promises, a drill for each: it fails when the code that keeps the promise is taken out."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.audit import audit
from tests.support.stage import KEY, finish

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.stage import Stage


def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.005)


def test_the_limit_holds_over_jobs_processes_retries_and_restarts(stage: Stage) -> None:
    """Killed as soon as one call has filled the window, and started at once, with a server that fails now and then."""
    limit = {"images": 10, "per_seconds": 3}
    server = stage.serve(rate_limit=None, faults={"http_500": 0.2, "drop_after": 0.1}, seed=6)
    stage.settings["retry"] = {"attempts": 30, "unknown": 30, "max_wait_seconds": 0.1}
    stage.provider("lab", server, rate_limit={**limit, "margin": 1.2})
    process = stage.start("run", stage.prompts("large", 2, n=10), stage.prompts("small", 6))
    _until(lambda: len(server.books()) > 0)
    process.kill()
    finish(process)
    stage.run("run")
    found = audit(stage, server.books(), limit=(10, 3.0))
    assert found.pictures == 26
    assert len(server.books()) > 8, "retries are under the limit, too"


def test_the_money_a_call_is_written_down_before_it_is_sent_and_a_url_before_its_download(stage: Stage) -> None:
    """The process dies with calls in flight, and again with URLs that it has and pictures that it has not."""
    first = stage.serve(rate_limit=None, latency_seconds=[0.1, 4.0], faults={"cut_download": 1.0}, seed=1)
    stage.provider("lab", first, concurrency=8)
    process = stage.start("run", stage.prompts("many", 12))
    _until(lambda: len(stage.ask("SELECT pk FROM image WHERE state = 'paid'")) >= 2)
    process.kill()
    finish(process)
    time.sleep(4)  # what is in flight is charged all the same
    first.stop()
    again = stage.serve(rate_limit=None, port=first.port, seed=1)
    stage.run("run")
    found = audit(stage, first.books() + again.books())
    assert (found.pictures, found.lost) == (12, 0)
    assert 1 <= found.maybe_paid <= 8, "what was in flight, and no more"
    assert 1 <= found.paid_again <= found.maybe_paid, "a call that was killed before it was sent may be recorded"
    assert found.charged == 12 + found.paid_again


def test_the_hour_what_dies_first_comes_home_first_and_what_died_is_made_again_and_counted(stage: Stage) -> None:
    """At a second start one job's URLs have seconds to live, and a job that was queued before has hours of work."""
    stage.settings["download"] = {"attempts": 40}
    short = stage.serve(rate_limit=None, url_ttl_seconds=7, faults={"cut_download": 1.0}, seed=1)
    stage.provider("lab", short)
    stage.run("submit", stage.prompts("patient", 16))
    process = stage.start("run", stage.prompts("urgent", 3))
    _until(lambda: len({entry["path"] for entry in short.books("download")}) == 3)
    process.kill()
    finish(process)
    short.stop()
    again = stage.serve(rate_limit=None, port=short.port, latency_seconds=[1.0, 1.0], seed=1)
    stage.provider("lab", again, concurrency=2)
    stage.run("run")
    found = audit(stage, short.books() + again.books())
    assert (found.pictures, found.lost, found.charged) == (19, 0, 19), "at the end of the line they would have died"

    dead = stage.serve(rate_limit=None, url_ttl_seconds=1, faults={"cut_download": 1.0})
    stage.settings["retry"] = {"attempts": 2, "max_wait_seconds": 0.1}
    stage.provider("lab", dead)
    stage.run("run", stage.job("late", [{"prompt": "too late"}]), exit_code=1)
    (entry,) = stage.manifest("late")
    assert (entry["status"], entry["attempts"], dead.charged()) == ("failed", 2, 2)
    assert audit(stage, short.books() + again.books() + dead.books()).lost == 2


def test_the_files_are_whole_whatever_comes_over_the_wire_and_wherever_the_process_dies(stage: Stage) -> None:
    """Half pictures and web pages come along; the process kills itself just before one write or another."""
    server = stage.serve(rate_limit=None, faults={"wrong_download": 0.2, "cut_download": 0.1}, seed=2)
    stage.settings["download"] = {"attempts": 40}
    stage.provider("lab", server, concurrency=3)
    stage.run("submit", stage.prompts("many", 10, n=2))
    for step in (9, 14, 22, 23, 31):
        assert finish(stage.start("run", sabotage=f"die:{step}")).exit_code == -signal.SIGKILL
        for path in (stage.output / "many" / "images").glob("[!.]*"):
            assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), path
    stage.run("run")
    found = audit(stage, server.books())
    assert (found.pictures, found.lost) == (20, 0)


def test_the_fates_each_error_meets_its_own(stage: Stage) -> None:
    """A hiccup is tried again, a refused prompt gives up its request alone, and a spent quota stops the run."""
    server = stage.serve(rate_limit=None, faults={"http_500": 0.3}, seed=3, quota_images=6)
    stage.settings["retry"] = {"attempts": 20, "unknown": 20, "max_wait_seconds": 0.1}
    stage.provider("lab", server, concurrency=1)
    job = stage.job("fates", [{"prompt": "forbidden"}, *({"prompt": f"prompt {number}"} for number in range(9))])
    ended = stage.run("run", job, exit_code=3)
    assert "quota" in ended.stderr
    assert audit(stage, server.books()).charged == 6
    statuses = [entry["status"] for entry in stage.manifest("fates")]
    assert statuses[0] == "failed"
    assert sorted(statuses[1:]) == [*["pending"] * 3, *["succeeded"] * 6], "what waits for a retry goes after others"
    answers = [call["status"] for call in server.books()]
    assert (answers[0], answers[-1]) == (400, 429)
    assert answers.count(400) == answers.count(429) == 1, "neither is tried again"
    assert answers.count(500) > 0


@pytest.mark.parametrize("sabotage", [None, "bug:3"], ids=["a night", "a bug of ours"])
def test_the_secrets_the_key_goes_to_the_provider_alone(stage: Stage, sabotage: str | None) -> None:
    """Neither terminal nor log nor any file shows it, not even a traceback; a download that shows one is refused."""
    faults = {"http_500": 0.2, "html_502": 0.1, "cut_download": 0.2}
    server = stage.serve(rate_limit=None, faults=faults, latency_seconds=[0.05, 0.1], seed=3)
    stage.settings["retry"] = {"attempts": 20, "unknown": 20, "max_wait_seconds": 0.1}
    stage.provider("lab", server, concurrency=2)
    process = stage.start("run", stage.prompts("many", 10), "--verbose", "--json", sabotage=sabotage)
    _until(lambda: len(server.books()) > 0)
    title = Path(f"/proc/{process.pid}/cmdline")
    assert not title.exists() or KEY.encode() not in title.read_bytes()
    ended = finish(process)
    assert ended.exit_code == (0 if sabotage is None else 70), ended.stderr
    assert ("Traceback" in ended.stderr) == (sabotage is not None)
    assert KEY not in ended.stdout + ended.stderr
    assert "sig=" not in ended.stdout + ended.stderr
    assert all(entry["status"] in {200, None} for entry in server.books("download"))
    stage.run("run")
    assert audit(stage, server.books()).pictures == 10


def test_nothing_silent_no_sandbox_answers_for_a_provider_that_is_away_or_unnamed(stage: Stage) -> None:
    """A sandbox stands in the config, and the job's own provider is away: the run says so, and nothing is made."""
    server = stage.serve(rate_limit=None)
    server.stop()
    stage.settings["retry"] = {"outage_hours": 0.0005}
    stage.provider("lab", server)
    stage.providers["sandbox"] = {"sandbox": True, "rate_limit": None}
    stage.write_config()
    ended = stage.run("run", stage.prompts("many", 3), exit_code=3)
    assert f"check `base_url` {server.base_url}" in ended.stderr
    assert audit(stage, []).pictures == 0
    assert {entry["status"] for entry in stage.manifest("many")} == {"pending"}
    (stage.folder / "config.yaml").unlink()
    ended = stage.run("run", stage.prompts("unnamed", 3), exit_code=2)
    assert "provider" in ended.stderr
    assert not (stage.output / "unnamed").exists()
