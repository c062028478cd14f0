"""The decision which pipeline is due, from the last windows: hysteresis, cool-down, no evidence used twice.

A bound must be broken in so many windows in a row, all of which began after the last pipeline of any kind was
submitted: what happened before it says nothing about what it did. Repeated refreshes that heal nothing lead to
fine-tuning. Nothing is submitted unless asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import select

from monitoring.report.windows import ALL
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.store.rows import micros, moment
from monitoring.store.tables import decisions, measures

Action = Literal["refresh", "finetune", "clusters"]
ACTIONS: Final[tuple[Action, ...]] = ("refresh", "finetune", "clusters")
# Bounds whose breach says that interests moved, and that new successors may help.
_SIGNS: Final = ("novelty_ratio", "novel_positive_rate", "leak", "drift_share")


@dataclass(frozen=True)
class Decision:
    """The pipeline that is due, and why (or why not).

    Attributes:
        action: the pipeline; None where nothing is due.
        reason: one sentence for the run's description and for people.
    """

    action: Action | None
    reason: str


def decide(store: Store, window: timedelta, config: MonitoringConfig, now: datetime) -> Decision:
    """Decides on the last windows of a length.

    Args:
        store: where reports keep their measures.
        window: length of the windows to look at.
        config: bounds, hysteresis and cool-downs.
        now: UTC.
    """
    submitted = _submitted(store)
    since = max((at for _, at in submitted), default=None)
    windows = _windows(store, window, since, config.breaches)
    if len(windows) < config.breaches:
        return Decision(None, f"{len(windows)} windows since the last decision, {config.breaches} are needed")
    wanted, reason = _wanted(windows, submitted, config)
    if wanted is None:
        return Decision(None, reason)
    last = max((at for action, at in submitted if action == wanted), default=None)
    rest = timedelta(hours=config.cooldown_hours.get(wanted, 0))
    if last is not None and now - last < rest:
        return Decision(
            None, f"{wanted} would be due ({reason}), but the last was at {last:%Y-%m-%d %H:%M}: cooling down"
        )
    return Decision(wanted, reason)


def remember(store: Store, decision: Decision, now: datetime, *, submitted: bool, run: str | None = None) -> None:
    """Keeps a decision; only submitted ones count for the next."""
    if decision.action is None:
        return
    row: dict[str, Any] = {
        "at": micros(now),
        "action": decision.action,
        "reason": decision.reason,
        "submitted": submitted,
        "run": run,
    }
    with store.engine.begin() as connection:
        connection.execute(decisions.insert(), [row])


def _wanted(
    windows: Sequence[dict[str, float]], submitted: Sequence[tuple[str, datetime]], config: MonitoringConfig
) -> tuple[Action | None, str]:
    unknown = min(measured.get("unknown_items", 0.0) for measured in windows)
    users = min(measured.get("unknown_item_users", 0.0) for measured in windows)
    if unknown >= config.unknown_items and users >= config.min_users:
        reason = f"{unknown:.1%} of what {users:.0f} users or more consume lies in no cluster"
        return "clusters", f"{reason}, {len(windows)} windows in a row"
    if _broken(windows, "match_rate"):
        return "finetune", f"match_rate broke its bound in {len(windows)} windows in a row"
    signs = [name for name in _SIGNS if _broken(windows, name)]
    if not signs:
        return None, f"no bound is broken in {len(windows)} windows in a row"
    reason = f"{', '.join(signs)} broke their bounds in {len(windows)} windows in a row"
    refreshes = 0
    for action, _ in reversed(submitted):
        if action != "refresh":
            break
        refreshes += 1
    if refreshes >= config.finetune_after_refreshes:
        return "finetune", f"{reason}, and {refreshes} refreshes did not heal it"
    return "refresh", reason


def _broken(windows: Sequence[dict[str, float]], name: str) -> bool:
    return all(measured.get(f"passed.{name}") == 0.0 for measured in windows)


def _windows(store: Store, window: timedelta, since: datetime | None, count: int) -> list[dict[str, float]]:
    """The last `count` windows of the length that began at or after `since`, newest first."""
    length = window // timedelta(microseconds=1)
    query = select(measures).where(measures.c.release == ALL, measures.c.stop - measures.c.start == length)
    if since is not None:
        query = query.where(measures.c.start >= micros(since))
    measured: dict[int, dict[str, float]] = {}
    with store.engine.connect() as connection:
        stops = list(
            connection.scalars(
                query.with_only_columns(measures.c.stop).distinct().order_by(measures.c.stop.desc()).limit(count)
            )
        )
        for row in connection.execute(query.where(measures.c.stop.in_(stops))):
            if row.value is not None:
                measured.setdefault(row.stop, {})[row.name] = row.value
    return [measured.get(stop, {}) for stop in stops]


def _submitted(store: Store) -> list[tuple[str, datetime]]:
    query = select(decisions.c.action, decisions.c.at).where(decisions.c.submitted).order_by(decisions.c.seq)
    with store.engine.connect() as connection:
        return [(row.action, moment(row.at)) for row in connection.execute(query)]
