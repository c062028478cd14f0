"""The tables of docs/experiment.md, from the record of `make experiment`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from newfound.simulation.page import NAMES

MEASURES: Final = {"uci_at_n": "UCI@N", "retained_interests": "retained interests", "satisfaction": "satisfaction"}
REAL: Final = {"random_exposure": "coats shown at random", "dense_replay": "films that nearly everybody rated"}


def sealed(record: Mapping[str, Any], measure: str) -> str:
    """newfound minus every arm in the sealed worlds; empty where they were not run."""
    worlds = [name.removeprefix("sealed.") for name in record.get("worlds", []) if name.startswith("sealed.")]
    rows = []
    for arm in record.get("arms", []):
        cells = []
        for world in worlds:
            over = "lift" if arm == "ranker" else f"over_{arm}"
            cells.append(_interval(record, f"closed_loop.sealed.{world}.newfound.{measure}.{over}"))
        if any(cells):
            rows.append([NAMES[arm], *cells])
    if not rows:
        return ""
    return _table([f"{MEASURES[measure]}, newfound minus", *(world.replace("_", " ") for world in worlds)], rows)


def real(record: Mapping[str, Any]) -> str:
    """First choices among interests new to people, answered by their own ratings."""
    rows = []
    for arm in record.get("arms", []):
        cells: list[str] = []
        for evidence in REAL:
            for measure in ("liked", "rating"):
                key = f"{evidence}.{arm}.{measure}"
                value = record.get(key)
                cells.append("" if value is None else f"{value:.3f}, {_interval(record, f'{key}.lift')}")
        if any(cells):
            rows.append([NAMES[arm], *cells])
    if not rows:
        return ""
    head = [f"{label}: {measure}" for label in REAL.values() for measure in ("share liked", "mean rating")]
    return _table(["the arm, and minus the ranker's best", *head], rows)


def own(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """The small experiment of the runs on some data sets.

    Args:
        metrics: metrics.json by the set's name; sets of before the small experiment are left out.
    """
    rows = []
    for name, found in metrics.items():
        for half in ("found", "liked"):
            if f"experiment.planner.{half}" in found:
                arms = [f"{found[f'experiment.{arm}.{half}']:.3f}" for arm in ("planner", "pair_frequency", "chance")]
                lift = _interval(found, f"experiment.planner.minus.pair_frequency.{half}", 4)
                counts = [f"{found[f'experiment.{count}.{half}']:,.0f}" for count in ("choices", "people")]
                rows.append([f"{name}, {half}", *arms, lift, ", ".join(counts)])
    head = ["", "planner", "pair frequency", "blind choice", "planner minus pair frequency", "choices, people"]
    return _table(head, rows) if rows else ""


def world(record: Mapping[str, Any]) -> str:
    """Cost of a world without any arm."""
    head = ["people", "days, and those of the first log", "interests, items", "looks", "minutes", "peak GB"]
    row = [
        f"{record['people']:,}",
        f"{record['days']}, {record['first_log_days']}",
        f"{record['interests']}, {record['items']}",
        f"{record['looks']:,}",
        f"{record['seconds'] / 60:.1f}",
        f"{record['peak_gigabytes']:.1f}",
    ]
    return _table(head, [row])


def _interval(record: Mapping[str, Any], key: str, digits: int = 3) -> str:
    value = record.get(key)
    if value is None:
        return ""
    return f"{value:+.{digits}f} [{record[f'{key}.lower']:+.{digits}f}, {record[f'{key}.upper']:+.{digits}f}]"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)
