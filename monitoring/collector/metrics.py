"""The collector's own Prometheus metrics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from monitoring.store.database import Stored, Written

_AGES: Final = (0.1, 0.5, 1, 5, 30, 300, 3600, 86_400)


class Metrics:
    """Metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events = Counter(
            "newfound_collector_events", "Events by table and outcome", ["table", "outcome"], registry=self.registry
        )
        self.refused = Counter("newfound_collector_refused", "Requests refused", ["status"], registry=self.registry)
        self.commit = Histogram("newfound_collector_commit_seconds", "One transaction", registry=self.registry)
        self.size = Histogram(
            "newfound_collector_commit_events",
            "Events of a transaction",
            buckets=(1, 10, 100, 1000, 5000),
            registry=self.registry,
        )
        self.age = Histogram(
            "newfound_collector_event_age_seconds",
            "From the event to its commit",
            buckets=_AGES,
            registry=self.registry,
        )
        self.waiting = Gauge("newfound_collector_queue_events", "Events waiting for commit", registry=self.registry)
        self.lag = Gauge(
            "newfound_collector_history_lag_seconds",
            "Age of the oldest feedback that Feast does not have yet",
            registry=self.registry,
        )
        self.pushed = Gauge("newfound_collector_histories_pushed", "Histories written to Feast", registry=self.registry)
        for table in ("recommendations", "feedback", "inferences"):
            self.events.labels(table, "stored")
        self.events.labels("any", "duplicate")

    def written(self, written: Written, events: Sequence[Stored], seconds: float) -> None:
        """Counts one commit."""
        for table, new in written.new.items():
            self.events.labels(table, "stored").inc(new)
        self.events.labels("any", "duplicate").inc(written.duplicates)
        self.commit.observe(seconds)
        self.size.observe(len(events))
        now = time.time()
        for event in events:
            self.age.observe(max(0.0, now - event.at.timestamp()))
