"""An erased user is nowhere: not in a table, a part, a spool or Feast, down to the bytes on disk."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from monitoring.__main__ import app
from monitoring.report.export import export
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.users.erase import erase, retain
from monitoring.users.interactions import write_interactions
from tests.monitoring import servers as parts

SECRET = parts.SECRET.encode()
USER = "a-person-who-leaves"
NOW = datetime.now(UTC)


def _events(user: str, number: int = 0) -> list[Any]:
    return [
        parts.recommendation(f"{user}{number}", user_id=user, at=NOW - timedelta(minutes=5)),
        parts.feedback(f"{user}{number}", user_id=user, at=NOW - timedelta(minutes=4), recommendation_id=f"r{user}"),
    ]


def _bytes_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_user_is_erased_everywhere(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    store = Store(url, SECRET)
    store.write(_events(USER) + _events("who-stays"))
    store.import_interactions([(USER, [("1", 1, 1.0, True)]), ("who-stays", [("1", 1, 1.0, True)])])
    exports, sources, spool = tmp_path / "exports", tmp_path / "features", tmp_path / "spool"
    export(store, exports)
    sources.mkdir()
    for view in ("user_history", "user_interests"):
        pq.write_table(pa.table({"user_id": [USER, "who-stays"], "x": [1, 2]}), sources / f"{view}.parquet")
    spool.mkdir()
    (spool / "1.json").write_text(json.dumps(parts.batch([*_events(USER, 1), *_events("who-stays", 1)])))
    (spool / "2.json").write_text(json.dumps(parts.batch(_events(USER, 2))))
    interactions = tmp_path / "interactions.parquet"
    assert write_interactions(store, MonitoringConfig(), str(interactions)) == 4
    removed = erase(store, USER, NOW, exports=exports, interactions=interactions, sources=sources, spools=[spool])
    assert removed == {
        "store.recommendations": 1,
        "store.feedback": 1,
        "store.pasts": 1,
        "exports": 4,  # a slate, its two slots, a feedback
        "interactions": 2,
        "feast.sources": 2,
        "spools": 4,
    }
    assert USER.encode() not in _bytes_of(tmp_path)
    assert [envelope_["data"]["user_id"] for envelope_ in json.loads((spool / "1.json").read_text())] == [
        "who-stays"
    ] * 2
    assert not (spool / "2.json").exists()
    assert store.counts()["feedback"] == 1
    assert pq.read_table(exports / "feedback").num_rows == 1
    # What a sender still had of that time does not come back; what the user does from now on is a new start.
    store.write(_events(USER, 3))
    assert store.counts()["feedback"] == 1
    store.write([parts.feedback("later", user_id=USER, at=NOW + timedelta(seconds=1))])
    assert store.counts()["feedback"] == 2
    assert erase(store, "nobody", NOW)["store.feedback"] == 0
    store.close()


def test_old_events_go(sqlite_url: str, tmp_path: Path) -> None:
    store = Store(sqlite_url, SECRET)
    store.write([parts.feedback(n, at=NOW - timedelta(days=n)) for n in range(10)])
    export(store, tmp_path / "exports")
    removed = retain(store, 5, NOW, tmp_path / "exports")
    assert removed["store.feedback"] == removed["exports"] == 4
    assert export(store, tmp_path / "exports")["feedback"] == 0
    store.write([parts.feedback("new")])
    assert export(store, tmp_path / "exports")["feedback"] == 1, "numbers of deleted rows must not come again"
    store.close()


def test_the_command_line(sqlite_url: str, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWFOUND_STORE", sqlite_url)
    monkeypatch.setenv("NEWFOUND_USER_KEY", parts.SECRET)
    run = CliRunner()
    out = ["--out", str(tmp_path)]
    assert "8 users" in run.invoke(app, ["import-past", str(tiny)]).output
    assert "store.pasts: 1 removed" in run.invoke(app, ["erase", "--user", "u0", *out]).output
    assert "store.feedback: 0 removed" in run.invoke(app, ["retain", *out]).output
    assert "nothing is due" in run.invoke(app, ["decide"]).output
    assert (
        "wait"
        in run.invoke(app, ["canary", "20260301T000000-0123456789ab", "--releases", str(tmp_path / "r"), *out]).output
    )
    assert run.invoke(app, ["report", "--window", "soon"]).exit_code == 2
    assert run.invoke(app, ["report", "--until", "never"]).exit_code == 2
