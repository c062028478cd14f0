"""What is due, and what becomes of a canary."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from monitoring.__main__ import app
from monitoring.report.bounds import check
from monitoring.retraining.canary import judge
from monitoring.retraining.decide import Decision, decide, remember
from monitoring.retraining.submit import command_of
from monitoring.settings import MonitoringConfig, secret_key
from monitoring.store.database import Store, micros
from newfound.config import load_settings
from newfound.errors import ConfigError
from newfound.events import SlotEvent
from newfound.release import store as release
from tests.monitoring import servers as parts
from tests.monitoring.servers import ROOT, SECRET
from tests.pipelines.kfp_api import KfpApi, serving

CONFIG = MonitoringConfig()
START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    store = Store(sqlite_url, SECRET.encode())
    yield store
    store.close()


def day(store: Store, number: int, **values: float) -> datetime:
    """Keeps a day's measures; returns its end. `broken="leak"` style values are given as passed_<name>=0."""
    start = START + number * DAY
    names = {name.replace("passed_", "passed."): value for name, value in values.items()}
    rows = [
        {"start": micros(start), "stop": micros(start + DAY), "release": "all", "name": name, "value": value}
        for name, value in names.items()
    ]
    store.put_measures(start, start + DAY, rows)
    return start + DAY


def test_one_bad_day_is_no_reason(store: Store) -> None:
    assert decide(store, DAY, CONFIG, START).action is None
    day(store, 0, passed_novel_positive_rate=0)
    now = day(store, 1, passed_novel_positive_rate=1)
    assert decide(store, DAY, CONFIG, now).action is None
    now = day(store, 2, passed_novel_positive_rate=0)
    assert decide(store, DAY, CONFIG, now).action is None
    now = day(store, 3, passed_novel_positive_rate=0)
    decision = decide(store, DAY, CONFIG, now)
    assert decision.action == "refresh" and "novel_positive_rate" in decision.reason
    assert decide(store, timedelta(hours=1), CONFIG, now).action is None, "windows of another length say nothing"


def test_evidence_is_used_once_and_pipelines_cool_down(store: Store) -> None:
    for number in (0, 1):
        now = day(store, number, passed_leak=0)
    decision = decide(store, DAY, CONFIG, now)
    remember(store, decision, now, submitted=False)
    assert decide(store, DAY, CONFIG, now).action == "refresh", "a dry run changes nothing"
    remember(store, decision, now, submitted=True)
    assert decide(store, DAY, CONFIG, now).action is None
    now = day(store, 2, passed_leak=0)
    assert decide(store, DAY, CONFIG, now).action is None
    now = day(store, 3, passed_leak=0)
    assert decide(store, DAY, CONFIG, now).action == "refresh"
    cool = CONFIG.model_copy(update={"cooldown_hours": {"refresh": 100}})
    cooling = decide(store, DAY, cool, now)
    assert cooling.action is None and "cooling down" in cooling.reason


def test_refreshes_that_heal_nothing_lead_to_fine_tuning(store: Store) -> None:
    number = 0
    for _ in range(CONFIG.finetune_after_refreshes):
        for _ in range(2):
            now = day(store, number, passed_drift_share=0)
            number += 1
        decision = decide(store, DAY, CONFIG, now)
        assert decision.action == "refresh"
        remember(store, decision, now, submitted=True)
    for _ in range(2):
        now = day(store, number, passed_drift_share=0)
        number += 1
    assert decide(store, DAY, CONFIG, now).action == "finetune"


def test_other_signs_name_other_pipelines(store: Store) -> None:
    for number in (0, 1):
        now = day(store, number, passed_match_rate=0, unknown_items=0.01)
    assert decide(store, DAY, CONFIG, now).action == "finetune"
    for number in (2, 3):
        now = day(store, number, passed_match_rate=0, unknown_items=0.3)
    assert decide(store, DAY, CONFIG, now).action == "clusters"


def test_bounds() -> None:
    reference = {"impressions": 1000.0, "novelty_ratio": 0.4, "novel_positive_rate": 0.2}
    current = {
        "impressions": 1000.0,
        "novelty_ratio": 0.31,
        "novel_positive_rate": 0.1,
        "suppression_ratio": 0.5,
        "match_rate": None,
        "leak": 0.2,
        "degraded_share": 0.2,
        "drift_share": 0.1,
    }
    found = {one.name: one for one in check(current, reference, CONFIG)}
    assert found["novelty_ratio"].passed and found["novelty_ratio"].bound == pytest.approx(0.3)
    assert {name for name, one in found.items() if not one.passed} == {
        "novel_positive_rate",
        "suppression_ratio",
        "degraded_share",
    }
    assert "match_rate" not in found
    assert str(found["degraded_share"]) == "degraded_share is 0.2, expected at most 0.05"
    few = {one.name for one in check({**current, "impressions": 10.0}, reference, CONFIG)}
    assert few == {"leak", "degraded_share"}, "few impressions say nothing of people, and enough of the platform"


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
    assert judge(canary, stable, CONFIG).action == action


