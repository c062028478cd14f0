"""Removal of people's data: a user from everything that monitoring and Feast keep, old events from all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.store import VIEWS
from feature_repo.store import erase as erase_online
from monitoring.report.export import rewrite
from monitoring.store.database import Store
from newfound import schema
from newfound.files import new_file

if TYPE_CHECKING:
    from feature_repo.store import FeatureStore


def erase(
    store: Store,
    user_id: str,
    now: datetime,
    *,
    exports: Path | None = None,
    interactions: Path | None = None,
    feast: FeatureStore | None = None,
    sources: Path | None = None,
    spools: Sequence[Path] = (),
) -> dict[str, int]:
    """Removes a user.

    What the user did until now is refused should it still arrive from a sender's queue (the store remembers the hash
    and the moment, no more). Aggregated measures and releases hold no user and stay.

    Args:
        store: the durable store.
        user_id: whom.
        now: UTC.
        exports: folder of the exported parts.
        interactions: what was last written for the pipelines.
        feast: the feature store, whose online rows go.
        sources: folder of Feast's source files, whose rows go.
        spools: folders of senders' spools: files of one CloudEvent, or one batch, a line.

    Returns:
        What was removed, by place.
    """
    removed = {f"store.{table}": count for table, count in store.erase(user_id, now).items()}
    if exports is not None:
        key = store.key_of(user_id)
        removed["exports"] = rewrite(exports, lambda table: pc.not_equal(table[schema.USER_KEY], key))
    if interactions is not None:
        removed["interactions"] = _from_parquet(interactions, user_id)
    if feast is not None:
        with store.sole_pusher(wait_s=60):  # a collector that has read the user before is done writing then
            removed["feast.online"] = erase_online(feast, user_id)
    if sources is not None:
        removed["feast.sources"] = sum(_from_parquet(sources / f"{view}.parquet", user_id) for view in VIEWS)
    removed["spools"] = sum(
        _from_spool(file, user_id) for folder in spools for file in sorted(folder.rglob("*")) if file.is_file()
    )
    return removed


def retain(store: Store, days: int, now: datetime, exports: Path | None = None) -> dict[str, int]:
    """Removes events older than `days` from the store and the exported parts; returns rows removed by place."""
    removed = {f"store.{table}": count for table, count in store.retain(days, now).items()}
    if exports is not None:
        oldest = pa.scalar(now - timedelta(days=days), schema.TIMESTAMP)
        removed["exports"] = rewrite(exports, lambda table: pc.greater_equal(table[schema.AT], oldest))
    return removed


def _from_parquet(path: Path, user_id: str) -> int:
    if not path.is_file():
        return 0
    table = pq.read_table(path)
    kept = table.filter(pc.not_equal(table[schema.USER], user_id))
    if kept.num_rows < table.num_rows:
        with new_file(path) as file:
            pq.write_table(kept, file)
    return int(table.num_rows - kept.num_rows)


def _from_spool(path: Path, user_id: str) -> int:
    """Lines of one CloudEvent, or of a batch, in JSON; a line that is neither is left alone."""
    removed, kept = 0, []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            found = json.loads(line)
        except ValueError:
            kept.append(line)
            continue
        events = found if isinstance(found, list) else [found]
        left = [event for event in events if not _is_of(event, user_id)]
        if len(left) == len(events):
            kept.append(line)
            continue
        removed += len(events) - len(left)
        if left:
            kept.append(json.dumps(left if isinstance(found, list) else left[0]).encode() + b"\n")
    if removed and not kept:
        path.unlink()
    elif removed:
        with new_file(path) as file:
            file.write_bytes(b"".join(kept))
    return removed


def _is_of(event: Any, user_id: str) -> bool:
    data = event.get("data") if isinstance(event, dict) else None
    return isinstance(data, dict) and data.get("user_id") == user_id
