"""Any job, rows file or config is planned or refused with sentences: no traceback, no hang, no swelling, no raw ESC."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import string
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli.main import main
from pipeline.planning.expressions import FILTER_NAMES, METHOD_NAMES
from pipeline.planning.job_schema import RESERVED

SECONDS = 3.0
"""CPU time of one command, at most, on a machine at work."""

MEGABYTES = 400
"""Growth of the process's memory over all examples, at most."""

WORDS = (
    *(
        "",
        " ",
        "a",
        "cat",
        "\x1bc\x07\x9b2J",
        "\u202eevil",
        "\0",
        "\0{% for i in [1] %\0}",
        "\ud83c",
        "\U0001f3a8",
        "x" * 3000,
    ),
    *(
        "../../etc/passwd",
        "/proc/self/environ",
        "/dev/zero",
        "fifo",
        "loop",
        "file:///etc/passwd",
        "https://x/y.png",
        "~",
        "*",
    ),
    *(
        "nan",
        "-inf",
        "1e999",
        "1024x1024",
        "0x0",
        "9" * 400,
        "{{",
        "}}",
        "{{ x }}",
        "{{ x|",
        "{{" + " " * 3000,
        "-rf",
        "--help",
    ),
    *(
        "submit.lock",
        "ledger",
        "con",
        "gpt-image-2",
        "dall-e-2",
        "dall-e-3",
        "edit",
        "variation",
        "crop",
        "sandbox",
        "openai",
    ),
)
NUMBERS = (0, 1, -1, 10, 11, 10**6, 10**12, 10**30, -(10**30), 0.5, 1e308, True, False, None)
KEYS = (
    *sorted(RESERVED),
    "output_format",
    "output_compression",
    "background",
    "stream",
    "name",
    "x-a",
    "\x1b[2J",
    "promt",
)
ROWS = ("rows.csv", "rows.tsv", "rows.jsonl", "rows.txt", "fifo", "zero.txt", "environ.txt", "loop.csv", "folder.txt")
SECTIONS = (
    "retry",
    "download",
    "notify",
    "models",
    "rate_limit",
    "headers",
    "sandbox",
    "query",
    "dialect",
    "providers",
)


