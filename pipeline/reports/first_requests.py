"""Shows the first requests of a plan as they will be asked: id, operation, model, size, number and prompt."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from pipeline.reports.facts import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.planning.plan import ImageRequest
    from pipeline.reports.forms import FirstRequest

_SHOWN = 3
_MAX_PROMPT = 100  # characters of a prompt that people are shown


def first_requests_json(requests: Sequence[ImageRequest]) -> list[FirstRequest]:
    """Return the first requests as `plan --json` shows them, with their whole prompts."""
    return [
        {
            "id": request.id,
            "operation": request.operation,
            "model": request.params.get("model"),
            "size": request.params.get("size"),
            "n": request.n,
            "prompt": request.prompt,
            "inputs": [input_file.source for input_file in request.inputs],
        }
        for request in requests[:_SHOWN]
    ]


def first_request_lines(first: Sequence[Mapping[str, Any]], last_id: str | None, total: int) -> Iterator[str]:
    """Yield the first requests for people, then the id of the last one if there are more."""
    for number, request in enumerate(first, start=1):
        size = str(request["size"] or "default size")  # of a model without rules it may be any value
        facts = [request["operation"], request["model"] or "no model", size]
        inputs = f" of {', '.join(request['inputs'])}" if request["inputs"] else ""
        yield f"  {number}. {request['id']}: {', '.join(facts)}, {counted(request['n'], 'image')}{inputs}"
        if request["prompt"]:
            yield f"     {_shortened(request['prompt'])}"
    if total > len(first):
        yield f"  … {total:,}. {last_id}"


def _shortened(prompt: str) -> str:
    """Return a prompt on one line, cut at a word, or within one that is too long itself."""
    text = " ".join(prompt.split())
    if len(text) <= _MAX_PROMPT:
        return text
    cut = textwrap.shorten(text, _MAX_PROMPT, placeholder=" …")
    return cut if len(cut) > _MAX_PROMPT // 2 else f"{text[: _MAX_PROMPT - 1]}…"
