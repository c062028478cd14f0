"""Removal of people's data: a user from every place where users are kept, and what is too old from all.

An erasure is put into the ledger before anything is removed, and its receipt when all is done: one that was cut short,
or that a restored backup undid, is made good by `replay`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.store import erase as erase_online
from feature_repo.store import stored_users
from monitoring.collector.pusher import PROGRESS
from monitoring.report.export import rewrite
from monitoring.store.database import Store
from monitoring.users.ledger import Ledger, Outcome, Receipt
from monitoring.users.places import Erasures, erase_from_files, erase_from_spool
from newfound import schema
from newfound.errors import NewfoundError

if TYPE_CHECKING:
    from feature_repo.store import FeatureStore

_PUSHER_S = 60  # how long to wait for a pusher to end its write


@dataclass(frozen=True)
class Places:
    """Places that hold users, beside the store of events.

    Attributes:
        files: Parquet files and folders of them, paths or URLs: exports, interactions for the pipelines, Feast's
            sources, batch slates, artifacts of runs.
        spools: folders of senders' spools, paths or URLs.
        feast: the feature store, whose online rows go; None where there is none.
    """

    files: Sequence[str] = ()
    spools: Sequence[str] = ()
    feast: FeatureStore | None = None


def erase(store: Store, user_id: str, now: datetime, slack: timedelta, ledger: Ledger, places: Places) -> Receipt:
    """Removes a user.

    What the user did until now, and a little longer, is refused should it still arrive: a sender's clock may be ahead.
    Aggregated measures and releases hold no user and stay.

    Args:
        store: the durable store.
        user_id: whom.
        now: UTC.
        slack: how far senders' clocks may be ahead.
        ledger: where the erasure is remembered.
        places: every other place.

    Returns:
        The receipt. Where it is not complete, a place could not be reached or read: the others are done.
    """
    receipt = Receipt(store.key_of(user_id), now, max(now, store.newest_of(user_id)) + slack)
    ledger.put(receipt)
    erasures = {receipt.user_key: receipt.until}
    outcomes = [Outcome(f"store.{name}", count) for name, count in store.erase(user_id, receipt.until).items()]
    if places.feast is not None:
        feast = places.feast
        outcomes.append(_outcome("feast.online", lambda: _erase_online(store, feast, [user_id])))
    outcomes += _erase_elsewhere(store, erasures, places)
    receipt = replace(receipt, outcomes=outcomes)
    ledger.put(receipt)
    return receipt


def replay(store: Store, ledger: Ledger, places: Places) -> list[Outcome]:
    """Removes once more everybody whom the ledger names: after a restore, and on a schedule.

    What a user did since the erasure stays, but for what has no time; Feast's rows of such users are written anew.
    """
    erasures = ledger.until()
    outcomes = [Outcome(f"store.{name}", count) for name, count in store.erase_keys(erasures).items()]
    if places.feast is not None:
        feast = places.feast

        def online() -> int:
            return _erase_online(store, feast, [u for u in stored_users(feast) if store.key_of(u) in erasures])

        outcomes.append(_outcome("feast.online", online))
    return outcomes + _erase_elsewhere(store, erasures, places)


def retain(store: Store, days: int, now: datetime, exports: Path | None = None) -> dict[str, int]:
    """Removes events older than `days` from the store and the exported parts; returns rows removed by place."""
    removed = {f"store.{table}": count for table, count in store.retain(days, now).items()}
    if exports is not None:
        oldest = pa.scalar(now - timedelta(days=days), schema.TIMESTAMP)
        removed["exports"] = rewrite(exports, lambda table: pc.greater_equal(table[schema.AT], oldest))
    return removed


def _erase_online(store: Store, feast: FeatureStore, users: Sequence[str]) -> int:
    """Deletes online rows while no pusher writes; those of users who came back are due to be written anew."""
    with store.sole_pusher(wait_s=_PUSHER_S) as lock:
        if not lock.held:
            raise NewfoundError(f"a pusher was writing for more than {_PUSHER_S} s")
        removed = erase_online(feast, users)
        first = store.first_feedback(users)
        if first is not None and first <= store.progress_of(PROGRESS):
            store.set_progress(PROGRESS, first - 1)
    return removed


def _erase_elsewhere(store: Store, erasures: Erasures, places: Places) -> list[Outcome]:
    def of(what: Callable[[str, Erasures, Callable[[str], str]], int], url: str) -> Outcome:
        return _outcome(url, lambda: what(url, erasures, store.key_of))

    files = [of(erase_from_files, url) for url in places.files]
    return files + [of(erase_from_spool, url) for url in places.spools]


def _outcome(place: str, remove: Callable[[], int]) -> Outcome:
    """A place that fails must not keep the user in the others."""
    try:
        return Outcome(place, remove())
    except Exception as error:  # file systems' and drivers' errors differ
        reason = str(error) if isinstance(error, NewfoundError) else f"{type(error).__name__}: {error}"
        return Outcome(place, failed=reason)