class Fuzz:
    """Draws hostile values; the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.wildness = self.random.choice((0.0, 0.1, 1.0))  # of this example

    def is_tame(self) -> bool:
        """Whether the next value is one that people write."""
        return self.random.random() >= self.wildness

    def word(self) -> str:
        """A word, or a template, or random letters."""
        if self.is_tame():
            return self.random.choice(("cat", "a dog", "1024x1024", "{{ prompt }}", self.expression()))
        return self.random.choice(
            (self.random.choice(WORDS), self.random.choice(WORDS), self.expression(), self.letters())
        )

    def letters(self) -> str:
        alphabet = string.printable + "\x1b\x9b\u202e\u2028\x85\ufeff\u00e9\U0001f469\\\"'{}[]:,#&*!|>%@`"
        return "".join(self.random.choices(alphabet, k=self.random.randrange(20)))

    def expression(self) -> str:
        """A template of a few filters, methods and operators."""
        text = self.random.choice(("x", "prompt", "'a'", "[1, 2]", "900*900*900", "long", "{'a': x}", "x ~ x", "x + x"))
        for _ in range(self.random.randrange(6)):
            step = self.random.choice(
                ("|{f}", "|{f}({a})", ".{m}({a})", "[{a}]", " ~ x", " * 9", " ** 9", "|map('{f}')|list")
            )
            text += step.format(
                f=self.random.choice((*sorted(FILTER_NAMES), "batch", "tojson", "center")),
                m=self.random.choice((*sorted(METHOD_NAMES), "format", "zfill", "translate")),
                a=self.random.choice(("", "9", "999999999", "'a'", "x", "long", "'a', long", "attribute='a'", "0:9")),
            )
        return f"{self.random.choice(('', 'a ', '{{ '))}{{{{ {text} }}}}"

    def value(self, depth: int = 2) -> Any:
        """Any value of YAML."""
        kind = self.random.random()
        if kind < 0.55 or not depth:
            return self.word() if self.random.random() < 0.7 else self.random.choice(NUMBERS)
        if kind < 0.75:
            return [self.value(depth - 1) for _ in range(self.random.randrange(3))]
        return {
            self.random.choice((self.word(), *KEYS)): self.value(depth - 1) for _ in range(self.random.randrange(3))
        }

    def request(self) -> Any:
        """A request that is nearly right, or anything."""
        if self.random.random() < 0.1 * self.wildness:
            return self.value()
        found: dict[str, Any] = {"prompt": self.word()}
        if self.random.random() < 0.5:
            found["matrix"] = {"x": ["cat", self.word()], "long": ["a" * 3000]}
        if self.random.random() < 0.4:
            found["rows"] = "rows.csv" if self.is_tame() else self.random.choice(ROWS)
        for _ in range(0 if self.is_tame() else self.random.randrange(3)):
            found[self.random.choice(KEYS)] = self.value()
        return found

    def job(self) -> Any:
        """A job, as a value."""
        found: dict[str, Any] = {"requests": [self.request() for _ in range(self.random.randrange(1, 4))]}
        if self.is_tame():
            found.update(
                provider="sandbox", defaults={"model": self.random.choice(("dall-e-2", "gpt-image-2", "mine"))}
            )
        for key in ("name", "budget_usd", "defaults", "provider", self.word()):
            if self.random.random() < 0.08 * self.wildness:
                found[key] = self.value()
        return found

    def config(self) -> Any:
        """A config, as a value."""
        lab = {
            self.random.choice(("base_url", "timeout_seconds", "concurrency", *SECTIONS)): self.value()
            for _ in range(2)
        }
        found = {"providers": {"sandbox": {"sandbox": self.random.choice((True, True, self.value()))}, "lab": lab}}
        if self.random.random() < 0.6:
            del found["providers"]["lab"]
        for key in (*SECTIONS[:4], "output", "provider", "budget_usd", self.word()):
            if self.random.random() < 0.1:
                found[key] = self.value()
        return found

    def file(self, value: Any) -> bytes:
        """The bytes of a file: YAML or JSON, at times damaged."""
        form = self.random.random()
        text = json.dumps(value) if form < 0.5 else yaml.safe_dump(value, allow_unicode=form < 0.75)
        content = text.encode("utf-8", "surrogatepass")
        for _ in range(0 if self.is_tame() else self.random.choice((0, 1, 3))):
            place = self.random.randrange(len(content) + 1)
            damage = self.random.choice((b"", b"\x00", b"\xff", b'"', b"{", b"\n- ", b"&a *a", b"\\ud83c", b"<<: *a"))
            content = content[:place] + damage + content[place + self.random.randrange(3) :]
        return content

    def rows(self) -> bytes:
        """The bytes of a rows file."""
        if self.is_tame():
            return f"prompt,x\na cat,{self.random.randrange(9)}\n".encode()
        lines = [
            self.random.choice(("prompt,x", "prompt\tx", '{"prompt": "a", "x": 1}', "a", "", '"', "\ufeffprompt;x"))
        ]
        for _ in range(self.random.randrange(4)):
            cells = [self.word(), self.word()]
            line = self.random.choice(
                (",".join(cells), "\t".join(cells), json.dumps(dict(zip("px", cells, strict=True))))
            )
            lines.append(
                self.random.choice((line, '{"prompt": NaN}', '{"prompt": 1e999}', '{"x": "\\ud83c"}', "[" * 2000))
            )
        content = self.random.choice(("\n", "\r\n", "\r")).join(lines).encode("utf-8", "surrogatepass")
        return content if self.random.random() < 0.9 else content.decode("utf-8", "replace").encode("utf-16")


def lay_out(folder: Path) -> None:
    """Make the files that are no ordinary ones."""
    os.mkfifo(folder / "fifo")
    (folder / "loop.csv").symlink_to("loop.csv")
    (folder / "zero.txt").symlink_to("/dev/zero")
    (folder / "environ.txt").symlink_to("/proc/self/environ")
    (folder / "folder.txt").mkdir()


def run_one(fuzz: Fuzz, number: int) -> str:
    """Write the files of one example and plan them; return the codes and what was printed."""
    for name in ROWS[:4]:
        Path(name).write_bytes(fuzz.rows())
    Path("j.yaml").write_bytes(fuzz.file(fuzz.job()))
    Path("c.yaml").write_bytes(
        fuzz.file(fuzz.config() if number % 4 == 0 else {"output": "out", "provider": "sandbox"})
    )
    out, err = io.StringIO(), io.StringIO()
    arguments = ["--config", "c.yaml", "plan", "j.yaml", *fuzz.random.choice(([], ["--json"], ["--limit", "3"]))]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as caught:
        main(arguments)
    said = out.getvalue() + err.getvalue()
    assert caught.value.code in {0, 2}, said
    assert "Traceback" not in said
    assert "sk-a-secret" not in said
    assert all(line.isprintable() or line.replace("\u3000", "").isprintable() for line in said.split("\n")), said
    assert len(said) < 1_000_000
    return said if caught.value.code else ""


def hold(examples: int, seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan so many examples, and hold each to its time and all to their memory."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-secret")
    lay_out(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    planned = 0
    for number in range(examples):
        begin = time.process_time()
        planned += not run_one(Fuzz(seed * 1_000_000 + number), number)
        assert time.process_time() - begin < SECONDS, (seed, number)
    assert planned > examples // 50, "hardly an example is right: the fuzz reaches little"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_any_input_is_planned_or_refused_with_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(240, 1, tmp_path, monkeypatch)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(2, 6))
def test_25_000_inputs_are_planned_or_refused_with_sentences(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(25_000, seed, tmp_path, monkeypatch)
