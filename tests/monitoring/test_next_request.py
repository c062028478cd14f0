"""Through the real explorer and collector: feedback changes the next request, and people are hashes everywhere else."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from feature_repo.store import open_store
from monitoring.store.database import Store
from monitoring.store.tables import recommendations
from monitoring.users.erase import Places, erase
from monitoring.users.ledger import Ledger
from newfound.events import user_key
from tests.monitoring import servers as parts
from tests.monitoring.stack import SECRET, live
from tests.serving.conftest import LENGTH

KNOWN, NEW = "u3", f"somebody-new-{uuid.uuid4().hex}"  # one with a stored history, and one that nobody ever saw


@pytest.mark.parametrize("online", ["sqlite", "redis"])
def test_the_next_request_reflects_feedback(
    online: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    redis = request.getfixturevalue("redis_port") if online == "redis" else None
    with live(tmp_path, redis) as up:
        lengths = {row["user_id"]: len(row["item_ids"]) for row in up.stack.rows}
        for user in (KNOWN, NEW):
            before = up.ask_undisturbed(user)
            chosen = next(slot for slot in before["items"] if slot["slot"] == "novel" or user == NEW)
            now = datetime.now(UTC)
            about = {"at": now, "user_id": user, "item": chosen["item"], "recommendation_id": before["id"]}
            up.send(*(parts.feedback(f"{before['id']}-{kind}", kind=kind, **about) for kind in ("shown", "liked")))
            after, _ = up.until_known(user, chosen["cluster"], chosen["item"])
            parts.wait_until(lambda: _recorded(up.store, after["id"]) is not None, 20, "the explorer's event")  # noqa: B023
            shown = _recorded(up.store, after["id"])
            assert shown.history_length == min(LENGTH, lengths.get(user, 0) + 1)
            assert shown.history_at == int(now.timestamp() * 1000) * 1000, "the newest event of the history is the like"
            assert chosen["cluster"] in shown.interests, "the liked interest is one to go on from"
            assert shown.user_key == user_key(user, SECRET)
        up.collector.stop()
        up.stack.explorer.stop()
        for name, value in up.environment.items():
            monkeypatch.setenv(name, value)
        for file in tmp_path.rglob("*"):  # outside the stores, and what waits to be sent to them
            store = file.name.startswith("events.db") or "features" in file.parts or "spool" in file.parts
            if file.is_file() and not store:
                assert NEW.encode() not in file.read_bytes(), file
        ledger = Ledger(str(tmp_path / "erasures"))
        receipt = erase(up.store, NEW, datetime.now(UTC), timedelta(0), ledger, Places(feast=open_store()))
        removed = {outcome.place: outcome.removed for outcome in receipt.outcomes}
        assert removed["store.feedback"] == 2 and removed["store.recommendations"] >= 2 and removed["feast.online"] >= 1
    assert not any(NEW.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def _recorded(store: Store, recommendation: str) -> Any:
    with store.engine.connect() as connection:
        return connection.execute(recommendations.select().where(recommendations.c.id == recommendation)).one_or_none()
