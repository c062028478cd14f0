"""Measures of a window of events, by release: SQL that streams Parquet parts through bounded memory.

A slate belongs to the window in which it was answered; feedback on it counts whenever it happened and however late it
came, so an old window that is measured again takes late feedback in, and one that got none is measured the same. A slot
is an *impression* once there is any feedback on it. Feedback means what it means for histories (`monitoring.feedback`;
`monitoring.users.interactions.fold` is the same in Python), and each measure what its function in `newfound.measures`,
`newfound.evaluation.off_policy` or, in plain Python, `tests/reference/measures.py` computes. A release's measures are
of what was shown, and of what was consumed, on its slates; those of all releases take in what people consumed
elsewhere.

Feedback that names a slate counts where the slate is known, was its user's and held the item. What a user consumed
elsewhere is the user's word alone: of one day, so many interactions count and no more. Where one user could move a
measure that makes a pipeline due, users are counted.

A window that is measured again gives the same values to the last bit: counts and medians do by themselves, and what is
no whole number is added as decimals (`total`), since threads add in any order and sums of floats depend on it.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import duckdb
import numpy as np

from monitoring.feedback import CLICKED, CONSUMING, DAY, EXPLICIT, IMPRESSION, WATCHED, sql_list
from monitoring.report.off_policy import ALL, offpolicy_measures
from monitoring.settings import MonitoringConfig
from newfound import schema
from newfound.measures import gini, normalised_entropy

if TYPE_CHECKING:
    import pyarrow as pa

UCI_DAYS: Final = 7
Values: TypeAlias = dict[str, dict[str, float | None]]
"""Measures by release, then by name."""

# Twelve digits after the point; ten million terms of 10^18 have room before it, and what is larger is left out.
_EXACT: Final = """
CREATE MACRO total(x) AS sum(TRY_CAST(x AS DECIMAL(30, 12)))::DOUBLE;
CREATE MACRO mean(x) AS total(x::DOUBLE) / nullif(count(TRY_CAST(x::DOUBLE AS DECIMAL(30, 12))), 0);
"""

# Interactions as `monitoring.users.interactions.fold` makes them, and impressions with nothing else, which are none.
OUTCOMES: Final = f"""
CREATE TABLE outcomes AS
SELECT *, coalesce(engagement >= $positive_at, false) AS positive
FROM (
    SELECT user_key, item_id, recommendation_id,
        min(moment) FILTER (WHERE kind <> '{IMPRESSION}') AS moment,
        coalesce(
            arg_max(CASE kind {" ".join(f"WHEN '{kind}' THEN {value}::DOUBLE" for kind, value in EXPLICIT.items())} END,
                {{'moment': moment, 'id': event_id}}) FILTER (WHERE kind IN {sql_list(EXPLICIT)}),
            max(CASE kind WHEN '{WATCHED}' THEN share WHEN '{CLICKED}' THEN $clicked END)
        ) AS engagement,
        bool_or(kind IN {sql_list(CONSUMING)}) AS consumed
    FROM feedback
    WHERE moment >= $since
    GROUP BY user_key, item_id, recommendation_id,
        CASE WHEN recommendation_id IS NULL THEN epoch_us(moment) // {DAY} END
)
"""

_DECIDED: Final = """
CREATE TABLE decided AS
SELECT s.release, s.recommendation_id, s.position, s.user_key, s.item_id, s.cluster, s.slot = 'novel' AS novel,
    s.reason, s.score, s.propensity, s.eligible,
    o.recommendation_id IS NOT NULL AS shown, coalesce(o.positive, false) AS positive,
    -- A client that chose the seed could foresee the slots: they were not drawn for estimates of other policies.
    CASE WHEN novel AND s.eligible > 0 AND shown AND NOT coalesce(s.client_seed, false) THEN s.candidates END
        AS candidates
FROM slots s LEFT JOIN outcomes o USING (recommendation_id, item_id, user_key)
WHERE s.moment >= $start AND s.moment < $stop
"""

_CONSUMED: Final = f"""
CREATE TABLE consumed AS
SELECT coalesce(s.release, '') AS release, o.user_key, coalesce(s.cluster, i.cluster) AS cluster, o.moment, o.positive,
    o.consumed
