"""Money that is unknown: dropped responses, kills, and another program's purchases, reconciled to the cent."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.audit import audit
from tests.support.stage import GENERATION, finish, staged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.stage import Server, Stage

PRICE = 0.016  # of one such picture, in US dollars


@pytest.fixture(autouse=True)
def admin_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the key that reads usage and costs."""
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-0123456789")


@pytest.fixture
def near(tmp_path: Path) -> Iterator[Stage]:
    """A stage within this process: only a kill needs others."""
    with staged(tmp_path, within=True) as made:
        yield made


def _reconcile(stage: Stage, *more: str, exit_code: int | None = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stage.run("reconcile", "--json", *more, exit_code=exit_code).stdout)
    return found


def _lost(server: Server) -> list[dict[str, Any]]:
    """Return the calls that were charged and whose response brought nothing."""
    return [call for call in server.books() if call["charged"] and call["fault"] in {"drop_after", "broken_json"}]


@pytest.mark.parametrize(
    ("requests", "dropped"),
    [pytest.param(40, 20, id="short"), pytest.param(1500, 1000, id="long", marks=pytest.mark.long)],
)
@pytest.mark.parametrize("honours", [True, False])
@pytest.mark.timeout(1800)
def test_dropped_responses_are_charged_once_or_named_to_the_picture_and_the_cent(
    near: Stage, requests: int, dropped: int, honours: bool
) -> None:
    faults = {"drop_after": 0.4, "drop_before": 0.1, "http_500": 0.05}
    server = near.serve(rate_limit=None, seed=5, faults=faults, idempotency=honours)
    near.settings["retry"] = {"attempts": 50, "unknown": 2, "max_wait_seconds": 0.02}
    near.provider("lab", server, concurrency=16)
    near.run("run", near.prompts("many", requests, response_format="b64_json"), exit_code=1)
    held = {entry["error"]["kind"] for entry in near.manifest("many") if entry["status"] == "failed"}
    assert held == {"OutcomeUnknown"}
    calls: dict[str, int] = {}
    for call in server.books():
        calls[call["prompt"]] = calls.get(call["prompt"], 0) + (call["fault"] in {"drop_after", "drop_before"})
    assert max(calls.values()) == 3, "retry.unknown bounds what is sent again"
    lost = _lost(server)
    assert len([call for call in server.books() if call["fault"] == "drop_after"]) >= dropped

    found = _reconcile(near, exit_code=None)
    entries, still = near.manifest("many"), found["unknown"]["open"]
    assert still <= 1, "only the last call of all may be younger than what is known"
    stored = sum(len(entry["images"]) for entry in entries)
    unknown = found["unknown"]
    brought = {call["idempotency_key"] for call in server.books() if call["is_replay"] and not call["fault"]}
    unpaid = [call for call in lost if call["idempotency_key"] not in brought]
    assert (unknown["charged"], found["foreign"]) == (len(unpaid), [])
    assert sum(unknown.values()) == sum(entry["maybe_paid"] for entry in entries)
    assert found["matched"] == server.charged() == stored + len(unpaid)
    charged = [call for call in found["calls"] if call["finding"] == "charged"]
    assert sum(call["cost_usd"] for call in charged) == pytest.approx(PRICE * len(unpaid), abs=0.005)
    if honours:
        assert all(call["charged"] <= 1 for call in server.books())
        keys = [call["idempotency_key"] for call in server.books() if call["charged"]]
        assert len(keys) == len(set(keys)), "nothing is charged twice"

    _reconcile(near, "--apply", exit_code=None)
    standing = near.standing("many")
    books = sum(call["cost_usd"] for call in server.books())
    assert (standing["maybe_paid"], standing["cost_usd"]) == (still, pytest.approx(books, abs=0.005))
    assert _reconcile(near, exit_code=None)["unknown"] == {"charged": 0, "not_charged": 0, "open": still}


@pytest.mark.parametrize("honours", [True, False])
def test_a_kill_during_calls_is_charged_once_or_named(stage: Stage, honours: bool) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[0.3, 2.0], seed=3, idempotency=honours)
    stage.provider("lab", server, concurrency=4)
    process = stage.start("run", stage.prompts("many", 8, response_format="b64_json"))
    while not stage.ask("SELECT pk FROM attempt WHERE outcome = 'answered'"):  # those sent with it are there, too
        assert process.poll() is None
    process.kill()
    finish(process)
    stage.run("run")
    found = _reconcile(stage, "--apply", exit_code=None)  # one that was not sent yet may be open
    again = server.charged() - 8
    assert (again == 0) is honours
    assert (found["matched"], found["foreign"]) == (server.charged(), [])
    assert (found["unknown"]["charged"], found["unknown_usd"]) == (again, pytest.approx(PRICE * again))
    assert stage.standing("many")["cost_usd"] == pytest.approx(PRICE * server.charged())
    assert stage.standing("many")["maybe_paid"] == found["unknown"]["open"]


def test_replays_leave_the_books_in_order(near: Stage) -> None:
    server = near.serve(rate_limit=None, seed=1, faults={"drop_after": 0.3, "broken_json": 0.1}, idempotency=True)
    near.settings["retry"] = {"attempts": 50, "unknown": 50, "max_wait_seconds": 0.02}
    near.provider("lab", server)
    near.run("run", near.prompts("urls", 15), near.prompts("inline", 15, response_format="b64_json", n=2))
    found = audit(near, server.books())
    assert (found.pictures, found.charged, found.paid_again, found.maybe_paid) == (45, 45, 0, 0)


def test_what_another_program_buys_is_not_ours(near: Stage) -> None:
    server = near.serve(rate_limit=None)
    near.provider("lab", server)
    near.run("run", near.prompts("many", 3))
    assert _reconcile(near, "lab")["foreign"] == []
    body = json.dumps({"prompt": "another", **GENERATION, "size": "512x512", "n": 2}).encode()
    headers = {"Authorization": "Bearer sk-other", "Content-Type": "application/json"}
    url = f"{server.base_url}/images/generations"
    urllib.request.urlopen(urllib.request.Request(url, body, headers)).close()  # noqa: S310
    found = _reconcile(near, "lab", exit_code=1)
    assert found["matched"] == 3
    (other,) = found["foreign"]
    kind = (other["model"], other["size"], other["source"], other["images"])
    assert kind == ("dall-e-2", "512x512", "image.generation", 2)
    said = near.run("reconcile", exit_code=1).stdout
    assert "not ours: 2 images of dall-e-2 512x512 image.generation" in said
    assert "incomplete" in said
