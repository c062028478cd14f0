"""Users' interactions, for Feast and for training: imported ones, and those that feedback amounts to."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import exists, or_, select, union

from monitoring.feedback import CLICKED, DAY, EXPLICIT, IMPRESSION
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.store.tables import feedback, imported, recommendations
from newfound import schema
from newfound.errors import DataError
from newfound.files import put_file

Interaction: TypeAlias = tuple[str, int, float, bool]
"""Item, UTC milliseconds, engagement in [0, 1], positive."""
_USERS: Final = 2000  # whose interactions are in memory at a time
_COLUMNS: Final = pa.schema(
    [
        pa.field(schema.USER, pa.string()),
        pa.field(schema.ITEM, pa.string()),
        pa.field(schema.TIME, pa.timestamp("ms", tz="UTC")),
        pa.field(schema.ENGAGEMENT, pa.float64()),
        pa.field(schema.POSITIVE, pa.bool_()),
    ]
)


def fold(events: Sequence[Any], config: MonitoringConfig) -> list[Interaction]:
    """Feedback as interactions, oldest first (see `monitoring.feedback`); the time of each is its first event's.

    Args:
        events: feedback of one user with `at` (microseconds), `id`, `item`, `recommendation_id`, `kind`, `share`.
        config: engagement of a click, and engagement from which feedback is positive.
    """
    groups: dict[tuple[str, str | int], list[Any]] = {}
    for event in sorted(events, key=lambda event: (event.at, event.id)):
        if event.kind != IMPRESSION:
            groups.setdefault((event.item, event.recommendation_id or event.at // DAY), []).append(event)
    folded: list[tuple[int, Interaction]] = []
    for (item, _), group in groups.items():
        explicit = [EXPLICIT[event.kind] for event in group if event.kind in EXPLICIT]
        if explicit:
            engagement = explicit[-1]
        else:
            engagement = max(config.clicked_engagement if e.kind == CLICKED else float(e.share) for e in group)
        interaction = (item, group[0].at // 1000, engagement, engagement >= config.positive_at)
        folded.append((group[0].at, interaction))
    return [interaction for _, interaction in sorted(folded, key=lambda pair: pair[0])]


def interactions_of(
    store: Store, users: Sequence[str], config: MonitoringConfig, *, known_slates: bool = False
) -> dict[str, list[Interaction]]:
    """Everything that each user ever did, oldest first: the imported interactions and the feedback since.

    Args:
        store: the durable store.
        users: whose.
        config: what feedback means.
        known_slates: leaves out feedback that names a slate which is not known as the user's. Histories take it in: a
            slate may come later than its feedback, and nobody's history but the user's own depends on it.
    """
    with store.engine.connect() as connection:
        before = {
            row.user_id: [
                (str(item), int(at), float(engagement), bool(positive))
                for item, at, engagement, positive in json.loads(row.events)
            ]
            for row in connection.execute(select(imported).where(imported.c.user_id.in_(users)))
        }
        since: dict[str, list[Any]] = {}
        query = select(feedback).where(feedback.c.user_id.in_(users), feedback.c.kind != IMPRESSION)
        if known_slates:
            slate = recommendations.c.id == feedback.c.recommendation_id
            mine = exists().where(slate, recommendations.c.user_id == feedback.c.user_id)
            query = query.where(or_(feedback.c.recommendation_id.is_(None), mine))
        for row in connection.execute(query):
            since.setdefault(row.user_id, []).append(row)
    whole = {}
    for user in users:
        events = before.get(user, []) + fold(since.get(user, []), config)
        whole[user] = sorted(events, key=lambda event: event[1])  # stable: ties keep the order of their source
    return whole


def read_interactions(dataset: str | Path) -> Iterator[tuple[str, list[Interaction]]]:
    """Every user's interactions in a data set, oldest first, one user after the other.

    Args:
        dataset: folder or URL of `interactions.parquet`, which is sorted by user and position.

    Raises:
        DataError: the file is missing or not a data set's.
    """
    path = f"{dataset}/interactions.parquet"
    try:
        with fsspec.open(path, "rb") as stream:
            yield from _by_user(pq.ParquetFile(stream))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DataError(path, f"cannot be read ({type(error).__name__})", expected="a dataset's folder") from error


def _by_user(file: pq.ParquetFile) -> Iterator[tuple[str, list[Interaction]]]:
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


def write_interactions(store: Store, config: MonitoringConfig, out: str) -> int:
    """Writes every user's interactions, the imported ones and the feedback since; returns how many.

    Feedback that names an unknown slate, or somebody else's, is left out: others would learn from it.

    Args:
        store: the durable store.
        config: what feedback means.
        out: Parquet file or URL, with the columns that the loader of own files takes.
    """
    query = union(select(imported.c.user_id), select(feedback.c.user_id).where(feedback.c.kind != IMPRESSION))
    with store.engine.connect() as connection:
        users = sorted(connection.scalars(query))
    with tempfile.TemporaryDirectory(prefix="newfound-") as folder:
        written = Path(folder) / "interactions.parquet"
        total = _write(store, users, config, written)
        put_file(written, out)
    return total


def _write(store: Store, users: list[str], config: MonitoringConfig, out: Path) -> int:
    total = 0
    with pq.ParquetWriter(out, _COLUMNS) as writer:
        for start in range(0, len(users), _USERS):
            whole = interactions_of(store, users[start : start + _USERS], config, known_slates=True)
            rows = [(user, *event) for user, events in whole.items() for event in events]
            total += len(rows)
            arrays = zip(*rows, strict=True) if rows else ([] for _ in _COLUMNS)
            columns = [pa.array(list(a), f.type) for a, f in zip(arrays, _COLUMNS, strict=True)]
            writer.write_table(pa.table(columns, schema=_COLUMNS))
    return total
