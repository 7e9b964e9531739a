"""The command line in this process: what it refuses, and what it prints of texts from outside."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.command_table import COMMANDS
from pipeline.cli.main import cli, main
from pipeline.errors import ConfigError
from pipeline.planning.build import JobOptions
from pipeline.printable import printable, printable_json
from tests.support.readme import PACKAGE

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


def test_an_option_says_what_it_takes_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("run", "--budget", "5usd") == 2
    assert "'--budget': takes US dollars, such as 5 or 0.50, not '5usd'" in capsys.readouterr().err
    assert code_of("plan", "x.yaml", "--limit", "0") == 2
    assert "'--limit': must be a whole number of at least 1, not 0" in capsys.readouterr().err
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
    assert "'--limit': must be a whole number of at most 1,000,000,000,000" in capsys.readouterr().err


# --- The table of commands


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_names_each_command_as_it_is_called_with_a_line_that_fits_in_80_columns(name: str) -> None:
    command, (_, line) = cli.commands[name], COMMANDS[name]
    assert command.name == name
    assert command.short_help is None, "its line in the table is the one that is shown"
    assert line.endswith(".")
    assert 2 + max(map(len, COMMANDS)) + 2 + len(line) <= 80


def test_a_command_that_is_spelled_wrong_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("stats") == 2
    assert "'status'" in capsys.readouterr().err


# --- Text from outside

EVIL = "a\x1bc\x07\x9b2J\u202eb\u2028\x85\r\x7f\n\udcff"
ESCAPED = r"a\x1bc\x07\x9b2J\u202eb\u2028\x85\r\x7f\n\xff"
JOBS: dict[str, dict[str, Any]] = {
    "keys": {"requests": [{"prompt": "a", EVIL: 1}], EVIL: 1},
    "names": {"name": EVIL, "provider": EVIL, "requests": [{"prompt": "a", "id": EVIL}]},
    "fields": {
        "defaults": {"model": EVIL, "size": EVIL},
        "requests": [
            {"prompt": "a", key: EVIL} for key in ("operation", "fit", "resize", "image", "mask", "rows", "n")
        ],
    },
    "known": {
        "defaults": {"model": "gpt-image-2"},
        "requests": [{"prompt": "{{ x }}" + EVIL, "size": EVIL, "quality": EVIL, "extra": {EVIL: EVIL, "n": 1}}],
    },
    "matrix": {"requests": [{"prompt": "{{ y }}{{ 1|x }}", "matrix": {EVIL: [EVIL]}}]},
    "warned": {"defaults": {"model": EVIL}, "requests": [{"prompt": "a", "\x1bc\x9b": EVIL}]},
}


def test_a_text_from_outside_is_printed_with_its_control_characters_escaped() -> None:
    assert printable(EVIL) == ESCAPED
    assert printable(kept := "caf\u00e9 \u65e5\u672c\u3000\U0001f469\u200d\U0001f680 \u2192\u00a0") == kept
    assert json.loads(printable_json({EVIL: [EVIL, "\u00e9"]})) == {EVIL: [EVIL, "\u00e9"]}
    assert printable_json(EVIL).isprintable()


@pytest.mark.parametrize("kind", JOBS)
@pytest.mark.parametrize("options", [["plan"], ["plan", "--json"], ["submit", "--verbose"]], ids=" ".join)
def test_nothing_that_a_job_file_holds_commands_the_terminal(
    kind: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("j.yaml").write_text(json.dumps({"provider": "sandbox", **JOBS[kind]}).replace(r"\udcff", ""))
    code = code_of(*options, "j.yaml")
    said = "".join(capsys.readouterr())
    assert code == (0 if kind == "warned" else 2), said
    assert all(line.isprintable() for line in said.split("\n")), said
    assert r"\x1bc" in said or r"\u001bc" in said or kind == "matrix"


@pytest.mark.parametrize(
    "arguments",
    [
        *(["plan", EVIL], ["status", EVIL], ["resume", EVIL], ["report", EVIL], [EVIL], ["plan", f"--{EVIL}"]),
        *(["--config", EVIL, "status"], ["--output", EVIL, "manifest", "j"], ["run", "--budget", EVIL]),
        *(["status", "--watch", EVIL], ["plan", "j.yaml", "--provider", EVIL], ["serve", "--port", EVIL]),
    ],
    ids=repr,
)
def test_nothing_on_the_command_line_commands_the_terminal(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("j.yaml").write_text(JOB)
    assert code_of(*arguments) == 2
    said = "".join(capsys.readouterr())
    assert r"\x1bc" in said
    assert all(line.isprintable() for line in said.split("\n")), said


def test_a_text_reaches_a_terminal_only_through_the_functions_that_escape_it() -> None:
    printing = re.compile(r"click\.echo\(|(?<![\w.])print\(|std(?:out|err)\.write\(")
    found = [
        f"{path.relative_to(PACKAGE).as_posix()}: {line.strip()}"
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text().splitlines()
        if printing.search(line) and "printable" not in line
    ]
    assert [line for line in found if not line.startswith("sandbox/__main__.py: ")] == []
