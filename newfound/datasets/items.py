"""Items alone, from a file of one's own: what the loader asks of an items file, and no row that breaks it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd

from newfound.config import DataConfig
from newfound.datasets.checks import BadRows, check_items
from newfound.datasets.engine import connect
from newfound.datasets.reading import stage
from newfound.datasets.sources import nearby, open_source
from newfound.schema import ITEM


def read_items(path: str) -> pd.DataFrame:
    """Reads an items file.

    Args:
        path: CSV or Parquet, here or at a URL: item_id and title, and possibly text and categories.

    Returns:
        schema.ITEMS, sorted by id.

    Raises:
        DataError: the file or one of its rows breaks the loader's contract, or it has a column that nobody reads.
    """
    config = DataConfig(loader="files", interactions=Path(path).name, items=path)
    with nearby(config) as here, tempfile.TemporaryDirectory(prefix="newfound-") as work:
        source = open_source(here)
        assert source.items is not None
        staged = stage(replace(source.items, alone=True), Path(work) / "items.parquet")
        connection = connect()
        checked = check_items(connection, source, BadRows(staged, 0.0), staged)
        found: pd.DataFrame = checked.order_by(ITEM).to_pyarrow().to_pandas()
        connection.disconnect()
    return found
