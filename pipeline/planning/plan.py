"""A plan: the checked requests of one job, each with its content key and id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.config.load import Provider
    from pipeline.planning.input_files import InputFile
    from pipeline.planning.mode_names import Mode


@dataclass(slots=True)  # not frozen: a plan of 200,000 requests would take a fifth longer
class ImageRequest:
    """`n` images of one prompt. `params` are the parameters of the call, without prompt and n."""

    key: str
    id: str
    operation: str
    served_by: str  # the operation whose endpoint is called
    prompt: str | None
    params: Mapping[str, Any]
    n: int
    variables: Mapping[str, Any]
    inputs: tuple[InputFile, ...]
    estimate_usd: float | None = None  # of all n images, at the provider that costs most; None without a price
    other_keys: tuple[str, ...] = ()  # under which the ledger may know it, if not under `key`
    own_key: str | None = None  # under which it is stated, if the ledger knows it under another one, which is `key`
    custom_id: str | None = None  # of the line of a Batch input file
    expansion_key: str | None = None  # of its first part, if its prompt is an expansion: that of the ledger counts


@dataclass(frozen=True, slots=True)
class Plan:
    """The requests of a job, checked and in order. `name` is the job's name in the ledger."""

    name: str
    provider: Provider
    file: Path | None
    budget_usd: float | None
    requests: Sequence[ImageRequest]
    warnings: tuple[str, ...]
    unpriced: tuple[str, ...]  # models without a price
    is_part: bool = False  # of the job: what else the ledger has of it stays as it is
    mode: Mode = "realtime"
    deadline: float | None = None  # of mode auto, in seconds since 1970
    members: tuple[Provider, ...] = ()  # of a route: the providers that serve it
    reads_stdin: bool = False  # so that the file alone does not state the job
    notes: tuple[str, ...] = ()  # on what submitting it changes, as it is meant

    @property
    def serving(self) -> tuple[Provider, ...]:
        """The providers that may serve the job."""
        return self.members or (self.provider,)

    @property
    def images(self) -> int:
        """The number of images that should exist in the end."""
        return sum(request.n for request in self.requests)
