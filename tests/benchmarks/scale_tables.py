"""The tables of docs/capacity.md on table steps, from the record of `make bench-scale`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tests.benchmarks.bench_scale import COMPARED, label, seconds_of

STEPS: Final = {
    "load": "Parquet to a checked data set",
    "load_csv": "CSV to the same",
    "histories": "histories, a row a user",
    "interests": "interests, a row a user",
    "transitions": "transitions, withheld contexts, balanced set",
    "pair_frequencies": "pair frequencies",
}


def steps(record: Mapping[str, Any]) -> str:
    """Seconds, peak memory and slope of every step."""
    found = seconds_of(record)
    sizes = sorted({size for points in found.values() for size in points})
    rows = []
    for step, points in found.items():
        cells = [_cell(record, size, step) if size in points else "" for size in sizes]
        rows.append(
            [STEPS[step], *cells, _number(record, f"{step}.exponent"), _number(record, f"{step}.exponent_overall")]
        )
    last = ["n log n", *([""] * len(sizes)), _number(record, "n_log_n.exponent"), ""]
    head = ["seconds, peak GB", *(f"{size:,}" for size in sizes), "slope of the last step up", "over all"]
    return _table(head, [*rows, last])


def rivals(record: Mapping[str, Any]) -> str:
    """How many times as long the others take."""
    rows = [
        [
            STEPS[step],
            _number(record, f"{step}.ratio_vs_pandas_10m", 1),
            _number(record, f"{step}.ratio_vs_rectools_10m", 1),
        ]
        for step in COMPARED
        if f"{step}.ratio_vs_pandas_10m" in record
    ]
    return _table(["times as long, at ten million", "pandas", "RecTools' preparation"], rows) if rows else ""


def _cell(record: Mapping[str, Any], size: int, step: str) -> str:
    seconds, peak = (record[f"{label(size)}.{step}.{name}"] for name in ("seconds", "peak_gb"))
    return f"{seconds:.1f}, {peak:.1f}"


def _number(record: Mapping[str, Any], key: str, digits: int = 2) -> str:
    return f"{record[key]:.{digits}f}" if key in record else ""


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])
