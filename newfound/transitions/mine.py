"""Novel transitions: from histories and clusters to what the planner learns from.

A user is a walk over interface clusters. A *novel transition* is an event in a cluster that the user had never consumed
before, positive or not, with its context: the last K unique clusters that they consumed with positive engagement.

Events of one moment keep the order of the source (`position`), as they do when histories are served and when methods
are tested: so the context of an event may hold clusters of the very same second.
"""

from __future__ import annotations

import json
import logging
import time
from itertools import permutations
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from newfound.clusters import Clusters
from newfound.config import TransitionsConfig
from newfound.datasets.blocks import Block, gather, of_block, user_blocks
from newfound.datasets.dataset import Dataset
from newfound.datasets.engine import connect, drop, write_table, write_tables
from newfound.errors import DataError
from newfound.files import new_folder
from newfound.measures import gini, normalised_entropy
from newfound.schema import (
    AT,
    BALANCED,
    CLUSTER,
    CONTEXT,
    COUNT,
    ENGAGEMENT,
    ENGAGEMENTS,
    GROUP,
    HELD_OUT,
    ITEM,
    ITEM_IDS,
    NEXT,
    PATH,
    POSITION,
    POSITIVE,
    POSITIVES,
    SPLIT,
    STRATUM,
    TIME,
    TIMES,
    TRANSITIONS,
    USER,
    WEIGHT,
    WITHHELD,
)
from newfound.transitions.artifact import ALL_FILE, BALANCED_FILE, RECORD, WITHHELD_FILE
from newfound.transitions.balance import SEPARATOR, balance

log = logging.getLogger("newfound.transitions.mine")

FIRST = "first"


def interest_events(histories: Path, clusters: Path) -> Any:
    """Every user's walk over interface clusters.

    Args:
        histories: histories.parquet.
        clusters: the clusters' folder.

    Returns:
        An Ibis table, unordered: user_id, position (within the history), item_id, cluster, timestamp (microseconds
        since the epoch), engagement, positive, and `first`: whether it is the user's first event in that cluster.
        Items without a cluster are left out.
    """
    con = connect()
    interests = _interests(con, clusters, Clusters.load(clusters).interface_level)
    return _events(con.read_parquet(histories), interests)


def _interests(con: Any, clusters: Path, level: int) -> Any:
    """Every item's interface cluster."""
    items = con.read_parquet(clusters / "items.parquet")
    return items.select(ITEM, **{CLUSTER: items[PATH][level - 1]})


def _events(rows: Any, interests: Any) -> Any:
    """The walks of some rows of histories."""
    events = rows.select(USER, _event=rows[ITEM_IDS].zip(rows[TIMES], rows[ENGAGEMENTS], rows[POSITIVES]))
    events = events.unnest("_event", offset=POSITION)
    names = (ITEM, TIME, ENGAGEMENT, POSITIVE)
    events = events.select(USER, POSITION, **{name: events["_event"][f"f{i}"] for i, name in enumerate(names, start=1)})
    events = events.inner_join(interests, ITEM)
    earliest = events[POSITION].min().over(group_by=[USER, CLUSTER])
    return events.mutate(**{TIME: events[TIME] * 1000, FIRST: events[POSITION] == earliest})


