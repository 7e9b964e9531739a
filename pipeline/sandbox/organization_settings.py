"""Parse the mapping under `sandbox.organization:`, what the organization's admin API says of its project."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from pipeline.sandbox.validation import integer, mapping_of, number, refuse_unknown_keys, text, texts

if TYPE_CHECKING:
    from collections.abc import Mapping

ADMIN_PREFIX = "sk-admin-"
"""How the service's admin keys begin."""


@dataclass(frozen=True, slots=True)
class OrganizationSettings:
    """An organization with one project. `rate_limits` are images a minute by model; a model that is not in it has the
    sandbox's own limit, and one with null has no row. Spend limits are those of a month.
    """

    admin_key: str | None = None  # null: any key that begins with `sk-admin-`
    project: str = "proj_sandbox"
    rate_limits: Mapping[str, int | None] = field(default_factory=dict)
    spend_limit_usd: float | None = None
    project_spend_limit_usd: float | None = None
    denied_models: tuple[str, ...] = ()  # that the project may not use: neither listed nor served


def read_organization_settings(value: object) -> OrganizationSettings:
    """Parse the mapping. Raises ValueError with one sentence."""
    mapping, plain = mapping_of("organization", value), OrganizationSettings()
    refuse_unknown_keys(mapping, [known.name for known in fields(OrganizationSettings)], "organization.")
    key = mapping.get("admin_key")
    return OrganizationSettings(
        admin_key=None if key is None else text("organization.admin_key", key),
        project=text("organization.project", mapping.get("project", plain.project)),
        rate_limits=_rate_limits(mapping.get("rate_limits", {})),
        spend_limit_usd=_dollars("spend_limit_usd", mapping.get("spend_limit_usd")),
        project_spend_limit_usd=_dollars("project_spend_limit_usd", mapping.get("project_spend_limit_usd")),
        denied_models=texts("organization.denied_models", mapping.get("denied_models", ())),
    )


def _rate_limits(value: object) -> dict[str, int | None]:
    return {
        model: None if images is None else integer(f"organization.rate_limits.{model}", images, low=0)
        for model, images in mapping_of("organization.rate_limits", value).items()
    }


def _dollars(key: str, value: object) -> float | None:
    return None if value is None else number(f"organization.{key}", value, low=0, high=1e9)
