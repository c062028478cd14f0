"""The report of one window: export, measures, tests, pages, workspace. Running it twice changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from monitoring.report import evidently as pages
from monitoring.report.bounds import check
from monitoring.report.export import export
from monitoring.report.windows import ALL, measure
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.store.rows import micros
from newfound.errors import NewfoundError
from newfound.gates import Check
from newfound.release import store as releases
from newfound.release.new_items import find_leaves

if TYPE_CHECKING:
    import pyarrow as pa

    from newfound.clusters import Clusters

log: Final = logging.getLogger("newfound.monitoring.report")


@dataclass(frozen=True)
class WindowReport:
    """The result of one window's report.

    Attributes:
        measures: of all releases in the window, drift included.
        by_release: the same by release.
        checks: the bounds, held or not.
    """

    start: datetime
    stop: datetime
    measures: Mapping[str, float | None]
    by_release: Mapping[str, Mapping[str, float | None]]
    checks: list[Check]

    @property
    def failed(self) -> list[Check]:
        """The bounds that do not hold."""
        return [check for check in self.checks if not check.passed]


def report_window(
    store: Store,
    out: Path,
    stop: datetime,
    window: timedelta,
    reference: timedelta,
    config: MonitoringConfig,
    *,
    root: str | None = None,
    cache: Path | None = None,
) -> WindowReport:
    """Reports [stop - window, stop) against the reference before it.

    Args:
        store: where events are, and where measures go.
        out: folder of `exports/`, `reports/` (pages) and `workspace/`.
        stop: the window's end.
        window: its length.
        reference: length of the time before it that it is compared with.
        config: bounds.
        root: releases, whose current clusters place what was consumed without a slate; None does without.
        cache: local folder for a remote root.
    """
    new = export(store, out / "exports")
    items, clusters, jaccard = _of_releases(root, cache)
    start = stop - window
    now = measure(out / "exports", start, stop, config, items=items, clusters=clusters)
    before = measure(out / "exports", start - reference, start, config, items=items, clusters=clusters)
    name = f"{start:%Y%m%dT%H%M}-{stop:%Y%m%dT%H%M}"
    drifted, distances = pages.drift_page(now.sample, before.sample, out / "reports" / f"{name}-drift.html", stop)
    mine: dict[str, float | None] = {**now.measures.get(ALL, {}), **distances, **jaccard}
    checks = check(mine, before.measures.get(ALL, {}), config)
    by_release = {**now.measures, ALL: mine}
    _keep(store, start, stop, by_release, checks)
    if mine:
        releases_alone = {of: taken for of, taken in now.measures.items() if of != ALL}
        beside = {"reference": before.measures.get(ALL, {}), **(releases_alone if len(releases_alone) > 1 else {})}
        snapshot = pages.measures_page(mine, beside, checks, out / "reports" / f"{name}.html", (start, stop))
        pages.add_to_workspace(out / "workspace", name, {"measures": snapshot, "drift": drifted})
    done = WindowReport(start, stop, mine, by_release, checks)
    log.info(
        "%s: %d new events, %d impressions, %d of %d bounds hold",
        name,
        new["slates"] + new["feedback"],
        int(mine.get("impressions") or 0),
        len(checks) - len(done.failed),
        len(checks),
    )
    return done


def _keep(
    store: Store,
    start: datetime,
    stop: datetime,
    by_release: Mapping[str, Mapping[str, float | None]],
    checks: list[Check],
) -> None:
    rows: list[dict[str, Any]] = []

    def row(release: str, name: str, value: float | None) -> None:
        rows.append({"start": micros(start), "stop": micros(stop), "release": release, "name": name, "value": value})

    for release, taken in by_release.items():
        for name, value in taken.items():
            row(release, name, value)
    for one in checks:
        row(ALL, f"bound.{one.name}", one.bound)
        row(ALL, f"passed.{one.name}", float(one.passed))
    store.put_measures(start, stop, rows)


def _of_releases(root: str | None, cache: Path | None) -> tuple[pa.Table | None, int | None, dict[str, float]]:
    """The current release's item -> cluster table and number of clusters, and how much its table changed."""
    import pyarrow as pa

    now = releases.current(root) if root is not None else None
    if root is None or now is None:
        return None, None, {}
    items, clusters = _clusters(root, now, cache)
    if leaves := find_leaves(root, now, clusters):
        placed = [clusters.ancestor_of(leaf, clusters.interface_level) for leaf in leaves.values()]
        items = pa.concat_tables([items, pa.table({"item_id": list(leaves), "cluster": placed})])
    made = [manifest.id for manifest in releases.list_releases(root)]
    earlier = made[: made.index(now)] if now in made else []
    jaccard: dict[str, float] = {}
    if earlier:
        try:
            jaccard = _jaccard(root, earlier[-1], now, cache)
        except (NewfoundError, OSError) as error:
            log.warning("successor Jaccard left out: %s", error)
    return items, len(clusters.interface), jaccard


@lru_cache(maxsize=2)
def _clusters(root: str, release: str, cache: Path | None) -> tuple[pa.Table, Clusters]:
    import pyarrow as pa

    from newfound.clusters import Clusters

    clusters = Clusters.load(releases.load(root, release, cache, ["clusters"]).path / "clusters")
    items = list(clusters.cluster_of.items())
    table = pa.table({"item_id": [item for item, _ in items], "cluster": [cluster for _, cluster in items]})
    return table, clusters


@lru_cache(maxsize=4)
def _jaccard(root: str, before: str, now: str, cache: Path | None) -> dict[str, float]:
    from newfound.table import compare_tables

    tables = [releases.load(root, release, cache, ["table"]).path / "table" for release in (before, now)]
    return {"successor_jaccard": compare_tables(*tables).successor_jaccard}


def stops(first: datetime, last: datetime, each: timedelta) -> Iterator[datetime]:
    """Ends of the windows that tile [first, last], the first one `each` after `first`."""
    stop = first + each
    while stop <= last:
        yield stop
        stop += each
