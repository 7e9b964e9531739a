"""What a newcomer typed, and what must be read then: true exits, reasons that stay, and nothing bought by surprise."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from pipeline.reports.advice import STOP_ADVICE
from pipeline.storage import SUBMIT_LOCK_FILE
from tests.support.stage import finish
from tests.support.terminal import terminal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.stage import Stage


def _forbidden(stage: Stage, name: str, count: int) -> Path:
    return stage.job(name, [{"prompt": f"forbidden {number}"} for number in range(count)])


def test_a_second_run_that_queued_its_job_says_so_without_the_word_error(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.run("submit", stage.prompts("a", 1))
    with FileLock(stage.output / "run.lock"):
        ended = stage.run("run", _forbidden(stage, "b", 4), exit_code=3)
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("queued: ")]
    assert line.startswith("queued: b, 4 requests; the run at work (")
    assert line.endswith(") takes them up")
    assert "error" not in ended.stderr


def test_why_a_job_stopped_stays_until_it_is_overcome(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    job = stage.prompts("night", 2)
    stage.run("run", job, key="bad-key", exit_code=3)
    said, fix = "provider `lab`: ", f"  first: {STOP_ADVICE['KeyRefused']}"
    assert "name its variable as `api_key_env`" in fix
    shown = stage.run("status").stdout.splitlines()
    assert said in shown[1]
    assert shown[2:4] == [fix, "  then: pipeline run"]
    (stop,) = json.loads(stage.run("status", "--json").stdout)["stops"]
    assert (stop["kind"], stop["provider"], stop["commands"]) == ("KeyRefused", "lab", ["pipeline run"])
    assert fix in stage.run("status", "--watch").stdout
    page = (stage.output / "night" / "report.html").read_text()
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert [one["kind"] for one in data["stops"]] == ["KeyRefused"]
    stage.run("submit", stage.prompts("other", 1))
    assert said in stage.run("status", "other").stdout, "it reaches what is submitted later"
    stage.run("run", stage.folder / "other.yaml")
    assert "stopped" not in stage.run("status").stdout, "the provider has answered"


def test_the_next_run_that_ends_before_it_meets_an_old_stop_names_it(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    job = stage.prompts("night", 5)
    stage.run("run", job, "--budget", 0.02, exit_code=3)
    assert "job `night`: the next call of job `night` may cost $0.0160" in stage.run("status").stdout
    ended = stage.run("run", job, "--limit", 1)
    assert "stopped at " in ended.stderr
    assert ended.stderr.index("  first: raise `budget_usd`") < ended.stderr.index("to continue, run:")
    stage.run("run", job)
    assert json.loads(stage.run("status", "--json").stdout)["stops"] == []


def test_a_budget_that_was_too_small_is_answered_with_one_that_is_enough(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    job = stage.prompts("night", 5)
    ended = stage.run("run", job, "--budget", 0.04, exit_code=3)
    advice = "raise `budget_usd` in the job file, or `--budget`, to what the rest needs: $0.08 in all"
    assert f"to fix it: {advice}\n" in ended.stderr
    assert f"\n    pipeline run {job} --budget 0.08\n" in ended.stderr
    shown = stage.run("status", "night").stdout.splitlines()
    assert shown[2:4] == [f"  first: {advice}", f"  then: pipeline run {job} --budget 0.08"]
    resumed = stage.run("resume", "night", "--budget", 0.05, exit_code=3).stderr
    assert f"\n    pipeline run {job} --budget 0.08\n" in resumed
    stage.run("run", job, "--budget", "0.08")
    assert stage.standing("night")["counts"]["succeeded"] == 5


def test_the_budget_that_is_advised_is_enough_where_a_call_may_cost_more_than_its_estimate(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    auto = {"model": "gpt-image-2", "size": "auto", "quality": "low"}
    paid = [{"prompt": f"cat {number}", **auto} for number in range(4)]
    job = stage.job("night", paid)
    first = stage.run("run", job, "--budget", 0.04, exit_code=3).stderr
    again = first.splitlines()[-1].split()
    assert again[:-1] == ["pipeline", "run", str(job), "--budget"]
    assert f"  then: pipeline run {job} --budget {again[-1]}" in stage.run("status", "night").stdout
    stage.run("run", job, "--budget", again[-1])
    assert stage.standing("night")["counts"]["succeeded"] == 4


def test_resume_without_a_name_buys_nothing_that_was_cancelled_or_refused(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    broken = stage.serve(rate_limit=None, faults={"http_500": 1.0})
    stage.settings["retry"] = {"attempts": 1}
    stage.provider("lab", broken)
    stage.provider("elsewhere", server, api_key_env="NO_SUCH_KEY")
    stage.run("run", stage.prompts("bad", 2), exit_code=1)
    stage.provider("lab", server)
    stage.run("submit", stage.prompts("renamed", 12), stage.job("away", [{"prompt": "x"}], provider="elsewhere"))
    stage.run("cancel", "renamed")
    stage.run("cancel", "away")
    stage.run("run", _forbidden(stage, "policy", 3), exit_code=1)
    before = len(server.books())
    ended = stage.run("resume", exit_code=1)
    lines = ended.stderr.splitlines()
    assert "put back: 2 requests of `bad`: 2 images, about $0.032" in lines
    assert "left alone: 12 cancelled requests of `renamed`; to put back, type: pipeline resume renamed" in lines
    assert any(line.startswith("left alone: 3 requests of `policy` that the content policy refused;") for line in lines)
    assert len(server.books()) == before + 2
    named = stage.run("resume", "renamed")
    assert named.stderr.startswith("put back: 12 requests of `renamed`: 12 images, about $0.192\n")
    assert stage.standing("renamed")["counts"]["succeeded"] == 12


def test_kind_and_cancelled_choose_what_is_put_back(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("run", _forbidden(stage, "policy", 2), exit_code=1)
    stage.run("submit", stage.prompts("many", 3))
    stage.run("cancel", "many")
    before = len(server.books())
    assert "matches --kind ServerFault" in stage.run("resume", "--kind", "serverfault", exit_code=2).stderr
    stage.run("resume", "--kind", "moderated", exit_code=1)
    assert len(server.books()) == before + 2
    stage.run("resume", "--cancelled", exit_code=1)
    assert stage.standing("many")["counts"]["succeeded"] == 3
    said = stage.run("resume", "--kind", "Moderatd", exit_code=2).stderr
    assert "`Moderatd` is no class of error; did you mean Moderated?" in said


def test_a_renamed_file_is_told_what_keeps_its_images_and_rename_keeps_them(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    four = stage.prompts("four", 12)
    stage.run("run", four)
    renamed = four.with_name("renamed.yaml")
    shutil.copy(four, renamed)
    line = "12 of 12 requests are already made in job `four`, and would be paid again; put `name: four` into the file"
    assert f"warning: {line} to keep them, and remove {four}" in stage.run("plan", renamed).stdout
    four.unlink()
    assert f"warning: {line} to keep them, or type `pipeline rename four renamed`" in stage.run("plan", renamed).stdout
    assert f"warning: renamed: {line}" in stage.run("submit", renamed).stderr
    stage.run("forget", "renamed", "--yes")
    assert stage.run("rename", "four", "renamed").stdout.startswith("job `four` is job `renamed` now")
    ended = stage.run("run", renamed)
    assert "warning" not in ended.stderr.replace("warning: renamed: dall-e-2", "")
    assert (stage.check_files("renamed"), len(server.books())) == (12, 12)
    assert "renamed" in (stage.output / "renamed" / "report.html").read_text()
    stage.run("verify", "renamed")
    assert not (stage.output / "four").exists()


@pytest.mark.parametrize("words", [("rename", "many", "more"), ("forget", "many", "--files", "--yes")])
def test_while_a_run_holds_the_folder_no_job_is_renamed_or_forgotten(stage: Stage, words: tuple[str, ...]) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.run("submit", stage.prompts("many", 2))
    (stage.output / "many").mkdir()
    with FileLock(stage.output / "run.lock"):
        said = stage.run(*words, exit_code=3).stderr
    assert said.startswith("error: job `many` cannot be ")
    assert "wait until it ends, or stop it" in said
    assert stage.standing("many")["counts"]["pending"] == 2
    assert (stage.output / "many").exists()


def test_forget_names_what_is_lost_asks_on_a_terminal_and_needs_yes_elsewhere(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.prompts("many", 2))
    stage.run("submit", stage.prompts("many", 3))
    said = stage.run("forget", "many", exit_code=2).stderr
    question = "Forget job `many` ($0.032 spent · 1 queued request)? Its 2 images on the disk stay"
    assert said.startswith(f"error: there is no terminal to ask on; add --yes if this is meant: {question}")
    stage.write_config()
    for typed, code in (("n", 2), ("y", 0)):
        with terminal(stage.folder, "forget", "many", "--files", columns=200) as seen:
            seen.read_until(lambda: "[y/N]" in seen.text)
            assert "Its 2 images on the disk are deleted, too" in seen.text
            seen.type_line(typed)
            assert seen.read_to_the_end() == code
        assert (stage.output / "many").exists() == bool(code)
    assert stage.standings() == {}


@pytest.mark.parametrize("words", [("redo", "many", "--all"), ("forget", "many", "--files")])
@pytest.mark.parametrize("keys", ["\x03", "\x04", "n\n"], ids=["Ctrl-C", "Ctrl-D", "no"])
def test_a_question_that_is_not_answered_with_yes_changes_nothing(
    stage: Stage, words: tuple[str, ...], keys: str
) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.prompts("many", 2))
    before = stage.standings()
    with terminal(stage.folder, *words, columns=60) as seen:
        seen.read_until(lambda: "[y/N]" in seen.text and seen.is_asleep())
        assert all(len(line.split()) > 1 for line in seen.lines), "no line breaks within a word"
        seen.type_keys(keys)
        assert seen.read_to_the_end() == (2 if keys == "n\n" else 130)
    assert seen.lines[-1] == "nothing was changed"
    assert "recover and continue" not in seen.text
    assert stage.standings() == before


def test_stopped_at_once_before_a_run_has_begun_there_is_nothing_to_recover(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    job = stage.prompts("many", 2)
    stage.output.mkdir()
    with FileLock(stage.output / SUBMIT_LOCK_FILE), terminal(stage.folder, "submit", job) as seen:
        seen.read_until(lambda: "checking and queueing" in seen.text)
        seen.press_ctrl_c()
        assert seen.read_to_the_end() == 130
    assert seen.lines[-1] == "stopped at once"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("help", "KeyRefusd"), "error: there is no kind of error `KeyRefusd`; did you mean `KeyRefused`?"),
        (("run", "--budget", "5usd"), "Invalid value for '--budget': takes US dollars, such as 5 or 0.50, not '5usd'"),
    ],
)
def test_on_a_terminal_an_error_breaks_between_words(stage: Stage, words: tuple[str, ...], sentence: str) -> None:
    with terminal(stage.folder, *words, columns=40) as seen:
        assert seen.read_to_the_end() == 2
    assert sentence in " ".join(line.strip() for line in seen.lines)


def test_a_limit_supersedes_nothing_and_the_rest_stays_queued(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    three = stage.prompts("three", 25)
    stage.run("submit", three)
    ended = stage.run("run", three, "--limit", 3)
    counts = stage.standing("three")["counts"]
    assert (counts["succeeded"], counts["pending"], counts["superseded"]) == (3, 22, 0)
    assert f"\n    pipeline run {three}\n" in ended.stderr
    stage.run("submit", three, "--limit", 2)
    assert stage.standing("three")["counts"]["pending"] == 22
    assert json.loads(stage.run("plan", three, "--limit", 4, "--json").stdout)["missing"]["requests"] == 1
    stage.run("run", three, "--limit", 4)
    assert len(server.books()) == 4
    stage.run("run")
    assert stage.standing("three")["counts"]["succeeded"] == 25


def test_a_limited_submit_of_a_new_job_queues_its_first_requests(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.run("submit", stage.prompts("many", 9), "--limit", 2)
    assert stage.standing("many")["counts"]["pending"] == 2


def test_status_begins_with_whether_a_run_is_at_work(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    job = stage.prompts("many", 2)
    stage.run("submit", job)
    assert stage.run("status").stdout.startswith("no run is at work; to continue, run: pipeline run\n")
    stage.run("run", job)
    assert stage.run("status").stdout.startswith("no run is at work, and nothing is queued\n")


def test_plan_says_where_a_budget_stops_and_a_rehearsal_obeys_it(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.provider("sandbox", "unused")
    stage.providers["sandbox"] = {"sandbox": {"rate_limit": None}, "rate_limit": None}
    job = stage.prompts("four", 12)
    stage.write_config()
    assert "  budget: $0.05 stops this after about 3 of 12\n" in stage.run("plan", job, "--budget", 0.05).stdout
    assert "  budget: $1.00 is enough\n" in stage.run("plan", job, "--budget", 1).stdout
    assert "budget" not in stage.run("plan", job).stdout
    ended = stage.run("run", job, "--provider", "sandbox", "--budget", 0.05, exit_code=3)
    assert "(a rehearsal: nothing is billed)" in ended.stderr
    assert stage.standing("four.sandbox")["images"] == 3
    said = stage.run("plan", job, "--provider", "sandbox", "--budget", 0.08).stdout
    assert "  budget: $0.08, of which $0.048 is spent, stops this after about 2 of 9\n" in said


def test_submit_says_what_is_new_and_what_was_there(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    job = stage.prompts("many", 3)
    assert stage.run("submit", job).stdout == "many: 3 requests for 3 images at provider `lab`: 3 new\n"
    assert stage.run("submit", job).stdout.endswith(": 0 new, 3 already queued\n")
    stage.run("run", job)
    ended = stage.run("submit", job)
    assert ended.stdout.endswith(": 0 new, 3 already made\n")
    assert ended.stderr.endswith("nothing to start: no request of it is queued\n")


@pytest.mark.parametrize("words", [("--limit", 3), ("--provider", "lab")])
def test_an_option_of_job_files_is_refused_without_one(stage: Stage, words: tuple[object, ...]) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.run("submit", stage.prompts("many", 5))
    assert f"{words[0]} is for job files: name one" in stage.run("run", *words, exit_code=2).stderr


@pytest.mark.processes
def test_a_run_that_took_up_a_failing_job_says_so_and_a_dead_run_is_not_watched(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[0.3, 0.3])
    stage.provider("lab", server, concurrency=1)
    first = stage.start("run", stage.prompts("a", 6))
    while not server.books():
        assert first.poll() is None
    stage.run("run", _forbidden(stage, "b", 2), exit_code=3)
    ended = finish(first)
    assert ended.exit_code == 1, "the exit is about all jobs that the run took up"
    assert "a: 6 requests: 6 succeeded; 6 images;" in ended.stderr
    assert "b: 2 requests: 2 failed; 0 images" in ended.stderr
    assert f"pipeline run {stage.folder / 'b.yaml'}" in ended.stderr
    stage.provider("lab", stage.serve(rate_limit=None, latency_seconds=[100, 100]))
    with terminal(stage.folder, "run", stage.prompts("c", 3)) as seen:
        seen.read_until(lambda: "3 calls in flight" in seen.text)
        seen.press_ctrl_c()
        seen.read_until(lambda: "SIGINT" in seen.text)
        seen.press_ctrl_c()
        assert seen.read_to_the_end() == 130
    with terminal(stage.folder, "status", "--watch") as seen:
        assert seen.read_to_the_end() == 0, "it does not go on for a run that is dead"
    assert seen.lines[0] == "no run is at work; to continue, run: pipeline run"
    assert "in flight" not in seen.text


def test_one_mistake_in_a_template_hides_no_other_and_the_count_is_last(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    (stage.folder / "rows.csv").write_text("prompt,style\n" + "a cat,ukiyo-e\n" * 60)
    typos = stage.job(
        "typos",
        [
            {"prompt": "{{ promt }} in {{ style }}", "rows": "rows.csv"},
            {"prompt": "x", "model": "dall-e-9"},
            {"prompt": "x", "sise": "256x256"},
            {"prompt": "{{ prompt }}", "rows": "missing.csv"},
        ],
    )
    lines = stage.run("plan", typos, exit_code=2).stderr.splitlines()
    assert len(lines) < 8, lines
    (template,) = [line for line in lines if "`promt` is not defined; known here: prompt, style" in line]
    assert "(in 60 rows of rows.csv: 2-61)" in template
    for mistake in ("unknown key `sise`; did you mean `size`?", "missing.csv"):
        assert any(mistake in line for line in lines), lines
    assert lines[-1] == f"error: 3 mistakes in {typos}"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (
            "t.csv",
            "prompt\nCaf\xe9\n".encode("cp1252"),
            "is not UTF-8 (invalid continuation byte at byte 3 of the line)",
        ),
        ("t.csv", "prompt\na\n".encode("utf-16"), None),
        ("t.csv", "prompt\na\n".encode("utf-16-le"), 'line 1: is UTF-16 without a BOM; save it as "CSV UTF-8" (Excel)'),
        ("t.xlsx", b"PK", 'save it as "CSV UTF-8" (Excel)'),
        ("t.csv", b"name;prompt\nx;a cat\n;\n", None),
        ("t.csv", b"prompt\na cat\n,\n\n", None),
        ("t.csv", b"My Prompt\na cat\n", "rename the column `My Prompt` to `My_Prompt`"),
    ],
)
def test_a_table_from_excel_is_read_or_has_its_cure(stage: Stage, file: str, content: bytes, said: str | None) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    (stage.folder / file).write_bytes(content)
    prompt = "{{ My Prompt }}, photographed" if b"My" in content else "{{ prompt }}"
    ended = stage.run("plan", stage.job("night", [{"prompt": prompt, "rows": file}]), exit_code=2 if said else 0)
    assert (said or "1 request for 1 image") in ended.stderr + ended.stdout


def test_plan_shows_what_will_be_asked_in_numbers_as_people_write_them(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1", rate_limit={"images": 50})
    one = stage.run("plan", stage.job("one", [{"prompt": "a cat", "id": "cat"}])).stdout
    assert "one at provider `lab`: 1 request for 1 image\n" in one
    assert "  1. cat: " in one
    assert "\n     a cat\n" in one
    many = stage.run("plan", stage.prompts("many", 4_000)).stdout
    assert "4,000 requests for 4,000 images" in many
    assert "  time: 1 h 20 min at the limit\n" in many
    assert "  cost: $64.00\n" in many
    assert [line[:5] for line in many.splitlines() if line.startswith("  ")][:7:2][:3] == ["  1. ", "  2. ", "  3. "]
    assert "  … 4,000. prompt-number-3999-" in many


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("\t- prompt: a cat", "its indentation holds a tab; indent with spaces, not with tabs"),
        ("- prompt: a cat: sitting", "put it in quotes: prompt: "),
        ("- prompt: {{ x }}", "text that begins with {{ needs quotes"),
    ],
)
def test_a_mistake_of_yaml_has_one_line_with_its_cure(stage: Stage, line: str, said: str) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    job = stage.folder / "night.yaml"
    job.write_text(f"defaults: {{model: dall-e-2}}\nrequests:\n  {line}\n")
    first = stage.run("plan", job, exit_code=2).stderr.splitlines()[0]
    assert first.startswith(f"error: {job}, line 3")
    assert said in first
