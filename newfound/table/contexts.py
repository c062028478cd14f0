"""Contexts of a table, and their division into shards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice, permutations
from typing import Any

import numpy as np

from newfound.config import TableConfig
from newfound.errors import ConfigError
from newfound.table.artifact import codes_of
from newfound.transitions.artifact import Transitions
from newfound.types import Ints

EVERY_CONTEXT_AT_MOST = 2_000_000  # of a table whose size is not bounded


@dataclass(frozen=True)
class Plan:
    """All contexts of a table in the order of the clusters, [P, K] indices, and what they depend on."""

    contexts: Ints
    identity: dict[str, Any]

    def shard(self, shard: int, shards: int) -> Ints:
        """A contiguous run, so that contexts which share their first interest stay together.

        Raises:
            ConfigError: there is no such shard.
        """
        if not 0 <= shard < shards:
            raise ConfigError(f"table.shards: shard {shard} does not exist; expected 0 to {shards - 1}")
        bounds = np.linspace(0, len(self.contexts), shards + 1).astype(int)
        return self.contexts[bounds[shard] : bounds[shard + 1]]


def make_plan(transitions: Transitions, config: TableConfig, planner_digest: str) -> Plan:
    """Every ordered context of distinct clusters, or only the most frequent where the configuration bounds them.

    Raises:
        ConfigError: there are too many contexts for a full table.
    """
    clusters, size = transitions.clusters, transitions.size
    n = len(clusters.interface)
    total = math.perm(n, size)
    if config.contexts_at_most is None and total > EVERY_CONTEXT_AT_MOST:
        raise ConfigError(
            f"table.contexts_at_most: {total:,} contexts of {size} clusters; expected a bound for so many"
        )
    if config.contexts_at_most is None or config.contexts_at_most >= total:
        chosen = list(permutations(range(n), size))
    else:
        counts = {
            tuple(clusters.index[x] for x in context): count for context, count in transitions.context_counts().items()
        }
        frequent = sorted(counts, key=lambda context: (-counts[context], context))[: config.contexts_at_most]
        taken = set(frequent)
        every = (context for context in permutations(range(n), size) if context not in taken)
        chosen = frequent + list(islice(every, config.contexts_at_most - len(frequent)))
    found = np.array(chosen, dtype=np.int64).reshape(-1, size)
    settings = config.model_dump(exclude={"shards"})
    identity = {"clusters": clusters.digest, "planner": planner_digest, "settings": settings}
    return Plan(found[np.argsort(codes_of(found, n), kind="stable")], identity)
