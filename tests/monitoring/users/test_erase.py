"""An erased user is nowhere: in no table, file, spool or Feast, down to the bytes on disk, nor after a restore."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from monitoring.__main__ import app
from monitoring.report.export import export
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.store.tables import feedback
from monitoring.users.erase import Places, erase, replay, retain
from monitoring.users.interactions import write_interactions
from monitoring.users.ledger import Ledger, Outcome
from serving.explorer.spool import Spool
from tests.monitoring import servers as parts

SECRET = parts.SECRET.encode()
USER = "a-person-who-leaves"
NOW = datetime.now(UTC)
SLACK = timedelta(seconds=300)


def _events(user: str, number: int = 0) -> list[Any]:
    return [
        parts.recommendation(f"{user}{number}", user_id=user, at=NOW - timedelta(minutes=5)),
        parts.feedback(
            f"{user}{number}", user_id=user, at=NOW - timedelta(minutes=4), recommendation_id=f"r{user}{number}"
        ),
    ]


def _bytes_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def _named(removed: Sequence[Outcome]) -> dict[str, int]:
    assert not any(outcome.failed for outcome in removed), removed
    return {outcome.place.rsplit("/", 1)[-1]: outcome.removed for outcome in removed}


def _fill(folder: Path, store: Store) -> Places:
    """Two users in every place."""
    store.write(_events(USER) + _events("who-stays"))
    store.import_interactions([(USER, [("1", 1, 1.0, True)]), ("who-stays", [("1", 1, 1.0, True)])])
    export(store, folder / "exports")
    sources, runs, spool = folder / "features", folder / "runs" / "deep" / "er", folder / "spool"
    for place in (sources, runs, spool):
        place.mkdir(parents=True)
    for view in ("user_history", "user_interests"):
        pq.write_table(pa.table({"user_id": [USER, "who-stays"], "x": [1, 2]}), sources / f"{view}.parquet")
    pq.write_table(pa.table({"user_id": ["a"] * 5 + [USER] * 3}), runs / "transitions.parquet", row_group_size=2)
    pq.write_table(pa.table({"node": ["a"]}), runs / "tree.parquet")
    (spool / "1.json").write_text(json.dumps(parts.batch([*_events(USER, 1), *_events("who-stays", 1)])))
    (spool / "2.json").write_text(json.dumps(parts.batch(_events(USER, 2))))
    refused = Spool(spool / "refused", 1 << 20)
    refused.open()
    for event in parts.batch([*_events(USER, 3)[:1], *_events("who-stays", 3)[:1]]):
        refused.put([json.dumps({"status": 422, "problem": "no", "event": event}).encode()])
    interactions = folder / "interactions.parquet"
    assert write_interactions(store, MonitoringConfig(), str(interactions)) == 4
    names = [str(folder / name) for name in ("exports", "features", "runs")]
    return Places([*names, interactions.as_uri()], [str(spool)])


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_user_is_erased_everywhere(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store = Store(request.getfixturevalue(f"{kind}_url"), SECRET)
    places = _fill(tmp_path, store)
    exports, spool, ledger = tmp_path / "exports", tmp_path / "spool", Ledger(str(tmp_path / "erasures"))
    receipt = erase(store, USER, NOW, SLACK, ledger, places)
    assert receipt.complete and _named(receipt.outcomes) == {
        "store.recommendations": 1,
        "store.feedback": 1,
        "store.pasts": 1,
        "exports": 4,  # a slate, its two slots, a feedback
        "features": 2,
        "runs": 3,
        "interactions.parquet": 2,
        "spool": 5,
    }
    assert USER.encode() not in _bytes_of(tmp_path)
    assert [envelope_["data"]["user_id"] for envelope_ in json.loads((spool / "1.json").read_text())] == [
        "who-stays"
    ] * 2
    assert not (spool / "2.json").exists()
    assert len(list((spool / "refused").iterdir())) == 1, "what was refused of others stays, to be looked at"
    assert store.counts()["feedback"] == 1
    assert pq.read_table(exports / "feedback").num_rows == 1
    # What a sender still had of that time does not come back; what the user does from now on is a new start.
    store.write(_events(USER, 3))
    assert store.counts()["feedback"] == 1
    store.write([parts.feedback("later", user_id=USER, at=receipt.until + timedelta(seconds=1))])
    assert store.counts()["feedback"] == 2
    assert _named(erase(store, "nobody", NOW, SLACK, ledger, Places()).outcomes)["store.feedback"] == 0
    store.close()


def test_a_place_that_is_absent_or_unreadable_is_a_failure(sqlite_url: str, tmp_path: Path) -> None:
    store, ledger = Store(sqlite_url, SECRET), Ledger(str(tmp_path / "erasures"))
    places = _fill(tmp_path / "data", store)
    (tmp_path / "broken.parquet").write_text(USER)
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "interactions.csv").write_text(USER)
    bad = [str(tmp_path / "moved"), f"file://{tmp_path}/gone.parquet", str(tmp_path / "broken.parquet")]
    bad.append(str(tmp_path / "csv"))
    no_spool = str(tmp_path / "no-spool")
    receipt = erase(store, USER, NOW, SLACK, ledger, Places([*bad, *places.files], [no_spool]))
    failed = {outcome.place: outcome.failed for outcome in receipt.outcomes if outcome.failed}
    assert not receipt.complete and set(failed) == {*bad, no_spool}
    assert "is not there" in (failed[bad[0]] or "")
    assert USER.encode() not in (tmp_path / "data" / "interactions.parquet").read_bytes(), "the others are done"
    kept = json.loads(next((tmp_path / "erasures").iterdir()).read_text())
    assert kept["complete"] is False
    assert [one["place"] for one in kept["places"] if "failed" in one] == [*bad, no_spool]
    store.close()


def test_an_object_store_is_erased_like_a_folder(sqlite_url: str, tmp_path: Path) -> None:
    import fsspec

    store, memory = Store(sqlite_url, SECRET), fsspec.filesystem("memory")
    _fill(tmp_path, store)
    for name in ("features", "runs", "spool", "interactions.parquet"):
        for file in [tmp_path / name] if name.endswith("parquet") else (tmp_path / name).rglob("*.*"):
            memory.pipe_file(f"/bucket/{file.relative_to(tmp_path)}", file.read_bytes())
    names = ["memory://bucket/features", "memory://bucket/runs", "memory://bucket/interactions.parquet"]
    places = Places(names, ["memory://bucket/spool"])
    receipt = erase(store, USER, NOW, SLACK, Ledger("memory://bucket/erasures"), places)
    assert [outcome.failed for outcome in receipt.outcomes] == [None] * 7
    assert receipt.complete and [outcome.removed for outcome in receipt.outcomes[3:]] == [2, 3, 2, 5]
    assert not any(USER.encode() in memory.cat_file(path) for path in memory.find("/bucket"))
    assert Ledger("memory://bucket/erasures").until() == {store.key_of(USER): receipt.until}
    memory.rm("/bucket", recursive=True)
    store.close()


def test_after_a_restore_the_ledger_erases_once_more(sqlite_url: str, tmp_path: Path) -> None:
    """The database and every file come back from a backup; the user had begun anew since."""
    store, ledger = Store(sqlite_url, SECRET), Ledger(str(tmp_path / "erasures"))
    data, backup = tmp_path / "data", tmp_path / "backup"
    places = _fill(data, store)
    store.close()
    shutil.copytree(data, backup / "data")
    shutil.copy(tmp_path / "events.db", backup / "events.db")
    store = Store(sqlite_url, SECRET)
    receipt = erase(store, USER, NOW, SLACK, ledger, places)
    store.close()
    for file in tmp_path.glob("events.db*"):
        file.unlink()
    shutil.copy(backup / "events.db", tmp_path / "events.db")
    shutil.rmtree(data)
    shutil.copytree(backup / "data", data)
    store = Store(sqlite_url, SECRET)
    anew = parts.feedback("anew", user_id=USER, at=receipt.until + timedelta(seconds=1))
    store.write([anew])
    assert store.counts()["feedback"] == 3, "the backup knows nothing of the erasure"
    outcomes = replay(store, ledger, places)
    assert [outcome.removed for outcome in outcomes] == [1, 1, 1, 4, 2, 3, 2, 5]
    assert store.write(_events(USER, 9)).erased == 2
    with store.engine.connect() as connection:
        left = connection.execute(select(feedback.c.id).where(feedback.c.user_id == USER)).scalars().all()
    assert left == [anew.id]
    assert USER.encode() not in _bytes_of(data)
    assert [outcome.removed for outcome in replay(store, ledger, places)] == [0] * 8
    store.close()


def test_an_erasure_that_was_cut_short_is_in_the_ledger(sqlite_url: str, tmp_path: Path) -> None:
    store, ledger = Store(sqlite_url, SECRET), Ledger(str(tmp_path / "erasures"))
    places = _fill(tmp_path / "data", store)

    class Killed(BaseException):
        pass

    def kill(*_: object) -> dict[str, int]:
        raise Killed

    with pytest.raises(Killed), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "erase", kill)
        erase(store, USER, NOW, SLACK, ledger, places)
    assert store.counts()["feedback"] == 2
    replay(store, ledger, places)
    assert store.counts()["feedback"] == 1 and USER.encode() not in _bytes_of(tmp_path / "data")
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
    erasing = [*out, "--ledger", str(tmp_path / "erasures")]
    erased = run.invoke(app, ["erase", "--user", "u0", *erasing])
    assert erased.exit_code == 0 and "store.pasts: 1 removed" in erased.output, "nothing was exported yet"
    assert "store.pasts: 0 removed" in run.invoke(app, ["erase", "--replay", *erasing]).output
    failed = run.invoke(app, ["erase", "--user", "u1", "--files", str(tmp_path / "absent"), *erasing])
    assert failed.exit_code == 1 and "is not there" in failed.output
    assert run.invoke(app, ["erase", *erasing]).exit_code == 2
    gone = ["--out", str(tmp_path / "absent"), "--ledger", str(tmp_path / "erasures")]
    assert run.invoke(app, ["erase", "--user", "u1", *gone]).exit_code == 1
    assert "store.feedback: 0 removed" in run.invoke(app, ["retain", *out]).output
    assert "nothing is due" in run.invoke(app, ["decide"]).output
    assert (
        "wait"
        in run.invoke(app, ["canary", "20260301T000000-0123456789ab", "--releases", str(tmp_path / "r"), *out]).output
    )
    assert run.invoke(app, ["report", "--window", "soon"]).exit_code == 2
    assert run.invoke(app, ["report", "--until", "never"]).exit_code == 2
