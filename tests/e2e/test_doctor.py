"""`pipeline doctor` before a night: twelve planted killers are found, each with what mends it; nothing is bought."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from pipeline import ledger
from pipeline.doctor import organization_checks, provider_checks
from pipeline.ledger.attempts import record_pause
from tests.support.sandbox_client import png

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.stage import Server, Stage

MODEL = "gpt-image-2"
SMALL = {"model": MODEL, "size": "1024x640", "quality": "low"}
ADMIN = "sk-admin-0123456789"
TODAY = time.strftime("%Y-%m-%d", time.gmtime())
CAT: list[dict[str, Any]] = [{"prompt": "a white siamese cat"}]


@pytest.fixture(autouse=True)
def administered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set an admin key and a project, as in the evening of an organization's owner."""
    monkeypatch.setenv("OPENAI_ADMIN_KEY", ADMIN)
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj_sandbox")


@pytest.fixture
def silent() -> Iterator[str]:
    """The base URL of a server that takes connections and never answers."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


def night(stage: Stage, requests: list[dict[str, Any]] | None = None, **more: Any) -> Path:
    return stage.job("night", requests or CAT, defaults={**SMALL}, **more)


def lab(stage: Stage, **settings: Any) -> Server:
    """Start the provider of the evening, with the limit that the sandbox has by default."""
    server = stage.serve(**settings)
    stage.provider("lab", server, rate_limit={"images": 50, "per_seconds": 60})
    return server


def examined(stage: Stage, *arguments: object, exit_code: int | None = 0, **how: Any) -> list[dict[str, Any]]:
    """Run the doctor, and return its checks in the form of the contract."""
    ended = stage.run("doctor", *arguments, "--json", exit_code=exit_code, **how)
    document = json.loads(ended.stdout)
    assert document.keys() == {"checks"}
    for check in document["checks"]:
        assert check.keys() == {"name", "status", "message", "do"}
        assert check["status"] in {"ok", "warning", "problem"}
        assert (check["do"] is None) == (check["status"] == "ok")
    return list(document["checks"])


def found(checks: list[dict[str, Any]], status: str = "problem") -> list[tuple[str, str, str]]:
    return [(one["name"], one["message"], one["do"]) for one in checks if one["status"] == status]


def bought(server: Server) -> list[dict[str, Any]]:
    return [*server.books(), *server.books("batch"), *server.books("batch_line")]


@pytest.mark.processes
def test_a_healthy_evening_is_exit_0_and_no_image_is_bought(stage: Stage) -> None:
    server = lab(stage)
    image = stage.folder / "cat.png"
    image.write_bytes(png(size=(64, 64)))
    job = night(stage, [*CAT, {"operation": "edit", "image": "cat.png", "prompt": "a hat"}], budget_usd=5)
    began = time.monotonic()
    ended = stage.run("doctor", job, "--strict")
    assert time.monotonic() - began < 10
    lines = ended.stdout.splitlines()
    assert all(": ok: " in line or ": skipped: " in line for line in lines)
    assert {"jobs", "inputs", "prices", "budget", "output", "disk", "key", "clock", "models", "limit", "notify"} <= {
        line.partition(":")[0] for line in lines
    }
    assert "notify: skipped: the config has no `notify:`" in lines
    assert not bought(server)
    assert not stage.output.exists()


def dead_key(stage: Stage) -> dict[str, Any]:
    lab(stage)
    return {"key": "bad-key-0123456789"}


def no_access(stage: Stage) -> None:
    lab(stage, organization={"denied_models": [MODEL]})


def model_ends(stage: Stage) -> None:
    lab(stage, shutdown_dates={MODEL: TODAY})


def limit_zero(stage: Stage) -> None:
    lab(stage, organization={"rate_limits": {MODEL: 0}})


def limit_lower(stage: Stage) -> None:
    lab(stage, organization={"rate_limits": {MODEL: 5}})


def spend_limit(stage: Stage) -> None:
    lab(stage, organization={"project_spend_limit_usd": 0.01})


def full_disk(stage: Stage) -> None:
    lab(stage)


def read_only(stage: Stage) -> None:
    stage.settings["output"] = "/proc/outputs"  # where nobody can write, and no right to mount is needed
    lab(stage)


def clock(stage: Stage) -> dict[str, Any]:
    lab(stage)
    return {"sabotage": f"clock:3600:{stage.folder / 'config.yaml'}"}


def empty_mask(stage: Stage) -> None:
    (stage.folder / "mask.png").write_bytes(png(size=(64, 64), colour="#000000ff"))
    lab(stage)


def wrong_price(stage: Stage) -> None:
    stage.settings["models"] = {MODEL: {"prices": {"per_million": {"image_out": 0.3}}}}
    lab(stage)


def unreachable_notify(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        stage.settings["notify"] = {"webhook": f"http://127.0.0.1:{closed.getsockname()[1]}/topic"}
    lab(stage)


KILLERS: dict[str, tuple[Callable[[Stage], dict[str, Any] | None], str, str, str]] = {
    "a dead key": (dead_key, "key", "Incorrect API key", "put a living key into $STAGE_KEY"),
    "a key without access to the model": (no_access, "models", f"`{MODEL}` cannot be used", "allow `gpt-image-2`"),
    "a model shut down by the planned end": (model_ends, "models", "before everything is made", "name another model"),
    "a limit of zero": (limit_zero, "limit", "so none at all", "raise the limit at https://"),
    "a limit lower than configured": (limit_lower, "limit", "50 are configured", "write `rate_limit: {images: 5,"),
    "a spend limit below the estimate": (spend_limit, "spend limit", "may spend $0.01 a month", "raise the limit"),
    "a full disk": (full_disk, "disk", "will come", "free some space, or choose another `output`"),
    "a read-only output": (read_only, "output", "/proc/outputs cannot be written", "choose another `output`"),
    "a clock off by an hour": (clock, "clock", "the clock here is 1 h", "timedatectl set-ntp true"),
    "a mask that edits nothing": (empty_mask, "masks", "marks nothing", "correct that in the job file"),
    "a wrong price": (
        wrong_price,
        "prices",
        "the config's price makes an image of",
        "remove `prices` of `gpt-image-2`",
    ),
    "an unreachable notify": (unreachable_notify, "notify", "not delivered by webhook", "correct `webhook` under"),
}
JOBS: dict[str, dict[str, Any]] = {
    "a full disk": {"size": "3840x2160", "n": 100_000},
    "a spend limit below the estimate": {"n": 10},
    "a mask that edits nothing": {"operation": "edit", "image": "cat.png", "mask": "mask.png"},
    "a model shut down by the planned end": {"n": 40},
}


@pytest.mark.parametrize("killer", KILLERS)
def test_each_killer_of_a_night_is_found_with_what_mends_it(stage: Stage, killer: str) -> None:
    plant, name, words, do = KILLERS[killer]
    (stage.folder / "cat.png").write_bytes(png(size=(64, 64)))
    job = night(stage, [{**CAT[0], **JOBS.get(killer, {})}])
    how = plant(stage) or {}
    checks = examined(stage, job, "--notify", exit_code=2, **how)
    (problem,) = found(checks)
    assert problem[0] == name
    assert words in problem[1]
    assert do in problem[2]
    assert not found(checks, "warning")


def test_the_clock_of_a_server_within_a_minute_is_well(stage: Stage) -> None:
    lab(stage)
    ahead = f"clock:30:{stage.folder / 'config.yaml'}"
    assert not found(examined(stage, night(stage), sabotage=ahead))


def test_without_an_admin_key_limits_are_not_checked(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_ADMIN_KEY")
    lab(stage, organization={"rate_limits": {MODEL: 0}})
    said = {one["name"]: one["message"] for one in examined(stage, night(stage))}
    assert said["limit"] == said["spend limit"] == "not checked (`lab`: OPENAI_ADMIN_KEY is not set)"


def test_a_key_that_is_not_set_and_one_that_is_an_admin_key_are_found_without_a_call(stage: Stage) -> None:
    lab(stage)
    (unset,) = found(examined(stage, night(stage), key="", exit_code=2))
    assert unset[0] == "key"
    assert "export STAGE_KEY=" in unset[2]
    (wrong,) = found(examined(stage, night(stage), key=ADMIN, exit_code=2))
    assert "is an admin key, which makes no images" in wrong[1]


def test_an_organization_that_is_not_verified_is_found(stage: Stage) -> None:
    lab(stage, verified=False)
    (refused,) = found(examined(stage, night(stage), exit_code=2))
    assert "organization must be verified" in refused[1]


def test_a_warning_is_exit_0_and_with_strict_1(stage: Stage) -> None:
    lab(stage)
    job = night(stage, [{**CAT[0], "n": 10}], budget_usd=0.01)
    (budget,) = found(examined(stage, job), "warning")
    assert "stops it before the end" in budget[1]
    assert "--budget" in budget[2]
    assert stage.run("doctor", job, "--strict", exit_code=1).stdout.count(": warning: ") == 1


def test_a_server_that_hangs_is_found_in_time(stage: Stage, silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_checks, "CALL_SECONDS", 0.5)
    monkeypatch.setattr(organization_checks, "CALL_SECONDS", 0.5)
    stage.provider("lab", silent)
    began = time.monotonic()
    (hangs,) = found(examined(stage, night(stage), exit_code=2))
    assert time.monotonic() - began < 8
    assert hangs[0] == "server"
    assert "no complete response within 0.5 s" in hangs[1]


def test_every_mistake_of_a_job_is_a_problem_and_the_provider_is_examined_all_the_same(stage: Stage) -> None:
    lab(stage, organization={"rate_limits": {MODEL: 5}})
    bad = stage.job("bad", [{"prompt": "a", "size": "12x12"}, {"promt": "b"}], defaults=SMALL)
    checks = examined(stage, bad, night(stage), exit_code=2)
    assert [name for name, _, _ in found(checks)][:2] == ["jobs", "jobs"]
    assert "limit" in {name for name, _, _ in found(checks)}


def test_without_a_job_file_the_queue_is_examined(stage: Stage) -> None:
    lab(stage, organization={"denied_models": [MODEL]})
    stage.run("submit", night(stage, [{**CAT[0], "n": 3}]))
    checks = examined(stage, exit_code=2)
    assert "night at `lab`: 3 images missing" in checks[1]["message"]
    assert [name for name, _, _ in found(checks)] == ["models"]
    stage.providers = {"other": stage.providers["lab"]}
    stage.write_config()
    (unknown,) = found(examined(stage, exit_code=2))
    assert unknown[1] == "night: the config has no provider `lab`"


def test_keys_of_one_organization_share_one_limit(stage: Stage) -> None:
    server = stage.serve()
    stage.settings["routes"] = {"both": ["one", "two"]}
    stage.provider("one", server, rate_limit={"images": 25})
    stage.provider("two", server, rate_limit={"images": 25})
    (shared,) = found(examined(stage, night(stage, provider="both")), "warning")
    assert "`one` and `two` are at " in shared[1]
    assert "share one limit" in shared[1]


def test_a_stop_that_still_holds_is_a_warning_with_what_continues(stage: Stage) -> None:
    lab(stage, quota_images=0)
    stage.run("run", job := night(stage), exit_code=3)
    checks = examined(stage, job)
    (held,) = found(checks, "warning")
    assert held[0] == checks[0]["name"] == "held"
    assert "exceeded your current quota" in held[1]
    assert "pipeline run" in held[2]


def test_what_people_have_set_is_said_first_and_no_canary_is_bought_in_a_pause(stage: Stage) -> None:
    server, job = lab(stage), night(stage)
    stage.run("submit", job)
    stage.run("pause", "lab")
    stage.run("throttle", "lab", "20")
    checks = examined(stage, job, "--canary")
    assert [one["name"] for one in checks[:2]] == ["held", "held"]
    paused, throttled = found(checks, "warning")
    assert paused[1].startswith("`lab` is paused since ")
    assert paused[2].startswith("pipeline unpause lab")
    assert throttled[1] == "`lab` is throttled to 20 images per 60 s (configured: 50)"
    assert throttled[2].startswith("pipeline throttle lab --reset")
    assert [one["message"] for one in canaries(checks)] == ["not checked (`lab` is paused)"]
    assert not server.books()


def test_a_window_is_no_fault_and_no_canary_is_bought_outside_of_it(stage: Stage) -> None:
    server = stage.serve()
    hour = (time.gmtime().tm_hour + 12) % 24
    window = f"{hour:02}:00-{hour:02}:30 UTC"
    stage.provider("lab", server, rate_limit={"images": 50}, window=window)
    checks = examined(stage, night(stage), "--canary", "--strict")
    assert "`lab` is outside its window" in checks[0]["message"]
    assert [one["message"] for one in canaries(checks)] == ["not checked (`lab` is outside its window)"]
    assert not server.books()


def test_what_the_month_has_cost_counts_against_a_spend_limit(stage: Stage) -> None:
    server = lab(stage, organization={"spend_limit_usd": 0.05})
    stage.run("run", stage.job("before", [{"prompt": "a dog", "n": 10}], defaults=SMALL))
    assert 0.02 < sum(entry["cost_usd"] for entry in server.books()) < 0.04
    (spent,) = found(examined(stage, night(stage, [{**CAT[0], "n": 10}]), exit_code=2))
    assert "this month has cost $0.03" in spent[1]


def test_a_pause_that_a_provider_asked_for_is_a_warning(stage: Stage) -> None:
    lab(stage)
    stage.run("submit", job := night(stage))
    with ledger.writing(stage.output) as connection:
        record_pause(connection, "lab", time.time() + 600)
    (held,) = found(examined(stage, job), "warning")
    assert held[1].startswith("`lab` asked for a pause until ")


def test_notifications_arrive_only_if_they_are_asked_for(stage: Stage, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    stage.settings["notify"] = {"command": ["sh", "-c", f"cat > {told}"]}
    lab(stage)
    assert "not checked (--notify sends a trial)" in {one["message"] for one in examined(stage, night(stage))}
    assert not told.exists()
    assert "delivered by command" in {one["message"] for one in examined(stage, night(stage), "--notify")}
    assert json.loads(told.read_text())["title"] == "a trial by pipeline doctor"


def test_a_server_without_a_list_of_models_is_not_checked(stage: Stage, bare: str) -> None:
    stage.provider("lab", bare)
    said = [one["message"] for one in examined(stage, night(stage))]
    assert "not checked (`lab` has no list of models)" in said
    assert f"not checked (`lab` does not say whether it has `{MODEL}`)" in said


@pytest.fixture
def bare() -> Iterator[str]:
    """The base URL of a server that knows none of these paths."""
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 22\r\nConnection: close\r\n\r\n" + b'{"detail":"Not Found"}'
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:  # closed
                    return
                with connection:
                    while b"\r\n\r\n" not in connection.recv(65536):
                        pass
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=5)


KINDS: list[dict[str, Any]] = [
    {"prompt": "a cat", "n": 1},
    {"prompt": "a dog", "n": 1},
    {"prompt": "a cat", "size": "1024x1024"},
    {"prompt": "a cat", "size": "1536x1024", "quality": "medium"},
    {"prompt": "a cat", "size": "1024x1024", "quality": "high"},
]


def canaries(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in checks if one["name"] == "canary"]


def test_the_canary_buys_the_cheapest_of_three_kinds_and_no_run_buys_them_again(stage: Stage) -> None:
    server, job = lab(stage), night(stage, KINDS)
    bred = canaries(examined(stage, job, "--canary", "--strict"))
    assert [one["status"] for one in bred] == ["ok"] * 3
    assert "1024x640 png, $0.003" in bred[0]["message"]
    assert [entry["charged"] for entry in server.books()] == [1, 1, 1]
    assert stage.standing("night")["counts"]["succeeded"] == 3
    again = canaries(examined(stage, job, "--canary", "3"))
    assert ["which is here already" in one["message"] for one in again] == [True] * 3
    assert server.charged() == 3, "a second doctor buys nothing"
    stage.run("run", job)
    assert server.charged() == 5
    assert stage.check_files("night") == 5
    assert len({(entry["prompt"], entry["cost_usd"]) for entry in server.books()}) == 5


@pytest.mark.parametrize("kind", [{"size": "auto", "quality": "auto"}, {"operation": "edit", "image": "cat.png"}])
def test_a_canary_may_cost_less_where_the_estimate_assumes_something(stage: Stage, kind: dict[str, Any]) -> None:
    lab(stage)
    (stage.folder / "cat.png").write_bytes(png(size=(64, 64)))
    (bred,) = canaries(examined(stage, night(stage, [{**CAT[0], **kind}]), "--canary"))
    assert bred["status"] == "ok"


def test_a_canary_buys_nothing_that_only_the_manifest_knows(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("submit", stage.job("night", [{"prompt": "a cat"}]))
    older = (stage.output / "ledger.sqlite3").read_bytes()
    stage.run("run")
    (stage.output / "ledger.sqlite3").write_bytes(older)
    assert "nothing is missing" in stage.run("doctor", "--canary").stdout
    assert server.charged() == 1


def test_the_canary_stops_a_night_whose_images_come_in_the_wrong_size(stage: Stage) -> None:
    server, job = lab(stage, dialect={"draws": "512x512"}), night(stage, KINDS)
    (wrong,) = canaries(examined(stage, job, "--canary", exit_code=2))
    assert "came in 512x512, and 1024x640 was asked for" in wrong["message"]
    assert "name a size that the server makes, or another provider; nothing more was bought" in wrong["do"]
    assert len(server.books()) == 1
    (again,) = canaries(examined(stage, job, "--canary", exit_code=2))
    assert "which is here already, came in 512x512" in again["message"]
    assert len(server.books()) == 1


def test_a_canary_that_the_content_policy_refuses_is_replaced_by_the_next(stage: Stage) -> None:
    server = lab(stage)
    job = night(stage, [{"prompt": "forbidden"}, {"prompt": "a much longer prompt, which costs a little more"}])
    (bred,) = canaries(examined(stage, job, "--canary"))
    assert "a-much-longer-prompt" in bred["message"]
    assert [entry["charged"] for entry in server.books()] == [0, 1]


def test_no_canary_is_bought_while_there_is_a_problem(stage: Stage) -> None:
    server = lab(stage, organization={"rate_limits": {MODEL: 0}})
    (kept,) = canaries(examined(stage, night(stage), "--canary", exit_code=2))
    assert kept["message"] == "not checked (first fix the problems above)"
    assert not bought(server)
    assert not stage.output.exists()


def test_a_canary_that_fails_is_a_problem_with_what_the_server_said(stage: Stage) -> None:
    server = lab(stage, quota_images=0)
    (spent,) = canaries(examined(stage, night(stage, KINDS), "--canary", exit_code=2))
    assert "exceeded your current quota" in spent["message"]
    assert len(server.books()) == 1


def test_a_canary_obeys_the_budget(stage: Stage) -> None:
    server = lab(stage)
    (stopped,) = canaries(examined(stage, night(stage, budget_usd=0.001), "--canary", exit_code=2))
    assert "budget" in stopped["message"]
    assert not bought(server)


def test_a_canary_of_a_job_by_batch_is_made_at_once(stage: Stage) -> None:
    server = stage.serve()
    stage.provider("lab", server, rate_limit={"images": 50}, batch={"poll_seconds": [0.2, 1]})
    job = night(stage, [*CAT, {"prompt": "a dog"}], mode="batch")
    assert [one["status"] for one in canaries(examined(stage, job, "--canary"))] == ["ok"]
    assert len(server.books()) == 1
    assert not server.books("batch")
    stage.run("run", job)
    assert len(server.books()) == 1, "the rest goes by batch"
    assert [entry["charged"] for entry in server.books("batch_line")] == [1]


def test_a_canary_of_the_queue_and_of_a_route(stage: Stage) -> None:
    server = stage.serve()
    stage.settings["routes"] = {"both": ["one", "two"]}
    stage.provider("one", server, rate_limit={"images": 25})
    stage.provider("two", server, rate_limit={"images": 25})
    stage.run("submit", night(stage, [*CAT, {"prompt": "a dog"}], provider="both"))
    assert [one["status"] for one in canaries(examined(stage, "--canary"))] == ["ok"]
    assert server.charged() == 1
    assert stage.standing("night")["counts"]["pending"] == 1


def test_a_canary_beside_a_run_is_left_out(stage: Stage) -> None:
    server = lab(stage, latency_seconds=[30, 30])
    other = stage.prompts("other", 1)
    running = stage.start("run", other)
    while not stage.ask("SELECT 1 FROM attempt"):
        assert running.poll() is None
        time.sleep(0.02)
    (kept,) = canaries(examined(stage, night(stage), "--canary"))
    assert kept["message"].startswith("not checked (process ")
    running.kill()
    running.wait()
    assert not server.books()


@pytest.mark.parametrize(("given", "words"), [("0", "a whole number of at least 1"), ("many", "not `many`")])
def test_a_number_of_canaries_that_is_none_is_a_mistake(stage: Stage, given: str, words: str) -> None:
    lab(stage)
    ended = stage.run("doctor", night(stage), "--canary", given, exit_code=2)
    assert words in ended.stderr


def test_a_job_file_behind_the_option_is_no_number(stage: Stage) -> None:
    server = lab(stage)
    stage.run("doctor", "--canary", night(stage))
    assert server.charged() == 1
