"""Prometheus metrics of the last reported windows, the current release and decisions; read when scraped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from monitoring.store.database import Store
from monitoring.store.tables import decisions, measures, verdicts
from newfound.errors import NewfoundError
from newfound.release import store as releases

PREFIX: Final = "newfound_window_"
# Families of measures that one metric holds, told apart by labels: pattern of the name -> metric, label names.
_FAMILIES: Final = (
    (re.compile(r"uci@(\d+)"), "uci", ("n",)),
    (re.compile(r"reason_share\.(.+)"), "reason_share", ("reason",)),
    (re.compile(r"drift\.(.+)"), "drift", ("column",)),
    (re.compile(r"bound\.(.+)"), "bound", ("measure",)),
    (re.compile(r"passed\.(.+)"), "passed", ("measure",)),
    (re.compile(r"offpolicy\.(\w+)\.(\w+)"), "offpolicy", ("policy", "figure")),
)

# Of the canaries that were judged last.
_LAST_VERDICTS: Final = (
    select(verdicts)
    .where(verdicts.c.seq.in_(select(func.max(verdicts.c.seq)).group_by(verdicts.c.release)))
    .order_by(verdicts.c.seq.desc())
    .limit(5)
)


def metric_of(measure: str) -> tuple[str, dict[str, str]]:
    """Name and labels of the metric that holds a measure.

    >>> metric_of("novelty_ratio"), metric_of("uci@3")
    (('newfound_window_novelty_ratio', {}), ('newfound_window_uci', {'n': '3'}))
    """
    for pattern, name, labels in _FAMILIES:
        match = pattern.fullmatch(measure)
        if match:
            return PREFIX + name, dict(zip(labels, match.groups(), strict=True))
    return PREFIX + measure, {}


def window_name(seconds: float) -> str:
    """A window's length as people say it.

    >>> window_name(86_400), window_name(3600), window_name(90)
    ('1d', '1h', '90s')
    """
    for unit, size in (("d", 86_400), ("h", 3600)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


class Exporter(Collector):
    """A collector for prometheus_client over the store.

    Args:
        store: where reports keep their measures.
        root: releases; None leaves the current release out.
    """

    def __init__(self, store: Store, root: str | None = None) -> None:
        self._store, self._root = store, root

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The newest window of every length, by release."""
        families: dict[str, GaugeMetricFamily] = {}

        def add(name: str, help_text: str, labels: dict[str, str], value: float) -> None:
            family = families.get(name)
            if family is None:
                family = families[name] = GaugeMetricFamily(name, help_text, labels=list(labels))
            family.add_metric(list(labels.values()), value)

        length = (measures.c.stop - measures.c.start).label("length")
        newest = select(length, func.max(measures.c.stop).label("stop")).group_by(length).subquery()
        query = (
            select(measures, newest.c.length)
            .join(newest, (measures.c.stop == newest.c.stop) & (length == newest.c.length))
            .order_by(measures.c.name, measures.c.release)
        )
        with self._store.engine.connect() as connection:
            rows = connection.execute(query).all()
            due = connection.execute(
                select(decisions.c.action, func.count(), func.max(decisions.c.at)).group_by(decisions.c.action)
            ).all()
            judged = connection.execute(_LAST_VERDICTS).all()
        ends: dict[str, float] = {}
        for row in rows:
            window = window_name(row.length / 1e6)
            ends[window] = row.stop / 1e6
            if row.value is not None:
                name, labels = metric_of(row.name)
                labels |= {"release": row.release, "window": window}
                add(name, f"{row.name} of the last window", labels, row.value)
        for window, stop in ends.items():
            add(PREFIX + "stop_timestamp_seconds", "End of the last reported window", {"window": window}, stop)
        for action, count, at in due:
            add("newfound_decisions", "Decisions so far", {"action": action}, float(count))
            add("newfound_decision_timestamp_seconds", "Time of the last decision", {"action": action}, at / 1e6)
        for one in judged:
            add("newfound_canary_verdict", "Last verdict", {"release": one.release, "action": one.action}, 1.0)
            add("newfound_canary_verdict_timestamp_seconds", "Its time", {"release": one.release}, one.at / 1e6)
        release = self._release()
        if release is not None:
            created, name = release
            add(
                "newfound_release_created_timestamp_seconds",
                "When the current release was made",
                {"release": name},
                created,
            )
        yield from families.values()

    def _release(self) -> tuple[float, str] | None:
        if self._root is None:
            return None
        try:
            now = releases.current(self._root)
            manifest = releases.manifest_of(self._root, now) if now is not None else None
        except (NewfoundError, OSError):
            return None
        return None if manifest is None else (datetime.fromisoformat(manifest.created).timestamp(), manifest.id)


def serve(store: Store, host: str, port: int, root: str | None = None) -> None:
    """Serves `/metrics` until the process ends."""
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(Exporter(store, root))
    _, thread = start_http_server(port, host, registry)
    thread.join()
