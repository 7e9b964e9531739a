"""An error that is a bug is printed with its traceback and without keys, whatever state the program is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pipeline.cli.error_output import EXIT_BUG, print_error
from pipeline.cli.options import Options

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sk-a-secret"


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    monkeypatch.setenv("LAB_KEY", KEY)
    options = Options()
    options.config = tmp_path / "config.yaml"
    options.config.write_text("providers: {lab: {base_url: 'http://127.0.0.1/v1', api_key_env: LAB_KEY}}\n")
    return options


def _print_bug(options: Options) -> int:
    try:
        int(KEY)
    except ValueError as error:
        return print_error(error, options)
    return 0


@pytest.mark.parametrize("is_loaded", [False, True])
def test_a_traceback_holds_no_key(options: Options, is_loaded: bool, capsys: pytest.CaptureFixture[str]) -> None:
    if is_loaded:
        options.load()
        assert options.config is not None
        options.config.unlink()
    assert _print_bug(options) == EXIT_BUG
    assert "ValueError: invalid literal for int() with base 10: '***'" in capsys.readouterr().err


def test_a_config_that_fails_meanwhile_hides_no_error(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("pipeline.config.load.load", fail)
    assert _print_bug(options) == EXIT_BUG
    assert "ValueError: invalid literal" in capsys.readouterr().err
