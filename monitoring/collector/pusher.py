"""The pusher of fresh feedback into Feast: a user's rows are rebuilt whole from the durable store, never patched.

One pusher runs at a time (a lock among replicas), so writes of one user follow each other, and each holds everything
that was durable when it was made: a late, older event changes its place in the row and cannot displace a newer one.
The pusher remembers in the store how far it came; after a crash it goes on there. Rows are stamped with a clock that
all replicas share: the store keeps the last stamp, and each is later, however far a replica's own clock is behind.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

from monitoring.feedback import IMPRESSION
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.store.engine import PusherLock
from monitoring.store.tables import feedback
from monitoring.users.interactions import Interaction, interactions_of
from newfound import schema
from newfound.clusters import Clusters
from newfound.release import store as releases
from newfound.release.new_items import find_leaves, new_items_version

log: Final = logging.getLogger("newfound.monitoring.histories")
PROGRESS: Final = "histories"
STAMP: Final = "stamp"  # the last one, in milliseconds
CLUSTERS: Final = "clusters"  # a hash of the digest of those that interests were last written under
_BETWEEN_REPLICAS: Final = 0.1  # seconds until the lock is tried again
Push: TypeAlias = Callable[[str, Mapping[str, Sequence[Any]]], None]
"""Writes rows of one feature view to the online store; columns by name."""


def history_rows(whole: dict[str, list[Interaction]], length: int, stamp: datetime) -> dict[str, list[Any]]:
    """Rows of the `user_history` view; `stamp` orders writes and is later than every event."""
    rows: dict[str, list[Any]] = {
        name: []
        for name in (
            schema.USER,
            schema.EVENT_TIME,
            schema.ITEM_IDS,
            schema.TIMES,
            schema.ENGAGEMENTS,
            schema.POSITIVES,
        )
    }
    for user, events in whole.items():
        last = events[-length:]
        rows[schema.USER].append(user)
        rows[schema.EVENT_TIME].append(stamp)
        rows[schema.ITEM_IDS].append([event[0] for event in last])
        rows[schema.TIMES].append([event[1] for event in last])
        rows[schema.ENGAGEMENTS].append([event[2] for event in last])
        rows[schema.POSITIVES].append([event[3] for event in last])
    return rows


def interest_rows(
    whole: dict[str, list[Interaction]], clusters: Clusters, stamp: datetime, new: Mapping[str, str] | None = None
) -> dict[str, list[Any]]:
    """Rows of the `user_interests` view: the leaves of the whole look-back, under these clusters.

    Args:
        whole: interactions by user.
        clusters: of the current release.
        stamp: see `history_rows`.
        new: the leaves of its new items.
    """
    leaf_of = ChainMap(dict(new or {}), clusters.leaf_of)
    return {
        schema.USER: list(whole),
        schema.EVENT_TIME: [stamp] * len(whole),
        schema.SEEN_LEAVES: [
            sorted({leaf_of[event[0]] for event in events if event[0] in leaf_of}) for events in whole.values()
        ],
        schema.CLUSTERS_DIGEST: [clusters.digest] * len(whole),
    }


class Pusher:
    """Keeps Feast's online rows as fresh as the store.

    Args:
        store: the durable store.
        config: what feedback means, and how many users a write holds.
        push: where rows go, see `feature_repo.store.push`.
        length: events of a history row.
        root: releases, whose current one gives the clusters; None writes histories alone.
        cache: local folder for a remote root.
        clock: UTC seconds.
        look_s: how often a release, or another replica's end, is looked for where nobody wakes it.
    """

    def __init__(
        self,
        store: Store,
        config: MonitoringConfig,
        push: Push,
        *,
        length: int,
        root: str | None = None,
        cache: Path | None = None,
        clock: Callable[[], float] = time.time,
        look_s: float = 5.0,
    ) -> None:
        self._clock, self._look_s = clock, look_s
        self._store, self._config, self._push = store, config, push
        self._length, self._root, self._cache = length, root, cache
        self._awake, self._stopping = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._behind_since: float | None = None
        self._release: str | None = None
        self._clusters: Clusters | None = None
        self._new: dict[str, str] = {}  # leaves of the release's new items
        self._new_version: str | None = None
        self.pushed = 0

    def start(self) -> None:
        """Starts pushing, first of all what a crash left behind."""
        self._thread = threading.Thread(target=self._run, name="pusher", daemon=True)
        self._thread.start()
        self.wake()

    def stop(self) -> None:
        """Ends after the write that is under way."""
        self._stopping.set()
        self._awake.set()
        if self._thread is not None:
            self._thread.join(timeout=30)

    def wake(self) -> None:
        """There is new feedback."""
        if self._behind_since is None:
            self._behind_since = time.monotonic()
        self._awake.set()

    def lag(self) -> float:
        """Seconds since Feast last had everything."""
        since = self._behind_since
        return 0.0 if since is None else time.monotonic() - since

    def catch_up(self) -> int | None:
        """Writes every history with feedback that Feast does not have yet.

        Returns:
            How many; None while another replica writes, which may have looked before the latest feedback came.
        """
        done = 0
        with self._store.sole_pusher() as lock:
            if not lock.held:
                return None
            self._take_up_release()
            seq = self._store.progress_of(PROGRESS)
            for rows in self._store.after(feedback, seq, self._config.push_users):
                users = sorted({row.user_id for row in rows if row.kind != IMPRESSION})
                if users:
                    self._push_users(users, lock)
                done += len(users)
                self._store.set_progress(PROGRESS, rows[-1].seq)
                if self._stopping.is_set():
                    break
        return done

    def _push_users(self, users: list[str], lock: PusherLock) -> None:
        whole = interactions_of(self._store, users, self._config)
        # Users who were erased since their feedback was read have nothing, and must not come back with an empty row.
        whole = {user: events for user, events in whole.items() if events}
        if not whole:
            return
        stamp = self._stamp()
        lock.check()  # a replica that was taken for gone has lost it, and somebody else may have gone further
        self._push(schema.USER_HISTORY, history_rows(whole, self._length, stamp))
        if self._clusters is not None:
            self._push(schema.USER_INTERESTS, interest_rows(whole, self._clusters, stamp, self._new))
        self.pushed += len(whole)

    def _stamp(self) -> datetime:
        """A stamp later than all before, in milliseconds: Redis drops a row that is stamped no later than its own."""
        stamp = max(int(self._clock() * 1000), self._store.progress_of(STAMP) + 1)
        self._store.set_progress(STAMP, stamp)
        return datetime.fromtimestamp(stamp / 1000, UTC)

    def _take_up_release(self) -> None:
        """Loads the current release's clusters; other ones than before mean that every row is written anew."""
        if self._root is None:
            return
        now = releases.current(self._root)
        if now is None:
            return
        if now != self._release or self._clusters is None:
            found = releases.load(self._root, now, self._cache, ["clusters"])
            self._clusters, self._release = Clusters.load(found.path / "clusters"), now
            self._new, self._new_version = {}, None
        version = new_items_version(self._root, now)
        if version != self._new_version:
            self._new, self._new_version = find_leaves(self._root, now, self._clusters), version
        # Remembered in the store: they may have changed while no pusher ran, or another replica had a newer release.
        mark = int.from_bytes(hashlib.sha256(self._clusters.digest.encode()).digest()[:7], "big")
        if self._store.progress_of(CLUSTERS) != mark:
            self._store.set_progress(PROGRESS, 0)
            self._store.set_progress(CLUSTERS, mark)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._awake.wait(timeout=self._look_s)  # also to notice a release, and another replica's end
            self._awake.clear()
            since = self._behind_since
            try:
                done = self.catch_up()
            except Exception:  # Feast's and the drivers' errors differ; feedback stays in the store, and the lag shows
                log.exception("histories could not be written; trying again")
                self._behind_since = since or time.monotonic()
                self._stopping.wait(1)
                self._awake.set()
            else:
                if done is None:
                    self._stopping.wait(_BETWEEN_REPLICAS)
                    self._awake.set()
                elif not self._awake.is_set():
                    self._behind_since = None
