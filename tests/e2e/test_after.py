"""The morning after: single requests are shown, chosen by what they are, and put back."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest

from pipeline import BadInput, Batch
from pipeline.planning.build import JobOptions
from pipeline.redo.choice import Choice
from pipeline.redo.process import prepared, process
from pipeline.run import run_in_loop
from tests.support.audit import audit
from tests.support.stage import HOME, KEY, finish

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


IMAGES = HOME / "jobs" / "images"
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
    assert good["attempts"][0]["key"] != attempt["key"]
    assert f"key {attempt['key']}" in lines
    assert good["images"][0]["file"] in stage.run("show", "night", "good").stdout


def test_show_lists_the_newest_of_two_requests_of_one_id_first(stage: Stage) -> None:
    _mixed(stage)
    stage.run("run", stage.job("night", [{"id": "good", "prompt": "another cat"}]))
    new, old = _shown(stage, "good")
    assert (new["prompt"], new["status"]) == ("another cat", "succeeded")
    assert (old["prompt"], old["status"]) == ("good cat", "superseded")
    said = stage.run("show", "night", "goood", exit_code=2).stderr
    assert "there is no request `goood` in `night`; did you mean `good`?" in said


def test_a_plan_says_what_a_run_leaves_alone(stage: Stage) -> None:
    job = _mixed(stage)

    def warnings() -> list[str]:
        found: list[str] = json.loads(stage.run("plan", job, "--json").stdout)["warnings"]
        return [one for one in found if "a run leaves" in one]

    (said,) = warnings()
    assert said.startswith("2 missing requests have failed, come back partial or been cancelled")
    assert said.endswith("to make them, run: pipeline resume night")
    requests = [{"id": name, "prompt": f"{name} {'forbidden' if name == 'bad-1' else 'cat'}"} for name in NAMES]
    stage.job("night", [{**one, "n": 2} for one in requests])
    assert warnings() == [], "a request for more images is queued again"
    stage.job("night", requests)
    assert warnings()[0].startswith("1 missing request has failed")


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


def _made(stage: Stage, **more: Any) -> dict[str, dict[str, Any]]:
    """Return a job's entries by their ids."""
    return {one["id"]: one for one in stage.manifest(more.get("job", "night"))}


