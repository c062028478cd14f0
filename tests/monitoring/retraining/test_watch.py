"""The canary that has traffic, judged again and again: taken off it where it is worse, by the right that it has."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client import CollectorRegistry
from sqlalchemy import select
from typer.testing import CliRunner

from components._canary import MANAGER, weights_of
from monitoring.__main__ import app
from monitoring.exporter import Exporter
from monitoring.report.export import export
from monitoring.retraining import traffic
from monitoring.retraining.canary import compare
from monitoring.retraining.traffic import Gateway, TrafficError, canary_on, without_canary
from monitoring.retraining.watch import watch
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.store.tables import verdicts
from newfound.errors import ReleaseError
from newfound.release.store import promote, publish
from tests.components.conftest import kube  # noqa: F401  (a fixture)
from tests.components.kube_api import KubeApi
from tests.monitoring.retraining.test_canary import show_slates
from tests.monitoring.servers import ROOT, SECRET
from tests.release.gates import HELD

CONFIG = MonitoringConfig()
ROUTES = "gateway.networking.k8s.io"
HOUR = timedelta(hours=1)


@pytest.fixture
def store(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("NEWFOUND_STORE", sqlite_url)
    monkeypatch.setenv("NEWFOUND_USER_KEY", SECRET)
    store = Store(sqlite_url, SECRET.encode())
    yield store
    store.close()


def _document(file: str, kind: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((ROOT / "k8s/overlays/production" / file).read_text(encoding="utf-8"))
    return next(one for one in documents if one["kind"] == kind)


@pytest.fixture
def released(tmp_path: Path, kube: KubeApi) -> tuple[str, list[str]]:  # noqa: F811
    """The release that serves and two canaries; the route, of which the last one has a tenth."""
    root, part = str(tmp_path / "releases"), tmp_path / "part"
    part.write_text("{}")
    told = {"measures": {}, "fits": {}, "gates": HELD}
    made = [publish({"part": part}, root, lineage={"n": n}, promote=n == 0, **told).id for n in range(3)]
    kube.put(ROUTES, "newfound", "httproutes", _document("route.yaml", "HTTPRoute"))
    _give_traffic(kube, made[2])
    return root, made


def _give_traffic(api: KubeApi, release: str) -> None:
    """As `deploy_release` does."""
    route = api.objects[ROUTES, "newfound", "httproutes", "newfound"]
    route["spec"] |= weights_of(route, release, 10)["spec"]


def _backends(api: KubeApi) -> dict[str, int]:
    route = api.objects[ROUTES, "newfound", "httproutes", "newfound"]
    return {one["name"]: one["weight"] for one in route["spec"]["rules"][0]["backendRefs"]}


def test_a_canary_that_is_worse_loses_its_traffic(
    store: Store,
    released: tuple[str, list[str]],
    kube: KubeApi,  # noqa: F811
    tmp_path: Path,
) -> None:
    root, (stable, good, bad) = released
    role = _document("watch.yaml", "Role")["rules"]
    kube.allowed = lambda verb, kind, name: any(
        kind in rule["resources"] and verb in rule["verbs"] and name in rule["resourceNames"] for rule in role
    )
    now = datetime.now(UTC) + HOUR
    show_slates(store, stable, 0.3, at=now - HOUR / 2)
    show_slates(store, bad, 0.1, at=now - HOUR / 2)
    show_slates(store, good, 0.31, at=now - HOUR / 2)
    said = watch(store, root, CONFIG, now, Gateway("newfound"), roll_back=False)
    assert said is not None and (said.release, said.verdict.action, said.rolled_back) == (bad, "rollback", False)
    assert len(_backends(kube)) == 2, "only said"
    done = watch(store, root, CONFIG, now, Gateway("newfound"), roll_back=True)
    assert done is not None and done.rolled_back and _backends(kube) == {"newfound-transformer": 100}
    assert watch(store, root, CONFIG, now, Gateway("newfound"), roll_back=True) is None, "no canary has traffic"
    assert {verb for verb, _, _ in kube.log} == {"get", "patch"}
    with store.engine.connect() as connection:
        rows = connection.execute(select(verdicts.c.release, verdicts.c.action, verdicts.c.rolled_back)).all()
    assert [tuple(row) for row in rows] == [(bad, "rollback", False), (bad, "rollback", True)]
    registry = CollectorRegistry()
    registry.register(Exporter(store))
    assert registry.get_sample_value("newfound_canary_verdict", {"release": bad, "action": "rollback"}) == 1
    assert registry.get_sample_value("newfound_canary_verdict_timestamp_seconds", {"release": bad}) == pytest.approx(
        now.timestamp()
    )
    # One that is no worse keeps its share: people promote.
    _give_traffic(kube, good)
    kept = watch(store, root, CONFIG, now, Gateway("newfound"), roll_back=True)
    assert kept is not None and kept.verdict.action in ("promote", "wait") and len(_backends(kube)) == 2
    promote(root, good)
    assert watch(store, root, CONFIG, now, Gateway("newfound"), roll_back=True) is None, "it is current"


def test_the_schedules_command(
    store: Store,
    released: tuple[str, list[str]],
    kube: KubeApi,  # noqa: F811
) -> None:
    root, (_, _, canary) = released
    done = CliRunner().invoke(app, ["watch-canary", "--roll-back", "--releases", root], env={"COLUMNS": "200"})
    assert done.exit_code == 0 and f"wait: {canary}: 0 slates" in done.output
    kube.allowed = lambda *_: False
    refused = CliRunner().invoke(app, ["watch-canary", "--releases", root])
    assert isinstance(refused.exception, TrafficError) and "403" in str(refused.exception)
    kube.allowed = lambda *_: True
    _give_traffic(kube, "20260101T000000-0123456789ab")
    unknown = CliRunner().invoke(app, ["watch-canary", "--releases", root])
    assert isinstance(unknown.exception, ReleaseError)


def test_the_pipelines_canary_and_the_watchs_are_the_same() -> None:
    """Two adapters, which do not know each other, write and read one route."""
    route = {**_document("route.yaml", "HTTPRoute")}
    route["metadata"] = {**route["metadata"], "resourceVersion": "7"}
    assert traffic.MANAGER == MANAGER and canary_on(route) is None
    shared = {**route, "spec": weights_of(route, "20260101T000000-0123456789ab", 10)["spec"]}
    assert canary_on(shared) == "0123456789ab"
    back = without_canary(shared)
    assert back["spec"]["rules"] == route["spec"]["rules"] and back["metadata"] == {"resourceVersion": "7"}
    nothing = {**route, "spec": weights_of(route, "20260101T000000-0123456789ab", 0)["spec"]}
    assert canary_on(nothing) is None, "its share is none"


def test_many_looks_do_not_roll_back_what_is_as_good() -> None:
    """500 canaries exactly as good as what serves, each looked at 40 times while slates come in."""
    rng = np.random.default_rng(7)
    looks, worlds, each, rate = 40, 500, 500, 0.2
    liked = rng.binomial(each, rate, (worlds, looks)).cumsum(axis=1)
    shown = each * np.arange(1, looks + 1)
    stable = {"slates": 1e7, "novel_positive_rate": rate, "novel_impressions": 1e7}

    def rolled_back(repeatedly: bool) -> float:
        lost = 0
        for world in liked:
            canary = (
                {"slates": float(n), "novel_impressions": float(n), "novel_positive_rate": k / n}
                for k, n in zip(world, shown, strict=True)
            )
            lost += any(compare(one, stable, CONFIG, repeatedly=repeatedly).action == "rollback" for one in canary)
        return lost / worlds

    miss = 1 - CONFIG.canary_confidence
    assert rolled_back(repeatedly=True) <= miss + 2 * math.sqrt(miss * (1 - miss) / worlds)
    assert rolled_back(repeatedly=False) > 3 * miss, "which is why"
    worse = {"slates": 5000.0, "novel_positive_rate": 0.15, "novel_impressions": 9000.0}
    assert compare(worse, stable, CONFIG, repeatedly=True).action == "rollback"


def test_an_export_since_a_moment_has_everything_since_then(store: Store, tmp_path: Path) -> None:
    at = datetime.now(UTC)
    show_slates(store, "old", 0.5, count=30, at=at - 3 * HOUR)
    show_slates(store, "new", 0.5, count=20, at=at - HOUR)
    assert export(store, tmp_path / "since", since=at - 2 * HOUR)["slates"] == 20
    assert export(store, tmp_path / "all")["slates"] == 50
    assert export(store, tmp_path / "none", since=at + HOUR)["slates"] == 0
