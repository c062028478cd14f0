"""A window's measures as one table of an Evidently report; importing this imports Evidently, which takes seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evidently.core.container import MetricContainer, MetricOrContainer
from evidently.core.metric_types import MetricId
from evidently.core.report import Context
from evidently.legacy.model.widget import BaseWidgetInfo
from evidently.legacy.renderers.html_widgets import table_data
from evidently.metrics import MeanValue
from evidently.tests import gte, lte

from monitoring.report.bounds import Check


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
            name: [(gte if at_least else lte)(bound) for bound, at_least in found] for name, found in self.tests.items()
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
        cells = [_shown(found.get(name)) for found in by_column.values()]
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
