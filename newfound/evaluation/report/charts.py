"""Charts as HTML and inline SVG: no script, no asset, readable at any width, every text escaped here.

What must stay legible on a phone is laid out by HTML (dot plots, the map, bars); only line and scatter charts are SVG,
drawn at about the size at which they are shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 12, 40
SERIES_COLOURS = 6
GROUP_COLOURS = 12


def text(value: object) -> str:
    """The value as HTML text, also safe inside an attribute; control characters become spaces."""
    return escape("".join(c if c.isprintable() else " " for c in str(value)), quote=True)


def number(value: float | None, digits: int = 3) -> str:
    """A figure as people write it: `.104`, `1.20`, `2,414`, and a dash for what does not exist."""
    if value is None or not math.isfinite(value):
        return "–"
    if float(value).is_integer() and abs(value) >= 2:
        return f"{int(value):,}"
    written = f"{value:.{digits if abs(value) < 1 else min(digits, 2)}f}"
    return written.replace("0.", ".", 1) if abs(value) < 1 and written.lstrip("-").startswith("0.") else written


@dataclass(frozen=True)
class Dot:
    """One row of a dot plot."""

    label: str
    value: float
    lower: float = math.nan
    upper: float = math.nan
    kind: str = "rival"  # ours | rival | chance
    reference: float = math.nan
    """where chance lies for this row"""


def dot_plot(title: str, dots: Sequence[Dot], note: str = "") -> str:
    """Rows of a label, a dot with its interval on a common scale from 0, and the figure; best first."""
    shown = sorted((d for d in dots if math.isfinite(d.value)), key=lambda d: -d.value)
    if not shown:
        return ""
    top = max(max(v for v in (d.value, d.upper, d.reference) if math.isfinite(v)) for d in shown) or 1.0
    top *= 1.04

    def at(value: float) -> str:
        return f"{100 * min(max(value / top, 0), 1):.2f}%"

    rows = []
    for dot in shown:
        marks = ""
        if math.isfinite(dot.reference):
            marks += f'<i class="chance" style="left:{at(dot.reference)}" title="chance {number(dot.reference)}"></i>'
        spread = ""
        if math.isfinite(dot.lower) and math.isfinite(dot.upper):
            width = f"{100 * (dot.upper - dot.lower) / top:.2f}%"
            marks += f'<i class="range" style="left:{at(dot.lower)};width:{width}"></i>'
            spread = f" <small>{number(dot.lower)}–{number(dot.upper)}</small>"
        marks += f'<i class="dot" style="left:{at(dot.value)}"></i>'
        rows.append(
            f'<li class="{text(dot.kind)}"><span class="name">{text(dot.label)}</span>'
            f'<span class="track" aria-hidden="true">{marks}</span>'
            f'<span class="figure">{number(dot.value)}{spread}</span></li>'
        )
    caption = f"<p class='note'>{text(note)}</p>" if note else ""
    return f'<figure class="dots"><figcaption>{text(title)}</figcaption><ol>{"".join(rows)}</ol>{caption}</figure>'


@dataclass(frozen=True)
class Series:
    """One line of a chart; NaN values interrupt it."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    points: bool = True
    line: bool = True


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover the range."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    ticks = [first * step]
    while ticks[-1] < high - step * 1e-6:
        ticks.append((first + len(ticks)) * step)
    return ticks


def _tick_label(value: float, step: float) -> str:
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if digits and round(step * 10**digits) != round(step * 10**digits, 6):
        digits += 1
    return number(value, digits) if digits else f"{value:,.0f}"


class _Axes:
    """Both axes of a line chart, in the drawing's own units."""

    def __init__(self, points: Sequence[tuple[float, float]], from_zero: bool) -> None:
        xs, ys = [x for x, _ in points], [y for _, y in points]
        self.x_ticks, self.y_ticks = _ticks(min(xs), max(xs)), _ticks(0.0 if from_zero else min(ys), max(ys))
        self.x_low, self.x_high = min(min(xs), self.x_ticks[0]), max(max(xs), self.x_ticks[-1])

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - self.x_low) / ((self.x_high - self.x_low) or 1)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / ((high - low) or 1)

    def drawn(self, x_label: str) -> list[str]:
        """Grid, ticks and the label of x, as SVG."""
        parts = []
        for tick in self.y_ticks:
            label, y = _tick_label(tick, self.y_ticks[1] - self.y_ticks[0]), self.y(tick)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        for tick in self.x_ticks:
            label, below = _tick_label(tick, self.x_ticks[1] - self.x_ticks[0]), HEIGHT - BOTTOM + 16
            parts.append(f'<text x="{self.x(tick):.1f}" y="{below}" text-anchor="middle">{label}</text>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        return [*parts, f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{text(x_label)}</text>']


