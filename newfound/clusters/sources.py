"""Interface clusters that a designer gives: by the items' categories, or by a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from newfound import schema
from newfound.clusters.tree import Labels, Weights
from newfound.errors import DataError

NO_CATEGORY = "other"
FILE_COLUMNS = (schema.ITEM, schema.CLUSTER)


@dataclass(frozen=True)
class Given:
    """Interface clusters from outside.

    Attributes:
        labels: [n] interface label of each item, from 0; -1 for an item that was given none.
        names: of the interface clusters, each a list of keywords.
        parents: [n] labels of the level above, where it was given as well.
        parent_names: of that level.
        texts: descriptions that a designer wrote, by label.
    """

    labels: Labels
    names: list[list[str]]
    parents: Labels | None = None
    parent_names: list[list[str]] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)


def by_categories(items: pd.DataFrame, load: Weights, least: int) -> Given:
    """Clusters by category combination, below clusters by first category.

    Items with the same *set* of categories belong together; the set is written in the order that most of its load is
    written in, and its first category is the parent. A combination of fewer than `least` items drops its last category,
    until it is large enough or a single category. Items without categories are "other".

    Args:
        items: schema.ITEMS.
        load: [n], decides which order a combination is written in.
        least: items that a combination needs.

    Raises:
        DataError: no item has a category.
    """
    written = [tuple(dict.fromkeys(categories)) or (NO_CATEGORY,) for categories in items[schema.CATEGORIES]]
    if all(combination == (NO_CATEGORY,) for combination in written):
        raise DataError("items.parquet", "no item has a category", expected="categories", column=schema.CATEGORIES)
    while True:
        usual = _usual_order(written, load)
        combined = [usual[frozenset(combination)] for combination in written]
        sizes = Counter(combined)
        small = {combination for combination, size in sizes.items() if size < least and len(combination) > 1}
        if not small:
            break
        longest = max(len(combination) for combination in small)
        cut = {combination for combination in small if len(combination) == longest}
        written = [combination[:-1] if combination in cut else combination for combination in combined]
    names = sorted(sizes)
    place = {name: row for row, name in enumerate(names)}
    tops = sorted({name[0] for name in names})
    top = {name: row for row, name in enumerate(tops)}
    return Given(
        labels=np.array([place[combination] for combination in combined], dtype=np.int64),
        names=[list(name) for name in names],
        parents=np.array([top[combination[0]] for combination in combined], dtype=np.int64),
        parent_names=[[name] for name in tops],
    )


def by_file(items: pd.DataFrame, file: str) -> Given:
    """Clusters by a CSV or Parquet file: item_id, cluster, and optionally description.

    The file may name items that the data set lacks. A description stands for its cluster, so all of a cluster's rows
    hold the same one, or none.

    Raises:
        DataError: the file cannot be read, lacks a column, names an item twice, leaves a cluster empty, contradicts
            itself on a description, gives two clusters the same one, or knows no item of the data set.
    """
    table = _read(file)
    for column in FILE_COLUMNS:
        if column not in table:
            raise DataError(file, "the column is missing", column=column, expected=f"columns {list(FILE_COLUMNS)}")
        _refuse(file, column, table[column].isna() | (table[column].str.strip() == ""), "empty", "a value in every row")
    _refuse(file, schema.ITEM, table[schema.ITEM].duplicated(), "an item for the second time", "each item once")
    described = table[table[schema.DESCRIPTION].notna()] if schema.DESCRIPTION in table else table.iloc[:0]
    first = described.groupby(schema.CLUSTER)[schema.DESCRIPTION].transform("first") if len(described) else None
    texts: dict[str, str] = {}
    if first is not None:
        differs = (described[schema.DESCRIPTION] != first).reindex(table.index, fill_value=False)
        _refuse(file, schema.DESCRIPTION, differs, "a second description of its cluster", "one a cluster")
        texts = dict(zip(described[schema.CLUSTER], described[schema.DESCRIPTION], strict=True))
        again = table[schema.CLUSTER].map(texts).where(~table[schema.CLUSTER].duplicated())
        _refuse(
            file, schema.DESCRIPTION, again.notna() & again.duplicated(), "another cluster's description", "its own"
        )
    cluster_of = dict(zip(table[schema.ITEM], table[schema.CLUSTER], strict=True))
    found = [cluster_of.get(item) for item in items[schema.ITEM]]
    names = sorted({name for name in found if name is not None})
    if not names:
        raise DataError(file, "names no item of the data set", column=schema.ITEM, expected="the data set's items")
    place = {name: row for row, name in enumerate(names)}
    return Given(
        labels=np.array([-1 if name is None else place[name] for name in found], dtype=np.int64),
        names=[[name] for name in names],
        texts={place[name]: text for name, text in texts.items() if name in place},
    )


def _usual_order(written: Iterable[tuple[str, ...]], load: Weights) -> dict[frozenset[str], tuple[str, ...]]:
    """Each set of categories in the order that carries most of its load."""
    carried: dict[tuple[str, ...], float] = {}
    for combination, weight in zip(written, load, strict=True):
        carried[combination] = carried.get(combination, 0.0) + float(weight)
    usual: dict[frozenset[str], tuple[str, ...]] = {}
    for combination in sorted(carried, key=lambda name: (-carried[name], name)):
        usual.setdefault(frozenset(combination), combination)
    return usual


def _read(file: str) -> pd.DataFrame:
    try:
        if Path(file).suffix == ".csv":
            text = {name: pa.string() for name in (*FILE_COLUMNS, schema.DESCRIPTION)}
            options = pa_csv.ConvertOptions(column_types=text, strings_can_be_null=True, null_values=[""])
            table = pa_csv.read_csv(file, convert_options=options)
        else:
            table = pq.read_table(file)
        for column in (*FILE_COLUMNS, schema.DESCRIPTION):
            if column in table.column_names:
                place = table.column_names.index(column)
                table = table.set_column(place, column, table[column].cast(pa.string()))
    except (OSError, pa.ArrowException) as error:
        problem = f"cannot be read ({' '.join(str(error).split())})"
        raise DataError(file, problem, expected="a CSV or Parquet file of clusters") from error
    if not table.num_rows:
        raise DataError(file, "holds no row", expected="a row an item")
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _refuse(file: str, column: str, bad: pd.Series, problem: str, expected: str) -> None:
    """Raises for the first row that is `bad`."""
    if bad.any():
        row = int(np.flatnonzero(bad.to_numpy())[0])
        raise DataError(file, problem, column=column, row=row + 1, expected=expected)
