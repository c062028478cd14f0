"""`report.html`: one self-contained page, light, readable wide and narrow, in light and dark, without any asset.

The page is made of the findings alone (plain JSON, as `evaluate` writes them to `findings.json`), so it can be made
again without evaluating again. A part whose findings are absent is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from newfound.evaluation.report import charts
from newfound.evaluation.report.charts import Bubble, Dot, Series, number, text

Findings = Mapping[str, Any]
SLICES = {
    "all": "All moments",
    "held_out": "Held-out pairs",
    "sampled": "Contexts drawn as serving draws them",
    "light": "Light users",
    "heavy": "Heavy users",
}


def write_report(findings: Findings, path: Path) -> None:
    """Writes the page."""
    Path(path).write_text(render(findings), encoding="utf-8")


def render(findings: Findings) -> str:
    """The page as HTML."""
    sections = [
        ("measures", "The next new interest", _measures(findings)),
        ("composed", "From interest to item", _composed(findings)),
        ("slates", "Slates, with reasons", _slates(findings)),
        ("map", "The map of interests", _map(findings)),
        ("transitions", "What follows what", _transitions(findings)),
        ("training", "How it was trained", _training(findings)),
        ("notes", "How to read this", _notes(findings)),
    ]
    shown = [(key, title, body) for key, title, body in sections if body]
    template = resources.files("newfound.evaluation.report").joinpath("template.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=f"newfound: {text(findings['dataset']['name'])}",
        header=_header(findings),
        contents="".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in shown),
        body="".join(
            f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{title}</h2>{body}</section>'
            for key, title, body in shown
        ),
        footer=_footer(findings),
    )


def _get(findings: Findings, key: str) -> float:
    value = findings["metrics"].get(key)
    return float(value) if isinstance(value, int | float) else math.nan


def _range(findings: Findings, key: str) -> str:
    lower, upper = _get(findings, f"{key}.lower"), _get(findings, f"{key}.upper")
    return f"{number(lower)} to {number(upper)}" if math.isfinite(lower) else ""


# --- the top of the page ------------------------------------------------------------------------------------------


def _header(findings: Findings) -> str:
    data = findings["dataset"]
    facts = "".join(f"<li>{text(label)} <b>{text(value)}</b></li>" for label, value in findings["facts"])
    passed = [gate.get("passed") for gate in findings["gates"]]
    if not passed or None in passed:
        verdict = "Not every gate could be judged."
    else:
        verdict = "All gates hold." if all(passed) else "A gate does not hold: nothing is published from this fit."
    gates = "".join(_gate(gate) for gate in findings["gates"])
    return (
        f"<h1>{text(data['name'])}: new interests, put to the test</h1>"
        f'<p class="lead">{verdict} The figures are of test users, after the cut between past and future.</p>'
        f'<ul class="facts">{facts}</ul><ul class="gates">{gates}</ul>{_tiles(findings)}'
    )


def _gate(gate: Mapping[str, Any]) -> str:
    state = {True: "passed", False: "failed", None: "absent"}[gate.get("passed")]
    word = {"passed": "holds", "failed": "fails", "absent": "not judged"}[state]
    value = number(gate["value"]) if gate.get("value") is not None else "–"
    return (
        f'<li class="{state}"><strong>{text(gate["label"])}: {word}</strong>'
        f"{value}, at least {number(gate['bound'])} asked for</li>"
    )


def _tiles(findings: Findings) -> str:
    tiles: list[str] = []
    ours = next((method["key"] for method in findings["methods"]), "planner")

    def tile(key: str, label: str, below: str, digits: int = 3) -> None:
        if math.isfinite(_get(findings, key)):
            tiles.append(
                f"<li><b>{number(_get(findings, key), digits)}</b><span>{text(label)}</span><small>{below}</small></li>"
            )

    lift = _range(findings, f"{ours}.recall_over_chance")
    tile(f"{ours}.recall_over_chance", "NovelRecall@1 over chance", f"{findings['confidence']:.0%} interval {lift}", 1)
    recall = f"chance {number(_get(findings, 'chance.novel_recall@10'))}"
    tile(f"{ours}.novel_recall@10", "NovelRecall@10", recall)
    direct = f"the ranker with a filter {number(_get(findings, 'rival.ranker_direct.novel_hr@10'))}"
    tile("served.novel_hr@10", "NovelHR@10, as served", direct)
    tile("ranker.ndcg@10", "ranker NDCG@10", f"HR@10 {number(_get(findings, 'ranker.hr@10'))}")
    return f'<ul class="tiles">{"".join(tiles)}</ul>' if tiles else ""


# --- planner and rivals -------------------------------------------------------------------------------------------


def _dots(findings: Findings, slice_key: str, measure: str) -> list[Dot]:
    middle = "" if slice_key == "all" else f"{slice_key}."
    blind = _get(findings, f"chance.{middle}{measure}")
    dots = []
    for method in findings["methods"]:
        key = f"{method['key']}.{middle}{measure}"
        lower, upper = _get(findings, f"{key}.lower"), _get(findings, f"{key}.upper")
        dots.append(Dot(method["label"], _get(findings, key), lower, upper, method["kind"], blind))
    return dots


def _measures(findings: Findings) -> str:
    if not findings["methods"]:
        return ""
    parts = [
        "<p>At each moment at which a test user liked something in a cluster that they had never consumed, every "
        "method ranks the clusters that are still new to them. The dots say how often the right one comes first, or "
        f"among the first ten; the bars are {findings['confidence']:.0%} intervals over users, the dotted mark is "
        "chance.</p>"
    ]
    others: list[str] = []
    for key, label in SLICES.items():
        size = next((s for s in findings["slices"] if s["key"] == key), None)
        if not size or not size["events"]:
            continue
        both = "".join(charts.dot_plot(f"NovelRecall@{k}", _dots(findings, key, f"novel_recall@{k}")) for k in (1, 10))
        title = f"<h3>{text(label)} <small>{size['events']:,} moments of {size['users']:,} users</small></h3>"
        note = f"<p class='note'>{text(size['note'])}</p>" if size.get("note") else ""
        (parts if key in ("all", "held_out") else others).append(f"{title}{note}<div class='pair'>{both}</div>")
    if others:
        names = "contexts as drawn in serving, light and heavy users"
        parts.append(f"<details><summary>Other slices: {names}</summary>{''.join(others)}</details>")
    parts.append(_breadth(findings))
    return "".join(parts)


BREADTH = {
    "novel_recall@1": "Recall@1",
    "novel_recall@10": "Recall@10",
    "mrr": "MRR",
    "macro_recall@10": "Macro recall@10",
    "label_coverage": "Coverage",
    "gini": "Gini",
    "normalised_entropy": "Entropy",
    "leak": "Leak",
}


def _breadth(findings: Findings) -> str:
    rows = [
        [text(method["label"]), *(number(_get(findings, f"{method['key']}.{measure}")) for measure in BREADTH)]
        for method in findings["methods"]
    ]
    strong = [method["kind"] == "ours" for method in findings["methods"]]
    parts = [
        "<h3>Accuracy beside breadth</h3><p class='note'>Coverage: share of all clusters that are anyone's first "
        "answer. Gini and entropy: how evenly the first answers spread. Leak: share of the ten best raw answers that "
        "the user already knew. Macro recall: every tenth of the clusters, from rare to frequent, weighs the same.</p>",
        charts.table(["Method", *BREADTH.values()], rows, strong=strong, label="Measures of every method"),
    ]
    deciles = findings.get("deciles", {})
    lines = [
        charts.Series(
            method["label"], list(range(1, 11)), [math.nan if v is None else v for v in deciles[method["key"]]]
        )
        for method in findings["methods"]
        if method["key"] in deciles
    ]
    if lines:
        parts.append(
            charts.line_chart(
                "Recall@10 from rare to frequent clusters", lines, "decile of the label's frequency", "macro recall@10",
                from_zero=True,
            )
        )  # fmt: skip
    chosen = [
        [text(method["label"]), text(method.get("sees", "")), text(_settings(method.get("chosen", {})))]
        for method in findings["methods"]
    ]
    tuned = charts.table(["Method", "Learns from", "Chosen on validation users"], chosen, label="How each was tuned")
    parts.append(f"<details><summary>What each method sees, and how it was tuned</summary>{tuned}</details>")
    return "".join(parts)


def _settings(chosen: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in chosen.items()
    )


# --- items --------------------------------------------------------------------------------------------------------


def _composed(findings: Findings) -> str:
    parts = []
    rankers = [
        Dot(label, _get(findings, f"{key}.ndcg@10"), _get(findings, f"{key}.ndcg@10.lower"),
            _get(findings, f"{key}.ndcg@10.upper"), kind)
        for key, label, kind in (
            ("ranker", "Ranker", "ours"),
            ("baseline.markov", "Markov", "rival"),
            ("baseline.popular", "Most popular", "rival"),
        )
    ]  # fmt: skip
    hits = [
        Dot(d.label, _get(findings, f"{k}.hr@10"), _get(findings, f"{k}.hr@10.lower"),
            _get(findings, f"{k}.hr@10.upper"), d.kind)
        for d, k in zip(rankers, ("ranker", "baseline.markov", "baseline.popular"), strict=True)
    ]  # fmt: skip
    if any(math.isfinite(d.value) for d in rankers):
        parts.append(
            "<h3>The ranker alone</h3><p class='note'>Leave one out: each user's first new item after the cut, all "
            "items ranked, consumed ones filtered.</p><div class='pair'>"
            + charts.dot_plot("NDCG@10", rankers)
            + charts.dot_plot("HR@10", hits)
            + "</div>"
        )
    inside = _get(findings, "ranker.given_cluster.hr@10")
    if math.isfinite(inside):
        parts.append(
            "<h3>Inside the right cluster</h3><p>Given the true new cluster, the ranker has the very item among its "
            f"first ten in <b>{number(inside)}</b> of cases ({_range(findings, 'ranker.given_cluster.hr@10')}) and "
            f"first in <b>{number(_get(findings, 'ranker.given_cluster.hr@1'))}</b>; chance is "
            f"{number(_get(findings, 'chance.given_cluster.hr@10'))} and "
            f"{number(_get(findings, 'chance.given_cluster.hr@1'))}.</p>"
        )
    whole = []
    for measure, label in (("novel_hr@10", "NovelHR@10"), ("novel_ndcg@10", "NovelNDCG@10")):
        dots = [*_whole_slates(findings, measure), *_dots(findings, "all", measure)]
        dots = [dot for dot in dots if math.isfinite(dot.value)]
        whole.append(charts.dot_plot(label, [Dot(d.label, d.value, d.lower, d.upper, d.kind) for d in dots]))
    if any(whole):
        parts.append(
            "<h3>End to end</h3><p class='note'>Is the first item that the user liked in a new cluster on a slate "
            "of ten? As served, planner and ranker decide together, drawn at the temperature that serves. Of the "
            "others each names clusters, and the same ranker fills the slate from them.</p>"
            f"<div class='pair'>{''.join(whole)}</div>{_decision(findings)}"
        )
    parts.append(_quota(findings))
    return "".join(parts)


def _whole_slates(findings: Findings, measure: str) -> list[Dot]:
    """The served slate and the ranker with a mere filter."""
    shown = (("served", "As served", "ours"), ("rival.ranker_direct", "Ranker, never-consumed items", "rival"))
    dots = []
    for key, label, kind in shown:
        value, lower, upper = (_get(findings, f"{key}.{measure}{end}") for end in ("", ".lower", ".upper"))
        dots.append(Dot(label, value, lower, upper, kind))
    return dots


def _decision(findings: Findings) -> str:
    """What planner and ranker weigh in the one decision."""
    decision = findings.get("decision") or {}
    if not decision.get("intervals"):
        return ""
    full = decision["full"]
    weights = {**full["items"], **full["clusters"], "dissimilarity": full["dissimilarity"]}
    rows = [
        [text(name), number(weights[name]), f"{number(low)} to {number(high)}"]
        for name, (low, high) in decision["intervals"].items()
    ]
    fitted = decision["fitted"]
    behind = f"{fitted['moments']:,} choices of {fitted['users']:,} users"
    note = f"Fitted on {behind} after the cut, none of them a test user."
    return (
        f"<h3>What decides</h3><p class='note'>{text(note)}</p>"
        f"{charts.table(['Term', 'Weight', 'Interval'], rows, label='Weights of the decision')}"
    )


def _quota(findings: Findings) -> str:
    quota = findings.get("quota")
    if not quota:
        return ""
    x = list(range(len(quota["hr"])))
    new, known = Series("opened a new cluster", x, quota["novel"]), Series("familiar cluster", x, quota["familiar"])
    figures = [
        charts.line_chart(title, series, "novel slots of ten", "in the slate", from_zero=True)
        for title, series in (
            ("The next liked item, whatever its cluster", [Series("hit rate", x, quota["hr"])]),
            ("The same, by what the item was", [new, known]),
        )
    ]
    return (
        f"<h3>What novelty costs, and what it finds</h3><div class='pair'>{''.join(figures)}</div>"
        f"<p class='note'>{quota['events']:,} liked items; {quota['novel_share']:.0%} opened a new cluster.</p>"
    )


# --- examples -----------------------------------------------------------------------------------------------------


def _slates(findings: Findings) -> str:
    cards = []
    for slate in findings.get("slates", []):
        rows = []
        for slot in slate["slots"]:
            novel = slot["kind"] == "novel"
            tag = '<span class="tag">new</span>' if novel else ""
            reasons = " and ".join(f"“{text(b)}”" for b in slot["because"])
            because = f"<small>because of {reasons}</small>" if novel and reasons else ""
            rows.append(
                f'<li class="{"novel" if novel else "familiar"}">{text(slot["title"])}{tag}'
                f"<small>{text(slot['cluster'])}</small>{because}</li>"
            )
        interests = ", ".join(f"“{text(i)}”" for i in slate["interests"])
        cards.append(
            f'<div><h3>{text(slate["user"])}</h3><p class="note">Lately: {interests}</p>'
            f'<ol class="slate">{"".join(rows)}</ol></div>'
        )
    if not cards:
        return ""
    return (
        "<p>Ten slots each for a few test users, novel ones marked. Planner and "
        "ranker decide on the novel ones together; a reason stands where the planner made the difference.</p>"
        f"<div class='cards'>{''.join(cards)}</div>"
    )


def _map(findings: Findings) -> str:
    bubbles = [Bubble(**bubble) for bubble in findings.get("map", [])]
    if not bubbles:
        return ""
    interests = findings["interests"]
    rows = [
        [text(one["description"]), text(one["parent"]), f"{one['size']:,}", f"{100 * one['traffic']:.2f} %"]
        for one in sorted(interests, key=lambda one: (-one["traffic"], one["description"]))
    ]
    sizes = sorted(one["size"] for one in interests)
    drawn = charts.bubble_map(bubbles, findings["map_groups"])
    listing = charts.table(["Interest", "Part of", "Items", "Traffic"], rows, label="All interests")
    return (
        f"<p>{len(interests)} interests of {sizes[0]:,} to {sizes[-1]:,} items (median {sizes[len(sizes) // 2]:,}). "
        "Near bubbles are alike in what their items are about and in who consumes them; the area is the share of "
        f"positive interactions, the colour the branch of the tree.</p>{drawn}"
        f"<details><summary>All {len(interests)} interests</summary>{listing}</details>"
    )


def _transitions(findings: Findings) -> str:
    cards = []
    for one in findings.get("transitions", []):
        answers = "".join(
            f'<li class="{"right" if a["observed"] else ""}">{text(a["cluster"])} <small>{number(a["probability"])}'
            f"{', seen among test users' if a['observed'] else ''}</small></li>"
            for a in one["answers"]
        )
        context = " and ".join(f"“{text(c)}”" for c in one["context"])
        count = one["observed"]
        tag = " <span class='tag'>held out</span>" if one["held_out"] else ""
        cards.append(
            f'<div><h3>{context}{tag}</h3><ol class="answers">{answers}</ol>'
            f"<p class='note'>{count} test moment{'s' if count != 1 else ''} with this context</p></div>"
        )
    if not cards:
        return ""
    return (
        "<p>What the transition table answers after two interests, with the probability of the whole description; in "
        f"bold what test users really opened next.</p><div class='cards'>{''.join(cards)}</div>"
    )


# --- training -----------------------------------------------------------------------------------------------------


def _curves(records: Sequence[Mapping[str, Any]], x: str, names: Mapping[str, str]) -> list[Series]:
    found = []
    for key, label in names.items():
        points = [(r[x], r[key]) for r in records if isinstance(r.get(key), int | float) and x in r]
        if points:
            found.append(Series(label, [float(p[0]) for p in points], [float(p[1]) for p in points], len(points) <= 60))
    return found


def _training(findings: Findings) -> str:
    parts = []
    for training in findings.get("training", []):
        figures = "".join(
            charts.line_chart(
                chart["title"], _curves(training["curve"], training["x"], chart["series"]), training["x"], chart["unit"]
            )
            for chart in training["charts"]
        )
        if figures:
            note = f"<p class='note'>{text(training['note'])}</p>" if training.get("note") else ""
            parts.append(f"<h3>{text(training['title'])}</h3>{note}<div class='pair'>{figures}</div>")
    parts.append(_tuning(findings))
    return "".join(parts)


def _tuning(findings: Findings) -> str:
    trials = findings.get("tuning", [])
    values = [t for t in trials if isinstance(t.get("value"), int | float)]
    if not values:
        return ""
    best, best_so_far = -math.inf, []
    for trial in values:
        best = max(best, trial["value"])
        best_so_far.append(best)
    x = [float(t["number"]) for t in values]
    series = [
        Series("trial", x, [t["value"] for t in values], line=False),
        Series("best so far", x, best_so_far, points=False),
    ]
    names = sorted({name for t in trials for name in t["params"]})
    rows = [
        [
            f"Trial {t['number']}",
            number(t.get("value"), 4),
            text(t["state"]),
            *(text(f"{v:.3g}" if isinstance(v := t["params"].get(name, ""), float) else v) for name in names),
        ]
        for t in trials
    ]
    listing = charts.table(["Trial", "NDCG@10", "State", *names], rows, label="Trials of the ranker's tuning")
    found = charts.line_chart("Optuna's search over the ranker", series, "trial", "validation NDCG@10")
    curves = [
        Series(f"trial {t['number']}", [float(e) for e in range(1, len(t["curve"]) + 1)], t["curve"])
        for t in trials
        if t.get("curve")
    ]
    courses = (
        charts.line_chart("Each trial's course", curves, "epoch", "validation NDCG@10") if len(curves) <= 6 else ""
    )
    return f"<h3>Tuning the ranker</h3><div class='pair'>{found}{courses}</div>{listing}"


# --- the bottom of the page ---------------------------------------------------------------------------------------


def _notes(findings: Findings) -> str:
    notes = "".join(f"<li>{text(note)}</li>" for note in findings["notes"])
    rows = [[text(key), number(value, 4)] for key, value in sorted(findings["metrics"].items())]
    listing = charts.table(["Measure", "Value"], rows, label="All measures")
    return (
        f"<ul class='notes'>{notes}</ul>"
        f"<details><summary>All {len(rows)} measures, as in metrics.json</summary>{listing}</details>"
    )


def _footer(findings: Findings) -> str:
    return "<br>".join(text(line) for line in findings.get("lineage", []))
