"""How far each job is, for people and for scripts."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

import pytest

from pipeline.config.load import Config, RateLimit
from pipeline.errors import BadInput
from pipeline.reports.facts import job_line
from pipeline.reports.status import nothing_submitted, read_status, status_json, status_lines
from tests.support.workbench import LAB, request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.workbench import Bench


def test_where_nothing_was_submitted_there_is_nothing_and_nothing_is_made(tmp_path: Path) -> None:
    assert read_status(tmp_path / "outputs", None) == []
    with pytest.raises(BadInput, match=f"nothing has been submitted to {re.escape(str(tmp_path))}/outputs yet"):
        read_status(tmp_path / "outputs", "lounge")
    assert not (tmp_path / "outputs").exists()
    said = nothing_submitted(Config(None, tmp_path / "outputs", None, {}))
    assert said.startswith(f"nothing in {tmp_path}/outputs; no config.yaml was found here or above; ")
    assert said.endswith("pipeline run JOB.yaml")
    found = nothing_submitted(Config(tmp_path / "config.yaml", tmp_path / "outputs", None, {}))
    assert f"; the config is {tmp_path}/config.yaml; " in found


def test_the_json_is_that_of_the_contract_with_what_was_added(bench: Bench) -> None:
    bench.submit(request(1, n=2), request(2))
    bench.set("UPDATE request SET estimate_usd = 0.02")
    bench.set("UPDATE request SET status = 'succeeded', received = 1, cost_usd = 0.12345678 WHERE prompt = 'prompt 2'")
    assert status_json(read_status(bench.folder, "JOB")) == {
        "jobs": [
            {
                "name": "job",
                "provider": "lab",
                "providers": [{"name": "lab", "images": 1, "cost_usd": 0.123457}],
                "counts": {
                    **dict.fromkeys(("running", "partial", "failed", "cancelled", "superseded"), 0),
                    "pending": 1,
                    "succeeded": 1,
                },
                "images": 1,
                "cost_usd": 0.123457,
                "expected_usd": 0.02,
                "maybe_paid": 0,
                "paid_waiting": 0,
                "rehearsal": False,
                "priority": 0,
                "mode": "realtime",
                "deadline": None,
                "batches": [],
            }
        ]
    }


def test_an_unknown_job_is_refused_with_the_known_ones(bench: Bench) -> None:
    bench.submit(request(1))
    with pytest.raises(BadInput, match="there is no job `jib`; known are job"):
        read_status(bench.folder, "jib")


def test_people_read_counts_images_cost_and_time(bench: Bench) -> None:
    provider = dataclasses.replace(LAB, rate_limit=RateLimit(50, 60))
    bench.submit(request(1, n=10), request(2, n=90), provider=provider)
    bench.set("UPDATE request SET estimate_usd = 0.02 * n")
    bench.set("UPDATE request SET maybe_paid = 1, cost_usd = 0.5 WHERE prompt = 'prompt 1'")
    lines = list(status_lines(read_status(bench.folder, None), {"lab": provider}))
    assert lines == [
        "job (lab)",
        "  2 pending",
        (
            "  0 images · $0.50 spent · 1 more call may have been paid (unclear: the response was lost)"
            " · $2.00 expected · 100 to come, 2 min at the limit"
        ),
    ]


def test_a_provider_that_has_left_the_config_and_a_rehearsal_are_shown_too(bench: Bench) -> None:
    bench.submit(request(1), provider=dataclasses.replace(LAB, sandbox={}))
    bench.set("UPDATE request SET cost_usd = 0.25")
    assert list(status_lines(read_status(bench.folder, None), {}))[-1] == (
        "  0 images · $0.25 rehearsal price, not charged · unknown cost to come"
    )


def wait_for_images(bench: Bench, prompt: str, count: int) -> None:
    """Record images of a request that are paid and not downloaded."""
    (pk,) = bench.ask("SELECT pk FROM request WHERE prompt = ?", prompt)[0]
    bench.set(
        "INSERT INTO attempt (request, provider, n, sent_at, outcome, ended_at) VALUES (?, 'lab', 1, 1, 'answered', 2)",
        pk,
    )
    for number in range(1, count + 1):
        bench.set(
            "INSERT INTO image (request, attempt, job, state, number, url)"
            " SELECT ?1, max(a.pk), r.job, 'paid', ?2, 'https://a.example/1' FROM attempt a, request r WHERE r.pk = ?1",
            pk,
            number,
        )


def test_paid_images_that_wait_to_be_downloaded_are_counted_without_superseded_ones(bench: Bench) -> None:
    bench.submit(request(1, n=2), request(2))
    wait_for_images(bench, "prompt 1", 2)
    wait_for_images(bench, "prompt 2", 1)
    assert status_json(read_status(bench.folder, None))["jobs"][0]["paid_waiting"] == 3
    assert "3 images paid and not downloaded yet" in "".join(status_lines(read_status(bench.folder, None), {}))
    bench.submit(request(2))
    (summary,) = read_status(bench.folder, None)
    assert summary.paid_waiting == 1
    assert (
        job_line(summary)
        == "job: 1 request: 1 pending, 1 replaced or removed; 0 images; 1 image paid and not downloaded yet"
    )
