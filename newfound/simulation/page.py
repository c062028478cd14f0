"""The experiment's page: one self-contained file whose first picture tells what came out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from newfound.evaluation.report.charts import Series, line_chart, number, text
from newfound.files import write_text
from newfound.simulation.experiment import BASELINE, PLANTED, Lift, lifts

NAMES: Final = {
    "ranker": "ranker alone",
    "ranker_direct": "ranker_direct",
    "random_novel": "random novel",
    "popular_novel": "popular novel",
    "pair_frequency": "pair frequency",
    "nearest": "nearest by text",
    "cluster_sequence": "cluster sequence",
    "hcb": "hierarchical bandit",
    "neural_linear": "neural linear bandit",
    "newfound_by_choices": "newfound, weights from choices",
    "newfound_without_planner": "newfound without planner",
    "newfound_teacher": "newfound, teacher for language model",
    "newfound": "newfound",
    "random_again": "A/A: random novel again",
    "oracle_quarter": "planted: knows a quarter",
}
MEASURES: Final = {
    "retained_interests": "retained new interests a person",
    "uci_at_n": "UCI@N",
    "ueuc": "UEUC, interests a person",
    "novel_positive_rate": "positive rate on novel slots",
    "satisfaction": "satisfaction",
    "return_rate": "return rate",
    "regret": "regret (less is better)",
    "discoverable_corpus": "discoverable corpus",
    "exposure_gini": "exposure Gini",
}
STYLE: Final = """
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1rem}
h1{font-size:1.5rem;line-height:1.25}h2{font-size:1.2rem;margin-top:2.5rem}.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;text-align:right;white-space:nowrap;border-bottom:1px solid #8884}
th:first-child,td:first-child{text-align:left}td small{opacity:.7}.up{background:#2a84}.down{background:#c444}
tr.ours{font-weight:600}svg{width:100%;height:auto;max-width:46rem;display:block}figure{margin:1rem 0}
.verdict{font-size:1.05rem;border-left:4px solid #888;padding:.2rem 0 .2rem 1rem}
svg text{fill:currentColor;font-size:12px}.chart{max-width:46rem}figcaption{font-weight:600}
.chart path{fill:none;stroke-width:2;stroke-linejoin:round}.chart .grid{stroke:#8884;stroke-width:1}
.s0{--c:#d55e00}.s1{--c:#0072b2}.s2{--c:#009e73}.s3{--c:#cc79a7}.s4{--c:#e69f00}.s5{--c:#777}
.chart .s0,.chart .s1,.chart .s2,.chart .s3,.chart .s4,.chart .s5{stroke:var(--c)}
.legend i{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.4em;background:var(--c)}
ul.legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.85rem}
"""


def write_page(results: Mapping[str, Any], file: Path) -> None:
    """Writes the page.

    Args:
        results: `closed_loop` rows by stage, `calibration`, `expected_to_win`, and what real data say.
        file: of the page.
    """
    write_text(file, render(results))


def render(results: Mapping[str, Any]) -> str:
    """The page as HTML."""
    stages = results["closed_loop"]
    sealed = stages.get("sealed") or stages.get("development") or []
    counted = [world for world, (_, missed) in results["calibration"].items() if not missed]
    won = [world for world in results["expected_to_win"] if world in counted]
    rows = [row for row in sealed if row["world"] in won] or sealed
    body = [
        "<h1>Do people find more new interests, and enjoy it?</h1>",
        f'<p class="verdict">{text(verdict(rows))}</p>',
        scatter(rows),
        _over_time(rows),
    ]
    if sealed:
        body.append("<h2>Sealed worlds, lift over the ranker alone</h2>")
        body.extend(_world_table(sealed, measure, title) for measure, title in MEASURES.items())
    body.append(_real(results))
    if stages.get("sensitivity"):
        body.append("<h2>What carries the result: one assumption changed at a time</h2>")
        body.append(_sensitivity(stages["sensitivity"]))
    body.append(_calibration(results["calibration"]))
    body.append(
        f"<h2>How to read this</h2><p>Size: {text(results['size'])}. Intervals of the closed loop are over seeds "
        "(95 %, Student), of real data over people. The ranker in the loop is a linear autoencoder, the same for all "
        "arms; the planner is a bilinear head on a language model's states of the descriptions, trained once a "
        "world.</p>"
    )
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    content = "\n".join(body)
    head += f"<title>Experiment</title><style>{STYLE}</style>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{content}</body></html>'


def pooled_lifts(rows: Sequence[Mapping[str, Any]], over: str = BASELINE) -> dict[tuple[str, str], Lift]:
    """By arm and measure: the lift, averaged over worlds within a seed, with its interval over seeds."""
    worlds = {row["world"] for row in rows}
    by: dict[tuple[str, int], list[Mapping[str, float]]] = {}
    for row in rows:
        by.setdefault((row["arm"], row["seed"]), []).append(row["measures"])
    together = [
        {
            "world": "all",
            "arm": arm,
            "seed": seed,
            "measures": {m: float(np.mean([x[m] for x in found])) for m in found[0]},
        }
        for (arm, seed), found in by.items()
        if len(found) == len(worlds)
    ]
    return {(arm, measure): lift for (_, arm, measure), lift in lifts(together, over).items()}


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """Outcome of newfound in words, from the intervals alone."""
    arms = {row["arm"] for row in rows}
    if "newfound" not in arms:
        return "newfound was not run."
    parts = [f"In {len({row['world'] for row in rows})} worlds together:"]
    others = sorted(arms - {"newfound", *PLANTED})
    own = [arm for arm in others if arm.startswith("newfound")]
    for measure, name in (("retained_interests", "retained interests"), ("uci_at_n", "UCI@N")):
        behind, level = _standing(rows, measure, [arm for arm in others if arm not in own])
        told = f"on {name} newfound is above every other arm, clear of zero" if not behind + level else ""
        told = told or f"on {name} newfound is not above every other arm"
        told += f"; behind: {', '.join(behind)}" if behind else ""
        told += f"; not clear of: {', '.join(level)}" if level else ""
        worse, same = _standing(rows, measure, own)
        told += f"; of its own versions it is behind: {', '.join(worse)}" if worse else ""
        told += f"; of its own versions it is not clear of: {', '.join(same)}" if same else ""
        parts.append(told[0].upper() + told[1:] + ".")
    lift = pooled_lifts(rows).get(("newfound", "satisfaction"))
    if lift is not None:
        parts.append(f"Satisfaction against the ranker alone: {_figure(lift)}.")
    return " ".join(parts)


def _standing(rows: Sequence[Mapping[str, Any]], measure: str, others: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the arms that newfound is behind, and of those that it is not clear of."""
    behind: list[str] = []
    level: list[str] = []
    for other in others:
        lift = pooled_lifts(rows, other).get(("newfound", measure))
        if lift is None or not lift.lower > 0:
            (behind if lift is not None and lift.upper < 0 else level).append(NAMES.get(other, other))
    return behind, level


def _figure(lift: Lift) -> str:
    if math.isnan(lift.lower):
        return f"{lift.value:+.3f}"
    return f"{lift.value:+.3f} ({lift.lower:+.3f} to {lift.upper:+.3f})"


def scatter(rows: Sequence[Mapping[str, Any]]) -> str:
    """Every arm by what it adds to retained interests and to satisfaction, both over the ranker alone."""
    found = pooled_lifts(rows)
    arms = [arm for arm in NAMES if (arm, "satisfaction") in found and arm not in PLANTED]
    if not arms:
        return ""
    points = {arm: (found[arm, "satisfaction"], found[arm, "retained_interests"]) for arm in arms}
    xs = [end for x, _ in points.values() for end in (x.value, x.lower, x.upper) if math.isfinite(end)] + [0.0]
    ys = [end for _, y in points.values() for end in (y.value, y.lower, y.upper) if math.isfinite(end)] + [0.0]
    (left, right), (low, high) = _padded(xs), _padded(ys)

    def at(x: float, y: float) -> tuple[float, float]:
        return 50 + 380 * (x - left) / (right - left), 270 - 255 * (y - low) / (high - low)

    zero = at(0, 0)
    marks = [
        f'<path d="M50 {zero[1]:.1f}H430M{zero[0]:.1f} 15V270" stroke="#888" stroke-dasharray="3 3"/>',
        f'<text x="54" y="{zero[1] - 4:.1f}">ranker alone</text>',
    ]
    legend = []
    for place, (arm, (x, y)) in enumerate(points.items(), start=1):
        cx, cy = at(x.value, y.value)
        colour = "#d55e00" if arm == "newfound" else "#0072b2" if arm.startswith("newfound") else "#777"
        if math.isfinite(x.lower):
            a, b, c, d = (
                at(x.lower, y.value)[0],
                at(x.upper, y.value)[0],
                at(x.value, y.lower)[1],
                at(x.value, y.upper)[1],
            )
            marks.append(
                f'<path d="M{a:.1f} {cy:.1f}H{b:.1f}M{cx:.1f} {c:.1f}V{d:.1f}" stroke="{colour}" opacity=".45"/>'
            )
        marks.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{6 if arm == "newfound" else 4}" fill="{colour}"/>')
        marks.append(_number(place, cx, cy))
        legend.append(f"<li><b>{place}</b> {text(NAMES[arm])}: {y.value:+.2f}, {x.value:+.3f}</li>")
    title = "New interests that stayed, and enjoyment, against the ranker alone"
    svg = (
        f'<svg viewBox="0 0 440 310" role="img" aria-label="{title}">{"".join(marks)}'
        '<text x="240" y="300" text-anchor="middle">satisfaction, lift</text>'
        f'<text x="50" y="286">{left:+.2f}</text><text x="430" y="286" text-anchor="end">{right:+.2f}</text>'
        f'<text x="46" y="270" text-anchor="end">{low:+.1f}</text>'
        f'<text x="46" y="24" text-anchor="end">{high:+.1f}</text>'
        '<text transform="translate(12 145) rotate(-90)" text-anchor="middle">retained interests, lift</text></svg>'
    )
    return (
        f"<figure><figcaption>{title}: up and to the right is better</figcaption>{svg}"
        f'<ul class="legend">{"".join(legend)}</ul></figure>'
    )


def _number(place: int, x: float, y: float) -> str:
    """A point's number; those of neighbours in the list, who are close in the picture, stand on different sides."""
    anchor, aside = ("end", -7) if place % 2 == 0 else ("start", 7)
    below = 14 if place % 4 > 1 else -5
    return f'<text x="{x + aside:.1f}" y="{y + below:.1f}" text-anchor="{anchor}">{place}</text>'


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.08 * (high - low or 1.0)
    return low - margin, high + margin


def _over_time(rows: Sequence[Mapping[str, Any]]) -> str:
    chosen = ("newfound", "newfound_teacher", "ranker_direct", "pair_frequency", "random_novel", "ranker")
    series = []
    for arm in chosen:
        daily = [row["daily"]["retained"] for row in rows if row["arm"] == arm]
        if daily:
            mean = np.mean(daily, axis=0)
            series.append(Series(NAMES[arm], list(range(1, len(mean) + 1)), mean.tolist(), points=False))
    chart = line_chart("Retained new interests a person, over time", series, "day", "interests", from_zero=True)
    return f'<div class="chart">{chart}</div>'


def _cell(lift: Lift | None, less_is_better: bool = False) -> str:
    if lift is None:
        return "<td>–</td>"
    sign = -1 if less_is_better else 1
    kind = ""
    if lift.is_clear:
        kind = ' class="up"' if sign * lift.value > 0 else ' class="down"'
    spread = "" if math.isnan(lift.lower) else f" <small>{lift.lower:+.3f} {lift.upper:+.3f}</small>"
    return f"<td{kind}>{lift.value:+.3f}{spread}</td>"


def _table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str], bool]]) -> str:
    top = "".join(f"<th>{text(cell)}</th>" for cell in head)
    lines = [
        f"<tr{' class=ours' if ours else ''}><td>{text(name)}</td>{''.join(cells)}</tr>" for name, cells, ours in rows
    ]
    return f'<div class="scroll"><table><tr>{top}</tr>{"".join(lines)}</table></div>'


