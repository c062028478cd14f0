"""Parquet parts of the store's events, which reports read: bounded batches, keyed users, nothing twice.

A part holds the rows of one run of sequence numbers and is named for it; the next export goes on behind the newest
part. Parts are written beside and renamed, so a crash leaves whole parts alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Table, func, select

from monitoring.store.database import Store
from monitoring.store.rows import micros
from monitoring.store.tables import feedback, recommendations
from newfound import schema
from newfound.files import new_file

BATCH: Final = 20_000
_OF_SLATE: Final = (schema.RECOMMENDATION, schema.AT, schema.USER_KEY, schema.RELEASE)
_SEED: Final = "client_seed"
_PART = re.compile(r"(\d{20})-(\d{20})\.parquet")


def export(store: Store, out: Path, batch: int = BATCH, since: datetime | None = None) -> dict[str, int]:
    """Writes what the store got since the last export.

    Args:
        store: the durable store.
        out: folder of `slates/`, `slots/` and `feedback/`.
        batch: rows of the store that a part holds at most.
        since: moment before which a folder without parts need not reach; None: it begins with the first event.

    Returns:
        New rows by table.
    """
    written = {"slates": 0, "slots": 0, "feedback": 0}
    # Slots before slates: the slates' parts say how far the export came, and slots beyond them are left of a crash.
    newest = _newest(out / "slates") or _before(store, recommendations, since)
    for part in _parts(out / "slots"):
        if part.name > _name(newest, newest):
            part.unlink()
    for rows in store.after(recommendations, newest, batch):
        name = _name(rows[0].seq, rows[-1].seq)
        for kind, table in (("slots", _slots(rows)), ("slates", _slates(rows))):
            _replace(out / kind / name, table)
            written[kind] += table.num_rows
    for rows in store.after(feedback, _newest(out / "feedback") or _before(store, feedback, since), batch):
        table = _feedback(rows)
        _replace(out / "feedback" / _name(rows[0].seq, rows[-1].seq), table)
        written["feedback"] += table.num_rows
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
    match = _PART.fullmatch(parts[-1].name) if parts else None
    return int(match.group(2)) if match else 0


def _before(store: Store, table: Table, since: datetime | None) -> int:
    """The last sequence number of which nothing at or after a moment is left out."""
    if since is None:
        return 0
    with store.engine.connect() as connection:
        first = connection.scalar(select(func.min(table.c.seq)).where(table.c.at >= micros(since)))
        last = connection.scalar(select(func.max(table.c.seq))) or 0
    return int(last if first is None else first - 1)


def _name(first: int, last: int) -> str:
    return f"{first:020d}-{last:020d}.parquet"


def _replace(path: Path, table: pa.Table) -> None:
    with new_file(path) as file:
        pq.write_table(table, file, compression="zstd")


# What a slot's JSON holds, for DuckDB, which reads a part's slots at once.
_SLOT: Final = {
    "position": "SMALLINT",
    "item": "VARCHAR",
    "cluster": "VARCHAR",
    "kind": "VARCHAR",
    "propensity": "DOUBLE",
    "reason": "VARCHAR",
    "candidates": "MAP(VARCHAR, DOUBLE)",
    "floor": "DOUBLE",
    "eligible": "INTEGER",
    "because": "VARCHAR[]",
    "score": "FLOAT",
}


def _slates(rows: Sequence[Any]) -> pa.Table:
    return _table(rows, schema.SLATES, {schema.RECOMMENDATION: "id"})


def _slots(rows: Sequence[Any]) -> pa.Table:
    kept = pa.schema([schema.SLOTS.field(name) for name in (*_OF_SLATE, _SEED)] + [pa.field("slots", pa.string())])
    slates = _table(rows, kept, {schema.RECOMMENDATION: "id"})
    fields = ", ".join(f"slot.{name}" for name in _SLOT)
    with duckdb.connect() as db:
        db.execute("SET threads = 1; SET TimeZone = 'UTC'")
        db.register("slates", slates)
        query = f"SELECT {', '.join(map(_quoted, _OF_SLATE))}, {fields}, {_SEED} FROM "
        query += f"(SELECT *, unnest(from_json(slots, '{json.dumps([_SLOT])}')) AS slot FROM slates)"
        return db.execute(query).fetch_arrow_table().rename_columns(schema.SLOTS.names).cast(schema.SLOTS)


def _feedback(rows: Sequence[Any]) -> pa.Table:
    return _table(rows, schema.FEEDBACK, {schema.EVENT: "id", schema.ITEM: "item"})


def _table(rows: Sequence[Any], columns: pa.Schema, named: Mapping[str, str]) -> pa.Table:
    """Rows of the store as columns; `named` are those that are called otherwise there."""
    place = {name: index for index, name in enumerate(rows[0]._fields)}
    columns_of_rows = list(zip(*rows, strict=True))
    arrays = []
    for column in columns:
        values = columns_of_rows[place[named.get(column.name, column.name)]]
        if pa.types.is_timestamp(column.type):
            arrays.append(pa.array(values, pa.int64()).cast(column.type))
        else:
            arrays.append(pa.array(values, column.type))
    return pa.table(arrays, schema=columns)


def _quoted(name: str) -> str:
    return f'"{name}"'