FROM (
    SELECT *, row_number() OVER (
        PARTITION BY user_key, recommendation_id IS NULL, epoch_us(moment) // {DAY} ORDER BY moment, item_id
    ) AS nth
    FROM outcomes WHERE moment >= $since AND moment <= $stop AND (consumed OR positive)
) o
LEFT JOIN (SELECT recommendation_id, item_id, user_key, cluster, release FROM slots WHERE moment >= $slates) s
    USING (recommendation_id, item_id, user_key)
LEFT JOIN items i ON i.item_id = o.item_id
WHERE CASE WHEN o.recommendation_id IS NULL THEN o.nth <= $counted ELSE s.release IS NOT NULL END
"""

_BY_RELEASE: Final = "GROUP BY GROUPING SETS ((release), ())"

_SLATES: Final = f"""
SELECT coalesce(release, '{ALL}') AS release,
    count(*) AS slates,
    sum(leaked) / nullif(sum(successors), 0) AS leak,
    sum(matched) / nullif(sum(generated), 0) AS match_rate,
    avg(degraded::INT) AS degraded_share,
    avg(history_length) AS history_length,
    median(epoch(moment) - epoch(history_at)) / 3600 AS history_age_hours,
    quantile_cont(latency_ms, 0.5) AS latency_ms_p50,
    quantile_cont(latency_ms, 0.99) AS latency_ms_p99
FROM slates WHERE moment >= $start AND moment < $stop {_BY_RELEASE}
"""

_SLOTS: Final = f"""
SELECT coalesce(release, '{ALL}') AS release,
    count(*) AS slots,
    count(*) FILTER (WHERE shown) AS impressions,
    count(DISTINCT user_key) FILTER (WHERE shown) AS users,
    count(*) FILTER (WHERE shown AND novel) AS novel_impressions,
    avg(novel::INT) FILTER (WHERE shown) AS novelty_ratio,
    avg(positive::INT) FILTER (WHERE shown) AS positive_rate,
    avg(positive::INT) FILTER (WHERE shown AND novel) AS novel_positive_rate,
    avg(positive::INT) FILTER (WHERE shown AND NOT novel) AS familiar_positive_rate,
    avg(shown::INT) FILTER (WHERE novel) / nullif(avg(shown::INT) FILTER (WHERE NOT novel), 0) AS suppression_exposure,
    avg(positive::INT) FILTER (WHERE shown AND novel) / nullif(avg(positive::INT) FILTER (WHERE shown AND NOT novel), 0)
        AS suppression_appeal,
    mean(CASE WHEN novel THEN score END) AS novel_score,
    mean(CASE WHEN NOT novel THEN score END) AS familiar_score
FROM decided {_BY_RELEASE}
"""

_REASONS: Final = """
SELECT coalesce(release, 'all') AS release, reason, count(*) AS slots FROM decided
GROUP BY GROUPING SETS ((release, reason), (reason)) ORDER BY ALL
"""

_EXPOSURE: Final = """
SELECT coalesce(release, 'all') AS release, cluster, count(*) AS impressions FROM decided WHERE shown
GROUP BY GROUPING SETS ((release, cluster), (cluster)) ORDER BY ALL
"""

# Users by how many clusters they consumed from. An empty release is what was consumed without a slate.
_UCI: Final = f"""
SELECT release, clusters, count(*) AS users FROM (
    SELECT release, user_key, count(*) AS clusters FROM (
        SELECT coalesce(release, '{ALL}') AS release, user_key, cluster FROM consumed
        WHERE consumed AND cluster IS NOT NULL AND moment > $week AND moment <= $stop
        GROUP BY GROUPING SETS ((release, user_key, cluster), (user_key, cluster))
    ) GROUP BY release, user_key
) WHERE release <> '' GROUP BY release, clusters
"""

_INTERESTS: Final = f"""
SELECT release, count(*) FILTER (WHERE last >= $start) AS ueuc,
    avg((last - first >= to_microseconds($retained) AND last > first)::INT) AS retained_interest
