"""`pipeline reconcile` as people type it: what it refuses, what it says, and what it leaves alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.stage import Stage

ADMIN_KEY = "OPENAI_ADMIN_KEY"


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the admin key."""
    monkeypatch.setenv(ADMIN_KEY, "sk-admin-0123456789")


def test_without_an_admin_key_nobody_is_asked(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADMIN_KEY, raising=False)
    stage.provider("lab", "http://127.0.0.1:9/v1")
    for words in ([], ["lab"], ["lab", "--apply"]):
        said = stage.run("reconcile", *words, exit_code=2).stderr
        assert f"{ADMIN_KEY} is not set" in said
    assert stage.ask("SELECT count(*) FROM reconciliation") in ([], [(0,)])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["lba"], "has no provider `lba`; known are gateway, lab"),
        (["gateway"], "provider `gateway` has no usage that could be read"),
        (["lab", "--since", "yesterday"], "--since `yesterday` is no moment; write a day or a moment"),
        (["lab", "--since", "2999-01-01"], "lies in the future"),
    ],
)
@pytest.mark.usefixtures("key")
def test_a_mistake_is_named_before_anybody_is_asked(stage: Stage, words: list[str], reason: str) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.provider("gateway", "https://gateway.example.org/v1")
    assert reason in stage.run("reconcile", *words, exit_code=2).stderr


@pytest.mark.usefixtures("key")
def test_a_server_that_cannot_be_asked_ends_with_3(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.client.usage._TRIES", 1)
    stage.provider("lab", "http://127.0.0.1:9/v1")
    assert "the usage of `lab` cannot be read" in stage.run("reconcile", "lab", exit_code=3).stderr
    server = stage.serve(organization={"admin_key": "sk-admin-another"})
    stage.provider("lab", server)
    assert "check the key" in stage.run("reconcile", "lab", exit_code=3).stderr


def _document(stage: Stage, *words: str, exit_code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stage.run("reconcile", "--json", *words, exit_code=exit_code).stdout)
    return found


@pytest.mark.usefixtures("key")
def test_an_empty_folder_has_nothing_to_explain(stage: Stage) -> None:
    stage.provider("lab", stage.serve())
    assert _document(stage)["matched"] == 0
    found = _document(stage, "lab", "--since", "1h")
    assert (found["matched"], found["calls"], found["missing"], found["foreign"], found["prices"]) == (
        0,
        [],
        [],
        [],
        [],
    )


@pytest.mark.usefixtures("key")
def test_unknown_calls_are_named_settled_and_not_compared_again(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, seed=2, faults={"drop_after": 0.4})
    stage.settings["retry"] = {"attempts": 30, "unknown": 30, "max_wait_seconds": 0.02}
    stage.provider("lab", server)
    stage.provider("twin", server)  # the same address: its calls are counted together
    stage.run("run", stage.prompts("many", 12))
    stage.run("run", stage.prompts("more", 3), "--provider", "twin")
    lost = sum(call["fault"] == "drop_after" for call in server.books())
    assert lost > 3
    found = _document(stage, "lab")
    assert found["providers"] == ["lab", "twin"]
    assert (found["matched"], found["unknown"]) == (15 + lost, {"charged": lost, "not_charged": 0, "open": 0})
    assert {(one["job"], one["finding"]) for one in found["calls"]} <= {("many", "charged"), ("more.twin", "charged")}
    assert (found["foreign"], found["missing"]) == ([], [])
    assert found["unknown_usd"] == pytest.approx(0.016 * lost)
    assert [(one["incomplete"], one["differs"]) for one in found["prices"]] == [(True, False)]

    said = stage.run("reconcile", "lab").stdout
    assert f"calls of unknown outcome, charged: {lost}, $" in said
    assert "settle them in the ledger, run: pipeline reconcile lab --apply" in said
    assert stage.standing("many")["maybe_paid"] > 0
    assert "settled in the ledger" in stage.run("reconcile", "lab", "--apply").stdout
    assert stage.standing("many")["maybe_paid"] == 0
    manifest = sum(entry["cost_usd"] for job in ("many", "more.twin") for entry in stage.manifest(job))
    assert manifest == pytest.approx(0.016 * server.charged())
    assert _document(stage, "lab")["unknown"] == {"charged": 0, "not_charged": 0, "open": 0}
    assert _document(stage, "lab", "--since", "1d")["matched"] == 15 + lost


def test_a_rehearsal_is_compared_with_the_books_of_its_own_sandbox(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ADMIN_KEY, raising=False)
    stage.providers["sandbox"] = {"sandbox": {"rate_limit": None}}
    stage.write_config()
    stage.run("run", stage.prompts("many", 2))
    found = _document(stage)
    assert (found["providers"], found["matched"], found["foreign"]) == (["sandbox"], 2, [])
