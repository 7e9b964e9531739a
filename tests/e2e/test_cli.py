"""The commands: what they print, where, and how they exit."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support.stage import Stage, finish

COMMANDS = ["run", "submit", "resume", "redo", "status", "show", "plan", "doctor", "manifest", "report", "verify"]
COMMANDS += ["reconcile", "export", "cancel", "rename", "forget", "pause", "unpause", "throttle", "priority", "init"]
COMMANDS += ["schema", "completion", "import", "serve", "help", "sandbox"]


def test_help_names_every_command_of_the_contract_in_order(stage: Stage) -> None:
    text = stage.run("--help").stdout
    shown = re.findall(r"^  ([a-z]+) ", text[text.index("Commands:") : text.index("Example:")], re.MULTILINE)
    assert shown == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(stage: Stage, command: str) -> None:
    text = stage.run(command, "--help").stdout
    assert all(option in text for option in ("-c, --config", "-o, --output", "-q, --quiet", "-v, --verbose"))
    assert re.search(rf"^Example:\n  .*pipeline {command}\b", text, re.MULTILINE)
    assert re.search(r"^Exit codes:\n  0 +every", text, re.MULTILINE)
    assert "  2 " in text


def test_help_fits_a_window_of_80_columns_and_cuts_no_sentence(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in ([], *([one] for one in COMMANDS)):
        text = stage.run(*command, "--help").stdout
        assert max(map(len, text.splitlines())) <= 80
        assert not re.search(r"[^\]\s]\.\.\.$", text, re.MULTILINE), text


def test_a_job_file_in_place_of_a_command_is_answered_with_the_command(stage: Stage) -> None:
    said = stage.run("night.yaml", exit_code=2).stderr
    assert said.splitlines()[-1].startswith("Error: 'night.yaml' is a file, not a command: write `")
    assert said.endswith(" run night.yaml`\n")
    assert "No such command 'night'" in stage.run("night", exit_code=2).stderr


@pytest.mark.parametrize(("command", "last"), [("schema", "plan"), ("completion", "fish"), ("import", "folder")])
def test_the_choices_of_a_missing_argument_are_indented_lines(stage: Stage, command: str, last: str) -> None:
    said = stage.run(command, exit_code=2).stderr
    assert "\\t" not in said
    assert said.splitlines()[-1] == f"    {last}"


def test_short_flags_are_the_long_ones(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    (stage.folder / "config.yaml").rename(stage.folder / "my.yaml")
    job = stage.prompts("many", 2)
    assert stage.run("submit", job, "-c", "my.yaml", "-o", "there", "-q").stderr == ""
    assert (stage.folder / "there" / "ledger.sqlite3").exists()
    assert "config: " in stage.run("-v", "status", "-c", "my.yaml").stderr
    assert stage.run("-V").stdout == stage.run("--version").stdout


def test_an_error_is_explained_offline_and_an_unknown_one_has_a_suggestion(stage: Stage) -> None:
    said = stage.run("help", "keyrefused").stdout
    assert said.startswith("KeyRefused\n\nWhat happened: the provider answered 401 or 403")
    assert "\nWhat it cost: " in said
    assert "\nWhat to type: " in said
    assert "## " not in said, "one section only"
    every = stage.run("help").stdout
    assert {"KeyRefused", "BudgetSpent", "DiskFull", "JobError"} <= set(re.findall(r"^  (\w+) ", every, re.MULTILINE))
    assert max(map(len, every.splitlines())) <= 80
    sentences = re.findall(r"^  \w+ +(.*)$", every, re.MULTILINE)
    assert [words for words in sentences if len(words.split()) < 4] == [], "no line ends before its verb"
    assert "did you mean `KeyRefused`?" in stage.run("help", "KeyRefusd", exit_code=2).stderr
    assert "`pipeline help` lists the kinds" in stage.run("help", "weather", exit_code=2).stderr
    assert "Take what is still pending" in stage.run("help", "cancel").stdout


def test_a_stop_and_a_failure_name_the_section_that_explains_them(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stopped = stage.run("run", stage.prompts("many", 1), exit_code=3, key="bad-key").stderr
    kinds = re.findall(r"^see: pipeline help (\w+)$", stopped, re.MULTILINE)
    assert kinds == ["KeyRefused"]
    failed = stage.run("run", stage.job("bad", [{"prompt": "forbidden"}]), exit_code=1).stderr
    assert re.findall(r"^    see: pipeline help (\w+)$", failed, re.MULTILINE) == ["Moderated"]
    with FileLock(stage.output / "run.lock"):
        assert "see: pipeline help FolderBusy" in stage.run("run", exit_code=3).stderr


def test_options_stand_before_or_after_the_command(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    elsewhere = stage.folder / "elsewhere"
    job = stage.prompts("many", 2)
    stage.run("--output", elsewhere, "submit", job)
    assert json.loads(stage.run("status", "--json", "--output", elsewhere).stdout)["jobs"][0]["counts"]["pending"] == 2
    assert not stage.output.exists()


def test_submit_queues_and_calls_nobody_and_a_plain_run_works_all_jobs_in_their_order(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server, concurrency=1)
    stage.run("submit", stage.prompts("first", 3), stage.prompts("second", 2))
    assert server.books() == []
    assert stage.standing("first")["counts"]["pending"] == 3
    stage.run("run")
    names = [stage.standing(name)["counts"]["succeeded"] for name in ("first", "second")]
    assert names == [3, 2]
    assert len(server.books()) == 5


def test_run_with_a_job_leaves_what_was_queued_before_to_a_plain_run(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("submit", stage.prompts("before", 3))
    stage.run("run", stage.prompts("now", 2))
    assert stage.standing("before")["counts"]["pending"] == 3
    assert len(server.books()) == 2


def test_a_job_submitted_while_a_run_works_is_taken_up(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[0.3, 0.3])
    stage.provider("lab", server, concurrency=1)
    process = stage.start("run", stage.prompts("first", 8))
    while not server.books():
        assert process.poll() is None
    stage.run("submit", stage.prompts("second", 2))
    assert finish(process).exit_code == 0
    assert stage.standing("second")["counts"]["succeeded"] == 2
    assert stage.check_files("second") == 2


@pytest.mark.processes
def test_a_second_run_queues_names_the_first_and_exits_3(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[0.5, 0.5])
    stage.provider("lab", server, concurrency=1)
    process = stage.start("run", stage.prompts("first", 6))
    while not server.books():
        assert process.poll() is None
    ended = stage.run("run", stage.prompts("second", 1), exit_code=3)
    assert str(process.pid) in ended.stderr
    assert finish(process).exit_code == 0
    assert stage.standing("second")["counts"]["succeeded"] == 1


@pytest.mark.processes
def test_submit_beside_a_run_says_who_takes_the_job_up(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[0.5, 0.5])
    stage.provider("lab", server, concurrency=1)
    made, job = stage.prompts("made", 1), stage.prompts("many", 2)
    stage.run("run", made)
    process = stage.start("run", stage.prompts("first", 6))
    while len(server.books()) < 2:
        assert process.poll() is None
    ended = stage.run("submit", job, made)
    assert f"queued: many, 2 requests; the run at work (process {process.pid} on " in ended.stderr
    assert "nothing to queue: `made` has no request that is still to be made" in ended.stderr
    assert "to start, run" not in ended.stderr
    assert finish(process).exit_code == 0
    assert stage.standing("many")["counts"]["succeeded"] == 2
    assert "to start, run: pipeline run\n" in stage.run("submit", stage.prompts("later", 1)).stderr


@pytest.mark.processes
def test_a_second_run_whose_job_is_made_already_exits_0(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[0.5, 0.5])
    stage.provider("lab", server, concurrency=1)
    made = stage.prompts("made", 1)
    stage.run("run", made)
    process = stage.start("run", stage.prompts("first", 6))
    while len(server.books()) < 2:
        assert process.poll() is None
    assert "nothing to queue" in stage.run("run", made).stderr
    assert finish(process).exit_code == 0


@pytest.mark.processes
def test_results_go_to_stdout_and_progress_to_stderr(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    job = stage.prompts("many", 2)
    ended = stage.run("run", job)
    assert ended.stdout.splitlines() == [
        str(stage.output / "many" / name) for name in ("manifest.jsonl", "report.html")
    ]
    assert "2 images" in ended.stderr
    quiet = stage.run("run", job, "--quiet")
    assert (quiet.stdout, quiet.stderr) == (ended.stdout, ""), "--quiet changes stderr alone"


@pytest.mark.processes
def test_run_json_prints_an_event_a_line_and_the_summary_last(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    lines = [json.loads(line) for line in stage.run("run", stage.prompts("many", 2), "--json").stdout.splitlines()]
    assert [line["event"] for line in lines].count("image_stored") == 2
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    assert lines[-1]["event"] == "summary"
    assert (lines[-1]["exit"], lines[-1]["jobs"][0]["images"]) == (0, 2)


def test_status_json_is_one_document_of_the_contract(stage: Stage) -> None:
    assert json.loads(stage.run("status", "--json").stdout)["jobs"] == []
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.prompts("many", 2))
    (job,) = json.loads(stage.run("status", "many", "--json").stdout)["jobs"]
    assert {"name", "provider", "counts", "images", "cost_usd", "maybe_paid"} <= set(job)
    assert job["counts"] == {
        "pending": 0,
        "running": 0,
        "succeeded": 2,
        "partial": 0,
        "failed": 0,
        "cancelled": 0,
        "superseded": 0,
    }
    assert "2 succeeded" in stage.run("status").stdout
    assert "there is no job `mani`" in stage.run("status", "mani", exit_code=2).stderr


def test_plan_counts_what_is_missing_and_calls_nobody(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server, rate_limit={"images": 50, "per_seconds": 60})
    job = stage.job("many", [{"prompt": "one", "n": 4}, {"prompt": "two"}])
    view = json.loads(stage.run("plan", job, "--json").stdout)
    assert (view["job"], view["provider"], view["requests"], view["images"]) == ("many", "lab", 2, 5)
    assert view["missing"] == {"requests": 2, "images": 5}
    assert (view["minutes"], view["cost_usd"], view["warnings"]) == (0.1, pytest.approx(0.08), view["warnings"])
    assert server.books() == []
    assert not stage.output.exists()
    stage.run("run", job, "--limit", 1)
    view = json.loads(stage.run("plan", job, "--json").stdout)
    assert view["missing"] == {"requests": 1, "images": 1}


def test_plan_takes_several_files_and_prints_a_list_for_them_alone(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    first, second = stage.prompts("first", 2), stage.prompts("second", 1)
    views = json.loads(stage.run("plan", first, second, "--json").stdout)
    assert [(view["job"], view["requests"]) for view in views] == [("first", 2), ("second", 1)]
    assert json.loads(stage.run("plan", first, "--json").stdout) == views[0]
    said = stage.run("plan", first, second).stdout
    assert re.findall(r"^(\w+) at provider", said, re.MULTILINE) == ["first", "second"]
    stage.job("second", [{"prompt": "x", "size": "1x1"}])
    assert stage.run("plan", first, second, exit_code=2).stdout == "", "all or none"


def test_a_rehearsal_by_another_provider_is_a_job_of_its_own(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.providers["sandbox"] = {"sandbox": {"rate_limit": None}, "rate_limit": None}
    stage.write_config()
    job = stage.prompts("many", 3)
    stage.run("run", job, "--provider", "sandbox", "--limit", 2)
    assert stage.standing("many.sandbox")["counts"]["succeeded"] == 2
    assert len(json.loads(stage.run("status", "--json").stdout)["jobs"]) == 1


def test_cancel_takes_out_what_is_pending_and_resume_puts_it_back(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("submit", stage.prompts("many", 3))
    assert "3 requests of `many` taken out of the queue" in stage.run("cancel", "many").stdout
    assert stage.run("cancel", "many").stdout == "nothing of `many` was queued\n"
    with sqlite3.connect(stage.output / "ledger.sqlite3") as connection:
        connection.execute("UPDATE request SET status = 'running' WHERE pk = 1")
    connection.close()
    in_flight = "1 request of `many` in flight: what comes is kept, and no other call follows\n"
    assert stage.run("cancel", "many").stdout == in_flight
    stage.run("run")
    assert (stage.standing("many")["counts"]["cancelled"], server.books()) == (3, [])
    stage.run("resume", "many")
    assert stage.standing("many")["counts"]["succeeded"] == 3


@pytest.mark.processes
def test_verify_names_what_is_damaged_and_repair_makes_it_again(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("run", stage.prompts("many", 4))
    stage.run("verify")
    cut, gone, *_ = [stage.output / "many" / entry["images"][0]["file"] for entry in stage.manifest("many")]
    cut.write_bytes(cut.read_bytes()[:-20])
    gone.unlink()
    ended = stage.run("verify", exit_code=1)
    assert cut.name in ended.stdout
    assert gone.name in ended.stdout
    assert cut.exists(), "verify touches nothing"
    stage.run("verify", "many", "--repair", exit_code=1)
    assert (stage.output / "many" / "quarantine" / cut.name).exists()
    assert sum(len(entry["images"]) for entry in stage.manifest("many")) == 2, "the manifest names what is there"
    stage.run("run")
    stage.run("verify")
    assert stage.check_files("many") == 4
    assert len(server.books()) == 6


def test_verify_names_images_that_are_in_no_row_and_finds_no_fault_with_them(stage: Stage) -> None:
    stage.provider("lab", stage.serve())
    stage.run("run", stage.prompts("many", 1))
    (stage.output / "many" / "images" / "of-another-ledger-1.png").write_bytes(b"paid")
    said = stage.run("verify", "MANY")
    assert (said.stdout, said.stderr.splitlines()) == (
        "",
        [
            "many/images/of-another-ledger-1.png: is not in the ledger; it stays as it is",
            "1 of 1 images are complete",
        ],
    )
    ended = stage.run("run")
    assert "images on disk that the ledger did not know: 1 left as they are" in ended.stderr
    assert (stage.output / "many" / "images" / "of-another-ledger-1.png").read_bytes() == b"paid"


def test_manifest_writes_the_same_manifest_again(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.prompts("many", 3))
    path = stage.output / "many" / "manifest.jsonl"
    before = path.read_bytes()
    path.unlink()
    assert stage.run("manifest", "many").stdout.strip() == str(path)
    assert path.read_bytes() == before


def test_a_job_is_named_by_its_name_or_by_its_file(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.providers["sandbox"] = {"sandbox": {"rate_limit": None}, "rate_limit": None}
    stage.write_config()
    job, other = stage.prompts("many", 2), stage.job("night", [{"prompt": "x"}], name="lounge")
    stage.run("submit", job, other)
    assert "\nmany (lab)\n" in stage.run("status", job).stdout
    assert "\nlounge (lab)\n" in stage.run("status", "./night.yaml").stdout
    assert "2 requests of `many`" in stage.run("cancel", "many.yaml").stdout
    stage.run("resume", "many.yaml", "MANY")
    for command in ("manifest", "report"):
        assert str(stage.output / "many") in stage.run(command, "many.yaml").stdout
    assert "2 of 2 images" in stage.run("verify", "many.yaml").stderr
    stage.run("submit", job, "--provider", "sandbox")
    assert "\nmany (lab)\n" in stage.run("status", job).stdout, "its own name, not that of the rehearsal"
    other.unlink()
    assert "\nlounge (lab)\n" in stage.run("status", other).stdout, "a file that is gone has a claim still"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["status", "lunge"], "there is no job `lunge`; did you mean `lounge`?"),
        (["report", "LOUNG.yaml"], "there is no job `LOUNG.yaml`, and no such file; did you mean `lounge`?"),
        (["cancel", "new.yaml"], "job `new` of new.yaml has not been submitted; known are lounge, many.sandbox"),
        (["status", "many"], "did you mean `many.sandbox`?"),
        (["run", "lounge"], "lounge: cannot be read: No such file or directory; did you mean `lounge.yaml`?"),
        (["plan", "luonge.yaml"], "did you mean `lounge.yaml`?"),
        (["run", "config.yaml"], "error: config.yaml: is a config, not a job; name a file with `requests:`\n"),
        (
            ["plan", "-c", "new.yaml", "new.yaml"],
            "error: new.yaml: is a job, not a config: write `pipeline run` and its name\n",
        ),
    ],
)
def test_a_job_that_does_not_exist_has_a_suggestion(stage: Stage, arguments: list[str], said: str) -> None:
    stage.providers["sandbox"] = {"sandbox": {}}
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.run("submit", stage.job("lounge", [{"prompt": "x"}]))
    stage.run("submit", stage.job("many", [{"prompt": "x"}]), "--provider", "sandbox")
    stage.job("new", [{"prompt": "x"}])
    assert said in stage.run(*arguments, exit_code=2).stderr


def test_in_a_wrong_folder_the_folder_that_was_looked_at_is_named(stage: Stage) -> None:
    no_config = f"nothing in {stage.output}; no config.yaml was found here or above"
    assert no_config in stage.run("status").stdout
    assert f"there is no job `many`: {no_config}" in stage.run("report", "many", exit_code=2).stderr
    assert no_config in stage.run("verify").stderr
    assert no_config in stage.run("run").stderr
    assert no_config in stage.run("resume").stderr
    assert stage.run("run", "--quiet").stderr == ""
    summary = json.loads(stage.run("run", "--json").stdout)
    assert (summary["event"], summary["exit"], summary["jobs"]) == ("summary", 0, [])
    assert "matches" in stage.run("resume", "--kind", "ServerFault", exit_code=2).stderr
    assert not stage.output.exists(), "nobody makes a folder to say that it is empty"
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.run("submit", stage.prompts("many", 2))
    below = dataclasses.replace(stage, folder=stage.folder / "jobs" / "deep")
    below.folder.mkdir(parents=True)
    found = below.run("status", "--verbose")
    assert "\nmany (lab)\n" in found.stdout, "the config above is found"
    assert found.stderr == f"config: {stage.folder}/config.yaml; output: {stage.output}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fly"], "fly"),
        (["run", "missing.yaml"], "missing.yaml"),
        (["plan"], "JOB.yaml"),
        (["run", "many.yaml", "--provider", "labb"], "did you mean `lab`?"),
        (["resume", "nothing"], "nothing"),
        (["cancel", "nothing"], "nothing"),
        (["--config", "none.yaml", "status"], "none.yaml"),
        (["run", "many.yaml", "--limit", "0"], "--limit"),
    ],
)
def test_bad_input_is_exit_2_a_sentence_and_no_traceback(stage: Stage, arguments: list[str], said: str) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.prompts("many", 1)
    ended = stage.run(*arguments, exit_code=2)
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (stage.output / "many").exists()


@pytest.mark.processes
def test_of_several_job_files_all_are_queued_or_none(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    good, bad = stage.prompts("good", 2), stage.job("bad", [{"prompt": "x", "size": "1x1"}])
    ended = stage.run("submit", good, bad, exit_code=2)
    assert "bad.yaml" in ended.stderr
    assert json.loads(stage.run("status", "--json").stdout)["jobs"] == []


def test_a_name_belongs_to_one_file(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.run("submit", stage.job("one", [{"prompt": "x"}], name="lounge"))
    other = stage.job("two", [{"prompt": "y"}], name="lounge")
    assert "name:" in stage.run("submit", other, exit_code=2).stderr
    (stage.folder / "one.yaml").rename(stage.folder / "three.yaml")
    refused = stage.run("submit", other, exit_code=2).stderr
    assert f"the name `lounge` belongs to {stage.folder / 'one.yaml'}, which is not there any more" in refused
    assert stage.ask("SELECT prompt, stated FROM request") == [("x", 1)]
    assert "leave" not in stage.run("submit", "three.yaml").stderr, "a file that was renamed keeps its name"
    (stage.folder / "three.yaml").unlink()
    assert "1 request leaves the job: no longer made" in stage.run("submit", other, "--allow-shrink").stderr


def test_a_project_that_was_copied_goes_on_with_its_own_file(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("run", stage.job("night", [{"prompt": "x"}]))
    copied = Stage(tmp_path_factory.mktemp("copies") / "project", stage.stack, within=True)
    shutil.copytree(stage.folder, copied.folder)
    copied.job("night", [{"prompt": "x"}, {"prompt": "y"}])
    copied.run("run", "night.yaml")
    assert server.charged() == 2
    stage.run("submit", "night.yaml")
    foreign = stage.run("submit", copied.folder / "night.yaml", exit_code=2).stderr
    assert f"the name `night` belongs to {stage.folder / 'night.yaml'}" in foreign, "this ledger was not copied"
    (copied.output / "ledger.sqlite3").unlink()
    (copied.output / "ledger.backup.sqlite3").unlink()
    copied.run("submit", stage.folder / "night.yaml")
    assert "belongs to" in copied.run("submit", "night.yaml", exit_code=2).stderr, "another ledger"


def test_a_shrunk_list_takes_no_queue_away_unless_that_is_meant(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server, rate_limit=None)
    job = stage.prompts("many", 40)
    assert "leave" not in stage.run("submit", job).stderr
    before = stage.ask("SELECT * FROM request"), stage.ask("SELECT * FROM job")
    stage.prompts("many", 3)
    refused = f"{job}: 37 of the 40 unfinished requests of `many` would leave the queue, since only 3 are stated now"
    for command in (["plan"], ["plan", "--json"], ["submit"], ["run"]):
        ended = stage.run(*command, job, exit_code=2)
        assert refused in ended.stderr
        assert "--allow-shrink" in ended.stderr
        if command[0] == "plan":
            assert "37 requests leave the job: no longer made; images that are here stay" in ended.stdout, (
                "what it would do is shown"
            )
    assert (stage.ask("SELECT * FROM request"), stage.ask("SELECT * FROM job")) == before
    assert server.books() == []
    assert json.loads(stage.run("plan", job, "--json", "--allow-shrink").stdout)["superseded"] == 37
    ended = stage.run("run", job, "--allow-shrink")
    assert "warning: many: 37 requests leave the job: no longer made; images that are here stay" in ended.stderr
    assert (server.charged(), stage.standing("many")["counts"]["superseded"]) == (3, 37)
    assert json.loads(stage.run("plan", job, "--json").stdout)["superseded"] == 0


def test_what_leaves_a_job_is_said_also_beside_a_run(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.run("submit", stage.prompts("many", 5))
    job = stage.prompts("many", 3)
    with FileLock(stage.output / "run.lock"):
        ended = stage.run("run", job, exit_code=3)
    assert "warning: many: 2 requests leave the job: no longer made; images that are here stay" in ended.stderr
    stage.prompts("many", 1)
    assert "warning: many: 2 requests leave the job" in stage.run("submit", job).stderr


def test_an_edited_request_is_no_loss(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None), rate_limit=None)
    first, then = ([{"id": f"p{number}", "prompt": f"{word} {number}"} for number in range(2)] for word in "ab")
    stage.run("run", stage.job("many", first))
    job = stage.job("many", then)
    note = r"2 requests are changed: made again \(\$[\d.]+\), the old images stay"
    planned = json.loads(stage.run("plan", job, "--json").stdout)
    assert ("leave" in str(planned["warnings"]), planned["superseded"]) == (False, 2)
    assert re.fullmatch(note, planned["notes"][0])
    assert re.search(rf"^  note: {note}$", stage.run("plan", job).stdout, re.MULTILINE)
    examined = stage.run("doctor", job).stdout
    assert "2 images missing" in examined
    assert "are changed" not in examined
    assert re.search(rf"^note: many: {note}$", stage.run("run", job).stderr, re.MULTILINE)


@pytest.mark.parametrize("key", ["", "   "])
def test_an_unset_key_is_exit_2_before_anything_else(stage: Stage, key: str) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    ended = stage.run("run", stage.prompts("many", 1), exit_code=2, key=key)
    assert "STAGE_KEY" in ended.stderr
    assert not (stage.output / "many").exists()
    stage.run("plan", "many.yaml", key=key)
    stage.run("submit", "many.yaml", key=key)


def test_without_a_config_a_job_must_name_its_provider(stage: Stage) -> None:
    job = stage.prompts("many", 1)
    assert "provider: NAME" in stage.run("submit", job, exit_code=2).stderr


def test_a_damaged_ledger_and_a_newer_one_are_exit_2(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.run("submit", stage.prompts("many", 1))
    ledger = stage.output / "ledger.sqlite3"
    with sqlite3.connect(ledger) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    for command in ("status", "run"):
        assert "newer version" in stage.run(command, exit_code=2).stderr
    for path in stage.output.glob("ledger.sqlite3*"):
        path.write_bytes(b"no database at all, but long enough to be read as one" * 100)
    for command in ("status", "run"):
        assert "damaged" in stage.run(command, exit_code=2).stderr


@pytest.mark.processes
def test_an_address_that_nobody_answers_is_named(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    process = stage.start("run", stage.prompts("many", 1))
    assert process.stderr is not None
    while "127.0.0.1:9" not in process.stderr.readline():
        assert process.poll() is None
    process.terminate()
    assert finish(process).exit_code == 143
    assert stage.standing("many")["counts"]["pending"] == 1


@pytest.mark.processes
def test_the_sandbox_command_serves_alone(stage: Stage) -> None:
    process = stage.start("sandbox", "--port", "0")
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    stage.provider("lab", said["base_url"])
    stage.run("run", stage.prompts("many", 2))
    process.terminate()
    assert finish(process).exit_code == 0


@pytest.mark.processes
def test_python_m_pipeline_is_the_command(stage: Stage) -> None:
    installed = Path(sys.executable).with_name("pipeline")
    assert subprocess.run([installed, "--version"], check=True, capture_output=True).stdout.startswith(b"pipeline")
    assert stage.run("--version").stdout.startswith("pipeline")


@pytest.mark.parametrize("limit", ["128", "-S 128"])
def test_few_file_descriptors_slow_a_run_down_and_lose_nothing(stage: Stage, limit: str) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[0.2, 0.2])
    stage.provider("lab", server, rate_limit=None, concurrency=1024)
    job = stage.prompts("many", 160)
    ended = stage.run("run", job, under=("bash", "-c", f'ulimit -n {limit}; exec "$@"', "bash"))
    assert "open files" not in ended.stderr
    assert stage.standing("many")["counts"]["succeeded"] == server.charged() == 160


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_run_works_while_standard_streams_are_closed(stage: Stage, closed: str) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    ended = stage.run("run", stage.prompts("many", 2), under=("bash", "-c", f'exec "$@" {closed}', "bash"))
    assert bool(ended.stdout) == (">&-" not in closed.split())
    assert stage.standing("many")["counts"]["succeeded"] == server.charged() == 2


@pytest.mark.parametrize("words", [("status",), ("run", "many.yaml"), ("run", "many.yaml", "--json")])
def test_output_that_nobody_reads_or_that_does_not_fit_is_no_bug(stage: Stage, words: tuple[str, ...]) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("submit", stage.prompts("many", 1))
    for ending, exit_code in (("| head -0; exit ${PIPESTATUS[0]}", 0), ("2>/dev/full", 0), (">/dev/full", 3)):
        ended = stage.run(*words, exit_code=exit_code, under=("bash", "-c", f'"$@" {ending}', "bash"))
        assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-2:] == [
        "error: stdout cannot be written: No space left on device; free some space, then type the command again",
        "see: pipeline help DiskFull",
    ]


def test_too_few_open_files_for_a_command_are_no_bug(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "outputs")

    stage.provider("lab", "http://127.0.0.1:9/v1")
    monkeypatch.setattr("pipeline.ledger.lock.sweep_parts", refuse)
    said = stage.run("run", stage.prompts("many", 1), exit_code=3).stderr.splitlines()
    assert said[-2].startswith("error: outputs cannot be opened: too many open files")
    assert said[-1] == "see: pipeline help TooManyOpenFiles"


@pytest.mark.parametrize("words", [("status",), ("run",), ("plan", "many.yaml"), ("export", "many", "--to", "csv")])
def test_a_current_folder_that_was_removed_is_named(stage: Stage, words: tuple[str, ...]) -> None:
    under = ("bash", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$@"', "bash")
    ended = stage.run(*words, exit_code=2, under=under)
    assert ended.stderr == "error: the current folder was removed: change to one that is there\n"
