"""What users did before the collector was there, from the dataset that the first release was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from monitoring.histories import Interaction
from newfound import schema
from newfound.errors import DataError


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
