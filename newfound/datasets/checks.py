"""Checks of every row: a bad row is refused by name, or, within the tolerated share, dropped and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ibis
import ibis.expr.datatypes as dt

from newfound.config import DataConfig
from newfound.datasets.bounds import LONGEST_LIST, LONGEST_TEXT
from newfound.datasets.engine import drop
from newfound.datasets.reading import ROW, Staged
from newfound.datasets.sources import RATING, Source
from newfound.errors import DataError
from newfound.schema import CATEGORIES, ENGAGEMENT, ITEM, POSITIVE, TEXT, TIME, TITLE, USER
from newfound.types import CONTROL, ID_CHARACTERS

SECOND = 1_000_000
_LATEST = 7_258_118_400  # 2200-01-01 in seconds
_EARLIEST = 100_000_000  # 1973; smaller integers are ordinals
_UNITS = {"datetime": 1, "seconds": SECOND, "milliseconds": 1000, "ordinal": SECOND}
_RANGES = {
    "datetime": (0, _LATEST * SECOND),
    "seconds": (_EARLIEST, _LATEST),
    "milliseconds": (_EARLIEST * 1000, _LATEST * 1000),
    "ordinal": (0, _LATEST),
}
_EXPECTED = {
    "datetime": "a UTC datetime from 1970 to 2199",
    "seconds": "whole UTC seconds from 1973 to 2199",
    "milliseconds": "whole UTC milliseconds from 1973 to 2199",
    "ordinal": f"a whole number from 0 to {_LATEST}",
}
_TRUE, _FALSE = ("true", "t", "yes", "1"), ("false", "f", "no", "0")


@dataclass(frozen=True)
class Check:
    """A kind of bad row."""

    kind: str
    column: str  # newfound's name
    bad: Any  # Ibis boolean; null counts as good
    shown: Any  # Ibis value that the error shows
    expected: str


class BadRows:
    """Bad rows of one source, counted by kind; more of them than are tolerated raise.

    Args:
        staged: the source.
        tolerated: share of its rows that may be bad.

    Raises:
        DataError: too many rows are malformed already.
    """

    def __init__(self, staged: Staged, tolerated: float) -> None:
        self._staged, self._tolerated = staged, tolerated
        self._kinds: dict[str, int] = {}
        self._first: tuple[int, DataError] | None = None
        if staged.malformed.rows:
            problem = f"has another number of fields: {staged.malformed.first[:80]!r}"
            self._add(staged.malformed.rows[0], None, problem, "as many fields as the first line")
            self._kinds["malformed row"] = len(staged.malformed.rows)
            self._refuse_too_many()

    @property
    def count(self) -> int:
        """Bad rows so far."""
        return sum(self._kinds.values())

    def record(self) -> dict[str, object]:
        """Their record in dataset.json."""
        return {"rows": self._staged.rows, "dropped": self.count, "kinds": dict(sorted(self._kinds.items()))}

    def sift(self, con: Any, name: str, table: Any, checks: Sequence[Check]) -> Any:
        """The rows of `table` (which has a row number) that pass every check, as table `name` of `con`.

        Raises:
            DataError: with these, more rows are bad than are tolerated.
        """
        problem = ibis.cases(*((check.bad.fill_null(False), index) for index, check in enumerate(checks)), else_=None)
        shown = ibis.cases(*((check.bad.fill_null(False), check.shown.cast("string")) for check in checks), else_=None)
        checked = con.create_table(name, table.mutate(_problem=problem, _shown=shown), temp=True)
        bad = checked.filter(checked["_problem"].notnull())
        found = bad.group_by("_problem").agg(n=bad.count(), row=bad[ROW].min(), shown=bad["_shown"].argmin(bad[ROW]))
        for one in found.order_by("row").to_pyarrow().to_pylist():
            check = checks[one["_problem"]]
            self._kinds[check.kind] = self._kinds.get(check.kind, 0) + one["n"]
            column = self._staged.columns.get(check.column, check.column)
            value = "is empty" if one["shown"] is None else f"{check.kind} {one['shown'][:80]!r}"
            self._add(one["row"], column, value, check.expected)
        self._refuse_too_many()
        return checked.filter(checked["_problem"].isnull()).drop("_problem", "_shown")

    def _add(self, row: int, column: str | None, problem: str, expected: str) -> None:
        if self._first is None or row < self._first[0]:
            self._first = row, DataError(self._staged.source, problem, expected=expected, column=column, row=row)

    def _refuse_too_many(self) -> None:
        if self._first is None or self.count <= self._tolerated * self._staged.rows:
            return
        first = self._first[1]
        if self.count > 1:
            kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(self._kinds.items()))
            problem = (
                f"{first.problem} (the first of {self.count} bad rows of {self._staged.rows}: {kinds}; "
                f"tolerated share: {self._tolerated:g})"
            )
            raise DataError(first.source, problem, expected=first.expected, column=first.column, row=first.row)
        raise first


def check_items(con: Any, source: Source, bad: BadRows, staged: Staged) -> Any:
    """Items in newfound's columns, without bad rows.

    Raises:
        DataError: more rows are bad than are tolerated.
    """
    raw = con.read_parquet(staged.path)
    table = source.shape_items(raw.mutate(_long=_is_long(raw)))
    again = ibis.row_number().over(group_by=table[ITEM], order_by=table[ROW]) > 0
    duplicate = Check("duplicate item", ITEM, again, table[ITEM], "every item once")
    expected = f"texts of at most {LONGEST_TEXT} characters and {LONGEST_LIST} categories"
    long = Check("long text", TEXT, table["_long"], table[ITEM], expected)
    good = bad.sift(con, "items", table, [*_id_checks(table, ITEM), duplicate, long])
    # Where the source has no title, the id is one; it says nothing to read, so text stays empty.
    return good.mutate(**{TITLE: ibis.coalesce(good[TITLE], good[ITEM])}).select(ITEM, TITLE, TEXT, CATEGORIES)


def check_interactions(
    con: Any, source: Source, bad: BadRows, staged: Staged, items: Any | None, config: DataConfig
) -> tuple[Any, str]:
    """Interactions in newfound's columns, without bad rows, and what their time column turned out to be.

    Times are microseconds since the epoch; column `row` is kept for the order among ties.

    Args:
        con: the Ibis connection that owns `items`.
        source: the data set.
        bad: where its bad rows are counted.
        staged: its staged interactions.
        items: the checked items; None where ids are all there is.
        config: the data settings.

    Raises:
        DataError: more rows are bad than are tolerated.
    """
    raw = con.read_parquet(staged.path)
    time, kind = _read_time(raw, staged, config.time)
    low, high = _RANGES[kind]
    scale = config.rating_scale or source.rating_scale
    if RATING in raw.columns and ENGAGEMENT not in raw.columns and scale is None:
        raise DataError(
            *(staged.source, "ratings have no scale"),
            column=RATING,
            expected="data.rating_scale in the configuration, or a column `engagement`",
        )
    engagement, positive, checks = _engagement(raw, source, config)
    unit = _UNITS[kind]
    table = raw.mutate(_time=(time * unit).cast("int64"), _engagement=engagement, _positive=positive)
    when = Check("bad timestamp", TIME, time.isnull() | ~time.between(low, high - 1), raw[TIME], _EXPECTED[kind])
    good = bad.sift(con, "values", table, [*_id_checks(raw, USER), *_id_checks(raw, ITEM), when, *checks])
    relations = []
    if items is not None:
        good = good.left_join(items.select(ITEM, _known=True), ITEM).drop(f"{ITEM}_right")
        missing = good["_known"].isnull()
        relations.append(Check("unknown item", ITEM, missing, good[ITEM], "an item of the items file"))
    again = ibis.row_number().over(group_by=[good[USER], good[ITEM], good["_time"]], order_by=good[ROW]) > 0
    relations.append(Check("duplicate event", TIME, again, good[TIME], "one row a user, item and time"))
    good = bad.sift(con, "events", good, relations)
    drop(con, "values")
    return good.select(
        USER, ITEM, ROW, **{TIME: good["_time"], ENGAGEMENT: good["_engagement"], POSITIVE: good["_positive"]}
    ), kind


def _id_checks(table: Any, column: str) -> list[Check]:
    ids = table[column]
    return [
        Check("null id", column, ids.isnull() | (ids == ""), ids.nullif(""), "an id in every row"),
        Check("long id", column, ids.length() > ID_CHARACTERS, ids, f"an id of at most {ID_CHARACTERS} characters"),
        Check("unprintable id", column, ids.re_search(CONTROL), ids, "an id without control characters"),
    ]


def _is_long(items: Any) -> Any:
    """Whether an item's texts or categories go beyond the bounds, at which staging has cut them."""
    found = []
    for name in (TITLE, TEXT, CATEGORIES):
        if name not in items.columns:
            continue
        if items[name].type().is_array():
            found.append(items[name].length() > LONGEST_LIST)
            found.append(items[name].filter(lambda one: one.length() > LONGEST_TEXT).length() > 0)
        elif items[name].type().is_string():
            found.append(items[name].length() > LONGEST_TEXT)
    return ibis.or_(*(one.fill_null(False) for one in found), False)


