"""Spark behind Ibis: where it runs, and how tables come to it and back; `spark_sql` holds what it computes otherwise.

Rows go to Spark and come back as Parquet in one folder, which the driver (the step) and the executors share. Tables
that are kept are files there too: the driver holds no table in memory, and a lost executor costs its own part alone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.pyspark import Backend, SparkSession
from ibis.formats.pandas import PandasData

from newfound.config import SparkConfig
from newfound.datasets.spark_sql import SparkSQL
from newfound.errors import ConfigError

_JAVA: Final = "Java 17 or later (openjdk-17-jre-headless, or JAVA_HOME)"


class Session:
    """One Spark application, which starts with the first connection and ends with the context.

    Args:
        config: where Spark runs, and what it may use.
    """

    def __init__(self, config: SparkConfig) -> None:
        self._config, self._stack = config, ExitStack()
        self._spark: Any = None
        self._folder = Path()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def connect(self) -> Any:
        """An Ibis connection with tables of its own.

        Raises:
            ConfigError: Spark does not start; the message names the setting.
        """
        if self._spark is None:
            self._start()
        tables = Tables()
        tables.register_options()
        tables.keep_in(self._folder, copying=not self._config.is_local)
        tables.do_connect(self._spark.newSession())
        return tables

    def _start(self) -> None:
        config = self._config
        java = os.path.join(os.environ["JAVA_HOME"], "bin", "java") if os.environ.get("JAVA_HOME") else "java"
        if shutil.which(java) is None:
            raise ConfigError(f"engine: spark finds no {java}; expected {_JAVA}, or engine: duckdb")
        own = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="newfound-spark-")))
        try:
            shared = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="newfound-", dir=config.folder))
        except OSError as error:
            raise ConfigError(f"spark.folder: {config.folder} cannot be written to ({error})") from None
        self._folder = Path(shared)
        builder = SparkSession.builder.master(config.master).appName("newfound")
        for key, value in {**_settings(own, config), **config.properties}.items():
            builder = builder.config(key, value)
        try:
            self._spark = builder.getOrCreate()
        except Exception as error:  # pyspark's and py4j's errors have no base in common
            reason = " ".join(str(error).split())[:300]
            expected = f"{_JAVA}, and a master that can be reached"
            raise ConfigError(
                f"spark.master: {config.master} starts no Spark ({reason}); expected {expected}"
            ) from error
        self._stack.callback(self._spark.stop)
        self._spark.sparkContext.setLogLevel("ERROR")


def _settings(own: Path, config: SparkConfig) -> dict[str, str]:
    """Spark's settings: nothing is served, nothing is left behind, values mean what they mean to DuckDB."""
    here = {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.local.dir": str(own),  # of executors as well, which on other machines have their own
    }
    return {
        **(here if config.is_local else {}),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.warehouse.dir": str(own / "warehouse"),
        "spark.driver.defaultJavaOptions": f"-Djava.io.tmpdir={own} -Dderby.system.home={own}",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",  # what overflows is an error
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    }


class Tables(Backend):  # type: ignore[misc]
    """An Ibis connection whose tables are Parquet in a folder of its own.

    Results come back in the order of their expression, and as Arrow: Ibis' own way leads through pandas, which has no
    null integers, and through the driver's memory.
    """

    compiler = SparkSQL()

    def keep_in(self, folder: Path, *, copying: bool) -> None:
        """Names the folder, and whether files from elsewhere are copied there for executors on other machines."""
        self._place, self._copying, self._made = Path(tempfile.mkdtemp(dir=folder)), copying, 0
        if copying:  # executors write as a user of their own, perhaps
            folder.chmod(0o711)
            self._place.chmod(0o777)

    def read_parquet(self, path: str | Path, /, *, table_name: str | None = None, **kwargs: Any) -> Any:
        """The table of a Parquet file."""
        file = Path(path).absolute()
        if self._copying:
            file = Path(shutil.copyfile(file, self._new_place() / "part-0.parquet"))
        return super().read_parquet(_literal(file), table_name=table_name, **kwargs)

    def create_table(self, name: str, obj: Any = None, /, **_: Any) -> Any:
        """Runs an expression, and keeps the result."""
        return super().read_parquet(_literal(self._run(obj)), table_name=name)

    def drop_table(self, name: str, /, **_: Any) -> None:
        """Forgets a table; its files stay for as long as the connection."""
        self._session.catalog.dropTempView(name)

    def to_pyarrow_batches(self, expr: Any, /, *, chunk_size: int = 1_000_000, **_: Any) -> pa.RecordBatchReader:
        """The result in batches of `chunk_size` rows, the last one smaller."""
        table = expr.as_table()
        columns = table.schema().to_pyarrow()
        return pa.RecordBatchReader.from_batches(columns, _batches(self._run(table), columns, chunk_size))

    def to_pyarrow(self, expr: Any, /, **_: Any) -> Any:
        """The result as Arrow has it."""
        return expr.__pyarrow_result__(self.to_pyarrow_batches(expr).read_all())

    def execute(self, expr: Any, /, **_: Any) -> Any:
        """The result as pandas has it."""
        table = expr.as_table()
        frame = self.to_pyarrow_batches(expr).read_all().to_pandas()
        return expr.__pandas_result__(PandasData.convert_table(frame, table.schema()))

    def disconnect(self) -> None:
        """Removes the tables; Spark itself stays for other connections."""
        shutil.rmtree(self._place, ignore_errors=True)

    def _new_place(self) -> Path:
        self._made += 1
        place = self._place / str(self._made)
        place.mkdir()
        return place

    def _run(self, table: Any) -> Path:
        """Writes an expression's rows as parts, whose names are in its order."""
        self._made += 1
        place = self._place / str(self._made)
        self._run_pre_execute_hooks(table)
        self._session.sql(self.compile(table)).write.parquet(_literal(place))
        return place


def _batches(folder: Path, columns: pa.Schema, size: int) -> Iterator[pa.RecordBatch]:
    """Rows of all parts in order, `size` at a time; the folder goes with them."""
    held: list[pa.Table] = []
    for part in sorted(folder.glob("part-*.parquet")):
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(size):
                held.append(pa.Table.from_batches([batch]).cast(columns))
                while sum(map(len, held)) >= size:
                    whole = pa.concat_tables(held).combine_chunks()
                    yield whole.slice(0, size).to_batches()[0]
                    held = [whole.slice(size)]
        part.unlink()
    rest = pa.concat_tables(held).combine_chunks() if held else columns.empty_table()
    yield from rest.to_batches()
    shutil.rmtree(folder, ignore_errors=True)


def _literal(path: Path) -> str:
    """The path as a URL for Spark, which would take some characters for a pattern."""
    return "file://" + "".join(f"\\{letter}" if letter in "*?[]{}\\" else letter for letter in str(path))
