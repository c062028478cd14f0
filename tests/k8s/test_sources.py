"""What is written into the manifests from elsewhere is what stands there."""

from __future__ import annotations

import json
import re

import yaml

from k8s.kustomize import ROOT
from k8s.rules import SOURCE, TARGET, prometheus_rule
from k8s.workloads import of_kind
from tests.k8s.conftest import Documents


def test_alerts_are_those_of_monitoring(production: Documents) -> None:
    assert TARGET.read_text(encoding="utf-8") == prometheus_rule(), "`make manifests` writes it from monitoring/rules"
    (rule,) = of_kind(production, "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(SOURCE.read_text(encoding="utf-8"))


def test_dashboards_are_those_of_monitoring(production: Documents) -> None:
    (board,) = [one for one in of_kind(production, "ConfigMap") if one["metadata"]["name"] == "newfound-dashboards"]
    files = {file.name: json.loads(file.read_text()) for file in (ROOT / "monitoring" / "dashboards").glob("*.json")}
    assert {name: json.loads(text) for name, text in board["data"].items()} == files
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_configurations_are_those_of_monitoring(production: Documents) -> None:
    names = "newfound-monitoring-"
    (config,) = [one for one in of_kind(production, "ConfigMap") if one["metadata"]["name"].startswith(names)]
    files = {file.name: file.read_text() for file in (ROOT / "monitoring" / "configs").glob("*.yaml")}
    assert config["data"] == files


def test_every_alert_is_in_the_documentation_with_its_runbook() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    groups = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))["groups"]
    alerts = {
        rule["alert"]: rule["annotations"]["runbook_url"].removeprefix("https://newfound.example.com/")
        for group in groups
        for rule in group["rules"]
    }
    rows = dict(re.findall(r"^\| \[(\w+)\]\(([\w/.-]+)\) \|", text, re.MULTILINE))
    assert {alert: f"docs/{page}" for alert, page in rows.items()} == alerts
    assert all((ROOT / page).is_file() for page in alerts.values())
