"""Which contexts a table holds, and which shard works each of them out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from newfound import schema
from newfound.clusters import Clusters
from newfound.config import TableConfig
from newfound.errors import ConfigError
from newfound.files import new_file
from newfound.types import Context

EVERY_CONTEXT_AT_MOST = 2_000_000


@dataclass(frozen=True)
class Plan:
    """All contexts of a table in the order of the clusters, and what they depend on."""

    contexts: list[Context]
    identity: dict[str, Any]

    def shard(self, shard: int, shards: int) -> list[Context]:
        """A contiguous run, so that contexts which share their first interest stay together.

        Raises:
            ConfigError: there is no such shard.
        """
        if not 0 <= shard < shards:
            raise ConfigError(f"table.shards: shard {shard} does not exist; expected 0 to {shards - 1}")
        bounds = np.linspace(0, len(self.contexts), shards + 1).astype(int)
        return self.contexts[bounds[shard] : bounds[shard + 1]]


def make_plan(clusters: Clusters, transitions: Path, config: TableConfig, planner_digest: str) -> Plan:
    """Every ordered context of distinct clusters, or only the most frequent where the configuration bounds them.

    Raises:
        ConfigError: there are too many contexts for a full table.
    """
    counts = observed(transitions)
    size = max((len(c) for c in counts), default=2)
    total = math.perm(len(clusters.interface), size)
    if config.contexts_at_most is None and total > EVERY_CONTEXT_AT_MOST:
        raise ConfigError(
            f"table.contexts_at_most: {total:,} contexts of {size} clusters; expected a bound for so many"
        )
    order = {cluster: place for place, cluster in enumerate(clusters.interface)}
    if config.contexts_at_most is None or config.contexts_at_most >= total:
        chosen = list(permutations(clusters.interface, size))
    else:
        frequent = sorted(counts, key=lambda c: (-counts[c], [order[x] for x in c]))[: config.contexts_at_most]
        taken = set(frequent)
        every = (c for c in permutations(clusters.interface, size) if c not in taken)
        chosen = frequent + list(islice(every, config.contexts_at_most - len(frequent)))
        chosen.sort(key=lambda c: [order[x] for x in c])
    settings = config.model_dump(exclude={"shards"})
    return Plan(chosen, {"clusters": clusters.digest, "planner": planner_digest, "settings": settings})


def observed(transitions: Path) -> dict[Context, int]:
    """How often each context was followed by something new."""
    import ibis

    table = ibis.duckdb.connect().read_parquet(transitions / "transitions.parquet")
    counted = table.group_by(schema.CONTEXT).agg(n=table.count()).to_pyarrow()
    pairs = zip(counted[schema.CONTEXT].to_pylist(), counted["n"].to_pylist(), strict=True)
    return {tuple(context): n for context, n in pairs}


def write_parquet(table: Any, file: Path) -> None:
    """Writes a Parquet file, whole or not at all."""
    with new_file(file) as part:
        pq.write_table(table, part)
