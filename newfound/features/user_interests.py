"""The interests that people have had, over their whole look-back: what Feast's `user_interests` view serves."""

from __future__ import annotations

import logging
from pathlib import Path

import ibis

from newfound.datasets.engine import connect, write_table
from newfound.files import new_file
from newfound.schema import CLUSTERS_DIGEST, EVENT_TIME, INTERESTS, ITEM, PATH, SEEN_LEAVES, TIME, USER

log = logging.getLogger("newfound.features.user_interests")


def write_interests(dataset: Path, item_paths: Path, digest: str, out: Path) -> dict[str, float | int | str]:
    """Writes `schema.INTERESTS`: the leaves of everything that each user ever consumed, liked or not.

    Args:
        dataset: folder of `load_interactions`.
        item_paths: `items.parquet` of the clusters, each item with its path.
        digest: of the clusters, which stamps every row.
        out: the Parquet file.

    Returns:
        Users, and the mean number of leaves.
    """
    con = connect()
    events = con.read_parquet(dataset / "interactions.parquet").select(USER, ITEM, TIME)
    paths = con.read_parquet(item_paths)
    leaves = paths.select(ITEM, _leaf=paths[PATH][paths[PATH].length() - 1])
    events = events.left_join(leaves, ITEM)
    rows = events.group_by(USER).agg(
        **{
            EVENT_TIME: events[TIME].max(),
            SEEN_LEAVES: events["_leaf"].collect(where=events["_leaf"].notnull(), distinct=True),
        }
    )
    seen = rows[SEEN_LEAVES].fill_null(ibis.literal([], type="array<string>"))
    rows = rows.mutate(**{SEEN_LEAVES: seen.sort(), CLUSTERS_DIGEST: ibis.literal(digest)})
    with new_file(out) as file:
        count = write_table(rows.order_by(USER), INTERESTS, file)
    mean = float(con.read_parquet(out)[SEEN_LEAVES].length().mean().execute())
    log.info("interests of %d users, %.1f leaves each", count, mean)
    return {"users": count, "leaves_per_user": mean}