def _read_time(raw: Any, staged: Staged, wanted: str) -> tuple[Any, str]:
    """The time column in its own unit, null where a value is none, and what it holds."""
    column = raw[TIME]
    if staged.datetimes:
        return (column, "datetime") if wanted in ("auto", "datetime") else (ibis.null("float64"), wanted)
    if not column.type().is_string():
        number = _whole(column.cast("float64"))
        seen = raw.aggregate(middle=number.median()).to_pyarrow().to_pylist()[0]
        kind = _unit(seen["middle"]) if wanted == "auto" else wanted
        return (ibis.null("float64") if kind == "datetime" else number), kind
    number = _whole(column.try_cast("float64"))
    # With a zone: an offset in the text counts, and without one the text is UTC as the connection is.
    zoned = column.try_cast(dt.Timestamp(timezone="UTC"))
    moment = zoned.delta(ibis.timestamp("1970-01-01", timezone="UTC"), unit="us")
    seen = (
        raw.aggregate(moments=moment.count(), numbers=number.count(), middle=number.median())
        .to_pyarrow()
        .to_pylist()[0]
    )
    numeric = seen["numbers"] > seen["moments"]
    kind = wanted if wanted != "auto" else _unit(seen["middle"]) if numeric else "datetime"
    return (moment if kind == "datetime" else number), kind


