"""What images cost by a provider's invoice, beside what they cost by the usage in responses and by the price table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.reconcile.reconciliation import DAY, day_costs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.client.usage import InvoiceLine
    from pipeline.models.table import Models
    from pipeline.reconcile.reconciliation import Reconciliation

_TOLERANCE = 0.01  # of an amount, and in USD: invoices are rounded


@dataclass(frozen=True, slots=True)
class DayPrice:
    """What the images of a model cost on a day of UTC: by the invoice, and by what we know.

    `foreign` counts images in the invoice that are not ours. Costs of today and yesterday are incomplete; so is what is
    known of a day of which only a part is compared.
    """

    day: int
    model: str
    images: int
    foreign: int
    charged_usd: float
    known_usd: float
    is_incomplete: bool

    @property
    def charged_per_image(self) -> float | None:
        """What an image really cost."""
        images = self.images + self.foreign
        return self.charged_usd / images if images else None

    @property
    def known_per_image(self) -> float | None:
        """What an image of ours should have cost."""
        return self.known_usd / self.images if self.images else None

    @property
    def differs(self) -> bool:
        """Whether the invoice is another amount than expected; foreign images are expected to cost what ours do."""
        if self.is_incomplete or self.known_per_image is None:
            return False
        expected = self.known_per_image * (self.images + self.foreign)
        return abs(self.charged_usd - expected) > max(_TOLERANCE, _TOLERANCE * expected)


def compare_prices(
    result: Reconciliation, costs: Iterable[InvoiceLine], models: Models, names: Sequence[str], now: float
) -> list[DayPrice]:
    """Return what the images of each model cost on each day, oldest first; `names` are the models to look for.

    A line of the invoice begins with the name of its model; lines of other models, as of texts, are left alone.
    """
    ours, foreign = day_costs(result, models), dict[tuple[int, str | None], int]()
    for foreign_images in result.foreign:
        key = (foreign_images.start // DAY * DAY, foreign_images.kind.model)
        foreign[key] = foreign.get(key, 0) + foreign_images.images
    charged: dict[tuple[int, str], float] = {}
    for cost in costs:
        model = _model_of(cost.line_item, names)
        if model is not None:
            found = models.find(model)
            key = (cost.start, found.name if found else model)
            charged[key] = charged.get(key, 0.0) + float(cost.usd)
    prices = []
    for (day, model), usd in sorted(charged.items()):
        images, known = ours.get((day, model), (0, 0.0))
        others = foreign.get((day, model), 0)
        is_incomplete = day < result.since or day >= (int(now) // DAY - 1) * DAY
        if images or others:
            prices.append(DayPrice(day, model, images, others, usd, known, is_incomplete))
    return prices


def _model_of(line_item: str | None, names: Sequence[str]) -> str | None:
    text = (line_item or "").lower()
    return max((name for name in names if text.startswith(name.lower())), key=len, default=None)
