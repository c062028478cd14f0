"""From the store to Parquet parts that reports read: bounded batches, keyed users, nothing twice.

A part holds the rows of one run of sequence numbers and is named for it; the next export goes on behind the newest
part. Parts are written beside and renamed, so a crash leaves whole parts alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from monitoring.store import Store, feedback, moment, recommendations
from newfound import schema

BATCH: Final = 20_000
_PART = re.compile(r"(\d{20})-(\d{20})\.parquet")


def export(store: Store, out: Path, batch: int = BATCH) -> dict[str, int]:
    """Writes what the store got since the last export.

    Args:
        store: the durable store.
        out: folder of `slates/`, `slots/` and `feedback/`.
        batch: rows of the store that a part holds at most.

    Returns:
        New rows by table.
    """
    written = {"slates": 0, "slots": 0, "feedback": 0}
    # Slots before slates: the slates' parts say how far the export came, and slots beyond them are left of a crash.
    newest = _newest(out / "slates")
    for part in _parts(out / "slots"):
        if part.name > _name(newest, newest):
            part.unlink()
    for rows in store.after(recommendations, newest, batch):
        name = _name(rows[0].seq, rows[-1].seq)
        written["slots"] += _write(out / "slots" / name, _slot_rows(rows), schema.SLOTS)
        written["slates"] += _write(out / "slates" / name, map(_slate_row, rows), schema.SLATES)
    for rows in store.after(feedback, _newest(out / "feedback"), batch):
        name = _name(rows[0].seq, rows[-1].seq)
        written["feedback"] += _write(out / "feedback" / name, map(_feedback_row, rows), schema.FEEDBACK)
    return written


def rewrite(out: Path, keep: Callable[[pa.Table], Any]) -> int:
    """Rewrites every part with the rows that `keep` (a boolean mask of a part) holds on to; returns the rows removed.

    A part that loses everything stays as an empty one: its name still says how far the export came.
    """
    removed = 0
    for name in ("slates", "slots", "feedback"):
        for part in _parts(out / name):
            table = pq.read_table(part)
            kept = table.filter(keep(table))
            if kept.num_rows < table.num_rows:
                removed += table.num_rows - kept.num_rows
                _replace(part, kept)
    return removed


def _parts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.parquet") if _PART.fullmatch(path.name))


def _newest(folder: Path) -> int:
    parts = _parts(folder)
    found = _PART.fullmatch(parts[-1].name) if parts else None
    return int(found.group(2)) if found else 0


def _name(first: int, last: int) -> str:
    return f"{first:020d}-{last:020d}.parquet"


def _write(path: Path, rows: Iterable[dict[str, Any]], columns: pa.Schema) -> int:
    table = pa.Table.from_pylist(list(rows), schema=columns)
    _replace(path, table)
    return int(table.num_rows)


def _replace(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table, beside, compression="zstd")
    os.replace(beside, path)


def _slate_row(row: Any) -> dict[str, Any]:
    return {
        schema.RECOMMENDATION: row.id,
        schema.AT: moment(row.at),
        schema.USER_KEY: row.user_key,
        schema.RELEASE: row.release,
        "history_length": row.history_length,
        "history_at": None if row.history_at is None else moment(row.history_at),
        "successors": row.successors,
        "leaked": row.leaked,
        "generated": row.generated,
        "matched": row.matched,
        "latency_ms": row.latency_ms,
        "degraded": row.degraded,
    }


def _slot_rows(rows: Iterable[Any]) -> Iterable[dict[str, Any]]:
    for row in rows:
        for slot in json.loads(row.slots):
            yield {
                schema.RECOMMENDATION: row.id,
                schema.AT: moment(row.at),
                schema.USER_KEY: row.user_key,
                schema.RELEASE: row.release,
                schema.POSITION: slot["position"],
                schema.ITEM: slot["item"],
                schema.CLUSTER: slot["cluster"],
                schema.SLOT: slot["kind"],
                schema.PROPENSITY: slot["propensity"],
                schema.REASON: slot["reason"],
                "candidates": list(slot["candidates"].items()),
                "floor": slot["floor"],
                "eligible": slot["eligible"],
                "because": slot["because"],
                schema.SCORE: slot["score"],
            }


def _feedback_row(row: Any) -> dict[str, Any]:
    return {
        schema.EVENT: row.id,
        schema.AT: moment(row.at),
        schema.USER_KEY: row.user_key,
        schema.RECOMMENDATION: row.recommendation_id,
        schema.ITEM: row.item,
        schema.KIND: row.kind,
        schema.SHARE: row.share,
    }
