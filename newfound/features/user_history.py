"""The source of Feast's view `user_history`, and the check of what Feast returns of it.

`write_user_history` makes two rows a user: one as of the user's cut and one as of the end. `entity_rows` says whose row
to fetch and as of when. `check_histories` checks what came back and writes it as `histories.parquet`, which
`newfound.features.histories` reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Any, Final, Literal

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from newfound.datasets.blocks import of_block, user_blocks
from newfound.datasets.dataset import Dataset
from newfound.datasets.engine import write_tables
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
ROWS: Final = 1 << 15
"""Histories of a row group, so that a block of users is read without the others."""
ARRAY_OF: Final = {ITEM_IDS: ITEM, TIMES: TIME, ENGAGEMENTS: ENGAGEMENT, POSITIVES: POSITIVE}


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
    events, users = data.interactions, data.users
    dated = events.inner_join(users.select(USER, CUT), USER)
    # Positions count a user's events by time, so the past is the first `_past` of them.
    sizes = dated.group_by(USER).agg(_past=(dated[TIME] < dated[CUT]).sum(), _all=dated.count())
    sizes = sizes.get_backend().create_table("sizes", sizes, temp=True)
    rows = (_rows(of_block(events, block), of_block(sizes, block), length) for block in user_blocks(sizes, "_all"))
    with new_file(out) as file:
        count = write_tables(rows, HISTORIES, file)
    found = sizes.aggregate(users=sizes.count(), cropped=(sizes["_all"] > length).sum())
    users, cropped = found.to_pyarrow().to_pylist()[0].values()
    log.info("history rows: %d of %d users, at most %d events each (%d users have more)", count, users, length, cropped)
    return {"rows": count, "users": users, "cropped_users": cropped}


def _rows(events: Any, sizes: Any, length: int) -> Any:
    """The rows of some users, in order; times are still moments.

    Each user's events are collected once, by position; both rows are slices of them.
    """
    events = events.inner_join(sizes, USER)
    events = events.filter(events[POSITION] >= events["_past"] - length)
    values = (POSITION, ITEM, TIME, ENGAGEMENT, POSITIVE)
    walks = events.group_by(USER, "_past", "_all").agg(
        _events=ibis.struct({name: events[name] for name in values}).collect().sort(),
    )
    walks = walks.mutate(_past=ibis.least(walks["_past"], length), _all=walks["_events"].length())
    past, after = walks["_past"], walks["_all"] - walks["_past"]
    ends = walks.filter(past > 0).select(USER, _end=False, _events=walks["_events"][:past])
    whole = walks["_events"][ibis.greatest(walks["_all"] - length, 0) :]
    ends = ends.union(walks.filter(after > 0).select(USER, _end=True, _events=whole))
    arrays = {name: ends["_events"].map(lambda event, of=of: event[of]) for name, of in ARRAY_OF.items()}
    newest = ends["_events"][ends["_events"].length() - 1][TIME]
    return ends.select(USER, "_end", **{EVENT_TIME: newest}, **arrays).order_by(USER, "_end")


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
        pq.write_table(written, file, row_group_size=ROWS)
    positives = sum(int(np.sum(values)) for values in kept[POSITIVES])
    return {
        "users": len(kept),
        "users_without_past": len(table) - len(kept),
        "events": sum(len(values) for values in kept[ITEM_IDS]),
        "positives": positives,
    }


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
