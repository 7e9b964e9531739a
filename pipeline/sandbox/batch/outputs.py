"""Write the two files of a batch line by line, so that a killed process can go on behind the last recorded line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pipeline.sandbox.request_body import parse_json

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType
    from typing import BinaryIO, Self

    from pipeline.sandbox.batch.records import Batch, BatchStore
    from pipeline.sandbox.batch_settings import LineFault

Kind: TypeAlias = Literal["output", "error"]
KINDS: Final[tuple[Kind, ...]] = ("output", "error")


def read_line(path: Path, start: int) -> dict[str, object]:
    """Return the line that begins there; it has been validated. Raises OSError."""
    with path.open("rb") as file:
        file.seek(start)
        return parse_json(file.readline().rstrip(b"\r\n"))


def answered_line(rng: random.Random, custom_id: str, status: int, body: bytes) -> bytes:
    """Return the line of a request that was answered, well or not; `body` is the JSON of the answer."""
    request = {"status_code": status, "request_id": f"{rng.getrandbits(128):032x}"}
    head = json.dumps({"id": _line_id(rng), "custom_id": custom_id})
    return (
        head[:-1].encode()
        + b', "response": '
        + json.dumps(request)[:-1].encode()
        + b', "body": '
        + (body + b'}, "error": null}')
    )


def unanswered_line(rng: random.Random, custom_id: str, code: str, message: str) -> bytes:
    """Return the line of a request that was never worked."""
    error = {"code": code, "message": message}
    return json.dumps({"id": _line_id(rng), "custom_id": custom_id, "response": None, "error": error}).encode()


def _line_id(rng: random.Random) -> str:
    return f"batch_req_{rng.getrandbits(128):032x}"


def damaged(line: bytes, fault: LineFault | None) -> bytes:
    """Return what is written of a line, with its line break."""
    match fault:
        case "lines_missing":
            return b""
        case "duplicate_line":
            return line + b"\n" + line + b"\n"
        case "malformed_line":
            return line[: len(line) // 2] + b"\n"
        case None:
            return line + b"\n"


class Outputs:
    """The two unfinished files of a batch, open for appending."""

    def __init__(self, store: BatchStore, batch: Batch) -> None:
        """Open the files and cut off what was written behind the last recorded line. Raises OSError."""
        self._batch = batch
        self._files: dict[str, BinaryIO] = {kind: store.part(batch, kind).open("ab") for kind in KINDS}
        for kind, size in (("output", batch.output_bytes), ("error", batch.error_bytes)):
            self._files[kind].truncate(size)
            self._files[kind].seek(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for file in self._files.values():
            file.close()

    def write(self, kind: Kind, lines: Iterable[bytes]) -> None:
        """Append lines, and note the size of the file in the batch, which is not recorded yet. Raises OSError."""
        file = self._files[kind]
        file.writelines(lines)
        file.flush()
        if kind == "output":
            self._batch.output_bytes = file.tell()
        else:
            self._batch.error_bytes = file.tell()
