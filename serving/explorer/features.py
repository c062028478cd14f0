"""Histories from Feast's online store, in a fraction of a millisecond.

`FeatureStore.get_online_features` resolves the feature service, builds frames' worth of responses and reads every view
at every call. Here a request reads one view: the history. The second view, what was seen before the history begins, is
read only where the history was cut to its last events.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast

from google.protobuf.message import DecodeError

from feature_repo.store import OnlineReader
from newfound.recommend.catalogue import UserHistory
from newfound.schema import (
    CLUSTERS_DIGEST,
    ENGAGEMENTS,
    ITEM_IDS,
    POSITIVES,
    SEEN_LEAVES,
    TIMES,
    USER_HISTORY,
    USER_INTERESTS,
)
from serving.metrics import UNREADABLE_HISTORIES
from serving.together import Errands, Together, Waiting

T = TypeVar("T")

log = logging.getLogger("newfound.serving.features")

_FEATURES: Final = {
    USER_HISTORY: (ITEM_IDS, ENGAGEMENTS, POSITIVES, TIMES),
    USER_INTERESTS: (SEEN_LEAVES, CLUSTERS_DIGEST),
}
Row = Mapping[str, Any] | None  # Feast's values by name


_LISTS: Final = {
    ITEM_IDS: "string_list_val",
    ENGAGEMENTS: "float_list_val",
    POSITIVES: "bool_list_val",
    TIMES: "int64_list_val",
}


class Stored(Protocol):
    """Stored histories.

    Attributes:
        tried: whether the store has answered, or failed to, once.
    """

    tried: bool

    async def read(self, user: str) -> UserHistory | None:
        """The user's history; None for a user that the store does not know."""
        ...


class Reopened:
    """Feast, opened in the background again and again until that works: the explorer answers before it does.

    Args:
        open_store: opens it; whatever it raises is logged, and tried again.
        every_s: how often.
    """

    def __init__(self, open_store: Callable[[], Features], every_s: float = 2.0) -> None:
        self._open, self._every_s = open_store, every_s
        self._features: Features | None = None
        self._task: asyncio.Task[None] | None = None
        self.tried = False

    async def open(self) -> None:
        """Starts trying."""
        self._task = asyncio.create_task(self._retry())

    async def close(self) -> None:
        """Gives up."""
        if self._task is not None:
            self._task.cancel()

    async def _try(self) -> bool:
        try:
            features = await in_daemon_thread(self._open)
        except Exception as error:  # its text may hold the store's password
            log.error("the feature store cannot be opened: %s", type(error).__name__, exc_info=error)
            return False
        try:
            async with asyncio.timeout(self._every_s):
                await features.warm()
        except Exception as error:
            log.error("the online store does not answer yet: %s", type(error).__name__)
        self._features = features
        return True

    async def _retry(self) -> None:
        while not await self._try():
            self.tried = True
            await asyncio.sleep(self._every_s)
        self.tried = True

    async def read(self, user: str) -> UserHistory | None:
        """See `Stored`.

        Raises:
            ConnectionError: the store is not open yet.
        """
        if self._features is None:
            raise ConnectionError("the feature store is not open yet")
        return await self._features.read(user)


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """Runs something slow in a thread that the process does not wait for when it ends."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(outcome: T | None, error: BaseException | None) -> None:
        if done.done():  # nobody waits any more
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast(T, outcome))

    def run() -> None:
        outcome, error = None, None
        try:
            outcome = work()
        except Exception as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(tell, outcome, error)

    threading.Thread(target=run, name="features-open", daemon=True).start()
    return await done


def history_of(columns: Mapping[str, Sequence[Any]], leaves: Sequence[str] = (), digest: str = "") -> UserHistory:
    """A stored row as decisions can be made on it: parallel, each engagement in [0, 1].

    Loaders see to that; a row of another writer must cost its user neither the answer nor its event. An event whose
    engagement is no number is left out, what lies outside is clipped.

    Args:
        columns: the row's lists by name.
        leaves: clusters seen before the oldest event.
        digest: of the clusters that `leaves` are of.
    """
    names, engagements, positives = columns[ITEM_IDS], columns[ENGAGEMENTS], columns[POSITIVES]
    times = columns[TIMES]
    if len({len(names), len(engagements), len(positives)}) > 1 or not all(0 <= one <= 1 for one in engagements):
        rows = zip(names, engagements, positives, strict=False)
        kept = [(name, min(max(one, 0.0), 1.0), positive) for name, one, positive in rows if not math.isnan(one)]
        names, engagements, positives = ([row[at] for row in kept] for at in range(3))
        UNREADABLE_HISTORIES.inc()
    return UserHistory(names, engagements, positives, int(times[-1]) if times else None, leaves, digest)


class Features:
    """The stored rows of a user, read from the online store.

    Args:
        repository: Feast's folder; `FEAST_FS_YAML_FILE_PATH` says which store.
        length: events that a row of the history holds at most.
    """

    def __init__(self, repository: Path, length: int) -> None:
        self.length = length
        self._store = OnlineReader(repository)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="features")
        self._together = {view: Together[str, Row](functools.partial(self._take, view)) for view in _FEATURES}
        self._reads = Errands()

    async def warm(self) -> None:
        """Opens a connection, so that the first request does not pay for it."""
        await self.read("warm-up")

    async def read(self, user: str) -> UserHistory | None:
        """The user's history; None for a user that the store does not know."""
        row = await self._read(USER_HISTORY, user)
        if row is None or not row[ITEM_IDS].HasField("string_list_val"):
            return None
        columns = {name: list(getattr(row[name], field).val) for name, field in _LISTS.items()}
        leaves: Sequence[str] = ()
        digest = ""
        if len(columns[ITEM_IDS]) >= self.length:
            before = await self._read(USER_INTERESTS, user)
            if before is not None:
                leaves, digest = list(before[SEEN_LEAVES].string_list_val.val), before[CLUSTERS_DIGEST].string_val
        return history_of(columns, leaves, digest)

    async def _read(self, view: str, user: str) -> Row:
        if self._store.is_async:
            return await self._together[view].ask(user)
        read = functools.partial(self._store.read, view, _FEATURES[view], user)
        return await asyncio.get_running_loop().run_in_executor(self._thread, read)

    def _take(self, view: str, waiting: Sequence[Waiting[str, Row]]) -> None:
        self._reads.start(self._read_all(view, waiting), waiting)

    async def _read_all(self, view: str, waiting: Sequence[Waiting[str, Row]]) -> None:
        """Users that are asked for together are read in one round trip."""
        try:
            rows = await self._store.read_async(view, _FEATURES[view], [one.asked for one in waiting])
        except DecodeError as error:
            for one in waiting:  # one of the rows is at fault, and the others are read without it
                if len(waiting) > 1:
                    self._take(view, [one])
                else:
                    one.put(error)
        except Exception as error:
            for one in waiting:
                one.put(error)
        else:
            for one, row in zip(waiting, rows, strict=True):
                one.put(row)
