"""The morning after: single requests are shown, chosen by what they are, and put back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.stage import Stage


def _mixed(stage: Stage) -> Path:
    """Run a job of two good prompts and two that the content policy refuses."""
    stage.provider("lab", stage.serve(rate_limit=None))
    requests = [{"id": name, "prompt": f"{name} {'forbidden' if name.startswith('bad') else 'cat'}"} for name in NAMES]
    job = stage.job("night", requests)
    stage.run("run", job, exit_code=1)
    return job


NAMES = ("good", "bad-1", "fine", "bad-2")


def _shown(stage: Stage, *words: str) -> Any:
    return json.loads(stage.run("show", "night", *words, "--json").stdout)


def test_show_says_everything_about_one_request(stage: Stage) -> None:
    _mixed(stage)
    bad = _shown(stage, "bad-1")
    (entry,) = [one for one in stage.manifest("night") if one["id"] == "bad-1"]
    assert {**bad, "attempts": len(bad["attempts"])} == {**entry, "reason": bad["reason"], "commands": bad["commands"]}
    (attempt,) = bad["attempts"]
    assert attempt["outcome"] == "refused"
    assert attempt["http_status"] == 400
    assert attempt["error"]["kind"] == "Moderated"
    assert attempt["seconds"] >= 0
    assert attempt["cost_usd"] is None
    lines = stage.run("show", "night", "BAD-1").stdout
    assert "bad-1 of night: failed" in lines
    assert "prompt: bad-1 forbidden" in lines
    assert "change the prompt" in lines
    good = _shown(stage, "good")
    assert good["attempts"][0]["cost_usd"] == good["cost_usd"] == 0.016
    assert good["attempts"][0]["request_id"] == good["request_id"]
    assert good["images"][0]["file"] in stage.run("show", "night", "good").stdout


def test_show_lists_the_newest_of_two_requests_of_one_id_first(stage: Stage) -> None:
    _mixed(stage)
    stage.run("run", stage.job("night", [{"id": "good", "prompt": "another cat"}]))
    new, old = _shown(stage, "good")
    assert (new["prompt"], new["status"]) == ("another cat", "succeeded")
    assert (old["prompt"], old["status"]) == ("good cat", "superseded")
    said = stage.run("show", "night", "goood", exit_code=2).stderr
    assert "there is no request `goood` in `night`; did you mean `good`?" in said


def test_status_lists_what_failed(stage: Stage) -> None:
    _mixed(stage)
    lines = stage.run("status", "night", "--failed").stdout.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("night bad")] == ["night bad-1", "night bad-2"]
    assert "everything about one of them: pipeline show night bad-1" in lines
    failed = json.loads(stage.run("status", "--failed", "--json").stdout)["failed"]
    assert [(one["job"], one["id"], one["error"]["kind"]) for one in failed] == [
        ("night", "bad-1", "Moderated"),
        ("night", "bad-2", "Moderated"),
    ]
    assert "failed" not in json.loads(stage.run("status", "--json").stdout)
    stage.run("status", "--failed", "--watch", "1", exit_code=2)


def test_resume_puts_back_what_matches_every_filter(stage: Stage) -> None:
    _mixed(stage)
    calls = len(stage.ask("SELECT 1 FROM attempt"))
    ended = stage.run("resume", "night", "--kind", "Moderated", "--status", "failed", "--id", "bad-2", exit_code=1)
    assert "put back: 1 request of `night`" in ended.stderr
    attempts = {one["id"]: one["attempts"] for one in stage.manifest("night")}
    assert attempts == {"good": 1, "bad-1": 1, "fine": 1, "bad-2": 2}
    for wrong in (
        ("--kind", "ServerFault"),
        ("--status", "partial"),
        ("--id", "good"),
        ("--id", "bad-1", "--status", "cancelled"),
    ):
        said = stage.run("resume", "night", *wrong, exit_code=2).stderr
        assert f"matches {' '.join(wrong[-2:])}" in said or "--id bad-1" in said
    assert "did you mean `bad-2`?" in stage.run("resume", "--id", "bed-2", exit_code=2).stderr
    assert len(stage.ask("SELECT 1 FROM attempt")) == calls + 1
