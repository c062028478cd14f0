"""Clusters that a designer gives, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from newfound.clusters.sources import by_categories, by_file
from newfound.errors import DataError


def items(categories: list[list[str]]) -> pd.DataFrame:
    return pd.DataFrame({"item_id": [f"i{row}" for row in range(len(categories))], "categories": categories})


def test_category_combinations_below_first_categories():
    table = items(
        [["Comedy"], ["Comedy", "Drama"], ["Comedy", "Drama"], ["Drama", "Comedy"], ["Drama"], [], ["Drama", "War"]]
    )
    given = by_categories(table, np.ones(7), least=2)
    names = [tuple(given.names[label]) for label in given.labels]
    # The usual order of a set is the one written most; a rare combination drops its last category.
    assert names == [
        ("Comedy",), ("Comedy", "Drama"), ("Comedy", "Drama"), ("Comedy", "Drama"), ("Drama",), ("other",), ("Drama",)
    ]  # fmt: skip
    assert given.parents is not None
    assert [given.parent_names[label][0] for label in given.parents] == [
        "Comedy", "Comedy", "Comedy", "Comedy", "Drama", "other", "Drama"
    ]  # fmt: skip
    assert len({tuple(name) for name in given.names}) == len(given.names)


def test_no_categories_at_all():
    with pytest.raises(DataError, match="no item has a category"):
        by_categories(items([[], []]), np.ones(2), least=1)


def write(tmp_path: Path, text: str) -> str:
    file = tmp_path / "given.csv"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_file(tmp_path: Path):
    text = "item_id,cluster,description\ni0,07,Old tales\ni1,07,\ni2,8,\nelsewhere,9,Gone\n"
    given = by_file(items([[]] * 4), write(tmp_path, text))
    assert given.names == [["07"], ["8"]]
    assert given.labels.tolist() == [0, 0, 1, -1]
    assert given.texts == {0: "Old tales"}
    parquet = tmp_path / "given.parquet"
    pd.read_csv(tmp_path / "given.csv", dtype=str).to_parquet(parquet)
    again = by_file(items([[]] * 4), str(parquet))
    assert again.labels.tolist() == given.labels.tolist()
    assert again.texts == given.texts


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("item_id,group\ni0,a\n", "column 'cluster': the column is missing"),
        ("item_id,cluster\ni0,a\ni0,b\n", "column 'item_id', row 2: an item for the second time"),
        ("item_id,cluster\ni0,a\ni1,\n", "column 'cluster', row 2: empty"),
        ("item_id,cluster\ni0,a\n,b\n", "column 'item_id', row 2: empty"),
        ("item_id,cluster,description\ni0,a,One\ni1,a,Two\n", "row 2: a second description"),
        ("item_id,cluster,description\ni0,a,One\ni1,b,One\n", "row 2: another cluster's description"),
        ("item_id,cluster\nx,a\n", "names no item of the data set"),
        ("item_id,cluster\n", "holds no row"),
        ("item_id,cluster\ni0,a,b\n", "cannot be read"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, says: str):
    with pytest.raises(DataError, match=says):
        by_file(items([[]] * 2), write(tmp_path, text))


def test_no_file():
    with pytest.raises(DataError, match="cannot be read"):
        by_file(items([[]]), "nowhere.csv")
