"""Parse the mapping under `sandbox:` into validated settings.

Errors are `ValueError`s whose message names the key and, if a key is unknown, the nearest known spelling.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from datetime import date
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from pipeline.sandbox.batch_settings import BatchSettings, read_batch_settings
from pipeline.sandbox.capacity import CapacitySettings, read_capacity
from pipeline.sandbox.dialect import Dialect, read_dialect
from pipeline.sandbox.organization_settings import OrganizationSettings, read_organization_settings
from pipeline.sandbox.rate_window import RateLimit
from pipeline.sandbox.rules.models import SHUTDOWN_DATES
from pipeline.sandbox.validation import boolean, check_total, integer, mapping_of, number, range_of, refuse_unknown_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

CallFault: TypeAlias = Literal[
    "http_429",  # rate limit: refused with a wait of 50 to 300 ms
    "http_500",  # internal error, in JSON
    "http_503",  # overloaded, in JSON, sometimes with Retry-After
    "html_502",  # a proxy's HTML page
    "drop_before",  # the connection closes, nothing was made or charged
    "drop_after",  # the connection closes, the images were made and charged
    "broken_json",  # 200, charged, and the body is truncated
    "empty",  # 200 without an image, not charged
    "slow",  # the correct response, in small chunks over `slow_seconds`
]
DownloadFault: TypeAlias = Literal[
    "cut_download",  # the whole length is declared, and the connection closes midway
    "wrong_download",  # 200 with bytes that are not the image
]

CALL_FAULTS: Final[tuple[CallFault, ...]] = get_args(CallFault)
DOWNLOAD_FAULTS: Final[tuple[DownloadFault, ...]] = get_args(DownloadFault)


@dataclass(frozen=True, slots=True)
class Faults:
    """The probability of each fault, 0 to 1, per call or per download."""

    http_429: float = 0.0
    http_500: float = 0.0
    http_503: float = 0.0
    html_502: float = 0.0
    drop_before: float = 0.0
    drop_after: float = 0.0
    broken_json: float = 0.0
    empty: float = 0.0
    slow: float = 0.0
    cut_download: float = 0.0
    wrong_download: float = 0.0

    def __post_init__(self) -> None:
        """Refuse probabilities that add up to more than 1, since the faults of one call exclude each other."""
        shares = asdict(self)
        for kind, names in (("calls", CALL_FAULTS), ("downloads", DOWNLOAD_FAULTS)):
            check_total(shares, names, f"faults: the probabilities for {kind}")


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """How the sandbox behaves; the defaults are a healthy service with OpenAI's documented limit."""

    rate_limit: RateLimit | None = field(default_factory=RateLimit)
    latency_seconds: tuple[float, float] = (0.0, 0.0)
    url_ttl_seconds: float = 3600.0
    seed: int = 0
    require_key: bool = True
    idempotency: bool = False  # a call with the Idempotency-Key of a charged one gets its response again
    faults: Faults = field(default_factory=Faults)
    slow_seconds: float = 2.0
    quota_images: int | None = None
    dialect: Dialect = field(default_factory=Dialect)
    today: date | None = None  # models are gone from their shutdown date on; null: every model is available
    shutdown_dates: Mapping[str, date | None] = field(default_factory=dict)  # in place of those of the service
    verified: bool = True  # false: the organization may not use GPT Image models
    batch: BatchSettings = field(default_factory=BatchSettings)
    organization: OrganizationSettings = field(default_factory=OrganizationSettings)
    capacity: CapacitySettings | None = None  # of calls that are served at once; null: any number

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object]) -> SandboxSettings:
        """Parse a mapping from config.yaml or the command line. Raises ValueError with one sentence."""
        refuse_unknown_keys(mapping, [known.name for known in fields(cls)], "")
        return cls(
            rate_limit=_rate_limit(mapping["rate_limit"]) if "rate_limit" in mapping else cls().rate_limit,
            latency_seconds=range_of("latency_seconds", mapping.get("latency_seconds", (0.0, 0.0))),
            url_ttl_seconds=number("url_ttl_seconds", mapping.get("url_ttl_seconds", 3600.0), low=0.001, high=1e9),
            seed=integer("seed", mapping.get("seed", 0), low=None),
            require_key=boolean("require_key", mapping.get("require_key", True)),
            idempotency=boolean("idempotency", mapping.get("idempotency", False)),
            faults=_faults(mapping.get("faults", {})),
            slow_seconds=number("slow_seconds", mapping.get("slow_seconds", 2.0), low=0, high=86_400),
            quota_images=_quota(mapping.get("quota_images")),
            dialect=read_dialect(mapping.get("dialect", {})),
            today=_date("today", mapping.get("today")),
            shutdown_dates={
                model: _date(f"shutdown_dates.{model}", day)
                for model, day in mapping_of("shutdown_dates", mapping.get("shutdown_dates", {})).items()
            },
            verified=boolean("verified", mapping.get("verified", True)),
            batch=read_batch_settings(mapping.get("batch", {})),
            organization=read_organization_settings(mapping.get("organization", {})),
            capacity=read_capacity(mapping.get("capacity")),
        )

    def shutdown_date(self, model: str) -> date | None:
        """Return the first day on which a model is unavailable, None if none is announced."""
        return self.shutdown_dates.get(model) if model in self.shutdown_dates else SHUTDOWN_DATES.get(model)

    def is_available(self, model: str) -> bool:
        """Whether a model is available today; every one is if `today` is None."""
        shutdown = self.shutdown_date(model)
        return self.today is None or shutdown is None or self.today < shutdown


def _rate_limit(value: object) -> RateLimit | None:
    if value is None:
        return None
    mapping = mapping_of("rate_limit", value)
    refuse_unknown_keys(mapping, [known.name for known in fields(RateLimit)], "rate_limit.")
    return RateLimit(
        images=integer("rate_limit.images", mapping.get("images", 50), low=0),
        per_seconds=number("rate_limit.per_seconds", mapping.get("per_seconds", 60.0), low=0.001, high=1e6),
    )


def _faults(value: object) -> Faults:
    mapping = mapping_of("faults", value)
    refuse_unknown_keys(mapping, [known.name for known in fields(Faults)], "faults.")
    return Faults(**{key: number(f"faults.{key}", share, low=0, high=1) for key, share in mapping.items()})


def _quota(value: object) -> int | None:
    return None if value is None else integer("quota_images", value, low=0)


def _date(key: str, value: object) -> date | None:
    if value is None or type(value) is date:
        return value
    try:
        return date.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError(f"{key}: expected a day as YYYY-MM-DD, got {value!r}") from None
