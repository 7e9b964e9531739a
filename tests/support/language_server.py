"""A client of a language server: opens one document, and asks what may stand at a place and what a word means."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class LanguageServer:
    """A context manager: the server as a process of its own, asked by the Language Server Protocol over its pipes."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._numbers = iter(range(1, 1_000_000))

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.ask("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
        self._send({"method": "initialized", "params": {}})
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def open(self, path: Path, text: str) -> list[dict[str, Any]]:
        """Open a document with this text; return what is said against it."""
        self._uri = path.as_uri()
        document = {"uri": self._uri, "languageId": "yaml", "version": 1, "text": text}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        while (message := self._read()).get("method") != "textDocument/publishDiagnostics":
            pass
        return list(message["params"]["diagnostics"])

    def complete(self, line: int, column: int) -> list[str]:
        """Return the labels of what may stand at a place."""
        found = self.ask("textDocument/completion", self._place(line, column))
        return [one["label"] for one in (found["items"] if isinstance(found, dict) else found)]

    def explain(self, line: int, column: int) -> str:
        """Return what is said of the word at a place."""
        found = self.ask("textDocument/hover", self._place(line, column))
        return json.dumps(found["contents"], ensure_ascii=False) if found else ""

    def _place(self, line: int, column: int) -> dict[str, Any]:
        return {"textDocument": {"uri": self._uri}, "position": {"line": line, "character": column}}

    def ask(self, method: str, params: Any) -> Any:
        """Return the result of a request; what the server asks in the meantime is answered with nothing."""
        number = next(self._numbers)
        self._send({"id": number, "method": method, "params": params})
        while (message := self._read()).get("id") != number or "method" in message:
            pass
        return message.get("result")

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        length = 0
        while line := self._process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        message: dict[str, Any] = json.loads(self._process.stdout.read(length))
        if "method" in message and "id" in message:
            items = message["params"].get("items") if message["method"] == "workspace/configuration" else None
            self._send({"id": message["id"], "result": items and [None for _ in items]})
        return message