def _picks(stage: Stage, marks: dict[str, str]) -> Path:
    """Write the marks of the first images of requests, as the report saves them."""
    path = stage.folder / "picks.jsonl"
    images = {id_: entry["images"][0] for id_, entry in _made(stage).items() if id_ in marks}
    lines = [
        {"id": id_, "file": images[id_]["file"], "sha256": images[id_]["sha256"], "mark": marks[id_]} for id_ in marks
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def test_six_rejected_images_are_six_new_ones_beside_the_old(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("run", stage.job("night", [{"id": f"r{number}", "prompt": f"cat {number}"} for number in range(10)]))
    before = _made(stage)
    picks = _picks(stage, {f"r{number}": "reject" if number < 6 else "accept" for number in range(8)})
    said = stage.run("redo", "night", "--picks", picks, exit_code=2).stderr
    assert "add --yes if this is meant: make 6 images of 6 requests of `night` again, about $0.096" in said
    assert len(server.books()) == 10
    ended = stage.run("redo", "night", "--picks", picks, "--yes")
    assert ended.stderr.startswith("Make 6 images of 6 requests of `night` again, about $0.096; the old ones stay")
    after = _made(stage)
    for id_, entry in after.items():
        assert entry["status"] == "succeeded"
        old, number = before[id_]["images"], int(id_[1:])
        assert entry["replaced"] == (old if number < 6 else [])
        assert [one["file"] for one in entry["images"]] == [f"images/{id_}-{2 if number < 6 else 1}.png"]
        assert all((stage.output / "night" / one["file"]).exists() for one in old)
    assert len(server.books()) == 16
    assert stage.standing("night")["images"] == 10
    again = stage.run("redo", "night", "--picks", picks, "--yes", exit_code=2).stderr
    assert "the 6 that it rejects are replaced already" in again
    stage.run("verify")
    assert len(server.books()) == 16


def test_redo_by_id_makes_every_image_of_a_request_and_numbers_go_on(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    wanted = {"id": "four", "prompt": "a cat", "n": 4, "response_format": "url"}
    stage.run("run", stage.job("night", [wanted, {"id": "other", "prompt": "a dog"}]))
    stage.run("redo", "night", "--id", "FOUR", "--yes")
    four, other = _made(stage)["four"], _made(stage)["other"]
    assert [one["file"] for one in four["images"]] == [f"images/four-{number}.png" for number in (5, 6, 7, 8)]
    assert [one["file"] for one in four["replaced"]] == [f"images/four-{number}.png" for number in (1, 2, 3, 4)]
    assert (len(other["images"]), other["replaced"], other["attempts"]) == (1, [], 1)
    keys = [one["key"] for one in _shown(stage, "four")["attempts"]]
    assert len(set(keys)) == 2, "a redo is a new purchase"
    stage.run("redo", "night", "--id", "four", "other", "--yes")
    assert [one["file"] for one in _made(stage)["other"]["images"]] == ["images/other-2.png"]
    assert server.charged() == 14
    assert stage.run("run").exit_code == 0
    assert server.charged() == 14


def test_a_redo_that_is_bad_input_changes_nothing(stage: Stage) -> None:
    _mixed(stage)
    ledger = stage.ask("SELECT * FROM request"), stage.ask("SELECT * FROM image")
    picks = _picks(stage, {"good": "reject"})
    marked = json.loads(picks.read_text())
    wrong = {
        "b.jsonl": ("{", "b.jsonl, line 1: is not JSON"),
        "c.jsonl": (json.dumps({**marked, "mark": "maybe"}), "mark: is `maybe`; it must be one of accept, reject"),
        "d.jsonl": (json.dumps({**marked, "file": "images/x.png"}), "`images/x.png` is no image of `night`"),
        "e.jsonl": (json.dumps({**marked, "sha256": "0" * 64}), "images/good-1.png is another image now"),
        "f.jsonl": (json.dumps({**marked, "mark": "accept"}), "it marks none as rejected"),
        "f2.jsonl": (f"{json.dumps(marked)}\n{json.dumps({**marked, 'mark': 'accept'})}", "it marks none as rejected"),
        "g.jsonl": (json.dumps([marked]), "is not a JSON object"),
        "h.jsonl": (json.dumps({"mark": "reject"}), "line 1: file: is missing or not text"),
    }
    for name, (text, message) in wrong.items():
        (stage.folder / name).write_text(text)
        assert message in stage.run("redo", "night", "--picks", name, "--yes", exit_code=2).stderr
    for words, message in (
        (("--picks", "no.jsonl"), "no.jsonl: does not exist"),
        (("--id", "bad-1"), "has no image that can be made again; to try it again, type: pipeline resume night --id"),
        (("--id", "bod-1"), "did you mean `bad-1`?"),
        ((), "in one way: --id ID, --picks FILE, --flag FLAG or --all"),
        (("--all", "--id", "good"), "in one way"),
        (("good",), "write --id before the ids"),
        (("--all", "--set", "quality"), "write it as key=value"),
        (("--all", "--set", "n=3"), "n: is no parameter of the call"),
        (("--all", "--set", "size=7x7"), "size: is `7x7`"),
    ):
        assert message in stage.run("redo", "night", *words, "--yes", exit_code=2).stderr
    assert (stage.ask("SELECT * FROM request"), stage.ask("SELECT * FROM image")) == ledger


def test_the_exit_code_of_a_redo_is_that_of_what_was_redone(stage: Stage) -> None:
    _mixed(stage)
    stage.run("redo", "night", "--id", "good", "--yes")
    stage.run("run", exit_code=1)
    assert _made(stage)["bad-1"]["attempts"] == 1


def test_a_redo_leaves_other_queued_requests_of_its_job_alone(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    job = stage.job("night", [{"id": f"r{number}", "prompt": f"cat {number}"} for number in range(4)])
    stage.run("run", job, "--limit", 1)
    stage.run("redo", "night", "--all", "--yes")
    assert server.charged() == 2
    assert stage.standing("night")["counts"]["pending"] == 3
    stage.run("run")
    assert server.charged() == 5


def test_a_redo_obeys_the_budget_and_run_continues_it(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server, concurrency=1)
    stage.run("run", stage.job("night", [{"id": f"r{number}", "prompt": f"cat {number}"} for number in range(4)]))
    stage.run("redo", "night", "--all", "--yes", "--budget", 0.1, exit_code=3)
    assert server.charged() == 6
    waiting = [entry for entry in _made(stage).values() if entry["status"] == "pending"]
    assert [len(entry["images"]) for entry in waiting] == [1, 1]
    assert stage.standing("night")["images"] == 4
    stage.run("run")
    assert server.charged() == 8
    assert all(len(entry["images"]) == len(entry["replaced"]) == 1 for entry in _made(stage).values())


def test_an_image_that_is_refused_again_stays_where_it_is(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.job("night", [{"id": "cat", "prompt": "a cat"}]))
    stage.provider("lab", stage.serve(rate_limit=None, faults={"http_500": 1.0}))
    stage.settings["retry"] = {"attempts": 1}
    stage.write_config()
    stage.run("redo", "night", "--id", "cat", "--yes", exit_code=1)
    cat = _made(stage)["cat"]
    assert (cat["status"], [one["file"] for one in cat["images"]], cat["replaced"]) == (
        "failed",
        ["images/cat-1.png"],
        [],
    )
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("resume", "night", "--id", "cat")
    cat = _made(stage)["cat"]
    assert [one["file"] for one in cat["images"]] == ["images/cat-2.png"]
    assert [one["file"] for one in cat["replaced"]] == ["images/cat-1.png"]


def test_changed_requests_are_a_job_of_their_own(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    requests: list[dict[str, Any]] = [
        {"id": "cat", "prompt": "a cat with {{ '{{' }} braces", "n": 2},
        {"id": "dog", "prompt": "a dog"},
    ]
    job = stage.job("night", requests)
    stage.run("run", job)
    before = (stage.output / "night" / "manifest.jsonl").read_bytes()
    words = ("redo", "night", "--id", "cat", "--prompt-suffix", "in winter", "--set", "size=512x512", "--yes")
    assert "in a job of its own, `night.redo`, about $0.036" in stage.run(*words).stderr
    cat = _made(stage, job="night.redo")["cat"]
    assert (cat["prompt"], cat["params"]["size"], cat["status"]) == (
        "a cat with {{ braces in winter",
        "512x512",
        "succeeded",
    )
    assert [(one["width"], one["file"]) for one in cat["images"]] == [(512, f"images/cat-{one}.png") for one in (1, 2)]
    assert (stage.output / "night" / "manifest.jsonl").read_bytes() == before
    assert server.charged() == 5
    stage.run(*words)
    assert len(_made(stage, job="night.redo")["cat"]["images"]) == 4
    stage.run("redo", "night", "--id", "dog", "--set", "prompt=two dogs", "--yes")
    assert {id_: entry["status"] for id_, entry in _made(stage, job="night.redo").items()} == {
        "cat": "succeeded",
        "dog": "succeeded",
    }
    stage.run("run", job)
    assert server.charged() == 8


def test_a_changed_edit_sends_the_same_images(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    edit = {"id": "pool", "operation": "edit", "prompt": "a pool", "model": "gpt-image-1", "size": "1024x1024"}
    images = {"image": str(IMAGES / "sunlit_lounge.png"), "mask": str(IMAGES / "mask.png")}
    stage.run("run", stage.job("night", [{**edit, **images, "quality": "low"}], defaults={}))
    stage.run("redo", "night", "--all", "--set", "quality=medium", "--yes")
    (old,), (new,) = stage.manifest("night"), stage.manifest("night.redo")
    assert new["params"] == {**old["params"], "quality": "medium"}
    assert [one["sha256"] for one in new["inputs"]] == [one["sha256"] for one in old["inputs"]]
    assert (new["status"], new["variables"]) == ("succeeded", old["variables"])


def test_redo_by_flag_makes_flagged_images_again_and_no_other_of_their_requests(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("run", stage.job("night", [{"id": "three", "prompt": "a cat", "n": 3}, {"id": "one", "prompt": "a dog"}]))
    with contextlib.closing(sqlite3.connect(stage.output / "ledger.sqlite3")) as connection, connection:
        connection.execute("UPDATE image SET is_blank = 1 WHERE number = 2")
        connection.execute("UPDATE image SET width = 7 WHERE file = 'images/one-1.png'")
    assert (
        "no image of `night` has the flag wrong_format"
        in stage.run(*("redo", "night", "--flag", "wrong_format", "--yes"), exit_code=2).stderr
    )
    said = stage.run("redo", "night", "--flag", "blank", "--flag", "duplicate", "--yes").stderr
    assert said.startswith("Make 1 image of 1 request of `night` again")
    three = _made(stage)["three"]
    assert [one["file"] for one in three["images"]] == [f"images/three-{number}.png" for number in (1, 3, 4)]
    assert [(one["file"], one["flags"]) for one in three["replaced"]] == [("images/three-2.png", ["blank"])]
    assert _made(stage)["one"]["images"][0]["flags"] == ["wrong_size"]
    assert server.charged() == 5


def test_images_of_a_job_by_batch_are_made_again_by_batch(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, batch={"seconds": [0.05, 0.1], "finalizing_seconds": 0.05})
    stage.provider("lab", server, batch={"poll_seconds": [0.1, 0.2]})
    gpt = {"model": "gpt-image-2", "size": "1024x1024", "quality": "low"}
    requests = [{"id": f"r{number}", "prompt": f"cat {number}"} for number in range(3)]
    stage.run("run", stage.job("night", requests, defaults=gpt, mode="batch"))
    stage.run("redo", "night", "--id", "r0", "--id", "r2", "--yes")
    made = _made(stage)
    assert {id_: [len(one["images"]), len(one["replaced"])] for id_, one in made.items()} == {
        "r0": [1, 1],
        "r1": [1, 0],
        "r2": [1, 1],
    }
    assert [made["r0"]["mode"], len(server.books()), len(server.books("batch_line"))] == ["batch", 0, 5]


def test_images_at_a_route_are_made_again_by_its_members(stage: Stage) -> None:
    servers = [stage.serve(rate_limit=None) for _ in range(2)]
    for name, server in zip("ab", servers, strict=True):
        stage.provider(name, server)
    stage.settings["routes"] = {"all": ["a", "b"]}
    stage.write_config()
    requests = [{"id": f"r{number}", "prompt": f"cat {number}"} for number in range(6)]
    stage.run("run", stage.job("night", requests, provider="all"))
    stage.run("redo", "night", "--id", "r1", "--id", "r4", "--yes")
    assert sum(server.charged() for server in servers) == 8
    assert [len(one["replaced"]) for one in stage.manifest("night")] == [0, 1, 0, 0, 1, 0]
    stage.run("redo", "night", "--id", "r1", "--set", "size=512x512", "--yes")
    assert _made(stage, job="night.redo")["r1"]["images"][0]["width"] == 512


@pytest.mark.parametrize("change", ["rename", "forget", "edit"])
def test_what_is_no_more_what_was_chosen_is_not_made_again(stage: Stage, change: str) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("run", stage.job("night", [{"id": "cat", "prompt": "a cat"}, {"id": "dog", "prompt": "a dog"}]))
    batch = Batch.open(config=stage.folder / "config.yaml")
    batch.environment = {"STAGE_KEY": KEY}
    with prepared(batch, "night", Choice(ids=("cat",))) as redo:  # while a person thinks about it
        if change == "rename":
            batch.rename("night", "birds")
        elif change == "forget":
            batch.forget("night", files=True)
            stage.run("run", stage.job("other", [{"id": "bird", "prompt": "a bird"}]))
        else:
            batch.submit([stage.job("night", [{"id": "dog", "prompt": "a dog"}])])
        known = server.charged()
        with pytest.raises(BadInput, match="nothing is made again"):
            run_in_loop(process(batch, redo, JobOptions(), lambda _event: None))
    stage.run("run")
    assert server.charged() == known


@pytest.mark.processes
@pytest.mark.parametrize("step", [7, 12])
def test_a_death_in_between_is_finished_by_run_and_nothing_is_paid_beyond_calls_in_flight(
    stage: Stage, step: int
) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("run", stage.job("night", [{"id": f"r{number}", "prompt": f"cat {number}"} for number in range(3)]))
    picks = _picks(stage, {"r0": "reject", "r1": "reject"})
    finish(stage.start("redo", "night", "--picks", picks, "--yes", sabotage=f"die:{step}"))
    is_asked = bool(stage.ask("SELECT 1 FROM image WHERE redo IS NOT NULL"))
    in_flight = len(stage.ask("SELECT 1 FROM attempt WHERE outcome IS NULL"))
    stage.run("run")
    made = _made(stage)
    for id_ in ("r0", "r1"):
        assert [len(made[id_][name]) for name in ("images", "replaced")] == [1, int(is_asked)]
    assert made["r2"]["replaced"] == []
    assert server.charged() <= 3 + 2 * is_asked + in_flight
    audit(stage, server.books())


@pytest.mark.processes
def test_beside_a_run_at_work_that_run_makes_them(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("run", stage.job("night", [{"id": "cat", "prompt": "a cat"}]))
    slow = stage.serve(rate_limit=None, latency_seconds=[3, 3])
    stage.provider("slow", slow)
    run = stage.start("run", stage.job("other", [{"id": "dog", "prompt": "a dog"}], provider="slow"))
    while not stage.ask("SELECT 1 FROM attempt WHERE provider = 'slow'"):
        time.sleep(0.01)
    said = stage.run("redo", "night", "--all", "--yes", exit_code=3).stderr
    assert "queued: night, 1 request; the run at work" in said
    assert finish(run).exit_code == 0
    assert [len(_made(stage)["cat"][name]) for name in ("images", "replaced")] == [1, 1]