def _world_table(rows: Sequence[Mapping[str, Any]], measure: str, title: str) -> str:
    found = lifts(rows)
    worlds = list(dict.fromkeys(row["world"] for row in rows))
    arms = [arm for arm in NAMES if any((world, arm, measure) in found for world in worlds)]
    less = measure in ("regret", "exposure_gini")
    lines = [
        (NAMES[arm], [_cell(found.get((world, arm, measure)), less) for world in worlds], arm == "newfound")
        for arm in arms
    ]
    return f"<h3>{text(title)}</h3>" + _table(["", *(world.replace("_", " ") for world in worlds)], lines)


def _real(results: Mapping[str, Any]) -> str:
    out = []
    for key, title in (
        ("random_exposure", "Random exposure: coats shown at random, in interests new to the person"),
        ("dense_replay", "Dense replay: films that nearly everybody rated, hidden interests, five rounds"),
    ):
        found = results.get(key)
        if not found:
            continue
        lines = [
            (
                NAMES[arm],
                [f"<td>{number(found[arm, 'liked'][0])}</td>", _cell(found[arm, "liked"][1])]
                + [f"<td>{number(found[arm, 'rating'][0])}</td>", _cell(found[arm, "rating"][1])],
                arm == "newfound",
            )
            for arm in NAMES
            if (arm, "liked") in found
        ]
        head = ["", "P(liked)", "over ranker_direct", "rating", "over ranker_direct"]
        out.append(f"<h2>{title}</h2>" + _table(head, lines))
    for campaign, targets in results.get("off_policy", {}).items():
        lines = []
        for target, estimates in targets.items():
            cells = [f"<td>{v:.4f} <small>± {1.96 * e:.4f}</small></td>" for v, e in estimates.values()]
            lines.append((target, cells, False))
        head = ["policy", *(name.replace("_", " ") for name in next(iter(targets.values())))]
        out.append(f"<h2>Off-policy on a shop's log, {text(campaign)}: clicks a view</h2>" + _table(head, lines))
    return "".join(out)


