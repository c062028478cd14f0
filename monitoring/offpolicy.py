"""What other policies would have earned on novel slots, from logged propensities: IPS, SNIPS, doubly robust, in SQL.

The estimators are those of `newfound.offpolicy`, with slates as groups; here they are sums that stream through DuckDB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import duckdb

ALL: Final = "all"
"""The pseudo release of measures over all releases."""
POLICIES: Final = ("uniform", "likeliest")
"""Those that are judged: any eligible cluster alike; always the likeliest candidate."""
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
    SELECT recommendation_id, position, count(*) AS listed, sum(reward) AS rewards, count(*) FILTER (WHERE top) AS tops,
        sum(reward) FILTER (WHERE top) AS top_rewards, max(reward) FILTER (WHERE chosen) AS chosen
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

# Sums over slates, whose slots are one observation, are all that the estimates need: nothing has to fit in memory.
_OFFPOLICY: Final = f"""
SELECT coalesce(release, '{ALL}') AS release, sum(n) AS n, count(*) AS slates, sum(w) AS w, sum(ww) AS ww, sum(g) AS g,
    sum(d) AS d, sum(n * n) AS nn, sum(g * g) AS gg, sum(g * w) AS gw, sum(w * w) AS hh, sum(g * n) AS gn,
    sum(d * d) AS dd, sum(d * n) AS dn
FROM (
    SELECT release, count(*) AS n, sum(w) AS w, sum(w * w) AS ww, sum(w * r) AS g,
        sum(expected + w * (r - predicted)) AS d
    FROM (
        SELECT *, CASE $policy WHEN 'uniform' THEN 1 / eligible ELSE likeliest END / propensity AS w,
            CASE $policy WHEN 'uniform' THEN uniform_reward ELSE likeliest_reward END AS expected
        FROM predicted WHERE $policy = 'uniform' OR likeliest_reward IS NOT NULL
    ) GROUP BY release, recommendation_id
) GROUP BY GROUPING SETS ((release), ())
"""


def offpolicy_measures(db: duckdb.DuckDBPyConnection) -> dict[str, dict[str, float | None]]:
    """`offpolicy.<policy>.<figure>` by release and `all`, of a database that holds the window's `decided` slots."""
    db.execute(_OFFERED)
    db.execute(_REWARDS, {"prior": _PRIOR})
    db.execute(_PREDICTED)
    found: dict[str, dict[str, float | None]] = {}
    for policy in POLICIES:
        answer = db.execute(_OFFPOLICY, {"policy": policy})
        names = [column[0] for column in answer.description or []]
        for values in answer.fetchall():
            row = dict(zip(names, values, strict=True))
            if row["slates"]:
                figures = {f"offpolicy.{policy}.{name}": value for name, value in _estimates(row).items()}
                found.setdefault(row["release"], {}).update(figures)
    return found


def _estimates(sums: Mapping[str, Any]) -> dict[str, float | None]:
    """The positive rate on novel slots under another policy, as `newfound.offpolicy` has it with slates as groups.

    Args:
        sums: over slates of slots `n`, weights `w`, weighted rewards `g`, doubly robust terms `d`, and their products.
    """
    n, slates = float(sums["n"]), int(sums["slates"])
    again = slates / max(slates - 1, 1)

    def error(squares: float, scale: float) -> float | None:
        return float(np.sqrt(max(squares, 0.0) * again)) / scale if slates > 1 else None

    found: dict[str, float | None] = {}
    for name, total, squares, cross in (("ips", "g", "gg", "gn"), ("dr", "d", "dd", "dn")):
        value = sums[total] / n
        found[name] = value
        found[f"{name}_error"] = error(sums[squares] - 2 * value * sums[cross] + value**2 * sums["nn"], n)
    if sums["w"]:
        ratio = sums["g"] / sums["w"]
        found["snips"] = ratio
        found["snips_error"] = error(sums["gg"] - 2 * ratio * sums["gw"] + ratio**2 * sums["hh"], sums["w"])
    found["effective_sample_size"] = sums["w"] ** 2 / sums["ww"] if sums["ww"] else 0.0
    return found
