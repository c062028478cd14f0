"""The part of Grafana's dashboard model that newfound uses; `Dashboard.document` makes its JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
_COLUMNS: Final = 24


@dataclass(frozen=True)
class Query:
    """One PromQL query and the legend of its series."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """A picture of some queries.

    Attributes:
        unit: Grafana's name of the unit, such as `percentunit`, `s`, `short`.
        low, high: fixed ends of the axis; None follows the data.
        limit: a line to watch, drawn as a threshold.
    """

    title: str
    help: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat"] = "timeseries"
    unit: str = "short"
    width: int = 12
    height: int = 8
    low: float | None = None
    high: float | None = None
    limit: float | None = None

    def document(self, number: int, x: int, y: int) -> dict[str, Any]:
        """Grafana's JSON of the panel at a place of the grid."""
        steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
        if self.limit is not None:
            steps.append({"color": "red", "value": self.limit})
        custom: dict[str, Any] = {"drawStyle": "line", "lineWidth": 2, "fillOpacity": 8, "showPoints": "auto"}
        if self.limit is not None:
            custom["thresholdsStyle"] = {"mode": "line"}
        defaults: dict[str, Any] = {"unit": self.unit, "thresholds": {"mode": "absolute", "steps": steps}}
        if self.kind == "timeseries":
            defaults["custom"] = custom
        if self.low is not None:
            defaults["min"] = self.low
        if self.high is not None:
            defaults["max"] = self.high
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.help,
            "datasource": _SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}}
            if self.kind == "timeseries"
            else {"reduceOptions": {"calcs": ["lastNotNull"]}},
            "targets": [
                {
                    "refId": chr(ord("A") + place),
                    "datasource": _SOURCE,
                    "expr": query.expr,
                    "legendFormat": query.legend or "__auto",
                }
                for place, query in enumerate(self.queries)
            ],
        }


@dataclass(frozen=True)
class Variable:
    """A choice at the top of the dashboard, filled from a label's values."""

    name: str
    label_values: str
    default: str


@dataclass(frozen=True)
class Dashboard:
    """Panels from left to right and from top to bottom."""

    uid: str
    title: str
    panels: tuple[Panel, ...]
    variables: tuple[Variable, ...] = ()
    tags: tuple[str, ...] = field(default=("newfound",))

    def document(self) -> dict[str, Any]:
        """Grafana's JSON of the dashboard."""
        placed, x, y, row = [], 0, 0, 0
        for number, panel in enumerate(self.panels, start=1):
            if x + panel.width > _COLUMNS:
                x, y, row = 0, y + row, 0
            placed.append(panel.document(number, x, y))
            x, row = x + panel.width, max(row, panel.height)
        source = {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}
        chosen = [
            {
                "name": variable.name,
                "type": "query",
                "datasource": _SOURCE,
                "query": {"query": variable.label_values, "refId": variable.name},
                "definition": variable.label_values,
                "refresh": 2,
                "current": {"text": variable.default, "value": variable.default},
            }
            for variable in self.variables
        ]
        return {
            "uid": self.uid,
            "title": self.title,
            "tags": list(self.tags),
            "schemaVersion": 39,
            "editable": False,
            "graphTooltip": 1,
            "refresh": "1m",
            "time": {"from": "now-7d", "to": "now"},
            "timezone": "utc",
            "templating": {"list": [source, *chosen]},
            "annotations": {"list": []},
            "panels": placed,
        }
