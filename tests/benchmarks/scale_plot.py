"""Seconds of every table step over interactions, both axes logarithmic, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 380, 56, 130, 16, 44
COLOURS: Final = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#a463f2", "#9c6b4e", "#97bbf5")


def plot(steps: Mapping[str, Mapping[int, float]]) -> str:
    """The picture.

    Args:
        steps: by name, seconds by interactions.
    """
    sizes = sorted({size for points in steps.values() for size in points})
    seconds = [value for points in steps.values() for value in points.values()]
    left, right = (math.log10(edge) for edge in (sizes[0], sizes[-1]))
    low, high = math.floor(math.log10(min(seconds))), math.ceil(math.log10(max(seconds)))

    def x(size: float) -> float:
        return LEFT + (math.log10(size) - left) / max(right - left, 1e-9) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (high - math.log10(value)) / max(high - low, 1) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        ' font-size="12" role="img" aria-label="Seconds of every table step over interactions">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    ]
    for power in range(low, high + 1):
        at = y(10**power)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{10**power:g} s</text>')
    for size in sizes:
        parts.append(f'<path d="M{x(size):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{x(size):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{size:,}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">interactions</text>')
    start = 10**low * 2
    guide = [(size, start * size * math.log(size) / (sizes[0] * math.log(sizes[0]))) for size in sizes]
    guide = [(size, value) for size, value in guide if value <= 10**high]
    parts.append(_line([(x(size), y(value)) for size, value in guide], "#888", ' stroke-dasharray="5 4"'))
    names = {"n log n": (y(guide[-1][1]), "#888")}
    for (name, points), colour in zip(steps.items(), COLOURS * 2, strict=False):
        line = [(x(size), y(value)) for size, value in sorted(points.items())]
        parts.append(_line(line, colour))
        parts += [f'<circle cx="{at:.1f}" cy="{height:.1f}" r="3" fill="{colour}"/>' for at, height in line]
        names[name] = (line[-1][1], colour)
    last = -math.inf
    for name, (height, colour) in sorted(names.items(), key=lambda entry: entry[1][0]):
        last = max(height, last + 14)
        parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{last + 4:.1f}" fill="{colour}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _line(points: Sequence[tuple[float, float]], colour: str, more: str = "") -> str:
    path = " ".join(f"{at:.1f},{height:.1f}" for at, height in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{more}/>'
