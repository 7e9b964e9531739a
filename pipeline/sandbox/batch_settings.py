"""Parse the mapping under `sandbox.batch:`, how the Files and Batch APIs behave."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Final, Literal, TypeAlias, get_args

from pipeline.sandbox.validation import check_total, integer, mapping_of, number, range_of, refuse_unknown_keys

Fate: TypeAlias = Literal[
    "failed",  # the batch fails at validation: the token limit, or an error of the service's own
    "expired",  # the batch expires with some of its lines done
    "spend_cap",  # refused at create, or failed, with "Cannot find file" although the file is there
]
LineFault: TypeAlias = Literal[
    "lines_missing",  # worked and charged, and in neither file
    "duplicate_line",  # written twice
    "malformed_line",  # written half
]

FATES: Final[tuple[Fate, ...]] = get_args(Fate)
LINE_FAULTS: Final[tuple[LineFault, ...]] = get_args(LineFault)


@dataclass(frozen=True, slots=True)
class BatchFaults:
    """The probability of each fault, 0 to 1: per batch, per line, or per answer with a file's content."""

    create_lost: float = 0.0  # the batch is made, and its answer is lost
    not_yet_visible: float = 0.0  # the first creates after an upload are refused with "Cannot find file"
    failed: float = 0.0
    expired: float = 0.0
    spend_cap: float = 0.0
    lines_missing: float = 0.0
    duplicate_line: float = 0.0
    malformed_line: float = 0.0
    cut_content: float = 0.0  # the content of a file ends early
    empty_ids: float = 0.0  # "" in place of null for the id of a file that would be empty

    def __post_init__(self) -> None:
        """Refuse probabilities of faults that exclude each other if they add up to more than 1."""
        shares = asdict(self)
        for names in (FATES, LINE_FAULTS):
            check_total(shares, names, f"batch.faults: {', '.join(names)}")


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How batches go on; the defaults are a healthy service that is quick."""

    seconds: tuple[float, float] = (0.2, 1.0)  # of validating, and of in_progress
    finalizing_seconds: float = 0.1  # of finalizing, and of cancelling
    expires_seconds: float = 86400.0
    enqueued_tokens: int | None = 1_000_000  # of one model's living batches together; null: without a limit
    faults: BatchFaults = field(default_factory=BatchFaults)


def read_batch_settings(value: object) -> BatchSettings:
    """Parse the mapping. Raises ValueError with one sentence."""
    mapping, plain = mapping_of("batch", value), BatchSettings()
    refuse_unknown_keys(mapping, [known.name for known in fields(BatchSettings)], "batch.")
    tokens = mapping.get("enqueued_tokens", plain.enqueued_tokens)
    finalizing = mapping.get("finalizing_seconds", plain.finalizing_seconds)
    expires = mapping.get("expires_seconds", plain.expires_seconds)
    return BatchSettings(
        seconds=range_of("batch.seconds", mapping.get("seconds", plain.seconds)),
        finalizing_seconds=number("batch.finalizing_seconds", finalizing, low=0, high=86400),
        expires_seconds=number("batch.expires_seconds", expires, low=0.001, high=1e9),
        enqueued_tokens=None if tokens is None else integer("batch.enqueued_tokens", tokens, low=0),
        faults=_faults(mapping.get("faults", {})),
    )


def _faults(value: object) -> BatchFaults:
    mapping = mapping_of("batch.faults", value)
    refuse_unknown_keys(mapping, [known.name for known in fields(BatchFaults)], "batch.faults.")
    return BatchFaults(**{key: number(f"batch.faults.{key}", share, low=0, high=1) for key, share in mapping.items()})