def line_chart(title: str, series: Sequence[Series], x_label: str, y_label: str, *, from_zero: bool = False) -> str:
    """Lines over a common x, with a legend where there is more than one."""
    finite = [(x, y) for s in series for x, y in zip(s.x, s.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        return ""
    axes = _Axes(finite, from_zero)
    parts = axes.drawn(x_label)
    for at, one in enumerate(series):
        parts += _line(one, f"s{at % SERIES_COLOURS}", axes)
    legend = ""
    if len(series) > 1:
        keys = "".join(
            f'<li><i class="s{at % SERIES_COLOURS}"></i>{text(one.label)}</li>' for at, one in enumerate(series)
        )
        legend = f'<ul class="legend">{keys}</ul>'
    described = text(f"{title}: {y_label} over {x_label}")
    return (
        f'<figure class="chart"><figcaption>{text(title)} <small>{text(y_label)}</small></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{described}">'
        f"{''.join(parts)}</svg>{legend}</figure>"
    )


def _line(one: Series, colour: str, axes: _Axes) -> list[str]:
    """A series as SVG: its points, then the line through them."""
    parts, path, drawing = [], "", False
    for x, y in zip(one.x, one.y, strict=True):
        if not (math.isfinite(x) and math.isfinite(y)):
            drawing = False
            continue
        path += f"{'L' if drawing else 'M'}{axes.x(x):.1f} {axes.y(y):.1f}"
        drawing = True
        if one.points:
            tip, place = f"{text(one.label)}: {number(y, 4)} at {number(x, 4)}", (axes.x(x), axes.y(y))
            parts.append(
                f'<circle class="{colour}" cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="3"><title>{tip}</title></circle>'
            )
    return [*parts, f'<path class="{colour}" d="{path}"/>'] if one.line and path else parts


def bars(title: str, labels: Sequence[str], values: Sequence[float], note: str = "") -> str:
    """A few vertical bars from 0 with their figures; NaN leaves a gap."""
    top = max((v for v in values if math.isfinite(v)), default=0.0) or 1.0
    columns = "".join(
        f'<li><b>{number(value, 2)}</b><span><i style="height:{100 * value / top if math.isfinite(value) else 0:.1f}%">'
        f"</i></span><small>{text(label)}</small></li>"
        for label, value in zip(labels, values, strict=True)
    )
    caption = f"<p class='note'>{text(note)}</p>" if note else ""
    return f'<figure class="bars"><figcaption>{text(title)}</figcaption><ol>{columns}</ol>{caption}</figure>'


@dataclass(frozen=True)
class Bubble:
    """One interest on the map; x and y in [0, 1], `share` of the traffic, `group` an index for its colour."""

    label: str
    x: float
    y: float
    share: float
    group: int
    detail: str = ""


def _short(label: str) -> str:
    return label.split(",")[0][:24]


def _named(bubbles: Sequence[Bubble], at_most: int = 24) -> set[int]:
    """The largest bubbles whose names would not run into each other, at the narrowest width of the map."""
    placed: list[tuple[float, float, float]] = []
    named: set[int] = set()
    for at in sorted(range(len(bubbles)), key=lambda at: -bubbles[at].share):
        bubble = bubbles[at]
        half = 0.5 * 0.019 * len(_short(bubble.label))
        clear = all(abs(bubble.x - x) > half + other or abs(bubble.y - y) > 0.05 for x, y, other in placed)
        if clear and half <= bubble.x <= 1 - half:
            placed.append((bubble.x, bubble.y, half))
            named.add(at)
        if len(named) == at_most:
            break
    return named


def bubble_map(bubbles: Sequence[Bubble], groups: Sequence[str]) -> str:
    """The map of interests: a bubble a cluster, its area its share of the traffic; hover or focus shows what it is."""
    largest = max((b.share for b in bubbles), default=0.0) or 1.0
    named = _named(bubbles)
    marks, names = [], []
    for at in sorted(range(len(bubbles)), key=lambda at: -bubbles[at].share):
        bubble = bubbles[at]
        size = max(math.sqrt(bubble.share / largest), 0.12)
        place = f"left:{100 * bubble.x:.2f}%;top:{100 * bubble.y:.2f}%"
        if at in named:
            names.append(f'<b aria-hidden="true" style="{place}">{text(_short(bubble.label))}</b>')
        marks.append(
            f'<button type="button" class="g{bubble.group % GROUP_COLOURS}" data-detail="{text(bubble.detail)}" '
            f'aria-label="{text(bubble.label)}. {text(bubble.detail)}" data-label="{text(bubble.label)}" '
            f'style="{place};--size:{size:.3f}"></button>'
        )
    keys = "".join(f'<li><i class="g{at % GROUP_COLOURS}"></i>{text(group)}</li>' for at, group in enumerate(groups))
    return (
        f'<div class="map">{"".join(marks + names)}</div>'
        '<p class="map-detail" aria-live="polite">Point at a bubble, or step through them with the Tab key.</p>'
        f'<ul class="legend groups">{keys}</ul>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, strong: Sequence[bool] = (), label: str = "") -> str:
    """A table that scrolls sideways where it must; cells are HTML already (use `text` and `number`)."""
    top = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    body = ""
    for at, row in enumerate(rows):
        first, *rest = row
        mark = ' class="ours"' if at < len(strong) and strong[at] else ""
        body += f'<tr{mark}><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
    return (
        f'<div class="scroll" role="region" aria-label="{text(label)}" tabindex="0">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )
