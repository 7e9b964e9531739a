"""Make a job of its own from requests whose images are made again with another prompt or other parameters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadInput
from pipeline.ledger.queries import read_requests
from pipeline.ledger.redo import budget_left, read_wanted_images
from pipeline.models.table import convert
from pipeline.planning.build import JobOptions, load_models, make_plans
from pipeline.planning.python_job import make_job

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.config.load import Config
    from pipeline.ledger.job_summary import JobSummary
    from pipeline.ledger.queries import RecordedRequest
    from pipeline.ledger.redo import MadeImage
    from pipeline.models.model import Model
    from pipeline.planning.plan import ImageRequest, Plan

END = ".redo"
"""What follows the name of the job whose images are made again."""

_FIXED = frozenset({"id", "operation", "image", "mask", "fit", "resize", "matrix", "rows", "extra", "n"})


@dataclass(frozen=True, slots=True)
class Change:
    """How requests differ from those of their job: text behind the prompt, and values of parameters.

    An empty value leaves a parameter out.
    """

    prompt_suffix: str | None = None
    settings: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, prompt_suffix: str | None, settings: Sequence[str]) -> Change | None:
        """Return the change that options ask for, None if they ask for none. Raises BadInput."""
        pairs = []
        for setting in settings:
            key, sign, value = setting.partition("=")
            if not sign or not key.strip():
                raise BadInput(f"--set {setting:.100}: write it as key=value, as in --set quality=high")
            if (key := key.strip()) in _FIXED:
                raise BadInput(f"--set {key}: is no parameter of the call; edit the job file instead")
            pairs.append((key, value))
        return cls(prompt_suffix, tuple(pairs)) if prompt_suffix is not None or pairs else None

    def fields(self, request: RecordedRequest, model: Model | None) -> dict[str, Any]:
        """Return the prompt and the parameters of a request, changed, in the words of a job file."""
        set_text = dict(self.settings)
        prompt = set_text.pop("prompt", request.prompt)
        if self.prompt_suffix is not None and prompt is not None:
            prompt = f"{prompt.rstrip()} {self.prompt_suffix.strip()}"
        set_values = {key: convert(key, value, model) if value else None for key, value in set_text.items()}
        params = {key: value for key, value in {**request.params, **set_values}.items() if value is not None}
        known = {"model", *params} if model is None else {"model", *model.parameters, *set_values}
        extra = {key: params.pop(key) for key in [*params] if key not in known}
        return {**({} if prompt is None else {"prompt": prompt}), **params, **({"extra": extra} if extra else {})}


def plan_changed(
    connection: sqlite3.Connection,
    config: Config,
    job: JobSummary,
    images: Sequence[MadeImage],
    change: Change,
    staging: Path,
) -> Plan:
    """Return the plan of the job in which these images are made with the change: as many as of each request.

    A request that this job has already gets as many more. Raises BadInput.
    """
    wanted = Counter(image.request_pk for image in images)
    requests = [request for request in read_requests(connection, job.name) if request.request_pk in wanted]
    models = load_models(config, config.find_provider(job.provider))
    made = make_job(
        f"{job.name}{END}",
        [
            _entry(
                request,
                change,
                models.find(_model_name(request, change)),
                wanted[request.request_pk],
                config.output / job.name,
            )
            for request in requests
        ],
        provider=job.provider,
        budget_usd=budget_left(connection, job.name),
        mode="batch" if job.mode == "batch" else None,
    )
    (plan,) = make_plans(config, [made], JobOptions(allow_large=True), staging)
    known = read_wanted_images(connection, plan.name)
    return replace(
        plan,
        is_part=True,
        requests=[_with_more(request, *known.get(request.key, (0, "new"))) for request in plan.requests],
    )


def _model_name(request: RecordedRequest, change: Change) -> str | None:
    name = dict(change.settings).get("model", request.params.get("model"))
    return name if isinstance(name, str) else None


def _entry(request: RecordedRequest, change: Change, model: Model | None, images: int, folder: Path) -> dict[str, Any]:
    """Return a request as an entry of a job; its uploads are those that were made of its images."""
    sources = [folder / input_file["file"] for input_file in request.inputs if input_file["role"] == "image"]
    masks = [folder / input_file["file"] for input_file in request.inputs if input_file["role"] == "mask"]
    return {
        "id": request.id,
        "operation": request.operation,
        **_literal(change.fields(request, model)),
        "n": images,
        **({"image": sources} if sources else {}),
        **({"mask": masks[0]} if masks else {}),
        **({"matrix": {key: [value] for key, value in request.variables.items()}} if request.variables else {}),
    }


def _literal(value: Any) -> Any:
    """Return a value whose text no template changes: its variables are filled in already."""
    if isinstance(value, str):
        return value.replace("{{", "{{ '{{' }}")
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return {key: _literal(item) for key, item in value.items()} if isinstance(value, dict) else value


def _with_more(request: ImageRequest, n: int, status: str) -> ImageRequest:
    """Return a request for more images than the ledger wants of it: those that it has are made again, too."""
    more = n + request.n if status in {"succeeded", "partial"} else max(n, request.n)
    estimate = None if request.estimate_usd is None else request.estimate_usd * more / request.n
    return replace(request, n=more, estimate_usd=estimate)
