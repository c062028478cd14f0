"""Off-policy estimates on novel slots from logged propensities: IPS, SNIPS, doubly robust, in SQL.

The estimators are those of `newfound.evaluation.off_policy`, with slates as groups; here they are sums that stream
through DuckDB, exact ones by the macro `total` of `monitoring.report.windows`. A propensity is a slot's probability
given the slots above it, so what is estimated is a slot that the other policy fills below slots filled as logged.
A whole slate of another policy needs products along the slate, whose effective sample size is hopeless for these two.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import duckdb

ALL: Final = "all"
"""The pseudo release of measures over all releases."""
POLICIES: Final = ("uniform", "likeliest")
"""The policies that are estimated: any eligible cluster alike; always the likeliest candidate."""
_HEAVIEST: Final = 1e6  # weight of a slot; only a broken log asks for more, and sums have room for so much
_PRIOR: Final = 10.0  # impressions that the overall reward counts for beside a cluster's own

# Slots that another policy could have given to another cluster. Users are halved: a half's rewards are predicted from
# the other half's, so that the doubly robust estimate's model has not seen what it is corrected by.
_OFFERED: Final = """
CREATE TABLE offered AS
SELECT release, recommendation_id, position, cluster, positive::INT AS r, propensity, eligible, candidates,
    list_max(map_values(candidates)) AS best, strpos('0123456789abcdef', right(user_key, 1)) % 2 AS half
FROM decided WHERE candidates IS NOT NULL
"""

_REWARDS: Final = """
CREATE TABLE rewards AS
SELECT 1 - half AS half, cluster, (sum(r) + $prior * any_value(overall)) / (count(*) + $prior) AS reward
FROM offered JOIN (SELECT half, avg(r) AS overall FROM offered GROUP BY half) USING (half) GROUP BY half, cluster
"""

# Per slot: the rewards that the model expects of the candidates, of the likeliest of them, and of the cluster shown.
# Clusters that were eligible but are not among the candidates are not on record: each is given the overall reward.
_PREDICTED: Final = """
CREATE TABLE predicted AS
WITH overall AS (SELECT 1 - half AS half, avg(r) AS overall FROM offered GROUP BY half),
each AS (
    SELECT o.recommendation_id, o.position, c.key = o.cluster AS chosen, c.value >= o.best AS top,
        coalesce(q.reward, a.overall, 0) AS reward
    FROM (SELECT *, unnest(map_entries(candidates)) AS c FROM offered) o
    LEFT JOIN rewards q ON q.half = o.half AND q.cluster = o.c.key LEFT JOIN overall a ON a.half = o.half
),
summed AS (
    SELECT recommendation_id, position, count(*) AS listed, total(reward) AS rewards,
        count(*) FILTER (WHERE top) AS tops, total(CASE WHEN top THEN reward END) AS top_rewards,
        max(reward) FILTER (WHERE chosen) AS chosen
    FROM each GROUP BY recommendation_id, position
)
SELECT o.release, o.recommendation_id, o.r, o.propensity, o.eligible,
    coalesce(s.chosen, a.overall, 0) AS predicted,
    (coalesce(s.rewards, 0) + greatest(o.eligible - coalesce(s.listed, 0), 0) * coalesce(a.overall, 0))
        / greatest(o.eligible, coalesce(s.listed, 0)) AS uniform_reward,
    s.top_rewards / s.tops AS likeliest_reward,
    CASE WHEN o.propensity >= o.best THEN 1 / s.tops ELSE 0 END AS likeliest
FROM offered o LEFT JOIN summed s USING (recommendation_id, position) LEFT JOIN overall a ON a.half = o.half
"""

# A slate's slots are one observation: n of them, with weights w, weighted rewards g and doubly robust terms d.
_WEIGHED: Final = """
CREATE OR REPLACE TABLE weighed AS
SELECT release, count(*)::DOUBLE AS n, total(w) AS w, total(w * w) AS ww, total(w * r) AS g,
    total(expected + w * (r - predicted)) AS d
FROM (
    SELECT *, least(CASE $policy WHEN 'uniform' THEN 1 / eligible ELSE likeliest END / propensity, $heaviest) AS w,
        CASE $policy WHEN 'uniform' THEN uniform_reward ELSE likeliest_reward END AS expected
    FROM predicted WHERE $policy = 'uniform' OR likeliest_reward IS NOT NULL
) GROUP BY release, recommendation_id
"""

_ESTIMATES: Final = f"""
SELECT coalesce(release, '{ALL}') AS release, count(*) AS slates, total(n) AS n, total(w) AS w,
    total(g) / total(n) AS ips, total(d) / total(n) AS dr, total(g) / nullif(total(w), 0) AS snips,
    coalesce(total(w) ** 2 / nullif(total(ww), 0), 0) AS effective_sample_size
FROM weighed GROUP BY GROUPING SETS ((release), ())
"""

# Squares of what is left once the estimate is known: differences of large sums would lose their last digits.
_RESIDUALS: Final = f"""
SELECT total((g - $ips * n) ** 2) AS ips, total((d - $dr * n) ** 2) AS dr, total((g - $snips * w) ** 2) AS snips
FROM weighed WHERE $release = '{ALL}' OR release = $release
"""


def offpolicy_measures(db: duckdb.DuckDBPyConnection) -> dict[str, dict[str, float | None]]:
    """`offpolicy.<policy>.<figure>` by release and `all`, of a database that holds the window's `decided` slots.

    What the estimates need are sums over slates: nothing has to fit in memory.
    """
    db.execute(_OFFERED)
    db.execute(_REWARDS, {"prior": _PRIOR})
    db.execute(_PREDICTED)
    estimated: dict[str, dict[str, float | None]] = defaultdict(dict)
    for policy in POLICIES:
        db.execute(_WEIGHED, {"policy": policy, "heaviest": _HEAVIEST})
        for row in _rows(db, _ESTIMATES):
            if not row["slates"]:
                continue
            of = estimated[row["release"]]
            estimates = {name: row[name] for name in ("ips", "dr", "snips")}
            residuals = _rows(db, _RESIDUALS, {"release": row["release"], **estimates})[0]
            for name, value in estimates.items():
                if value is not None:
                    scale = row["w"] if name == "snips" else row["n"]
                    of[f"offpolicy.{policy}.{name}"] = value
                    of[f"offpolicy.{policy}.{name}_error"] = _error(residuals[name], row["slates"], scale)
            of[f"offpolicy.{policy}.effective_sample_size"] = row["effective_sample_size"]
    return estimated


def _error(squares: float, slates: int, scale: float) -> float | None:
    """Standard error of a mean whose residuals' squares, summed by slate, are given; None for a single slate."""
    return math.sqrt(squares * slates / (slates - 1)) / scale if slates > 1 else None


def _rows(db: duckdb.DuckDBPyConnection, query: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    answer = db.execute(query, dict(values or {}))
    names = [column[0] for column in answer.description or []]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
