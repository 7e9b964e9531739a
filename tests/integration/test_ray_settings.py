"""What is wrong with Ray or with `workers:` is said before anything is changed or anybody is called."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline.config.load import Provider
from pipeline.ray.node_checks import answer_file, find_difference, find_hindrances, find_unreachable, question_file
from pipeline.ray.start import find_address_fault

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.stage import Stage


def refused(stage: Stage, *options: str) -> str:
    """Run a job that is refused, and return what is said."""
    server = stage.serve()
    stage.provider("lab", server)
    ended = stage.run("run", stage.prompts("job", 1), *options, exit_code=2)
    assert server.books() == []
    (line,) = [line for line in ended.stderr.splitlines() if not line.startswith("warning: ")]
    return line


def test_without_ray_one_sentence_says_what_to_install(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert refused(stage, "--on", "ray") == (
        'error: workers need Ray, which is not installed: pip install "image-batch-pipeline[ray]"'
    )
    assert not stage.output.exists()


def test_a_named_address_where_nobody_answers_never_falls_back(stage: Stage) -> None:
    pytest.importorskip("ray")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        stage.settings["workers"] = {"address": f"127.0.0.1:{closed.getsockname()[1]}"}
        assert "no Ray answers at 127.0.0.1:" in refused(stage)


def test_auto_means_the_variable_and_never_falls_back(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    stage.settings["workers"] = {"address": "auto"}
    assert "no Ray answers at 127.0.0.1:1" in refused(stage)


def test_on_local_makes_the_calls_here_whatever_the_config_says(stage: Stage) -> None:
    stage.settings["workers"] = {"address": "127.0.0.1:1"}
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("run", stage.prompts("job", 2), "--on", "local")
    assert stage.check_files("job") == 2


def test_a_port_that_takes_connections_and_is_silent_is_found() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        fault = find_address_fault(f"127.0.0.1:{silent.getsockname()[1]}", 0.2)
    assert fault == "it does not answer within 0 seconds"


def test_a_port_of_another_server_is_found_at_once(stage: Stage) -> None:
    pytest.importorskip("ray")
    stage.within = True
    stage.settings["workers"] = {"address": f"127.0.0.1:{stage.serve().port}"}
    assert "what answers there is not Ray; start it with `ray start`, or correct the address" in refused(stage)


def test_a_node_says_which_variables_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_KEY", raising=False)
    provider = Provider("lab", "http://lab.example/v1", "LAB_KEY")
    (fault,) = find_hindrances("me", [provider], None, "n")
    assert "provider `lab` takes its key from $LAB_KEY, which is unset or empty" in fault
    monkeypatch.setenv("LAB_KEY", "sk-1")
    assert find_hindrances("me", [provider], None, "n") == []


def test_a_folder_that_is_not_shared_is_found_by_its_nonce(tmp_path: Path) -> None:
    (fault,) = find_hindrances("me", [], tmp_path, "nonce")
    assert f"{tmp_path} is not the folder that the run writes to" in fault
    question_file(tmp_path, "nonce").write_text("another")
    assert find_hindrances("me", [], tmp_path, "nonce") == [fault]
    question_file(tmp_path, "nonce").write_text("nonce")
    assert find_hindrances("me", [], tmp_path, "nonce") == []
    assert answer_file(tmp_path, "nonce", "me").read_text() == "nonce me"


OWN = {"program": "0.2.0", "python": "3.11.7", "ray": "2.60.0", "machine": "here"}


def test_a_node_with_other_versions_is_named_with_each_of_them() -> None:
    assert find_difference(OWN, OWN) is None
    other = {**OWN, "program": None, "python": "3.12.1"}
    assert find_difference(OWN, other) == (
        "has image-batch-pipeline (none) in place of 0.2.0, Python 3.12.1 in place of 3.11.7"
    )


def test_loopback_and_the_sandbox_are_for_workers_of_this_machine() -> None:
    sandbox = Provider("sandbox", None, sandbox={})
    here, there = Provider("here", "http://localhost:8080/v1"), Provider("there", "https://api.example/v1")
    assert find_unreachable(OWN, OWN, [sandbox, here, there]) == []
    faults = find_unreachable(OWN, {**OWN, "machine": "there"}, [sandbox, here, there])
    assert ["`sandbox`" in faults[0], "`here`" in faults[1], len(faults)] == [True, True, 2]
