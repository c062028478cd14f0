"""The verdict on a canary, and what is done about it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from monitoring.__main__ import app
from monitoring.retraining.canary import compare
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from newfound.events import SlotEvent
from newfound.release import store as release
from tests.monitoring import servers as parts
from tests.monitoring.servers import ROOT, SECRET
from tests.pipelines.kfp_api import KfpApi, serving
from tests.release.gates import HELD

CONFIG = MonitoringConfig()


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    store = Store(sqlite_url, SECRET.encode())
    yield store
    store.close()


@pytest.mark.parametrize(
    ("canary", "action"),
    [
        ({"slates": 100.0}, "wait"),
        ({"slates": 5000.0, "novel_positive_rate": 0.21, "novel_impressions": 9000.0}, "promote"),
        ({"slates": 5000.0, "novel_positive_rate": 0.15, "novel_impressions": 9000.0}, "rollback"),
        ({"slates": 600.0, "novel_positive_rate": 0.2, "novel_impressions": 60.0}, "wait"),
        ({"slates": 100.0, "degraded_share": 0.4}, "rollback"),
    ],
)
def test_canary(canary: dict[str, float], action: str) -> None:
    stable = {"slates": 50_000.0, "novel_positive_rate": 0.2, "novel_impressions": 90_000.0, "degraded_share": 0.01}
    assert compare(canary, stable, CONFIG).action == action


def test_nothing_liked_on_either_side_decides_nothing() -> None:
    nobody = {"slates": 50_000.0, "novel_positive_rate": 0.0, "novel_impressions": 90_000.0}
    assert compare(nobody, nobody, CONFIG).action == "wait"


def show_slates(store: Store, of: str, liked: float, count: int = 600, at: datetime | None = None) -> None:
    """Slates of a release, an hour ago by default: two novel slots each, seen, of which a share is liked."""
    at, events = at or datetime.now(UTC) - timedelta(hours=1), []
    for n in range(count):
        name = f"{of}-{n}"
        slots = tuple(
            SlotEvent(position=k, item=f"i{k}", cluster=f"c{k}", kind="novel", propensity=0.5, reason="table")
            for k in range(2)
        )
        events.append(parts.recommendation(name, user_id=f"u{n}", release=of, at=at, slots=slots))
        for k in range(2):
            kind = "liked" if (2 * n + k) % 100 < liked * 100 else "shown"
            about = {"user_id": f"u{n}", "recommendation_id": f"r{name}", "item": f"i{k}"}
            events.append(parts.feedback(f"{name}-{k}", at=at, kind=kind, **about))
    store.write(events)


def test_a_canary_is_promoted_or_rolled_back_on_what_people_did(
    store: Store, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEWFOUND_STORE", sqlite_url)
    monkeypatch.setenv("NEWFOUND_USER_KEY", SECRET)
    root = str(tmp_path / "releases")
    part = tmp_path / "part.json"
    part.write_text("{}")
    made = [
        release.publish(
            {"part.json": part}, root, lineage={"n": n}, measures={}, fits={}, gates=HELD, promote=n == 0
        ).id
        for n in range(3)
    ]
    stable, good, bad = made

    def run(canary: str, *more: str) -> str:
        given = ["canary", canary, "--releases", root, "--out", str(tmp_path / "out"), *more]
        done = CliRunner().invoke(app, given)
        assert done.exit_code == 0, done.output
        return done.output

    show_slates(store, stable, 0.3)
    assert "wait: 0 slates" in run(good, "--act") and release.current(root) == stable
    show_slates(store, good, 0.32)
    assert "promote: not worse: 0.320 against 0.300" in run(good)
    assert release.current(root) == stable, "without --act it only says so"
    api, local = KfpApi(), str(ROOT / "pipelines/configs/local.yaml")
    monkeypatch.setenv("HOME", str(tmp_path))  # kfp keeps what it learned of a server there
    with serving(api.answer) as url:
        assert "interests submitted" in run(good, "--act", "--submit", url, "--pipeline-config", local)
        assert "interests submitted" not in run(good, "--act", "--submit", url, "--pipeline-config", local)
    assert release.current(root) == good
    (started,) = api.runs.values()
    assert started["runtime_config"]["parameters"]["release"] == good
    show_slates(store, bad, 0.15)
    assert "rollback: worse: 0.150 against 0.320" in run(bad, "--act")
    assert release.current(root) == good, "it never was current: its services are taken away by who started them"
    release.rollback(root, bad)  # promoted all the same
    assert "current is" in run(bad, "--act")
    assert release.current(root) == good