def _sensitivity(rows: Sequence[Mapping[str, Any]]) -> str:
    found = {over: lifts(rows, over) for over in ("ranker", "ranker_direct", "newfound_teacher")}
    worlds = list(dict.fromkeys(row["world"] for row in rows))
    head = ["retained interests, newfound over", *(NAMES[over] for over in found), "sign"]
    lines = []
    for world in worlds:
        shown = [by.get((world, "newfound", "retained_interests")) for by in found.values()]
        clear = [lift for lift in shown if lift is not None and lift.is_clear]
        sign = "none clear" if not clear else "up" if all(x.value > 0 for x in clear) else "differs: no claim"
        lines.append((world.replace("_", " "), [*(_cell(lift) for lift in shown), f"<td>{sign}</td>"], False))
    return _table(head, lines)


def _calibration(calibration: Mapping[str, tuple[Mapping[str, float], Sequence[str]]]) -> str:
    if not calibration:
        return ""
    names = list(next(iter(calibration.values()))[0])
    lines = [
        (
            world.replace("_", " "),
            [*(f"<td>{number(facts[name])}</td>" for name in names), f"<td>{', '.join(missed) or 'counts'}</td>"],
            False,
        )
        for world, (facts, missed) in calibration.items()
    ]
    head = ["world", *(name.replace("_", " ") for name in names), "outside its band"]
    return "<h2>Which worlds count</h2>" + _table(head, lines)
