"""Removal of users from files: Parquet with a column of users, and JSON lines of CloudEvents, here or below any URL."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from newfound.errors import DataError
from newfound.files import put_file
from newfound.schema import AT, EVENT_TIME, TIME, USER, USER_KEY

Erasures: TypeAlias = Mapping[str, datetime]
"""By a user's keyed hash, the moment until which what the user did goes."""
KeyOf: TypeAlias = Callable[[str], str]
_TIMES: Final = (TIME, AT, EVENT_TIME)


def erase_from_files(url: str, erasures: Erasures, key_of: KeyOf) -> int:
    """Removes users' rows from a Parquet file, or from all of them in a folder; returns how many.

    A row with a time goes if it is no later than the user's erasure; one without goes.

    Args:
        url: file or folder, a path or a URL that fsspec knows.
        erasures: whom, and until when.
        key_of: the keyed hash of a user id.

    Raises:
        DataError: there is no such place, no Parquet in it, or one that cannot be read.
    """
    filesystem, path = fsspec.core.url_to_fs(url)
    files = [path] if filesystem.isfile(path) else sorted(filesystem.glob(f"{path.rstrip('/')}/**/*.parquet"))
    if not filesystem.exists(path):
        raise DataError(url, "is not there", expected="a place where users' data may be")
    if not files and filesystem.find(path):
        raise DataError(url, "holds no Parquet", expected="Parquet: users in other files are not found")
    removed = 0
    for file in files:
        try:
            with filesystem.open(file, "rb") as stream:
                removed += _erase_from(stream, filesystem.unstrip_protocol(file), erasures, key_of)
        except (OSError, pa.ArrowException) as error:
            raise DataError(str(file), f"cannot be erased from ({type(error).__name__})", expected="Parquet") from error
    return removed


def _erase_from(stream: Any, target: str, erasures: Erasures, key_of: KeyOf) -> int:
    """Rewrites a file where it names an erased user; bounded memory, the file's own row groups."""
    source = pq.ParquetFile(stream)
    names = source.schema_arrow.names
    if USER not in names and USER_KEY not in names:
        return 0
    groups = range(source.num_row_groups)
    columns = [name for name in (USER, USER_KEY, *_TIMES) if name in names]
    if all(_kept(source.read_row_group(group, columns), erasures, key_of) is None for group in groups):
        return 0
    removed = 0
    with tempfile.TemporaryDirectory(prefix="newfound-") as folder:
        made = Path(folder) / "kept.parquet"
        codec = source.metadata.row_group(0).column(0).compression
        with pq.ParquetWriter(made, source.schema_arrow, compression=codec) as writer:
            for group in groups:
                table = source.read_row_group(group)
                mask = _kept(table, erasures, key_of)
                kept = table if mask is None else table.filter(mask)
                removed += table.num_rows - kept.num_rows
                writer.write_table(kept)
        put_file(made, target.removeprefix("file://"))
    return removed


def _kept(table: pa.Table, erasures: Erasures, key_of: KeyOf) -> pa.Array | None:
    """Rows that stay; None where all do."""
    if not table.num_rows:
        return None
    name = USER_KEY if USER_KEY in table.column_names else USER
    users = table[name].combine_chunks().dictionary_encode()
    until = [
        None if user is None else erasures.get(user if name == USER_KEY else key_of(user))
        for user in users.dictionary.to_pylist()
    ]
    if not any(until):
        return None
    limits = pa.array(until, pa.timestamp("us", tz="UTC")).take(users.indices)
    times = [name for name in _TIMES if name in table.column_names]
    time = next((name for name in times if pa.types.is_timestamp(table.schema.field(name).type)), None)
    if time is None:
        return pc.is_null(limits)
    moments = table[time].combine_chunks().cast(pa.timestamp("us"), safe=False)
    gone = pc.less_equal(moments, limits.cast(pa.timestamp("us")))
    return pc.invert(pc.fill_null(gone, False))


def erase_from_spool(url: str, erasures: Erasures, key_of: KeyOf) -> int:
    """Removes users' events from a sender's spool: files of one CloudEvent, or of one batch, a line.

    In the folder of refused events, each lies within a record of the refusal.

    Args:
        url: folder, a path or a URL.
        erasures: whom, and until when.
        key_of: the keyed hash of a user id.

    Raises:
        DataError: there is no such place, or a file is not one of a spool.
    """
    filesystem, path = fsspec.core.url_to_fs(url)
    if not filesystem.exists(path):
        raise DataError(url, "is not there", expected="a sender's spool")
    removed = 0
    for file in sorted(filesystem.find(path)):
        try:
            lines = filesystem.cat_file(file).splitlines(keepends=True)
        except FileNotFoundError:  # it was sent meanwhile; the store refuses what it held of the user
            continue
        kept, gone = _without(lines, erasures, key_of, str(file))
        removed += gone
        if gone and not kept:
            filesystem.rm_file(file)
        elif gone:
            with tempfile.TemporaryDirectory(prefix="newfound-") as folder:
                made = Path(folder) / "kept.json"
                made.write_bytes(b"".join(kept))
                put_file(made, filesystem.unstrip_protocol(file).removeprefix("file://"))
    return removed


def _without(lines: list[bytes], erasures: Erasures, key_of: KeyOf, name: str) -> tuple[list[bytes], int]:
    removed, kept = 0, []
    for number, line in enumerate(lines, 1):
        try:
            found = json.loads(line) if line.strip() else []
        except ValueError as error:
            raise DataError(name, "is not JSON", row=number, expected="CloudEvents, one or a batch a line") from error
        events = found if isinstance(found, list) else [found]
        left = [event for event in events if not _is_of(event, erasures, key_of)]
        if len(left) == len(events):
            kept.append(line)
            continue
        removed += len(events) - len(left)
        if left:
            kept.append(json.dumps(left if isinstance(found, list) else left[0]).encode() + b"\n")
    return kept, removed


def _is_of(event: Any, erasures: Erasures, key_of: KeyOf) -> bool:
    if isinstance(event, dict) and isinstance(event.get("event"), dict):
        event = event["event"]  # beside why it was refused
    data = event.get("data") if isinstance(event, dict) else None
    if not isinstance(data, dict) or not isinstance(data.get("user_id"), str):
        return False
    until = erasures.get(key_of(data["user_id"]))
    if until is None:
        return False
    try:
        at = datetime.fromisoformat(data.get("at", ""))
    except (TypeError, ValueError):
        return True
    return (at if at.tzinfo else at.replace(tzinfo=UTC)) <= until
