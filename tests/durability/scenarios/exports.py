"""Exports of the store, an erasure from a file, and the ledger: each row once, old or new, whoever is erased."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from monitoring.report.export import export
from monitoring.store.database import Store
from monitoring.users.ledger import Ledger, Outcome, Receipt
from monitoring.users.places import erase_from_files
from newfound.events import user_key
from tests.durability.scenario import Scenario
from tests.monitoring import servers as parts

SECRET = parts.SECRET.encode()
AT = datetime(2026, 1, 31, tzinfo=UTC)
ERASED = Receipt(user_key("u1", SECRET), AT, AT + timedelta(days=1))


def _store(root: Path) -> Store:
    """The store, which lies on another disk."""
    return Store(f"sqlite:///{root.parent}/events.db", SECRET)


def _events(root: Path, numbers: range) -> None:
    store = _store(root)
    store.write([parts.recommendation(n, at=AT) for n in numbers] + [parts.feedback(n, at=AT) for n in numbers])
    store.close()


def _export(root: Path) -> None:
    store = _store(root)
    export(store, root / "exports", batch=2)
    store.close()


def _exported(root: Path) -> None:
    _events(root, range(3))
    _export(root)
    _events(root, range(3, 6))


def _rows(root: Path, kind: str, column: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for part in sorted((root / "exports" / kind).glob("*.parquet")):
        found.update(pq.read_table(part, columns=[column])[column].to_pylist())
    return found


def _check_export(root: Path, done: bool) -> None:
    if not done:
        _export(root)  # the next one goes on
    slates, feedback = _rows(root, "slates", "recommendation_id"), _rows(root, "feedback", "event_id")
    assert len(slates) == len(feedback) == 6 and set(slates.values()) == set(feedback.values()) == {1}
    slots = _rows(root, "slots", "recommendation_id")
    assert set(slots) == set(slates) and len(set(slots.values())) == 1, slots


def _file(root: Path) -> None:
    table = pa.table({"user_id": ["u1", "u2", "u1"], "item_id": ["a", "b", "c"]})
    pq.write_table(table, root / "interactions.parquet")


def _erase(root: Path) -> None:
    key = {user: user_key(user, SECRET) for user in ("u1", "u2")}
    erase_from_files(str(root / "interactions.parquet"), {key["u1"]: AT}, key.__getitem__)


def _check_erased(root: Path, done: bool) -> None:
    found = pq.read_table(root / "interactions.parquet")["user_id"].to_pylist()
    assert found in ([["u2"]] if done else [["u2"], ["u1", "u2", "u1"]]), found


def _receive(root: Path) -> None:
    Ledger(str(root / "ledger")).put(ERASED)


def _complete(root: Path) -> None:
    outcomes = [Outcome("store.feedback", 1)]
    Ledger(str(root / "ledger")).put(Receipt(ERASED.user_key, ERASED.asked, ERASED.until, outcomes))


def _check_ledger(root: Path, done: bool) -> None:
    assert Ledger(str(root / "ledger")).until() == {ERASED.user_key: ERASED.until}


def _check_first_receipt(root: Path, done: bool) -> None:
    found = Ledger(str(root / "ledger")).until() if (root / "ledger").is_dir() else {}
    assert found in ([{ERASED.user_key: ERASED.until}] if done else [{}, {ERASED.user_key: ERASED.until}])


SCENARIOS = [
    Scenario("an export", _exported, _export, _check_export, slow=True),
    Scenario("an erasure from a file", _file, _erase, _check_erased),
    Scenario("the ledger's first entry", lambda root: None, _receive, _check_first_receipt),
    Scenario("a receipt", _receive, _complete, _check_ledger),
]