def _slates(store: Store, of: str, liked: float, count: int = 600) -> None:
    """Slates of a release an hour ago: two novel slots each, seen, of which a share is liked."""
    at, events = datetime.now(UTC) - timedelta(hours=1), []
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
        release.publish({"part.json": part}, root, lineage={"n": n}, measures={}, fits={}, gates={}, promote=n == 0).id
        for n in range(3)
    ]
    stable, good, bad = made

    def run(canary: str, *more: str) -> str:
        given = ["canary", canary, "--releases", root, "--out", str(tmp_path / "out"), *more]
        done = CliRunner().invoke(app, given)
        assert done.exit_code == 0, done.output
        return done.output

    _slates(store, stable, 0.3)
    assert "wait: 0 slates" in run(good, "--act") and release.current(root) == stable
    _slates(store, good, 0.32)
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
    _slates(store, bad, 0.15)
    assert "rollback: worse: 0.150 against 0.320" in run(bad, "--act")
    assert release.current(root) == good, "it never was current: its services are taken away by who started them"
    release.rollback(root, bad)  # promoted all the same
    assert "current is" in run(bad, "--act")
    assert release.current(root) == good


def test_what_is_started() -> None:
    given = {"config": Path("c.yaml"), "interactions": "i.parquet", "items": "items.parquet"}
    local = command_of(Decision("refresh", "because"), to="local", releases="r", **given)
    common = ["--config", "c.yaml", "--releases", "r", "--interactions", "i.parquet"]
    assert local[1:] == ["-m", "pipelines", "local", "refresh", *common]
    there = command_of(Decision("refresh", "because"), to="http://kfp", releases="r", **given)
    submitted = ["pipelines", "submit", "refresh", "--host", "http://kfp", "--name", "refresh: because"]
    assert there[1:] == ["-m", *submitted, *common]
    tuned = command_of(Decision("finetune", "because"), to="http://kfp", releases="r", **given)
    assert tuned[2:7] == ["pipelines", "submit", "training", "--host", "http://kfp"] and tuned[-2:] == [
        "--items",
        "items.parquet",
    ]


@pytest.mark.parametrize("action", ["refresh", "finetune"])
@pytest.mark.parametrize("to", ["local", "http://127.0.0.1:9"])
def test_the_pipelines_know_the_options(action: str, to: str, tmp_path: Path) -> None:
    """The very commands, which then miss what they should work on."""
    decision = Decision(action, "because")  # type: ignore[arg-type]
    config = ROOT / "pipelines/configs/local.yaml"
    given = {"config": config, "releases": str(tmp_path / "r"), "interactions": "absent.parquet", "items": "no.parquet"}
    extra = ["--runs", str(tmp_path / "runs")] if to == "local" else []
    done = subprocess.run(command_of(decision, to=to, **given, extra=extra), cwd=ROOT, capture_output=True, text=True)
    expected = "no release" if action == "refresh" else "absent.parquet" if to == "local" else "not reachable"
    assert done.returncode == 1 and expected in done.stderr, done.stderr


def test_configuration(tmp_path: Path) -> None:
    files = sorted((ROOT / "monitoring/configs").glob("*.yaml"))
    assert [file.stem for file in files] == ["local", "production"]
    for file in files:
        written = set(MonitoringConfig.model_fields) - {
            name for name in MonitoringConfig.model_fields if f"{name}:" not in file.read_text()
        }
        assert written == set(MonitoringConfig.model_fields), f"{file} is not complete"
        load_settings(MonitoringConfig, file)
    local = load_settings(MonitoringConfig, ROOT / "monitoring/configs/local.yaml")
    assert load_settings(MonitoringConfig, None) == MonitoringConfig() == local
    for text, message in (("nope: 1", "nope"), ("breaches: 0", "breaches"), ("a: [", "YAML")):
        bad = tmp_path / "bad.yaml"
        bad.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_settings(MonitoringConfig, bad)
    with pytest.raises(ConfigError, match="absent.yaml"):
        load_settings(MonitoringConfig, tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="NEWFOUND_USER_KEY"):
        secret_key({"NEWFOUND_USER_KEY": "short"})