def novel_transitions(events: Any, size: int) -> Any:
    """Novel transitions with a full context.

    Args:
        events: as `interest_events` returns them.
        size: clusters in a context (K), from 1 to 3.

    Returns:
        An Ibis table, unordered: context (the last `size` unique positive clusters before the event, the one whose last
        positive event is oldest first), next, user_id, position, at (as the events' timestamp), engagement (signed,
        2e - 1), positive.
    """
    walk = ibis.cumulative_window(group_by=USER, order_by=POSITION)
    # The liked clusters without immediate repetitions: neighbours differ, so the two latest interests are neighbours.
    liked = events.filter(events[POSITIVE])
    liked = liked.mutate(_second=liked[CLUSTER].lag().over(walk))
    runs = liked.filter(liked["_second"].isnull() | (liked["_second"] != liked[CLUSTER]))
    runs = runs.mutate(_third=runs["_second"].lag().over(walk).nullif(runs[CLUSTER]))
    # Where the first and the third are the same, A B A, the third interest is still the one that it was at B.
    runs = runs.select(USER, POSITION, "_second", _latest=runs[CLUSTER], _third=_latest(runs, "_third").over(walk))
    names = ["_latest", "_second", "_third"][:size]
    # Every event gets the interests that the user had right before it.
    known = events.left_join(runs, [USER, POSITION]).drop(f"{USER}_right", f"{POSITION}_right")
    known = known.mutate(**{name: _latest(known, name).over(walk) for name in names})
    known = known.mutate(**{name: known[name].lag().over(walk) for name in names})
    return known.filter(known[FIRST] & known[names[-1]].notnull()).select(
        USER,
        POSITION,
        POSITIVE,
        **{
            CONTEXT: ibis.array([known[name] for name in reversed(names)]),
            NEXT: known[CLUSTER],
            AT: known[TIME],
            ENGAGEMENT: 2 * known[ENGAGEMENT] - 1,
        },
    )


def _latest(events: Any, name: str) -> Any:
    """The column's value at the newest event that has one."""
    return events[name].argmax(ibis.ifelse(events[name].notnull(), events[POSITION], ibis.null("int64")))


def mine_transitions(
    histories: Path, dataset: Path, clusters: Path, config: TransitionsConfig, seed: int, out: Path
) -> dict[str, float | int | str]:
    """Mines novel transitions from histories, withholds contexts by design, and balances what is left per label.

    Args:
        histories: histories.parquet, the past.
        dataset: the data set's folder, for its groups of users.
        clusters: the clusters' folder.
        config: what a context is, how much of a label is kept, how many contexts are withheld.
        seed: of the choice among contexts.
        out: folder for transitions.parquet, balanced.parquet, held_out.parquet and transitions.json; it appears whole,
            or not at all.

    Returns:
        Counts, and label coverage, normalised entropy and Gini before and after balancing.

    Raises:
        DataError: a file is missing or broken, or no positive transition of a user to learn from is left.
    """
    started = time.perf_counter()
    interface = Clusters.load(clusters)
    con = connect()
    found, blocks = _mine(con, histories, dataset, _interests(con, clusters, interface.interface_level), config.context)
    learned = found if config.learn_from == "all" else found.filter(found[SPLIT] == "train")
    withheld = _withhold(learned, config, seed)
    held = ibis.memtable(withheld.select([CONTEXT]))
    found = found.left_join(held.mutate(**{HELD_OUT: True}), CONTEXT).drop(f"{CONTEXT}_right")
    found = con.create_table("flagged", found.mutate(**{HELD_OUT: found[HELD_OUT].fill_null(False)}), temp=True)
    drop(con, "found")
    learned = found.filter(found[POSITIVE] & ~found[HELD_OUT])
    if config.learn_from == "train":
        learned = learned.filter(learned[SPLIT] == "train")
    pairs = learned.group_by(CONTEXT, NEXT).agg(**{WEIGHT: learned.count()})
    balanced = con.create_table("balanced", balance(pairs, config.per_label, seed), temp=True)
    measures = {
        **_counts(found, withheld),
        **_spread("natural", learned.group_by(NEXT).agg(n=learned.count()), len(interface.interface)),
        **_spread("balanced", balanced.group_by(NEXT).agg(n=balanced.count()), len(interface.interface)),
    }
    if not measures["balanced_samples"]:
        raise DataError(
            str(histories),
            f"no positive novel transition with {config.context} interests before it",
            expected="longer histories, or more clusters",
        )
    with new_folder(out, RECORD) as folder:
        parts = (of_block(found, block).order_by(USER, POSITION) for block in blocks)
        write_tables(parts, TRANSITIONS, folder / ALL_FILE)
        write_table(balanced.order_by(NEXT, ibis.desc(WEIGHT), CONTEXT), BALANCED, folder / BALANCED_FILE)
        pq.write_table(withheld, folder / WITHHELD_FILE)
        record = {
            "clusters_digest": interface.digest,
            "config": config.model_dump(),
            "seed": seed,
            "ties": "events of one moment in the order of the source",
            "measures": measures,
        }
        (folder / RECORD).write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    log.info(
        "%d novel transitions (%d positive), %d samples for %d of %d labels, %d contexts withheld, in %.1f s",
        *(measures[name] for name in ("transitions", "positives", "balanced_samples", "balanced_labels")),
        *(len(interface.interface), measures["held_out_contexts"], time.perf_counter() - started),
    )
    return measures


