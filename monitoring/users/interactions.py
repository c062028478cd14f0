"""What users did before the collector was there, and all that they ever did as input for the next training."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import select, union

from monitoring.collector.pusher import Interaction, interactions_of
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.store.tables import feedback, pasts
from newfound import schema
from newfound.errors import DataError
from newfound.files import put_file

_USERS = 2000  # whose interactions are in memory at a time


def pasts_of(dataset: Path) -> Iterator[tuple[str, list[Interaction]]]:
    """Every user's whole past, oldest first, one after the other.

    Args:
        dataset: folder of `interactions.parquet`, which is sorted by user and position.

    Raises:
        DataError: the file is missing or not a dataset's.
    """
    path = dataset / "interactions.parquet"
    try:
        file = pq.ParquetFile(path)
        names = [schema.USER, schema.ITEM, schema.TIME, schema.ENGAGEMENT, schema.POSITIVE]
        user: str | None = None
        events: list[Interaction] = []
        for batch in file.iter_batches(columns=names):
            times = batch.column(2).cast(pa.timestamp("ms", tz="UTC"), safe=False).cast(pa.int64())
            columns = [batch.column(0), batch.column(1), times, batch.column(3), batch.column(4)]
            for of, item, at, engagement, positive in zip(*(column.to_pylist() for column in columns), strict=True):
                if of != user:
                    if user is not None:
                        yield user, events
                    user, events = of, []
                events.append((item, at, round(engagement, 6), positive))
        if user is not None:
            yield user, events
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DataError(str(path), f"cannot be read ({type(error).__name__})", expected="a dataset's folder") from error


def write_interactions(store: Store, config: MonitoringConfig, out: str) -> int:
    """Writes every user's interactions, the imported past and the feedback since; returns how many.

    Args:
        store: the durable store.
        config: what feedback means.
        out: Parquet file or URL, with the columns that the loader of own files takes.
    """
    columns = pa.schema(
        [
            pa.field(schema.USER, pa.string()),
            pa.field(schema.ITEM, pa.string()),
            pa.field(schema.TIME, pa.timestamp("ms", tz="UTC")),
            pa.field(schema.ENGAGEMENT, pa.float64()),
            pa.field(schema.POSITIVE, pa.bool_()),
        ]
    )
    query = union(select(pasts.c.user_id), select(feedback.c.user_id).where(feedback.c.kind != "shown"))
    with store.engine.connect() as connection:
        users = sorted(connection.scalars(query))
    total = 0
    with tempfile.TemporaryDirectory(prefix="newfound-") as folder:
        written = Path(folder) / "interactions.parquet"
        total = _write_all(store, users, config, columns, written)
        put_file(written, out)
    return total


def _write_all(store: Store, users: list[str], config: MonitoringConfig, columns: pa.Schema, out: Path) -> int:
    total = 0
    with pq.ParquetWriter(out, columns) as writer:
        for start in range(0, len(users), _USERS):
            whole = interactions_of(store, users[start : start + _USERS], config)
            rows = [(user, *event) for user, events in whole.items() for event in events]
            total += len(rows)
            arrays = zip(*rows, strict=True) if rows else ([] for _ in columns)
            writer.write_table(
                pa.table([pa.array(list(a), f.type) for a, f in zip(arrays, columns, strict=True)], schema=columns)
            )
    return total
