"""The collector's own Prometheus metrics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from monitoring.store.batches import Batch, Written

_AGES: Final = (0.1, 0.5, 1, 5, 30, 300, 3600, 86_400)


class Metrics:
    """Metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._of_the_server()
        self.events = Counter(
            "newfound_collector_events", "Events by table and outcome", ["table", "outcome"], registry=self.registry
        )
        self.refused = Counter("newfound_collector_refused", "Requests refused", ["status"], registry=self.registry)
        self.bad = Counter(
            "newfound_collector_refused_events",
            "Events at fault in refused requests",
            ["status"],
            registry=self.registry,
        )
        self.corrected = Counter(
            "newfound_collector_corrected_clocks", "Events from clocks that were too far ahead", registry=self.registry
        )
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
        for status in ("409", "422"):
            self.bad.labels(status)
        for outcome in ("duplicate", "erased"):
            self.events.labels("any", outcome)

    def _of_the_server(self) -> None:
        self.closed = Counter(
            "newfound_collector_connections_closed",
            "Connections closed by a bound: headers late, peer at its cap",
            ["why"],
            registry=self.registry,
        )
        self.lines = Counter(
            "newfound_collector_log_lines_dropped",
            "Log lines dropped, because nobody reads them fast enough",
            registry=self.registry,
        )

    def close(self, why: str) -> None:
        """Counts a connection that was closed by a bound."""
        self.closed.labels(why).inc()

    def refuse(self, status: int, events: int) -> None:
        """Counts a refused request, and the events in it that were at fault."""
        self.refused.labels(str(status)).inc()
        self.bad.labels(str(status)).inc(events)

    def written(self, written: Written, batches: Sequence[Batch], seconds: float) -> None:
        """Counts one commit."""
        for table, new in written.new.items():
            self.events.labels(table, "stored").inc(new)
        self.events.labels("any", "duplicate").inc(written.duplicates)
        self.events.labels("any", "erased").inc(written.erased)
        self.commit.observe(seconds)
        self.size.observe(sum(len(batch.events) for batch in batches))
        now = time.time()
        for index, batch in enumerate(batches):
            if index not in written.refused:
                self.corrected.inc(len(batch.corrected))
                for event in batch.events:
                    self.age.observe(max(0.0, now - event.at.timestamp()))
