"""Evidently: drift tests, pages of reports, and the workspace with its dashboards, from plain columns alone.

Importing this module imports Evidently, which takes seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.core.container import MetricContainer, MetricOrContainer
from evidently.core.metric_types import MetricId
from evidently.core.report import Context
from evidently.legacy.calculations.stattests import StatTest, register_stattest
from evidently.legacy.core import ColumnType
from evidently.legacy.model.widget import BaseWidgetInfo
from evidently.legacy.renderers.html_widgets import table_data
from evidently.metrics import MeanValue
from evidently.presets import DataDriftPreset
from evidently.sdk.models import DashboardPanelPlot, PanelMetric
from evidently.tests import gte, lte
from evidently.ui.workspace import Workspace

from monitoring.report.bounds import DRIFT
from monitoring.report.drift import chance, jensen_shannon, merge_rare
from newfound.files import new_file, write_json
from newfound.gates import Check
from newfound.recommend.policy import Reason
from newfound.schema import USER_KEY

_NUMBERS: Final = ("score", "history_length", "history_age_hours")
_CATEGORIES: Final = ("slot", "cluster", "reason", "positive")
_DRIFT: Final = "drift."  # before a column's name: the distance of its distributions
_FAR: Final = 0.1  # Evidently's own bound: what lies nearer makes no difference to anybody
_METHOD: Final = "newfound_jensen_shannon"
_RUNS: Final = "newfound-runs.json"

MEAN: Final = "evidently:metric_v2:MeanValue"


@dataclass(frozen=True)
class Panel:
    """Lines of a dashboard: measures by name."""

    title: str
    subtitle: str
    measures: tuple[str, ...]
    kind: str = "line"
    size: str = "half"


NOVELTY: Final = (
    Panel("Novelty ratio", "impressions from never-consumed clusters / impressions", ("novelty_ratio",)),
    Panel("Exposure", "over clusters: entropy (1 is even) and Gini (0 is even)", ("exposure_entropy", "exposure_gini")),
    Panel(
        "Suppression ratio",
        "exposure of exploration over its appeal; below 1, it is shown too little",
        ("suppression_ratio", "suppression_exposure", "suppression_appeal"),
    ),
    Panel(
        "Planner and table",
        "live match rate; successors that the user had already; top-5 successors as in the release before",
        ("match_rate", "leak", "successor_jaccard"),
    ),
    Panel(
        "Drift",
        "distance from the reference windows, and the share of drifted columns",
        (DRIFT, *(f"{_DRIFT}{name}" for name in (*_NUMBERS, "cluster", "positive"))),  # as many as there are colours
        size="full",  # beside a legend this long nothing is left of half a narrow page
    ),
    Panel(
        "Reason codes",
        "share of slots: how far decisions had to step down",
        tuple(f"reason_share.{reason.value}" for reason in Reason),
        size="full",
    ),
)
ENGAGEMENT: Final = (
    Panel("Positive rate", "of impressions, by kind of slot", ("novel_positive_rate", "familiar_positive_rate")),
    Panel(
        "Other policies",
        "positive rate on novel slots as it was, and as others would have had it (doubly robust)",
        ("novel_positive_rate", "offpolicy.likeliest.dr", "offpolicy.uniform.dr"),
    ),
    Panel("UEUC", "distinct (user, cluster) pairs with positive feedback", ("ueuc",)),
    Panel("UCI@N", "users who consumed N unique clusters in 7 days", tuple(f"uci@{n}" for n in (1, 3, 5, 8, 13, 21))),
    Panel("Retained interests", "share of pairs engaged again a day later or more", ("retained_interest",)),
    Panel("Impressions", "slots with any feedback", ("impressions", "slots"), "bar"),
    Panel("Degraded answers", "share of slates with a part stepped around", ("degraded_share",)),
    Panel("Latency", "milliseconds inside the explorer", ("latency_ms_p50", "latency_ms_p99")),
)
# Evidently's own pages show no tabs, so each dashboard is a project.
DASHBOARDS: Final[Mapping[str, tuple[Panel, ...]]] = {"newfound novelty": NOVELTY, "newfound engagement": ENGAGEMENT}


def drift_page(
    current: pd.DataFrame, reference: pd.DataFrame, page: Path, at: datetime
) -> tuple[Any, dict[str, float]]:
    """Tests every sampled column for drift and writes the page.

    A column drifted where its distributions lie further apart than both 0.1 and what chance explains
    (`monitoring.report.drift`). Distances have bounds where p-values have none that matters: with many impressions
    every difference is significant.

    Args:
        current: sampled impressions of the window.
        reference: those of the reference windows.
        page: HTML file to write.
        at: the window's end, which the workspace plots it at.

    Returns:
        Evidently's snapshot, and `drift.<column>` for each column (the distance of the distributions) with
        `drift_share`. Nothing where either side has fewer than two users.
    """
    several = [name for name in (*_NUMBERS, USER_KEY) if min(_users(current, name), _users(reference, name)) > 1]
    if USER_KEY not in several:
        return None, {}
    _register()
    numbers = [name for name in _NUMBERS if name in several]
    columns = [*numbers, *_CATEGORIES]
    now, before = (
        frame[[USER_KEY, *columns]].astype(dict.fromkeys(numbers, "float64")) for frame in (current, reference)
    )
    for name in _CATEGORIES:
        now[name], before[name] = merge_rare(now[name], before[name])
    bounds = chance(now, before, numbers, _CATEGORIES)
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=list(_CATEGORIES))
    frames = [Dataset.from_pandas(frame[columns], data_definition=definition) for frame in (now, before)]
    preset = DataDriftPreset(
        num_method="wasserstein",
        cat_method=_METHOD,
        per_column_threshold={name: max(_FAR, bound) for name, bound in bounds.items()},
    )
    report = Report([preset], include_tests=True)
    snapshot = report.run(*frames, timestamp=at, name="drift", tags=["drift"])
    _save(snapshot, page, f"Drift until {at:%Y-%m-%d %H:%M} UTC")
    distances: dict[str, float] = {}
    for metric in snapshot.dict()["metrics"]:
        value, config = metric["value"], metric["config"]
        if isinstance(value, dict) and "share" in value:
            distances[DRIFT] = float(value["share"])
        elif "column" in config:
            distances[f"{_DRIFT}{config['column']}"] = float(value)
    return snapshot, distances


def _users(frame: pd.DataFrame, column: str) -> int:
    """Number of users with values of a column."""
    return int(frame.loc[frame[column].notna(), USER_KEY].nunique())


def _register() -> None:
    """Tells Evidently our Jensen-Shannon distance.

    Its own adds the categories up in the order of a set of strings, which every process orders otherwise.
    """

    def distance(reference: pd.Series, current: pd.Series, kind: Any, bound: float) -> tuple[float, bool]:
        apart = jensen_shannon(current, reference)
        return apart, apart >= bound

    register_stattest(StatTest(_METHOD, "Jensen-Shannon distance", [ColumnType.Categorical], _FAR), distance)


def measures_page(
    measures: Mapping[str, float | None],
    beside: Mapping[str, Mapping[str, float | None]],
    checks: Sequence[Check],
    page: Path,
    span: tuple[datetime, datetime],
) -> Any:
    """A snapshot of the window's measures with the checks as Evidently tests; writes the page.

    Args:
        measures: of the window.
        beside: further columns of the page's table by name: the reference, single releases.
        checks: the bounds, held or not.
        page: HTML file to write.
        span: start and end of the window; the workspace plots it at its end.
    """
    taken = {name: float(value) for name, value in measures.items() if value is not None}
    data = Dataset.from_pandas(pd.DataFrame([taken]), data_definition=DataDefinition(numerical_columns=list(taken)))
    title = f"{span[0]:%Y-%m-%d %H:%M} to {span[1]:%Y-%m-%d %H:%M} UTC"
    table = measured(title, {"window": taken, **beside}, checks)
    snapshot = Report([table]).run(data, None, timestamp=span[1], name="measures", tags=["measures"])
    _save(snapshot, page, title)
    return snapshot


def add_to_workspace(folder: Path, window: str, snapshots: Mapping[str, Any]) -> None:
    """Puts a window's snapshots into the workspace, in place of those that it held of the same window.

    Args:
        folder: the workspace; made with its dashboards where it is not there yet.
        window: name of the window.
        snapshots: by kind (`measures`, `drift`); None is left out.
    """
    workspace = Workspace.create(str(folder))
    record = folder / _RUNS
    runs: dict[str, list[list[str]]] = json.loads(record.read_text()) if record.exists() else {}
    for project, run in runs.pop(window, []):
        workspace.delete_run(project, run)
    runs[window] = []
    for name, panels in DASHBOARDS.items():
        project = _project(workspace, name, panels)
        for snapshot in snapshots.values():
            if snapshot is not None:
                runs[window].append([str(project.id), str(workspace.add_run(project.id, snapshot).id)])
    write_json(record, runs, sort_keys=True)


def _project(workspace: Any, name: str, panels: Sequence[Panel]) -> Any:
    """The project of that name, its dashboard as `panels` have it."""
    known = [project for project in workspace.list_projects() if project.name == name]
    project = known[0] if known else workspace.create_project(name, "Interests that people never had before")
    made = [(panel.title, panel.size) for panel in project.dashboard.model().panels]
    if made == [(panel.title, panel.size) for panel in panels]:
        return project
    project.dashboard.clear_dashboard()
    for panel in panels:
        values = [PanelMetric(legend=label, metric=MEAN, metric_labels={"column": label}) for label in panel.measures]
        plot: dict[str, Any] = {"plot_type": panel.kind}
        if panel.kind == "bar":
            plot["is_stacked"] = False
        project.dashboard.add_panel(
            DashboardPanelPlot(
                title=panel.title, subtitle=panel.subtitle, size=panel.size, values=values, plot_params=plot
            )
        )
    return project


def _save(snapshot: Any, page: Path, title: str) -> None:
    """Writes the page, with a title, and with tables that scroll where Evidently cuts them off on narrow screens."""
    head = f"<title>{title}</title><style>.MuiPaper-root{{overflow-x:auto!important}}</style></head>"
    with new_file(page) as file:
        snapshot.save_html(str(file))
        file.write_text(file.read_text(encoding="utf-8").replace("</head>", head, 1), encoding="utf-8")


class Measured(MetricContainer):
    """Each measure is a metric of its own, tested where it has a bound; a page shows them as rows.

    Attributes:
        title: of the table.
        columns: of the table, the first for the measure's name.
        rows: of the table.
        tests: lower and upper bounds by measure.
        names: of the measures.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    tests: dict[str, list[tuple[float, bool]]]
    names: list[str]

    def generate_metrics(self, context: Context) -> Sequence[MetricOrContainer]:
        """See `MetricContainer`."""
        tests = {
            name: [(gte if at_least else lte)(bound) for bound, at_least in bounds]
            for name, bounds in self.tests.items()
        }
        return [MeanValue(column=name, tests=tests.get(name, [])) for name in self.names]

    def render(
        self, context: Context, child_widgets: list[tuple[MetricId | None, list[BaseWidgetInfo]]] | None = None
    ) -> list[BaseWidgetInfo]:
        """One table; a picture of each single number says nothing more."""
        return [table_data(column_names=self.columns, data=self.rows, title=self.title)]


def measured(
    title: str,
    by_column: Mapping[str, Mapping[str, float | None]],
    checks: Sequence[Check],
) -> Measured:
    """The table of some windows' or releases' measures.

    Args:
        title: of the table.
        by_column: measures by column; the first column's are the metrics.
        checks: its bounds, held or not; their measures come first.
    """
    values = next(iter(by_column.values()))
    names = [name for name, value in values.items() if value is not None]
    bounds = {check.name: check for check in checks}
    tests: dict[str, list[tuple[float, bool]]] = {}
    for check in checks:
        tests.setdefault(check.name, []).append((check.bound, check.at_least))

    def row(name: str) -> list[str]:
        cells = [_shown(column.get(name)) for column in by_column.values()]
        if name not in bounds:
            return [name, *cells, "", ""]
        check = bounds[name]
        relation = "at least" if check.at_least else "at most"
        return [name, *cells, f"{relation} {_shown(check.bound)}", "holds" if check.passed else "BROKEN"]

    ordered = sorted(names, key=lambda name: (name not in bounds, name))
    return Measured(
        title=title,
        columns=["measure", *by_column, "bound", ""],
        rows=[row(name) for name in ordered],
        tests=tests,
        names=names,
    )


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"
