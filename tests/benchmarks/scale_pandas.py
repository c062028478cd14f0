"""Histories and transitions as a competent person writes them with pandas: `python -m tests.benchmarks.scale_pandas`.

Same input files, same output files, row for row: groups, shifts, merges and forward fills over whole columns, no loop
over events. Prints a line of JSON with the seconds from reading to written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from itertools import permutations
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from newfound import schema
from newfound.config import FeaturesConfig, TransitionsConfig
from newfound.schema import (
    AT,
    BALANCED,
    CLUSTER,
    CONTEXT,
    COUNT,
    CUT,
    ENGAGEMENT,
    EVENT_TIME,
    GROUP,
    HELD_OUT,
    HISTORIES,
    ITEM,
    NEXT,
    POSITION,
    POSITIVE,
    SPLIT,
    STRATUM,
    TIME,
    TRANSITIONS,
    USER,
    WEIGHT,
    WITHHELD,
)
from newfound.transitions.artifact import ALL_FILE, BALANCED_FILE, WITHHELD_FILE
from newfound.transitions.balance import SEPARATOR
from tests.benchmarks.scale_steps import SEED, Place

ARRAYS: Final = {ITEM: schema.ITEM_IDS, TIME: schema.TIMES, ENGAGEMENT: schema.ENGAGEMENTS, POSITIVE: schema.POSITIVES}


def histories(place: Place, out: Path) -> None:
    """`newfound.features.user_history.write_user_history`."""
    length = FeaturesConfig().history_length
    events = pd.read_parquet(place.dataset / "interactions.parquet")
    users = pd.read_parquet(place.dataset / "users.parquet", columns=[USER, CUT])
    events = events.merge(users, on=USER)
    before = events[TIME] < events[CUT]
    past = events[before].groupby(USER, sort=False).tail(length)
    going_on = events.loc[~before, USER].unique()
    whole = events[events[USER].isin(going_on)].groupby(USER, sort=False).tail(length)
    rows = pd.concat([_rows(past, False), _rows(whole, True)]).sort_values([USER, "end"])
    pq.write_table(pa.Table.from_pandas(rows[HISTORIES.names], schema=HISTORIES, preserve_index=False), out)


def _rows(events: pd.DataFrame, end: bool) -> pd.DataFrame:
    newest = events.groupby(USER, sort=False)[TIME].max().rename(EVENT_TIME)
    events = events.assign(**{TIME: events[TIME].astype("int64") // 1000})
    lists = events.groupby(USER, sort=False)[list(ARRAYS)].agg(list).rename(columns=ARRAYS)
    return lists.join(newest).reset_index().assign(end=end)


def transitions(place: Place, out: Path) -> None:
    """`newfound.transitions.mine.mine_transitions`, with contexts of two."""
    config = TransitionsConfig()
    assert config.context == 2
    rows = pd.read_parquet(place.histories, columns=[USER, *ARRAYS.values()])
    events = rows.explode(list(ARRAYS.values()), ignore_index=True)
    events.columns = [USER, ITEM, TIME, ENGAGEMENT, POSITIVE]
    events = events.astype({TIME: "int64", ENGAGEMENT: "float32", POSITIVE: bool})
    events[POSITION] = events.groupby(USER, sort=False).cumcount()
    items = pd.read_parquet(place.clusters / "items.parquet")
    items[CLUSTER] = items[schema.PATH].str[0]
    events = events.merge(items[[ITEM, CLUSTER]], on=ITEM).sort_values([USER, POSITION], ignore_index=True)
    found = _novel(events).merge(
        pd.read_parquet(place.dataset / "users.parquet", columns=[USER, GROUP]).rename(columns={GROUP: SPLIT}), on=USER
    )
    training = found[found[SPLIT] == "train"]
    withheld = _withhold(training, config)
    pairs = pd.MultiIndex.from_tuples(withheld[CONTEXT].tolist())
    found[HELD_OUT] = pd.MultiIndex.from_frame(found[["second", "latest"]]).isin(pairs)
    learned = found[found[POSITIVE] & ~found[HELD_OUT] & (found[SPLIT] == "train")]
    found[CONTEXT] = list(zip(found["second"], found["latest"], strict=True))
    found = found.sort_values([USER, POSITION])
    out.mkdir()
    for name, frame, contract in (
        (ALL_FILE, found, TRANSITIONS),
        (BALANCED_FILE, _balance(learned, config), BALANCED),
        (WITHHELD_FILE, withheld, WITHHELD),
    ):
        pq.write_table(pa.Table.from_pandas(frame[contract.names], schema=contract, preserve_index=False), out / name)


def _novel(events: pd.DataFrame) -> pd.DataFrame:
    """First events in a cluster, with the two latest liked clusters before them."""
    liked = events.loc[events[POSITIVE], [USER, CLUSTER]]
    second = liked.groupby(USER, sort=False)[CLUSTER].shift()
    runs = liked[CLUSTER] != second
    events.loc[liked.index[runs], "latest"] = liked.loc[runs, CLUSTER]
    events.loc[liked.index[runs], "second"] = second[runs]
    for name in ("latest", "second"):
        events[name] = events.groupby(USER, sort=False)[name].ffill()
        events[name] = events.groupby(USER, sort=False)[name].shift()
    first = ~events.duplicated([USER, CLUSTER])
    found = events[first & events["second"].notna()].rename(columns={CLUSTER: NEXT})
    found[AT] = pd.to_datetime(found[TIME], unit="ms", utc=True)
    found[ENGAGEMENT] = (2 * found[ENGAGEMENT] - 1).astype("float32")
    return found


def _withhold(training: pd.DataFrame, config: TransitionsConfig) -> pd.DataFrame:
    """A share of every stratum of contexts, in both orders."""
    counted = training.groupby(["second", "latest"]).size()
    sets = pd.Series([SEPARATOR.join(sorted(pair)) for pair in counted.index], index=counted.index)
    sizes = counted.groupby(sets).sum().rename("n").rename_axis("key").reset_index()
    sizes[STRATUM] = np.floor(np.log2(sizes["n"])).astype("int8")
    sizes["lot"] = [hashlib.sha256(f"{SEED}:{key}".encode()).hexdigest() for key in sizes["key"]]
    sizes = sizes.sort_values([STRATUM, "lot", "key"])
    place, size = sizes.groupby(STRATUM).cumcount(), sizes.groupby(STRATUM)["key"].transform("size")
    chosen = sizes[place < np.floor(size * config.held_out_pairs + 0.5)]  # as SQL rounds
    seen = counted.to_dict()
    rows = sorted(
        (pair, seen.get(pair, 0), stratum)
        for key, stratum in zip(chosen["key"], chosen[STRATUM], strict=True)
        for pair in permutations(key.split(SEPARATOR))
    )
    return pd.DataFrame(rows, columns=[CONTEXT, COUNT, STRATUM])


def _balance(learned: pd.DataFrame, config: TransitionsConfig) -> pd.DataFrame:
    """At most so many samples a label, the most frequent first."""
    pairs = learned.groupby(["second", "latest", NEXT]).size().rename(WEIGHT).reset_index()
    pairs[CONTEXT] = list(zip(pairs["second"], pairs["latest"], strict=True))
    joined = pairs["second"] + SEPARATOR + pairs["latest"]
    pairs["lot"] = [hashlib.sha256(f"{SEED}:{key}".encode()).hexdigest() for key in joined]
    pairs = pairs.sort_values([NEXT, WEIGHT, "lot", CONTEXT], ascending=[True, False, True, True])
    kept = pairs.groupby(NEXT).head(config.per_label)
    return kept.sort_values([NEXT, WEIGHT, CONTEXT], ascending=[True, False, True]).astype({WEIGHT: "float32"})


def main() -> None:
    """Runs one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["histories", "transitions"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    began = time.perf_counter()
    (histories if options.part == "histories" else transitions)(Place(options.folder), options.out)
    print(json.dumps({"seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
