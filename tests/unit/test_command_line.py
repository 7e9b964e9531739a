"""The command line in this process: what it refuses, and what it prints of texts from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.main import main
from pipeline.errors import ConfigError
from pipeline.planning.build import JobOptions

JOB = "provider: sandbox\ndefaults: {model: dall-e-2, size: 256x256}\nrequests:\n  - {prompt: a}\n"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPELINE_CONFIG", raising=False)


def code_of(*arguments: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


@pytest.mark.parametrize("command", ["run", "resume"])
@pytest.mark.parametrize("amount", ["nan", "-nan", "inf", "-inf", "1e400", "-1", "-0.01", "1e13"])
def test_a_budget_that_is_no_wall_is_refused(command: str, amount: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(command, "--budget", amount) == 2
    assert "'--budget': must be a number of at " in capsys.readouterr().err
    assert not Path("outputs").exists()


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "0", "1e400"])
def test_status_is_not_watched_at_a_pace_that_is_none(seconds: str) -> None:
    assert code_of("status", "--watch", seconds) == 2


@pytest.mark.parametrize(
    "options",
    [
        *({"budget_usd": amount} for amount in (float("nan"), float("inf"), -0.01, True, "1", 10**400)),
        *({"limit": number} for number in (0, -1, 1.5, float("nan"), True, 10**30)),
    ],
)
def test_options_made_in_python_are_numbers_in_their_range(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"^(limit|budget_usd): must be a (whole )?number of at (least|most) "):
        JobOptions(**options)  # type: ignore[arg-type]


def test_a_limit_beyond_any_number_of_requests_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    Path("j.yaml").write_text(JOB)
    assert code_of("plan", "j.yaml", "--allow-large", "--limit", str(10**30)) == 2
    assert "limit: must be a whole number of at most 1,000,000,000,000" in capsys.readouterr().err
