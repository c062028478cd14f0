"""A data set on disk: what every later step reads."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from newfound import schema
from newfound.datasets.engine import connect
from newfound.errors import DataError

RECORD = "dataset.json"
TABLES = {"interactions": schema.INTERACTIONS, "items": schema.ITEMS, "users": schema.USERS}


class Dataset:
    """The folder that `load_interactions` writes.

    Args:
        path: the folder.

    Attributes:
        path: the folder.
        info: what dataset.json holds.

    Raises:
        DataError: a file is missing or does not hold the columns of its contract.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.info: dict[str, Any] = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(str(self.path / RECORD), "cannot be read", expected="a data set's record") from error
        for name, contract in TABLES.items():
            file = self.path / f"{name}.parquet"
            try:
                found = pq.read_schema(file)
            except (OSError, pa.ArrowException) as error:
                raise DataError(str(file), "cannot be read", expected="the Parquet file of a data set") from error
            if found.names != contract.names or found.types != contract.types:
                raise DataError(str(file), f"columns {found.names}", expected=f"columns {contract.names} by contract")

    @property
    def interactions(self) -> Any:
        """Ibis table of `schema.INTERACTIONS`."""
        return self._table("interactions")

    @property
    def items(self) -> Any:
        """Ibis table of `schema.ITEMS`."""
        return self._table("items")

    @property
    def users(self) -> Any:
        """Ibis table of `schema.USERS`."""
        return self._table("users")

    def frame(self, name: str) -> pd.DataFrame:
        """The table `name` (interactions, items or users) in memory, in file order."""
        frame: pd.DataFrame = pq.read_table(self.path / f"{name}.parquet").to_pandas()
        return frame

    @cached_property
    def _connection(self) -> Any:
        return connect()

    def _table(self, name: str) -> Any:
        if name not in self._connection.list_tables():
            return self._connection.read_parquet(self.path / f"{name}.parquet", table_name=name)
        return self._connection.table(name)


def fingerprint(folder: Path) -> str:
    """sha256 over the values of a data set's tables, column by column.

    It depends on the values and their order alone: neither on how Parquet encodes them nor on who wrote them.
    """
    whole = hashlib.sha256()
    for name in sorted(TABLES):
        with pq.ParquetFile(folder / f"{name}.parquet") as file:
            digests = {field.name: hashlib.sha256(f"{name}.{field.name}".encode()) for field in TABLES[name]}
            for batch in file.iter_batches():
                for column, digest in digests.items():
                    for part in _bytes_of(batch.column(column)):
                        digest.update(part)
        for digest in digests.values():
            whole.update(digest.digest())
    return whole.hexdigest()


def _bytes_of(values: pa.Array) -> list[bytes]:
    """Bytes that stand for an array's values, whatever its offsets and the batches it came in."""
    if pa.types.is_list(values.type):
        lengths = values.value_lengths().to_numpy(zero_copy_only=False).astype("<i4")
        return [lengths.tobytes(), *_bytes_of(values.flatten())]
    if pa.types.is_string(values.type):
        lengths = pc.binary_length(values).fill_null(-1).to_numpy().astype("<i4")
        return [lengths.tobytes(), _text_bytes(values.fill_null(""))]
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    return [values.to_numpy(zero_copy_only=False).tobytes()]


def _text_bytes(values: pa.Array) -> bytes:
    """All texts of an array, one after the other."""
    plain = values.cast(pa.large_binary())
    if not len(plain):
        return b""
    offsets = np.frombuffer(plain.buffers()[1], dtype=np.int64)[plain.offset : plain.offset + len(plain) + 1]
    return bytes(memoryview(plain.buffers()[2])[offsets[0] : offsets[-1]])
