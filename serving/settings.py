"""The services' settings; `main()` alone reads them."""

from __future__ import annotations

from pydantic import model_validator

from newfound.settings import Positive, Settings


class ServingConfig(Settings):
    """The services that answer requests: bounds, time, capacity."""

    # What a request may be
    body_bytes: Positive = 1024 * 1024
    ranker_body_bytes: Positive = 8 * 1024 * 1024  # one history and what it excludes always fit
    instances: Positive = 64  # requests in one body
    k_at_most: Positive = 100
    history_at_most: Positive = 2000  # events that a request may bring along
    exclude_at_most: Positive = 2000
    receive_ms: Positive = 10_000  # for headers and body to arrive, before a request counts as in flight
    connections_per_peer: Positive = 1024  # of one address; behind a gateway all requests come from its address

    # Time, in milliseconds. A request's own deadline wins over all others.
    deadline_ms: Positive = 300
    deadline_at_most_ms: Positive = 5000
    features_ms: Positive = 100
    ranker_ms: Positive = 150
    planner_ms: Positive = 150
    # an answer that comes too late for its request is still remembered; as long may a planner that hangs be asked, and
    # hold up the queries after it once it is back
    planner_background_ms: Positive = 3000
    finish_ms: Positive = 15  # kept back for composing the slate

    # Capacity
    in_flight: Positive = 128  # instances at a time; more are refused at once
    planner_in_flight: Positive = 4
    breaker_failures: Positive = 5  # in a row, before a part is left alone
    breaker_open_ms: Positive = 1000  # before it is tried again
    remembered_answers: Positive = 100_000  # of the live planner

    # Releases and what was taken down
    watch_ms: Positive = 1000

    # What was shown, on its way to the collector
    outbox_events: Positive = 20_000  # in memory
    outbox_batch: Positive = 500
    outbox_wait_ms: Positive = 250  # before a batch that is not full is sent
    outbox_timeout_ms: Positive = 5000
    refused_bytes: Positive = 16 * 1024 * 1024  # of events that the collector refuses, kept to be looked at
    spool_bytes: Positive = 256 * 1024 * 1024  # on disk, while the collector is away

    @model_validator(mode="after")
    def _a_body_fits(self) -> ServingConfig:
        if self.instances > self.in_flight:
            raise ValueError(f"instances: {self.instances} of one body, but in_flight is {self.in_flight}")
        return self
