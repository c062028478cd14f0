"""Prometheus metrics of the services, beside KServe's own."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

FINE: Final = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 5.0)

REQUEST_SECONDS = Histogram("newfound_request_seconds", "Whole requests, by status", ["status"], buckets=FINE)
STAGE_SECONDS = Histogram("newfound_stage_seconds", "Stages of a request", ["stage"], buckets=FINE)
REFUSED = Counter("newfound_refused", "Requests refused at admission, by status", ["status"])
CLOSED = Counter("newfound_connections_closed", "Connections closed by a bound: headers late, peer at its cap", ["why"])
LOG_DROPPED = Counter("newfound_log_lines_dropped", "Log lines dropped, because nobody reads them fast enough")
SHED = Counter("newfound_shed", "Requests refused because too many were in flight")
SLOTS = Counter("newfound_slots", "Slots shown, by kind and reason code", ["kind", "reason"])
DEGRADED = Counter("newfound_degraded", "Answers given without a part, by code", ["code"])
ANSWERS = Counter("newfound_answers", "Where successors of the sampled context came from", ["source"])
CALLS = Counter("newfound_calls", "Calls of other parts, by outcome", ["part", "outcome"])
BREAKER = Gauge("newfound_breaker_state", "0 closed, 1 trying, 2 open", ["part"])
STALE_INTERESTS = Counter("newfound_stale_interests", "Stored interests of other clusters, not used")
UNREADABLE_HISTORIES = Counter("newfound_unreadable_histories", "Stored histories with values that none may have")
RELEASE = Gauge("newfound_release_info", "1 for the active release", ["release"])
RELEASE_LOADED = Gauge("newfound_release_loaded_timestamp_seconds", "When the active release became active")
RELEASE_REFUSED = Counter("newfound_release_refused", "Releases refused")
NEW_ITEMS = Gauge("newfound_new_items", "New items that the active release serves with")
NEW_ITEMS_AGE = Gauge("newfound_new_items_age_seconds", "Seconds since they were last added to; 0 without any")
NEW_ITEMS_REFUSED = Counter("newfound_new_items_refused", "Files of new items refused")
TAKEDOWN_SIZE = Gauge("newfound_takedown_entries", "Items and clusters on the takedown list")
TAKEDOWN_AGE = Gauge("newfound_takedown_age_seconds", "Seconds since the takedown list was last read")
TAKEDOWN_FAILED = Counter("newfound_takedown_failed", "Failed reads of the takedown list")
REMEMBERED = Gauge("newfound_remembered_answers", "Planner answers in the cache")
OUTBOX = Gauge("newfound_outbox_events", "Events waiting in memory")
SPOOL = Gauge("newfound_spool_bytes", "Events waiting on disk")
SPOOL_FAILED = Counter("newfound_spool_failed", "Failed writes of the spool; the events stay in memory")
SENT = Counter("newfound_events_sent", "Events that the collector acknowledged")
DROPPED = Counter("newfound_events_dropped", "Events dropped, by reason", ["why"])
