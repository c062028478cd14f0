"""The alerts as the Prometheus operator takes them: `monitoring/rules` within a PrometheusRule."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import yaml

from k8s.kustomize import ROOT

SOURCE: Final = ROOT / "monitoring" / "rules" / "newfound.yaml"
TARGET: Final = ROOT / "k8s" / "base" / "monitoring" / "rules.yaml"


def prometheus_rule(source: Path = SOURCE) -> str:
    """YAML of the PrometheusRule."""
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "newfound"},
        "spec": yaml.safe_load(source.read_text(encoding="utf-8")),
    }
    body = yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)
    return f"# Written by `python -m k8s` from {source.relative_to(ROOT).as_posix()}: change that.\n{body}"


def write_rules() -> Path:
    """Writes the PrometheusRule; returns where."""
    TARGET.write_text(prometheus_rule(), encoding="utf-8")
    return TARGET.relative_to(ROOT)
