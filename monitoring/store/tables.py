"""The store's tables. Times are UTC microseconds. What leaves the store has `user_key` for a user, never `user_id`.

A change here needs a migration in `migrations/versions`.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text, false

metadata = MetaData()
_seq = BigInteger().with_variant(Integer, "sqlite")  # sqlite numbers only INTEGER keys

recommendations = Table(
    "recommendations",
    metadata,
    Column("seq", _seq, primary_key=True, autoincrement=True),
    Column("id", String(128), nullable=False, unique=True),
    Column("at", BigInteger, nullable=False, index=True),
    Column("user_id", String(256), nullable=False, index=True),
    Column("user_key", String(32), nullable=False),
    Column("release", String(128), nullable=False),
    Column("history_length", Integer, nullable=False),
    Column("history_at", BigInteger),
    Column("successors", Integer, nullable=False),
    Column("leaked", Integer, nullable=False),
    Column("generated", Integer, nullable=False),
    Column("matched", Integer, nullable=False),
    Column("seed", String(20), nullable=False),  # unsigned 64 bits do not fit BIGINT
    Column("latency_ms", Float, nullable=False),
    Column("degraded", Boolean, nullable=False),
    Column("interests", Text, nullable=False),  # JSON list
    Column("slots", Text, nullable=False),  # JSON list of SlotEvent
    Column("client_seed", Boolean, nullable=False, server_default=false()),
    sqlite_autoincrement=True,
)

feedback = Table(
    "feedback",
    metadata,
    Column("seq", _seq, primary_key=True, autoincrement=True),
    Column("id", String(128), nullable=False, unique=True),
    Column("at", BigInteger, nullable=False, index=True),
    Column("user_id", String(256), nullable=False),
    Column("user_key", String(32), nullable=False),
    Column("recommendation_id", String(128)),
    Column("item", String(256), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("share", Float),
    Index("feedback_user", "user_id", "at"),
    sqlite_autoincrement=True,
)

inferences = Table(
    "inferences",
    metadata,
    Column("seq", _seq, primary_key=True, autoincrement=True),
    Column("id", String(160), nullable=False, unique=True),  # request and response of one call share the event's id
    Column("at", BigInteger, nullable=False, index=True),
    Column("service", String(256), nullable=False),
    Column("kind", String(16), nullable=False),  # request | response
    Column("instances", Integer, nullable=False),  # how many; bodies hold user ids and are not kept
    sqlite_autoincrement=True,
)

imported = Table(
    "pasts",
    metadata,
    Column("user_id", String(256), primary_key=True),
    Column("events", Text, nullable=False),  # JSON list of [item, at in ms, engagement, positive], oldest first
)
"""Users' interactions from before the collector was there: a copy of the data set of the first release."""

erased = Table(
    "erased",
    metadata,
    Column("user_key", String(32), primary_key=True),
    Column("at", BigInteger, nullable=False),
)
"""Users whose events until a moment are refused, should they still arrive: a hash, and nothing else of the user."""

progress = Table(
    "progress",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""Positions of readers, by reader."""

measures = Table(
    "measures",
    metadata,
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("stop", BigInteger, primary_key=True, autoincrement=False),
    Column("release", String(128), primary_key=True),  # or `all`
    Column("name", String(128), primary_key=True),
    Column("value", Float),  # null: nothing to measure in this window
)
"""Measures by window and release; a window that is run again replaces its own."""

decisions = Table(
    "decisions",
    metadata,
    Column("seq", _seq, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("action", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("submitted", Boolean, nullable=False),
    Column("run", String(256)),
    sqlite_autoincrement=True,
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("seq", _seq, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("release", String(128), nullable=False, index=True),
    Column("action", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("rolled_back", Boolean, nullable=False),
    sqlite_autoincrement=True,
)
"""Verdicts on canaries that had traffic, as the schedule came to them."""
