"""Notifications of an end, a stop and a long pause: each is sent once, and a failure changes nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.config.environment import EnvironmentVariable
from pipeline.config.load import Config, Provider
from pipeline.config.notifications import NotificationSettings
from pipeline.engine.events import (
    BatchCollected,
    BatchMoved,
    BatchSent,
    CallEnded,
    Event,
    Paused,
    ProviderDown,
    ProviderPace,
    ProviderUp,
    RequestEnded,
    RunStarted,
)
from pipeline.errors import DiskFull, QuotaSpent, ServerFault
from pipeline.notifications.notifier import Notifier
from tests.integration.test_delivery import Hook
from tests.support.stage import finish
from tests.support.virtual_time import run as run_virtually
from tests.support.workbench import until
from tests.unit.test_from_events import summary

if TYPE_CHECKING:
    from tests.support.stage import Stage

WORK = RequestEnded("lounge", "x", "succeeded", None)
ANSWER = CallEnded("lounge", "x", "lab", 1.0, None, None)


class RecordingNotifier(Notifier):
    """A notifier whose messages are kept and not delivered."""

    def __init__(self, **rules: Any) -> None:
        self.events: list[Event] = []
        self.messages: list[Any] = []
        notify = NotificationSettings(command=("tell",), **rules)
        config = Config(Path("/my night/config.yaml"), Path("/out"), None, {}, notify=notify)
        super().__init__(config, {}, self.events.append)

    def _send(self, message: Any) -> None:
        self.messages.append(message)


def told(*steps: Event | float, **rules: Any) -> list[str]:
    """Listen to events with seconds of virtual time between them; return the titles of the messages."""

    async def night() -> list[str]:
        async with RecordingNotifier(**rules) as notifier:
            for step in steps:
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    notifier.listen(step)
            return [message.title for message in notifier.messages]

    return run_virtually(night())


def test_a_pause_that_is_known_to_be_long_is_told_at_once_and_once() -> None:
    assert len(told(Paused("lab", 901.0, "slow"))) == 1
    (title,) = told(Paused("lab", 901.0, "slow"), 60.0, Paused("lab", 901.0, "slow"), 1000.0)
    assert title.startswith("paused: no images from lab since ")
    assert "until" in title


def test_many_short_pauses_without_an_answer_are_one_long_one() -> None:
    short = [step for _ in range(20) for step in (Paused("lab", 50.0, "slow"), 60.0)]
    assert told(*short[:28]) == []
    assert len(told(*short)) == 1


def test_an_answer_ends_a_pause_and_the_next_one_is_told_again() -> None:
    pause: list[Event | float] = [ProviderDown("lab", "gone"), 890.0, ANSWER]
    assert told(*pause, *pause) == []
    assert len(told(ProviderDown("lab", "gone"), 910.0, ANSWER, ProviderDown("lab", "gone"), 910.0)) == 2
    failed = CallEnded("lounge", "x", "lab", 1.0, None, ServerFault("busy"))
    assert len(told(ProviderDown("lab", "gone"), 600.0, failed, 310.0)) == 1
    other = CallEnded("lounge", "x", "other", 1.0, None, None)
    assert len(told(ProviderDown("lab", "gone"), 600.0, other, 310.0)) == 1


def test_an_answer_to_a_call_that_was_sent_before_a_pause_does_not_end_it() -> None:
    asked = ProviderPace("lab", "paused", time.time() + 901, 50, 60.0, 0, None)
    assert len(told(Paused("lab", 901.0, "slow"), ANSWER, asked, 1.0)) == 1


def test_a_pause_that_an_earlier_run_was_told_is_told_too() -> None:
    assert len(told(ProviderPace("lab", "paused", time.time() + 1000, 50, 60.0, 0, None))) == 1
    assert told(ProviderPace("lab", "limit", None, 50, 60.0, 0, None), 1000.0) == []


def test_how_long_a_long_pause_is_can_be_said() -> None:
    assert len(told(ProviderDown("lab", "gone"), 61.0, pause_minutes=1.0)) == 1
    assert told(ProviderDown("lab", "gone"), 61.0, pause_minutes=2.0) == []


async def test_a_run_that_had_nothing_to_do_is_no_news() -> None:
    async with RecordingNotifier() as notifier:
        notifier.listen(RunStarted(()))
        notifier.ended(0, [summary()], [])
        assert notifier.messages == []
        notifier.listen(WORK)
        notifier.ended(0, [summary()], [])
    assert [message.moment for message in notifier.messages] == ["end"]
    assert notifier.events == [RunStarted(()), WORK], "every event is passed on"
    assert notifier.messages[0].facts["command"] == "pipeline run --config '/my night/config.yaml' --output /out"


async def _fall(notifier: Notifier, event: Event, error: BaseException) -> None:
    """Listen to an event, then end the run by this error while a delivery may be in progress."""
    async with notifier:
        notifier.listen(event)
        await asyncio.sleep(0.2)
        raise error


async def test_an_error_that_ends_a_run_is_told_and_a_cancelled_run_waits_for_nobody() -> None:
    notifier = RecordingNotifier()
    with pytest.raises(DiskFull):
        await _fall(notifier, RunStarted(("lounge",)), DiskFull("no room"))
    assert [message.moment for message in notifier.messages] == ["stop"]
    notifier = RecordingNotifier()
    with pytest.raises(asyncio.CancelledError):
        await _fall(notifier, RunStarted(("lounge",)), asyncio.CancelledError())
    assert notifier.messages == []


def _bell(command: tuple[str, ...], events: list[Event], environment: dict[str, str], **rules: Any) -> Notifier:
    secret = EnvironmentVariable("LAB_SECRET")
    providers = {
        "lab": Provider(
            "lab", "http://x/v1", api_key_env="LAB_KEY", headers={"X-A": secret, "X-B": EnvironmentVariable("LANG")}
        )
    }
    config = Config(None, Path("/out"), None, providers, notify=NotificationSettings(command=command, **rules))
    return Notifier(config, environment, events.append)


async def test_a_command_is_not_given_the_keys(tmp_path: Path) -> None:
    target = tmp_path / "told"
    code = f"import os; open({str(target)!r}, 'w').write(repr(dict(os.environ)))"
    secrets = {"LAB_KEY": "k-1", "LAB_SECRET": "k-2", "OTHER_TOKEN": "k-3", "LANG": "k-4", "https_proxy": "k-5"}
    events: list[Event] = []
    async with _bell((sys.executable, "-c", code), events, {**os.environ, **secrets}) as notifier:
        notifier.listen(WORK)
        notifier.ended(0, [summary()], [])
    assert events == [WORK]
    assert "PATH" in target.read_text()
    assert not any(secret in target.read_text() for secret in secrets.values())


async def test_only_the_moments_that_were_asked_for_are_told(tmp_path: Path) -> None:
    code = f"import json, sys; open({str(tmp_path)!r} + '/' + json.load(sys.stdin)['moment'], 'w')"
    async with _bell((sys.executable, "-c", code), [], dict(os.environ), on=frozenset({"stop"})) as notifier:
        notifier.listen(WORK)
        notifier.ended(0, [summary()], [])
        notifier.ended(3, [summary()], [QuotaSpent("no money")])
    assert os.listdir(tmp_path) == ["stop"]  # noqa: PTH208 - names alone


async def test_who_stops_at_once_does_not_wait_for_a_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.notifications.delivery.SECONDS", 1000.0)
    began = time.monotonic()
    notifier = _bell((sys.executable, "-c", "import time; time.sleep(1000)"), [], dict(os.environ))
    with pytest.raises(asyncio.CancelledError):
        await _fall(notifier, Paused("lab", 3600.0, "slow"), asyncio.CancelledError())
    assert time.monotonic() - began < 60


async def test_a_whole_run_tells_a_webhook_of_its_end_and_repeats_no_secret(stage: Stage) -> None:
    hook = Hook(200)
    stage.provider("lab", stage.serve(rate_limit=None))
    async with hook.at_work() as url:
        stage.settings["notify"] = {"webhook": f"{url}/secret-topic", "template": "ntfy"}
        stage.write_config()
        ended = await asyncio.to_thread(stage.run, "run", stage.prompts("lounge", 2), key="sk-stage-0123456789")
        again = await asyncio.to_thread(stage.run, "run", stage.prompts("lounge", 2))
    ((_, body, _),) = hook.told
    assert (body["topic"], body["title"]) == ("secret-topic", "ended: lounge, 2 images")
    written = [path.read_bytes() for path in stage.output.rglob("*") if path.is_file()]
    said = [ended.stdout.encode(), ended.stderr.encode(), again.stderr.encode()]
    assert not any(b"secret-topic" in content for content in [*written, *said])
    assert "sk-stage" not in json.dumps(body)


@pytest.mark.parametrize("quiet", [True, False])
def test_a_notice_that_fails_is_a_line_on_stderr_and_in_the_log_and_the_exit_stays(stage: Stage, quiet: bool) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.settings["notify"] = {"webhook": "http://127.0.0.1:9/secret-topic"}
    stage.write_config()
    ended = stage.run("run", stage.prompts("lounge", 2), *(["--quiet"] if quiet else []))
    line = "! notification by webhook failed: 127.0.0.1 cannot be reached: ClientConnectorError"
    assert [one for one in ended.stderr.splitlines() if "failed" in one] == [line]
    log = (stage.output / "run.log").read_text()
    assert line in log
    assert "secret-topic" not in log


def test_a_stop_and_a_signal_are_told_to_a_command(stage: Stage) -> None:
    code = "import json, sys; print(json.dumps(json.load(sys.stdin)), file=open('told.jsonl', 'a'))"
    stage.settings["notify"] = {"command": [sys.executable, "-c", code]}
    stage.provider("lab", stage.serve(rate_limit=None, quota_images=1, latency_seconds=[0.2, 0.2]), concurrency=1)
    stage.run("run", stage.prompts("lounge", 3), exit_code=3)
    server = stage.serve(rate_limit=None, latency_seconds=[0.3, 0.3])
    stage.provider("lab", server, concurrency=1)
    process = stage.start("run", stage.prompts("birds", 20))
    while not server.books():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert finish(process).exit_code == 143
    first, second = map(json.loads, (stage.folder / "told.jsonl").read_text().splitlines())
    assert (first["moment"], first["exit"], first["jobs"][0]["counts"]["pending"]) == ("stop", 3, 2)
    assert "quota" in first["stops"][0]
    assert first["command"] == f"pipeline run --config {stage.folder}/config.yaml --output {stage.output}"
    assert (second["moment"], second["signal"], second["exit"]) == ("stop", "SIGTERM", 143)


def test_a_webhook_whose_variable_is_unset_is_exit_2_before_anything_is_called(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.settings["notify"] = {"webhook": {"env": "NO_SUCH_HOOK"}}
    stage.write_config()
    assert "$NO_SUCH_HOOK" in stage.run("run", stage.prompts("lounge", 2), exit_code=2).stderr
    assert not stage.output.exists()
    stage.run("submit", "lounge.yaml")
    assert "$NO_SUCH_HOOK" in stage.run("resume", exit_code=2).stderr


async def test_a_pause_is_told_while_the_run_goes_on(stage: Stage) -> None:
    hook = Hook(200)
    server = stage.serve(rate_limit={"images": 1, "per_seconds": 3})
    stage.provider("lab", server)
    async with hook.at_work() as url:
        stage.settings["notify"] = {"webhook": url, "on": ["pause"], "pause_minutes": 0.01}
        stage.write_config()
        process = stage.start("run", stage.prompts("lounge", 2))
        await until(lambda: hook.told)
        assert process.poll() is None
        ended = await asyncio.to_thread(finish, process)
    assert ended.exit_code == 0
    ((_, body, _),) = hook.told
    assert (body["moment"], body["provider"]) == ("pause", "lab")


def test_waiting_for_a_batch_is_no_stall_whatever_came_before_it() -> None:
    sent = BatchSent("batch_1", "lab", "m", 100, 100)
    moves: list[Event | float] = [
        step for made in range(30) for step in (BatchMoved("batch_1", "in_progress", made, 0), 3000.0)
    ]
    waiting = ProviderPace("lab", "", None, 50, 60.0, 0, None)
    assert told(sent, waiting, *moves, BatchCollected("batch_1", 100, 0, 0, 1.0)) == []
    assert told(ProviderDown("lab", "gone"), 60.0, ProviderUp("lab", 60.0), *moves) == []
    assert told(Paused("lab", 0.0, "slow"), 3.0, sent, *moves) == []
    assert len(told(ProviderDown("lab", "gone"), *moves)) == 1, "a service that does not answer is one"
