"""The engine below the tables: steps are written once in Ibis, and run on DuckDB here or on Spark across machines."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from newfound.compute.engine import current
from newfound.errors import ConfigError

ROWS_A_GROUP = 1 << 20


def connect() -> Any:
    """A fresh Ibis connection to the engine of this context (`newfound.compute.engine`).

    DuckDB is in memory, spills to the system's temporary folder, and never goes online.

    Raises:
        ConfigError: Spark cannot run; the message names what is missing, or the setting.
    """
    engine = current()
    if engine.name == "duckdb":
        return ibis.duckdb.connect(
            temp_directory=tempfile.gettempdir(),
            autoinstall_known_extensions=False,
            autoload_known_extensions=False,
        )
    try:
        from newfound.datasets.spark import Session
    except ImportError as error:
        expected = "newfound[spark] to be installed, or engine: duckdb"
        raise ConfigError(f"engine: spark finds no pyspark ({error}); expected {expected}") from None
    return engine.once(lambda: Session(engine.spark)).connect()


def drop(con: Any, name: str) -> None:
    """Drops a table of our own making."""
    if con.name == "duckdb":
        con.raw_sql(f'DROP TABLE "{name}"')  # Ibis 12's drop_table writes a statement that DuckDB cannot parse
    else:
        con.drop_table(name)


def write_table(table: Any, schema: pa.Schema, path: Path) -> int:
    """Streams an Ibis table, in its own order, to a Parquet file of exactly `schema`; see `write_tables`."""
    return write_tables([table], schema, path)


def write_tables(tables: Iterable[Any], schema: pa.Schema, path: Path) -> int:
    """Streams Ibis tables, one after the other, to one Parquet file of exactly `schema`.

    Integer columns that the schema calls timestamps hold microseconds since the epoch. Lists of moments that it calls
    integers become milliseconds since then.

    Returns:
        The number of rows.
    """
    rows = 0
    with pq.ParquetWriter(path, schema) as writer:
        for table in tables:
            for batch in table.select(*schema.names).to_pyarrow_batches(chunk_size=ROWS_A_GROUP):
                columns = [_as(batch.column(field.name), field.type) for field in schema]
                # A row group of its own, so that rows which belong together are read without the others.
                writer.write_table(pa.table(columns, schema=schema))
                rows += batch.num_rows
    return rows


def _as(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if (
        pa.types.is_list(kind)
        and pa.types.is_timestamp(values.type.value_type)
        and pa.types.is_integer(kind.value_type)
    ):
        values = values.cast(pa.list_(pa.timestamp("ms", values.type.value_type.tz)), safe=False)
    return values.cast(kind)
