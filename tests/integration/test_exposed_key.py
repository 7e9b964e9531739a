"""A key that travels without encryption in a private network is told once in a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.stage import Stage

LINE = "! lab: the key is sent to gpu.lan without encryption; use https://, or set `insecure: true`"


@pytest.mark.parametrize("insecure", [False, True])
def test_it_is_a_line_on_stderr_and_in_the_log(stage: Stage, monkeypatch: pytest.MonkeyPatch, insecure: bool) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # where nothing listens, so that no name is looked up
    stage.settings["retry"] = {"outage_hours": 0, "start_minutes": 0}
    stage.provider("lab", "http://gpu.lan/v1", insecure=insecure)
    ended = stage.run("run", stage.prompts("lounge", 2), stage.prompts("birds", 2), exit_code=3)
    told = [line for line in ended.stderr.splitlines() if "encryption" in line]
    assert told == ([] if insecure else [LINE])
    assert (stage.output / "run.log").read_text().count(LINE) == len(told)


def test_on_the_open_net_nothing_is_queued(stage: Stage) -> None:
    stage.provider("lab", "http://api.example/v1")
    assert "write https://" in stage.run("run", stage.prompts("lounge", 2), exit_code=2).stderr
    assert not stage.output.exists()
