"""Rules by promtool, runbooks, and dashboards whose JSON is what the code makes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.dashboards.boards import BOARDS, HERE, text_of
from tests.monitoring.servers import ROOT

RULES = ROOT / "monitoring/rules/newfound.yaml"


def _alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def _page(alert: dict[str, Any]) -> Path:
    """What kube-prometheus' own alerts are linked by, `runbook_url` (prometheus-operator/kube-prometheus)."""
    return ROOT / alert["annotations"]["runbook_url"].removeprefix("https://newfound.example.com/")


def test_alerts_ask_about_newfound_alone_and_shares_are_of_explorers_requests() -> None:
    """Other namespaces may run newfound too, and the ranker counts its own requests under the same name."""
    for alert in _alerts():
        for name, labels in re.findall(r"\b(newfound_\w+)(\{[^}]*\})?", alert["expr"]):
            assert 'namespace="newfound"' in labels, (alert["alert"], name)
            if name.startswith("newfound_request_seconds"):
                assert 'app_kubernetes_io_component="explorer"' in labels, alert["alert"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (apt-get install prometheus)")
def test_every_alert_fires_for_its_cause_and_not_before() -> None:
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(RULES.with_name("newfound_test.yaml"))]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_unit_test_and_a_runbook() -> None:
    tests = RULES.with_name("newfound_test.yaml").read_text()
    runbooks = set()
    for alert in _alerts():
        assert f"alertname: {alert['alert']}" in tests
        runbook = _page(alert)
        text = runbook.read_text()
        assert text.startswith(f"# {alert['alert']}") and " ".join(str(alert["expr"]).split()) in " ".join(text.split())
        runbooks.add(runbook)
    assert runbooks == set((ROOT / "docs/runbooks").glob("*.md")), "a runbook that no alert leads to"


@pytest.mark.parametrize("name", BOARDS)
def test_the_committed_dashboard_is_what_the_code_makes(name: str) -> None:
    assert (HERE / f"{name}.json").read_text() == text_of(BOARDS[name]), "run `python -m monitoring dashboards`"


@pytest.mark.parametrize("name", BOARDS)
def test_dashboards_are_whole(name: str) -> None:
    document = json.loads(text_of(BOARDS[name]))
    numbers = [panel["id"] for panel in document["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken = set()
    for panel in document["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} overlaps"
        taken |= cells
        assert panel["description"] and panel["targets"]
        for target in panel["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"]))
            assert used <= {variable["name"] for variable in document["templating"]["list"]}


@pytest.mark.parametrize(
    ("board", "source"),
    [("serving", "serving/metrics.py"), ("collector", "monitoring/collector/metrics.py")],
)
def test_dashboards_ask_for_metrics_that_are_there(board: str, source: str) -> None:
    text = (ROOT / source).read_text()
    asked = {name for query in _queries(board) for name in re.findall(r"newfound_\w+", query)}
    assert asked
    for name in asked:
        assert f'"{re.sub("_(bucket|count|total)$", "", name)}"' in text, name


def _queries(board: str) -> list[str]:
    return [query.expr for panel in BOARDS[board].panels for query in panel.queries]