def _mine(con: Any, histories: Path, dataset: Path, interests: Any, size: int) -> tuple[Any, list[Block]]:
    """Everybody's novel transitions with the users' groups, and the blocks of users that they were mined in."""
    users = con.read_parquet(Dataset(dataset).path / "users.parquet")
    users = users.select(USER, **{SPLIT: users[GROUP]})
    rows = con.read_parquet(histories)
    blocks = user_blocks(rows.select(USER, _events=rows[ITEM_IDS].length()), "_events")
    walks = (_events(of_block(rows, block), interests) for block in blocks)
    return gather(con, "found", (novel_transitions(walk, size).inner_join(users, USER) for walk in walks)), blocks


def _withhold(learned: Any, config: TransitionsConfig, seed: int) -> pa.Table:
    """Contexts to withhold: a share of every stratum of frequency, chosen by hash, in every order of their clusters.

    If only one order were withheld, the other would give its answer away.
    """
    counted = learned.group_by(CONTEXT).agg(**{COUNT: learned.count()})
    counted = counted.mutate(_set=counted[CONTEXT].sort().join(SEPARATOR))
    sets = counted.group_by("_set").agg(n=counted[COUNT].sum())
    sets = sets.mutate(**{STRATUM: sets["n"].log2().floor().cast("int8")})
    lot = (ibis.literal(f"{seed}:") + sets["_set"]).hexdigest("sha256")
    place = ibis.row_number().over(group_by=STRATUM, order_by=[lot, sets["_set"]])
    sets = sets.mutate(_place=place, _size=sets.count().over(group_by=STRATUM))
    chosen = sets.filter(sets["_place"] < (sets["_size"] * config.held_out_pairs).round())
    strata = {row["_set"]: row[STRATUM] for row in chosen.select("_set", STRATUM).to_pyarrow().to_pylist()}
    seen = counted.semi_join(chosen, "_set").to_pyarrow().to_pylist()
    counts = {tuple(row[CONTEXT]): row[COUNT] for row in seen}
    rows = sorted(
        (order, counts.get(order, 0), stratum)
        for key, stratum in strata.items()
        for order in permutations(key.split(SEPARATOR))
    )
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    arrays = [pa.array(list(values), field.type) for values, field in zip(columns, WITHHELD, strict=True)]
    return pa.table(arrays, schema=WITHHELD)


def _counts(found: Any, withheld: pa.Table) -> dict[str, float | int | str]:
    training = found[SPLIT] == "train"
    counted = found.aggregate(
        transitions=found.count(),
        positives=found[POSITIVE].sum(),
        users=found[USER].nunique(),
        contexts=found[CONTEXT].nunique(),
        training_transitions=training.sum(),
        held_out_transitions=found[HELD_OUT].sum(),
    )
    numbers = {name: int(value or 0) for name, value in counted.to_pyarrow().to_pylist()[0].items()}
    return {**numbers, "held_out_contexts": withheld.num_rows}


def _spread(name: str, labels: Any, clusters: int) -> dict[str, float | int | str]:
    """Evenness of samples over the labels; entropy and Gini count labels without a sample as well."""
    counts = np.zeros(clusters)
    found = np.sort(labels.to_pyarrow()["n"].to_numpy())  # sums of floats depend on the order
    counts[: len(found)] = found
    return {
        f"{name}_samples": int(counts.sum()),
        f"{name}_labels": len(found),
        f"{name}_label_coverage": len(found) / clusters,
        f"{name}_label_entropy": normalised_entropy(counts),
        f"{name}_label_gini": gini(counts),
    }
