"""An outage is shown while a run is at work, by status, plan and the page alike, and never outlives the run."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import pytest

from pipeline.config.load import Config, RateLimit
from pipeline.errors import BudgetSpent, ModelUnknown, OutageGivenUp
from pipeline.ledger.lock import find_owner, run_lock
from pipeline.ledger.outages import Outage, clear_outages, read_outages, record_outage
from pipeline.ledger.queue import Block
from pipeline.ledger.recovery import recover
from pipeline.ledger.stops import record_stop
from pipeline.models.table import Models
from pipeline.reports.estimate import estimate_plan
from pipeline.reports.facts import clock
from pipeline.reports.next_command import WITHOUT_OPTIONS
from pipeline.reports.status import folder_json, folder_lines, read_folder_status
from pipeline.web.snapshot import read_snapshot
from tests.support.workbench import LAB, plan, request

if TYPE_CHECKING:
    from tests.support.workbench import Bench

LIMITED = dataclasses.replace(LAB, rate_limit=RateLimit(50, 60))
OUTAGE = Outage(1000.0, 2000.0, "no way")


def test_an_outage_is_in_status_plan_and_page_with_its_end_and_no_time_is_promised(bench: Bench) -> None:
    bench.submit(request(1, n=3), provider=LIMITED)
    now = time.time()
    record_outage(bench.connection, "lab", Outage(now - 60, now + 600, "cannot\nconnect"))
    since, end = clock(now - 60, now), clock(now + 600, now)
    sentence = f"provider `lab` is down since {since} (cannot connect); it is tried again until {end}"
    config, providers = Config(None, bench.folder, None, {"lab": LIMITED}), {"lab": LIMITED}

    def lines() -> list[str]:
        return list(folder_lines(read_folder_status(bench.folder, None, {}, providers), providers, WITHOUT_OPTIONS))

    assert sentence not in lines(), "no run is at work: it is stale"
    assert lines()[-1].endswith("3 to come, 4 s at the limit")
    with run_lock(bench.folder, bench.images, bench.connection, lambda: None):
        assert lines()[0] == sentence
        assert lines()[-1].endswith(" · 3 to come")
        status = folder_json(read_folder_status(bench.folder, None, {}, providers), WITHOUT_OPTIONS)
        planned = estimate_plan(bench.folder, plan(request(1, n=3), provider=LIMITED), Models.load({}))
        page = read_snapshot(bench.connection, config, find_owner(bench.folder, bench.connection), now)
        assert page["controls"]["lines"] == [sentence]
        assert page["providers"][0]["down_since"] == now - 60
        assert page["minutes_left"] is None
        for (provider,) in (status["providers"], planned["providers"], page["controls"]["providers"]):
            assert str(provider["down_since"]).endswith("Z")
            assert str(provider["down_until"]) > str(provider["down_since"])
            assert provider["down_reason"] == "cannot\nconnect"


def test_while_another_provider_of_its_route_is_up_a_job_has_a_time(bench: Bench) -> None:
    other = dataclasses.replace(LIMITED, name="other")
    bench.submit_routed(request(1, n=3), providers=(LIMITED, other))
    config = Config(None, bench.folder, None, {"lab": LIMITED, "other": other}, routes=bench.routes)

    def last_line() -> str:
        status = read_folder_status(bench.folder, None, {}, config.providers)
        return list(folder_lines(status, config.services, WITHOUT_OPTIONS))[-1]

    with run_lock(bench.folder, bench.images, bench.connection, lambda: None):
        record_outage(bench.connection, "lab", OUTAGE)
        assert "3 to come, 2 s at the limit" in last_line()
        record_outage(bench.connection, "other", OUTAGE)
        assert last_line().endswith("3 to come")


def test_an_outage_keeps_its_beginning_while_its_end_moves(bench: Bench) -> None:
    record_outage(bench.connection, "lab", OUTAGE)
    record_outage(bench.connection, "lab", Outage(1500.0, 3000.0, "502"))
    assert read_outages(bench.connection) == {"lab": Outage(1000.0, 3000.0, "502")}
    clear_outages(bench.connection, "other")
    assert "lab" in read_outages(bench.connection)


@pytest.mark.parametrize(
    ("block", "error", "ends"),
    [
        (Block(provider="lab"), OutageGivenUp("down"), True),
        (Block(), OutageGivenUp("everything"), True),
        (Block(provider="other"), OutageGivenUp("down"), False),
        (Block(job_pk=1), BudgetSpent("spent"), False),
        (Block(provider="lab", model="dall-e-2"), ModelUnknown("no model"), False),
    ],
)
def test_who_is_stopped_is_tried_no_more(bench: Bench, block: Block, error: OutageGivenUp, *, ends: bool) -> None:
    bench.submit(request(1))
    record_outage(bench.connection, "lab", OUTAGE)
    record_stop(bench.connection, block, error)
    assert read_outages(bench.connection) == ({} if ends else {"lab": OUTAGE})


def test_a_run_begins_without_the_outages_of_the_last(bench: Bench) -> None:
    record_outage(bench.connection, "lab", OUTAGE)
    recover(bench.connection)
    assert read_outages(bench.connection) == {}
