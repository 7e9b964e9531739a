"""Draw random patterns in shades of grey.

A pattern draws on a canvas of any size with tones from 0 (the palette's darkest colour) to 255 (its lightest), so that
the edges can be smoothed and the whole coloured by a palette, which costs a tenth of drawing in colours.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from PIL.ImageDraw import ImageDraw

Pattern: TypeAlias = "Callable[[ImageDraw, int, int, random.Random], None]"
TONES: Final = (24, 72, 118, 166, 210, 246)


def hills(draw: ImageDraw, width: int, height: int, rng: random.Random) -> None:
    """Draw ridges behind ridges under a low sun, the near ones darker."""
    unit = min(width, height)
    x, y, radius = (
        width * rng.uniform(0.25, 0.75),
        height * rng.uniform(0.2, 0.4),
        unit * rng.uniform(0.1, 0.2),
    )
    draw.circle((x, y), radius * 1.35, fill=212)
    draw.circle((x, y), radius, fill=250)
    layers = rng.randint(4, 6)
    for layer in range(layers):
        depth = layer / (layers - 1)
        base = height * (0.42 + 0.42 * depth)
        waves = [(rng.uniform(1.5, 7), rng.uniform(0, math.tau), rng.uniform(0.02, 0.06)) for _ in range(3)]
        ridge = [
            (
                step / 60 * width,
                base + unit * sum(high * math.sin(often * step / 12 + turn) for often, turn, high in waves),
            )
            for step in range(61)
        ]
        draw.polygon([(0, height), *ridge, (width, height)], fill=round(165 - 145 * depth))


def tiles(draw: ImageDraw, width: int, height: int, rng: random.Random) -> None:
    """Draw a floor of quarter circles, discs and leaves."""
    across = rng.randint(4, 7)
    side = math.ceil(max(width, height) / across)
    for left in range(0, width, side):
        for top in range(0, height, side):
            ground, figure, accent = rng.sample(TONES, 3)
            right, bottom = left + side - 1, top + side - 1
            draw.rectangle((left, top, right, bottom), fill=ground)
            kind = rng.random()
            if kind < 0.6:
                corner = rng.random() < 0.5, rng.random() < 0.5
                _quarter(draw, (left, top, side), corner, side, figure)
                _quarter(draw, (left, top, side), corner, side // 2, accent)
            elif kind < 0.85:
                draw.circle((left + side / 2, top + side / 2), side * 0.5, fill=figure)
                draw.circle((left + side / 2, top + side / 2), side * 0.22, fill=accent)
            else:
                draw.polygon(((left, bottom), (left, top), (right, bottom)), fill=figure)


def _quarter(draw: ImageDraw, tile: tuple[int, int, int], corner: tuple[bool, bool], radius: int, tone: int) -> None:
    left, top, side = tile
    x, y = left + (side - 1) * corner[0], top + (side - 1) * corner[1]
    start = {(False, False): 0, (True, False): 90, (True, True): 180, (False, True): 270}[corner]
    draw.pieslice((x - radius, y - radius, x + radius, y + radius), start, start + 90, fill=tone)


def sundown(draw: ImageDraw, width: int, height: int, rng: random.Random) -> None:
    """Draw rings of light around a sun that stands on the water, and its reflection in bars."""
    horizon = round(height * rng.uniform(0.52, 0.66))
    x, unit = width * rng.uniform(0.35, 0.65), min(width, height)
    rings = rng.randint(5, 8)
    for ring in range(rings, 0, -1):
        draw.circle((x, horizon), unit * 0.11 * (ring + 0.6), fill=round(225 - 130 * ring / rings))
    draw.circle((x, horizon), unit * 0.15, fill=252)
    draw.rectangle((0, horizon, width, height), fill=34)
    y, step = float(horizon), height * 0.012
    while y < height:
        spread = unit * rng.uniform(0.08, 0.2) * (1 + 2.2 * (y - horizon) / height)
        tone = round(235 - 190 * (y - horizon) / (height - horizon))
        draw.rounded_rectangle((x - spread, y, x + spread, y + step), step / 2, fill=tone)
        y, step = y + step * 2.4, step * 1.16


def skyline(draw: ImageDraw, width: int, height: int, rng: random.Random) -> None:
    """Draw a town at dusk in three depths, with lights in the nearest windows."""
    unit = min(width, height)
    draw.circle((width * rng.uniform(0.2, 0.8), height * rng.uniform(0.15, 0.3)), unit * 0.09, fill=245)
    for depth, tone in enumerate((128, 84, 26)):
        left = -unit * rng.uniform(0, 0.1)
        while left < width:
            wide = unit * rng.uniform(0.07, 0.15)
            top = height * rng.uniform(0.3 + 0.12 * depth, 0.62 + 0.1 * depth)
            draw.rectangle((left, top, left + wide, height), fill=tone)
            if rng.random() < 0.3:
                draw.polygon(((left, top), (left + wide / 2, top - wide * 0.8), (left + wide, top)), fill=tone)
            if depth == 2:
                _lit_windows(draw, (left, top, left + wide, float(height)), unit * 0.022, rng)
            left += wide * rng.uniform(0.95, 1.25)


def _lit_windows(draw: ImageDraw, house: tuple[float, float, float, float], step: float, rng: random.Random) -> None:
    left, top, right, bottom = house
    for row in range(int((bottom - top) / step) - 1):
        for column in range(int((right - left) / step) - 1):
            if rng.random() < 0.22:
                x, y = left + (column + 0.75) * step, top + (row + 0.75) * step
                draw.rectangle((x, y, x + step * 0.5, y + step * 0.5), fill=rng.choice((180, 225, 250)))


def facets(draw: ImageDraw, width: int, height: int, rng: random.Random) -> None:
    """Draw a sheet of paper in triangular folds, lit from one side."""
    cell = max(width, height) / rng.randint(7, 11)
    columns, rows = math.ceil(width / cell) + 2, math.ceil(height / cell) + 2
    points = {
        (column, row): (
            (column - 0.5 + rng.uniform(-0.34, 0.34)) * cell,
            (row - 0.5 + rng.uniform(-0.34, 0.34)) * cell,
        )
        for column in range(columns)
        for row in range(rows)
    }
    turn = rng.uniform(0, math.tau)
    for column in range(columns - 1):
        for row in range(rows - 1):
            a, b = points[column, row], points[column + 1, row]
            c, d = points[column, row + 1], points[column + 1, row + 1]
            for triangle in ((a, b, c), (b, d, c)):
                along = (triangle[0][0] * math.cos(turn) + triangle[0][1] * math.sin(turn)) / max(width, height)
                light = 128 + 105 * math.sin(2.3 * along + turn) + rng.uniform(-26, 26)
                draw.polygon(triangle, fill=max(8, min(250, round(light))))


def seigaiha(draw: ImageDraw, width: int, height: int, rng: random.Random) -> None:
    """Draw seigaiha, the Japanese wave pattern: rows of rings, each row over the one behind."""
    radius = max(width, height) / rng.randint(8, 13)
    rings = rng.randint(3, 5)
    tones = rng.sample((20, 60, 104, 150, 196, 240), rings)
    calm = rng.uniform(0.15, 0.4)  # the share of the image that stays sky
    row = 0
    while (y := height * calm + row * radius * 0.5) < height + radius:
        for column in range(-1, math.ceil(width / (2 * radius)) + 1):
            x = (2 * column + 1 + row % 2) * radius
            for ring, tone in enumerate(tones):
                draw.circle((x, y + radius * 0.6), radius * (1 - ring / (rings + 0.35)), fill=tone)
        row += 1
    draw.circle((width * rng.uniform(0.2, 0.8), height * calm * 0.42), height * calm * 0.22, fill=252)


def orbits(draw: ImageDraw, width: int, height: int, rng: random.Random) -> None:
    """Draw discs, half discs and bars that balance around a centre, as a Bauhaus poster does."""
    unit = min(width, height)
    x, y = width * rng.uniform(0.4, 0.6), height * rng.uniform(0.38, 0.52)
    for radius, tone in zip((0.42, 0.34, 0.25, 0.12), rng.sample(TONES, 4), strict=True):
        start = rng.choice((0, 90, 180, 270))
        box = (x - unit * radius, y - unit * radius, x + unit * radius, y + unit * radius)
        draw.pieslice(box, start, start + rng.choice((180, 270, 360)), fill=tone)
    for _ in range(rng.randint(3, 5)):
        length, thick = unit * rng.uniform(0.25, 0.7), unit * rng.uniform(0.012, 0.035)
        left, top = rng.uniform(0, width - length), rng.uniform(0.1, 0.85) * height
        draw.rounded_rectangle((left, top, left + length, top + thick), thick / 2, fill=rng.choice(TONES))
    for _ in range(rng.randint(4, 7)):
        turn, far = rng.uniform(0, math.tau), unit * rng.uniform(0.3, 0.48)
        centre = (x + far * math.cos(turn), y + far * math.sin(turn))
        draw.circle(centre, unit * rng.uniform(0.015, 0.05), fill=rng.choice(TONES))


PATTERNS: Final[tuple[Pattern, ...]] = (hills, tiles, sundown, skyline, facets, seigaiha, orbits)
