"""The sections of examples: slates with their reasons, the map of interests, what the table answers."""

from __future__ import annotations

from newfound.evaluation.report import charts
from newfound.evaluation.report.charts import Bubble, number, text
from newfound.evaluation.report.figures import Findings


def slates_section(findings: Findings) -> str:
    """A few test users' slates, with reasons, as HTML; empty without them."""
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


def map_section(findings: Findings) -> str:
    """The map of interests and their list as HTML; empty without them."""
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


def transitions_section(findings: Findings) -> str:
    """Some contexts with the table's answers as HTML; empty without them."""
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
