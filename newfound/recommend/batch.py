"""Slates for everybody, written as a file: the policy, the table and the ranker that answer requests, in bulk.

Users stream through in runs of `users_at_once`, so memory does not grow with their number. A user's random choices come
from the configured seed and their id alone: a slate is the same in whichever run or shard the user is decided.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from newfound.config import BatchConfig
from newfound.errors import DataError
from newfound.files import new_file
from newfound.recommend.catalogue import UserHistory
from newfound.recommend.policy import Kind, Reason
from newfound.recommend.recommender import SEED_BITS, Recommender
from newfound.recommend.slate import Slate
from newfound.schema import (
    CLUSTERS_DIGEST,
    ENGAGEMENTS,
    HISTORIES,
    INTERESTS,
    ITEM,
    ITEM_IDS,
    POSITION,
    POSITIVES,
    REASON,
    RECOMMENDED,
    RELEASE,
    SEEN_LEAVES,
    SLOT,
    TIMES,
    USER,
)

log = logging.getLogger("newfound.recommend.batch")

ROWS_A_GROUP: Final = 1 << 17


def write_slates(
    recommender: Recommender,
    histories: Path,
    out: Path,
    config: BatchConfig,
    *,
    interests: Path | None = None,
    progress: Callable[[int], None] = lambda users: None,
) -> dict[str, float | int]:
    """Writes `schema.RECOMMENDED`: a slate for everyone who has a history, or for those of one shard.

    The file appears whole or not at all.

    Args:
        recommender: the release, with its policy and takedown list.
        histories: `histories.parquet` or its folder, sorted by user, each user once.
        out: the Parquet file.
        config: sizes, seed and shard.
        interests: schema.INTERESTS, sorted by user: what was consumed before the histories begin. Rows of other users
            are passed over; None: the histories are all that is known.
        progress: told the number of users behind it after each run.

    Returns:
        `users`, `slots`, `novel_share` of the slots, `short_slates` (with fewer items than asked for),
        `planner_slots` (decided by the live planner) and `seconds`.

    Raises:
        DataError: a file cannot be read or is not sorted by user.
        VocabularyError: table and ranker are not of one release.
    """
    began = time.perf_counter()
    wanted = config.k or recommender.policy.k
    counts = dict.fromkeys(("users", "slots", "novel", "short_slates", "planner_slots"), 0)
    with new_file(out) as draft, pq.ParquetWriter(draft, RECOMMENDED) as writer:
        waiting: list[pa.Table] = []
        for users, pasts in _runs(histories, interests, config):
            seeds = [seed_of(config.seed, user) for user in users]
            slates = recommender.recommend_all(pasts, seeds, k=wanted, novel=config.novel, planner=config.planner)
            rows = [row for user, slate in zip(users, slates, strict=True) for row in _rows(user, slate)]
            waiting.append(pa.Table.from_pylist(rows, schema=RECOMMENDED))
            counts["users"] += len(users)
            counts["slots"] += len(rows)
            counts["novel"] += sum(row[SLOT] == Kind.NOVEL for row in rows)
            counts["planner_slots"] += sum(row[REASON] == Reason.PLANNER for row in rows)
            counts["short_slates"] += sum(len(slate.items) < wanted for slate in slates)
            if sum(map(len, waiting)) >= ROWS_A_GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting.clear()
            progress(counts["users"])
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    novel = counts.pop("novel")
    seconds = time.perf_counter() - began
    log.info("slates of %d users, %d slots, %.1f s", counts["users"], counts["slots"], seconds)
    return {**counts, "novel_share": novel / max(counts["slots"], 1), "seconds": round(seconds, 2)}


def seed_of(seed: int, user: str) -> int:
    """The seed of one user's random choices."""
    digest = hashlib.blake2b(user.encode(), key=seed.to_bytes(8, "big"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - SEED_BITS)


def _rows(user: str, slate: Slate) -> Iterator[dict[str, Any]]:
    for position, entry in enumerate(slate.items):
        shown = entry.model_dump(mode="json")
        told = {USER: user, POSITION: position, ITEM: shown.pop("item"), RELEASE: slate.release, "seed": slate.seed}
        yield {**shown, **told}


def _runs(
    histories: Path, interests: Path | None, config: BatchConfig
) -> Iterator[tuple[list[str], list[UserHistory]]]:
    """Users with their histories, `users_at_once` at a time."""
    rows = _histories(histories, interests, config)
    while run := list(islice(rows, config.users_at_once)):
        yield [user for user, _ in run], [past for _, past in run]


def _histories(histories: Path, interests: Path | None, config: BatchConfig) -> Iterator[tuple[str, UserHistory]]:
    file = histories / "histories.parquet" if histories.is_dir() else histories
    before = _Before(interests) if interests is not None else None
    at = 0
    for batch in _batches(file, HISTORIES, config.users_at_once):
        mine = range((config.shard - at) % config.shards, batch.num_rows, config.shards)
        at += batch.num_rows
        for row in batch.take(pa.array(mine, pa.int64())).to_pylist():
            leaves, digest = before.of(row[USER]) if before is not None else ((), "")
            newest = row[TIMES][-1] if row[TIMES] else None
            yield (
                row[USER],
                UserHistory(row[ITEM_IDS], row[ENGAGEMENTS], row[POSITIVES], newest, leaves, digest),
            )


class _Before:
    """Items that users consumed before their histories begin, read alongside them."""

    def __init__(self, file: Path) -> None:
        self._rows = (row for batch in _batches(file, INTERESTS, 4096) for row in batch.to_pylist())
        self._next: dict[str, Any] | None = next(self._rows, None)

    def of(self, user: str) -> tuple[Sequence[str], str]:
        """The user's leaves and the digest of their clusters; users must come in order."""
        while self._next is not None and self._next[USER] < user:
            self._next = next(self._rows, None)
        if self._next is None or self._next[USER] != user:
            return (), ""
        return self._next[SEEN_LEAVES], self._next[CLUSTERS_DIGEST]


def _batches(file: Path, schema: pa.Schema, size: int) -> Iterator[pa.RecordBatch]:
    """The file's rows, a bounded number at a time.

    Raises:
        DataError: the file cannot be read, lacks a column, or is not sorted by user.
    """
    last = ""
    row = 0
    try:
        with pq.ParquetFile(file, buffer_size=1 << 20) as source:
            for batch in source.iter_batches(batch_size=size, columns=schema.names):
                columns = [batch.column(field.name).cast(field.type) for field in schema]
                for user in columns[schema.get_field_index(USER)].to_pylist():
                    row += 1
                    if not last < user:
                        raise DataError(
                            str(file), f"user {user!r} after {last!r}", column=USER, row=row, expected="users in order"
                        )
                    last = user
                yield pa.record_batch(columns, schema=schema)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DataError(str(file), f"cannot be read ({error})", expected=f"Parquet with {schema.names}") from error