FROM (
    SELECT coalesce(release, '{ALL}') AS release, min(moment) AS first, max(moment) AS last FROM consumed
    WHERE positive AND cluster IS NOT NULL
    GROUP BY GROUPING SETS ((release, user_key, cluster), (user_key, cluster))
) WHERE release <> '' GROUP BY release
"""

# Of each user the share, so that nobody's many count for more than anybody's few.
_UNKNOWN: Final = """
SELECT mean(share) AS unknown_items, count(*) FILTER (WHERE share > 0)::DOUBLE AS unknown_item_users
FROM (SELECT avg((cluster IS NULL)::INT) AS share FROM consumed WHERE moment >= $start GROUP BY user_key)
"""

_SAMPLE: Final = """
SELECT d.user_key, d.slot, d.cluster, d.reason, d.score, d.positive, s.history_length,
    (epoch(s.moment) - epoch(s.history_at)) / 3600 AS history_age_hours
FROM (
    SELECT recommendation_id, user_key, CASE WHEN novel THEN 'novel' ELSE 'familiar' END AS slot, cluster, reason,
        score, positive::INT AS positive, md5(recommendation_id || ':' || position) AS lot
    FROM decided WHERE shown ORDER BY lot, recommendation_id, position LIMIT $rows
) d JOIN slates s USING (recommendation_id) ORDER BY d.lot, d.recommendation_id
"""


@dataclass(frozen=True)
class Window:
    """Measures of [start, stop), and a sample of its impressions.

    Attributes:
        measures: by release (and `all`), then by name; None where there was nothing to measure.
        sample: plain columns of impressions for drift tests, with the users' keyed hashes.
    """

    start: datetime
    stop: datetime
    measures: Mapping[str, Mapping[str, float | None]]
    sample: Any  # pandas.DataFrame


def measure(
    exports: Path,
    start: datetime,
    stop: datetime,
    config: MonitoringConfig,
    *,
    items: pa.Table | None = None,
    clusters: int | None = None,
    scratch: Path | None = None,
) -> Window:
    """Measures one window.

    Args:
        exports: what `monitoring.report.export` wrote.
        start: the first moment of the window.
        stop: the first moment after it.
        config: what counts as positive, and bounds.
        items: columns item_id and cluster of the current release, for what was consumed without a slate.
        clusters: how many interface clusters there are; the exposed ones where None.
        scratch: where to spill; a temporary folder where None.
    """
    values: Values = defaultdict(dict)
    since = min(start - timedelta(days=1), stop - timedelta(days=config.lookback_days))
    with _database(exports, config, items, scratch) as db:
        db.execute(OUTCOMES, {"since": since, "positive_at": config.positive_at, "clicked": config.clicked_engagement})
        db.execute(_DECIDED, {"start": start, "stop": stop})
        slates = since - timedelta(days=config.age_days)  # feedback comes later than its slate
        counted = config.counted_a_day
        db.execute(_CONSUMED, {"since": since, "stop": stop, "slates": slates, "counted": counted})
        _measure_slates(db, values, start, stop)
        _measure_exposure(db, values, clusters)
        _measure_interests(db, values, start, stop, config)
        if items is not None:  # else nobody knows which items have a cluster
            values[ALL].update(_rows(db, _UNKNOWN, {"start": start})[0])
        for release, estimates in offpolicy_measures(db).items():
            values[release].update(estimates)
        sample = db.execute(_SAMPLE, {"rows": config.drift_rows}).fetch_df()
    # What was consumed on an earlier release's slates makes it none of this window's.
    kept = {
        of: {name: taken[name] for name in sorted(taken)}
        for of, taken in sorted(values.items())
        if of == ALL or "slates" in taken
    }
    return Window(start, stop, kept, sample)


def _measure_slates(db: duckdb.DuckDBPyConnection, values: Values, start: datetime, stop: datetime) -> None:
    """Counts, rates and shares of slates and slots."""
    for row in _rows(db, _SLATES, {"start": start, "stop": stop}) + _rows(db, _SLOTS, {}):
        release = row.pop("release")
        values[release].update({name: None if value is None else float(value) for name, value in row.items()})
    for of in values.values():
        exposure, appeal = of.get("suppression_exposure"), of.get("suppression_appeal")
        of["suppression_ratio"] = exposure / appeal if exposure is not None and appeal else None
    for row in _rows(db, _REASONS, {}):
        slots = values[row["release"]]["slots"] or 1.0
        values[row["release"]][f"reason_share.{row['reason']}"] = row["slots"] / slots


def _measure_exposure(db: duckdb.DuckDBPyConnection, values: Values, clusters: int | None) -> None:
    """Evenness of impressions over clusters."""
    exposure_of: dict[str, list[int]] = defaultdict(list)
    for row in _rows(db, _EXPOSURE, {}):
        exposure_of[row["release"]].append(row["impressions"])
    for release, counts in exposure_of.items():
        padded = np.array(counts + [0] * max(0, (clusters or 0) - len(counts)))
        values[release]["exposed_clusters"] = float(len(counts))
        values[release]["exposure_gini"] = _number(gini(padded))
        values[release]["exposure_entropy"] = _number(normalised_entropy(padded))


def _measure_interests(
    db: duckdb.DuckDBPyConnection, values: Values, start: datetime, stop: datetime, config: MonitoringConfig
) -> None:
    """UCI, UEUC and retained interests."""
    for row in _rows(db, _UCI, {"week": stop - timedelta(days=UCI_DAYS), "stop": stop}):
        of = values[row["release"]]
        for least in config.uci_at:
            of[f"uci@{least}"] = (of.get(f"uci@{least}") or 0.0) + (row["users"] if row["clusters"] >= least else 0)
    retained = int(config.retained_days * 86_400_000_000)
    for row in _rows(db, _INTERESTS, {"start": start, "retained": retained}):
        values[row.pop("release")].update(row)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def _rows(db: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    answer = db.execute(sql, dict(values))
    names = [column[0] for column in answer.description or []]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


@contextmanager
def _database(
    exports: Path, config: MonitoringConfig, items: pa.Table | None, scratch: Path | None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB on a scratch file, with the exported tables as views; what exceeds its memory goes to that folder."""
    with tempfile.TemporaryDirectory(dir=scratch, prefix="newfound-report-") as folder:
        db = duckdb.connect(f"{folder}/scratch.duckdb")
        try:
            db.execute(f"SET memory_limit = '{config.memory_mb}MB'")
            db.execute(f"SET temp_directory = '{folder}/spill'")
            db.execute("SET preserve_insertion_order = false")
            db.execute("SET TimeZone = 'UTC'")
            db.execute("SET enable_progress_bar = false")
            db.execute(_EXACT)
            empty = {"slates": schema.SLATES, "slots": schema.SLOTS, "feedback": schema.FEEDBACK}
            for name, columns in empty.items():
                source = f"no_{name}"
                # A table of DuckDB's own: joins push filters into a scan of Arrow that it does not know.
                db.from_arrow(columns.empty_table()).create(source)
                if any((exports / name).glob("*.parquet")):
                    path = str(exports / name / "*.parquet").replace("'", "''")
                    # Earlier parts have fewer columns, perhaps all of them.
                    parts = f"SELECT * FROM read_parquet('{path}', union_by_name = true)"
                    source = f"({parts} UNION ALL BY NAME SELECT * FROM {source})"
                # `at` is a keyword of SQL in some places and a column in others.
                db.execute(f'CREATE VIEW {name} AS SELECT * RENAME ("at" AS moment) FROM {source}')
            if items is None:
                db.execute("CREATE TABLE items (item_id VARCHAR, cluster VARCHAR)")
            else:
                db.register("given_items", items)
                db.execute("CREATE TABLE items AS SELECT item_id, cluster FROM given_items")
            yield db
        finally:
            db.close()
