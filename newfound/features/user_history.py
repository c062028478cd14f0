"""The source of Feast's view `user_history`, and the check of what Feast returns of it.

`write_user_history` makes two rows a user: one as of the user's cut and one as of the end. `entity_rows` says whose row
to fetch and as of when. `check_histories` checks what came back and writes it as `histories.parquet`, which
`newfound.features.histories` reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Any, Literal

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from newfound.datasets.dataset import Dataset
from newfound.datasets.engine import write_table
from newfound.errors import DataError
from newfound.features.histories import ARRAYS
from newfound.files import new_file
from newfound.schema import (
    CUT,
    ENGAGEMENT,
    ENGAGEMENTS,
    EVENT_TIME,
    HISTORIES,
    ITEM,
    ITEM_IDS,
    POSITION,
    POSITIVE,
    POSITIVES,
    TIME,
    TIMES,
    USER,
)

log = logging.getLogger("newfound.features.user_history")

SOURCE = "histories"


def write_user_history(dataset: Path, length: int, out: Path) -> dict[str, float | int | str]:
    """Writes the rows of the view: `schema.HISTORIES`, sorted by user and time.

    A user has one row with the last `length` events before the cut, if there are any, and one with the last `length` of
    all events, if some lie after the cut. Each is stamped with its newest event's time.

    Args:
        dataset: folder of `load_interactions`.
        length: events that a row holds at most.
        out: the Parquet file.

    Returns:
        Rows, users, and users who have more than `length` events.
    """
    data = Dataset(dataset)
    events = data.interactions.inner_join(data.users.select(USER, CUT), USER)
    # Positions count a user's events by time, so the past is the first `_past` of them.
    sizes = events.group_by(USER).agg(_past=(events[TIME] < events[CUT]).sum(), _all=events.count())
    events = events.drop(CUT).inner_join(sizes, USER)
    past = events.filter(events[POSITION].between(events["_past"] - length, events["_past"] - 1))
    whole = events.filter((events["_all"] > events["_past"]) & (events[POSITION] >= events["_all"] - length))
    recent = past.mutate(_end=False).union(whole.mutate(_end=True))
    order = recent[POSITION]
    rows = recent.group_by(USER, "_end").agg(
        **{
            EVENT_TIME: recent[TIME].max(),
            ITEM_IDS: recent[ITEM].collect(order_by=order),
            TIMES: _milliseconds(recent[TIME]).collect(order_by=order),
            ENGAGEMENTS: recent[ENGAGEMENT].collect(order_by=order),
            POSITIVES: recent[POSITIVE].collect(order_by=order),
        }
    )
    with new_file(out) as file:
        count = write_table(rows.order_by(USER, "_end"), HISTORIES, file)
    found = sizes.aggregate(users=sizes.count(), cropped=(sizes["_all"] > length).sum())
    users, cropped = found.to_pyarrow().to_pylist()[0].values()
    log.info("history rows: %d of %d users, at most %d events each (%d users have more)", count, users, length, cropped)
    return {"rows": count, "users": users, "cropped_users": cropped}


def entity_rows(dataset: Path, at: Literal["cut", "end"] = "cut") -> pd.DataFrame:
    """Entity rows of a point-in-time join, one a user and moment: columns user_id and event_timestamp (UTC).

    Feast answers with the newest row *up to and including* the asked time, and an event at the cut belongs to the
    future: so "cut" asks for the microsecond before it.
    """
    users = Dataset(dataset).frame("users")
    if at == "cut":
        when = users[CUT] - pd.Timedelta(1, "us")
    else:
        when = pd.Series(Dataset(dataset).frame("interactions")[TIME].max(), index=users.index)
    return pd.DataFrame({USER: users[USER], EVENT_TIME: when.astype("datetime64[us, UTC]")})


def check_histories(table: pd.DataFrame, out: Path, cuts: Path | None = None) -> dict[str, float | int | str]:
    """Checks what Feast returned and writes it to `out` as `schema.HISTORIES`, sorted by user.

    Users without a past come back with null arrays and are left out. The time of a row becomes that of its newest
    event, whatever the time that was asked for.

    Args:
        table: user_id and the arrays of `schema.HISTORIES`; other columns are ignored.
        out: the Parquet file.
        cuts: a data set's folder, to check that no event lies at or after its user's cut.

    Returns:
        Users with and without a past, events and positive events.

    Raises:
        DataError: a column is missing, a user is null or twice there, a user's arrays differ in length or hold nulls,
            an engagement leaves [0, 1], times are not in order, or an event lies after the cut.
    """
    table = table.reset_index(drop=True)
    _check_columns(table)
    there = table[ITEM_IDS].map(_is_past)
    kept = table.loc[there, [USER, *ARRAYS]].sort_values(USER, kind="stable")
    _check_rows(kept, cuts)
    newest = pa.array([int(times[-1]) * 1000 for times in kept[TIMES]], pa.int64())
    columns: dict[str, Any] = {
        USER: pa.array(kept[USER], pa.string()),
        EVENT_TIME: newest.cast(HISTORIES.field(EVENT_TIME).type),
    }
    for name in ARRAYS:
        columns[name] = pa.array(kept[name].map(list), HISTORIES.field(name).type)
    written = pa.table(columns, schema=HISTORIES)
    with new_file(out) as file:
        pq.write_table(written, file)
    positives = sum(int(np.sum(values)) for values in kept[POSITIVES])
    return {
        "users": len(kept),
        "users_without_past": len(table) - len(kept),
        "events": sum(len(values) for values in kept[ITEM_IDS]),
        "positives": positives,
    }


def _milliseconds(time: Any) -> Any:
    return time.delta(ibis.timestamp("1970-01-01", timezone="UTC"), unit="ms")


def _is_past(items: object) -> bool:
    return isinstance(items, Sized) and not isinstance(items, str) and len(items) > 0


def _check_columns(table: pd.DataFrame) -> None:
    import pandera.pandas as pandera

    named = pandera.Check(lambda user: isinstance(user, str) and user != "", element_wise=True, error="a string")
    columns: dict[str, Any] = {
        USER: pandera.Column(None, named, nullable=False, unique=True, report_duplicates="exclude_first")
    }
    columns |= {name: pandera.Column(None, nullable=True) for name in ARRAYS}
    _validate(pandera.DataFrameSchema(columns), table, "every user once")


def _check_rows(kept: pd.DataFrame, dataset: Path | None) -> None:
    import pandera.pandas as pandera

    events = kept[ITEM_IDS].map(len)
    alike = pandera.Check(
        lambda column: column.map(lambda values: len(values) if _is_past(values) else 0) == events[column.index],
        error="as many values as item ids",
        ignore_na=False,
    )

    def array(fits: Callable[[Any], bool], expected: str) -> Any:
        return pandera.Column(None, [alike, pandera.Check(fits, element_wise=True, error=expected)], nullable=True)

    columns = {
        ITEM_IDS: array(lambda ids: all(isinstance(item, str) and item for item in ids), "item ids"),
        TIMES: array(_in_order, "UTC milliseconds, oldest first"),
        ENGAGEMENTS: array(lambda shares: all(0 <= share <= 1 for share in shares), "numbers from 0 to 1"),
        POSITIVES: array(lambda flags: all(isinstance(flag, (bool, np.bool_)) for flag in flags), "true or false"),
    }
    _validate(pandera.DataFrameSchema(columns), kept, "arrays of one length")
    if dataset is None:
        return
    users = Dataset(dataset).frame("users").set_index(USER)
    cuts = users[CUT].reindex(kept[USER]).set_axis(kept.index)
    newest = pd.to_datetime(kept[TIMES].map(lambda times: times[-1]), unit="ms", utc=True)
    past = pandera.Check(lambda column: (newest < cuts)[column.index], error="events before the user's cut alone")
    _validate(pandera.DataFrameSchema({USER: pandera.Column(None, past)}), kept, "users of the data set")


def _in_order(times: Any) -> bool:
    whole = np.asarray(times)
    return whole.dtype.kind in "iu" and bool(np.all(whole[1:] >= whole[:-1]))


def _validate(contract: Any, table: pd.DataFrame, expected: str) -> None:
    """Checks `table` against a pandera schema; the table's index counts rows from 0."""
    from pandera.errors import SchemaError

    try:
        contract.validate(table)
    except SchemaError as error:
        cases, check = error.failure_cases, error.check
        column = getattr(error.schema, "name", None)
        if not isinstance(cases, pd.DataFrame) or cases["index"].isna().all():
            missing = str(cases["failure_case"].iloc[0]) if isinstance(cases, pd.DataFrame) else str(cases)
            raise DataError(SOURCE, "the column is missing", column=missing, expected=f"{[USER, *ARRAYS]}") from error
        first = cases.sort_values("index", kind="stable").iloc[0]
        raise DataError(
            SOURCE,
            f"holds {str(first['failure_case'])[:80]!r}",
            column=column,
            row=int(first["index"]) + 1,
            expected=getattr(check, "error", None) or expected,
        ) from error
