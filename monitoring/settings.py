"""Monitoring's settings and secrets; `main()` alone reads them from the environment.

`monitoring/configs/*.yaml` are instances of `MonitoringConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field

from newfound.errors import ConfigError
from newfound.settings import Positive, Settings, Share

USER_KEY: Final = "NEWFOUND_USER_KEY"
STORE: Final = "NEWFOUND_STORE"


class MonitoringConfig(Settings):
    """Settings of intake, reports, bounds and decisions."""

    # Meaning of feedback: a like is engagement 1, a dismissal 0, a watched share is itself
    clicked_engagement: Share = 0.5
    positive_at: Annotated[float, Field(gt=0, le=1)] = 0.6  # engagement from which feedback is positive

    # Intake
    body_bytes: Positive = 8 * 1024 * 1024  # of one request
    bodies_bytes: Positive = 32 * 1024 * 1024  # of all requests that are being read or wait; beyond it senders get 503
    header_seconds: Positive = 10  # for a request's headers to arrive
    body_seconds: Positive = 20  # for a body to arrive
    connections_per_peer: Positive = 1024  # of one address; behind a gateway all senders come from its address
    statement_seconds: Positive = 10  # for one statement of PostgreSQL
    commit_seconds: Positive = 15  # for events to be on disk; beyond it senders get 503
    stalled_seconds: Positive = 5  # an older request that waits for its commit makes the collector unready
    batch_events: Positive = 2000  # of one request
    queue_events: Positive = 20_000  # waiting for their commit; beyond it senders get 503
    commit_events: Positive = 5000  # of one transaction
    future_seconds: Positive = 300  # how far a sender's clock may be ahead; beyond it the arrival is the moment
    user_events: Positive = 5000  # feedback of one user on one day; more is refused
    age_days: Positive = 35  # older events are refused
    push_users: Positive = 500  # histories of one write to Feast
    retention_days: Positive = 400  # events older than this are deleted by `monitoring retain`

    # Reports
    memory_mb: Positive = 1024  # of DuckDB; what does not fit is spilled to disk
    uci_at: tuple[Positive, ...] = (1, 2, 3, 5, 8, 13, 21)
    retained_days: Annotated[float, Field(gt=0)] = 1.0  # a later positive event counts as retained after this long
    lookback_days: Annotated[float, Field(ge=7)] = 28.0  # before a window's end: what retention is measured over
    counted_a_day: Positive = 200  # interactions without a slate that count of one user's day
    drift_rows: Positive = 20_000  # impressions that the drift tests look at

    # Bounds of a window's measures; falls are relative to the reference windows
    novelty_ratio_fall: Share = 0.25
    novel_positive_rate_fall: Share = 0.25
    min_suppression_ratio: Annotated[float, Field(ge=0)] = 0.6
    min_match_rate: Share = 0.9
    max_leak: Share = 0.5
    max_degraded: Share = 0.05
    drifted_columns: Share = 0.5
    min_impressions: Positive = 200  # fewer say nothing, and breach nothing
    min_users: Positive = 20  # fewer say nothing either, and make no pipeline due

    # Decisions
    breaches: Positive = 2  # windows in a row before anything is due
    cooldown_hours: dict[Literal["refresh", "finetune", "clusters"], Annotated[float, Field(ge=0)]] = {
        "refresh": 12,
        "finetune": 168,
        "clusters": 720,
    }
    finetune_after_refreshes: Positive = 3  # a breach that this many refreshes did not heal needs the planner
    unknown_items: Share = 0.1  # share of feedback on items that no cluster holds from which clusters are due
    canary_slates: Positive = 500  # slates of a canary before it is compared
    canary_confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


def secret_key(environment: Mapping[str, str]) -> bytes:
    """The key of the users' hashes.

    Raises:
        ConfigError: it is absent or too short to be one.
    """
    key = environment.get(USER_KEY, "")
    if len(key) < 16:
        raise ConfigError(f"{USER_KEY}: expected a secret of at least 16 characters, the same as the explorer's")
    return key.encode()