def _whole(number: Any) -> Any:
    odd = number.isnan() | number.isinf() | (number != number.floor())
    return ibis.ifelse(odd, ibis.null("float64"), number)


def _unit(middle: float | None) -> str:
    """The unit of time of integers around this one."""
    if middle is None or middle >= _LATEST:
        return "milliseconds"
    return "seconds" if middle >= _EARLIEST else "ordinal"


def _engagement(raw: Any, source: Source, config: DataConfig) -> tuple[Any, Any, list[Check]]:
    """Engagement, positive, and the checks on the columns that they come from."""
    checks = []
    positive_at = source.positive_at if config.positive_at is None else config.positive_at
    engagement = None
    scale = config.rating_scale or source.rating_scale
    if ENGAGEMENT in raw.columns:
        engagement = _number(raw[ENGAGEMENT])
        checks.append(_range_check(raw, ENGAGEMENT, engagement, 0, 1))
    elif RATING in raw.columns and scale is not None:
        low, high = scale
        rating = _number(raw[RATING])
        checks.append(_range_check(raw, RATING, rating, low, high))
        engagement = (rating - low) / (high - low)
    if POSITIVE not in raw.columns:
        engagement = ibis.literal(1.0) if engagement is None else engagement
        return engagement, engagement >= positive_at, checks
    word = raw[POSITIVE].cast("string").lower().strip()
    positive = ibis.cases((word.isin(_TRUE), True), (word.isin(_FALSE), False), else_=None)
    checks.append(Check("bad positive", POSITIVE, positive.isnull(), raw[POSITIVE], "true or false"))
    return positive.cast("float64") if engagement is None else engagement, positive, checks


def _number(column: Any) -> Any:
    return column.try_cast("float64") if column.type().is_string() else column.cast("float64")


def _range_check(raw: Any, column: str, number: Any, low: float, high: float) -> Check:
    bad = number.isnull() | number.isnan() | ~number.between(low, high)
    return Check(f"bad {column}", column, bad, raw[column], f"a number from {low:g} to {high:g}")
