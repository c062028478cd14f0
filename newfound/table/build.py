"""Bulk inference: the transition table from the planner's answers to every context, shard by shard."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from newfound.clusters import Clusters
from newfound.config import TableConfig
from newfound.files import new_folder, remove_folder
from newfound.planner.prompt import has_planner
from newfound.schema import CONTEXT, RANK
from newfound.table.artifact import FILE, FORMAT, RECORD
from newfound.table.compare import concentration
from newfound.table.contexts import make_plan
from newfound.table.frequency import frequency_rows
from newfound.table.shards import INPUTS, build_shard, read_shards, recent_hints
from newfound.transitions.artifact import Transitions
from newfound.types import Ints

log = logging.getLogger("newfound.table")


def build_table(
    planner: Path, clusters: Path, transitions: Path, config: TableConfig, out: Path
) -> dict[str, float | int | str]:
    """Builds all shards one after another and merges them.

    Killed anywhere, a second call with the same inputs goes on where the first one stopped; what it has so far lies
    beside `out`.

    Args:
        planner: folder of the fine-tuned planner.
        clusters: folder of the clusters.
        transitions: folder of the mined transitions: which contexts are frequent, what follows them lately.
        config: of the table.
        out: the table's folder.

    Returns:
        Counts, speed, agreement of a second build on a sample, and how the answers spread over the clusters.
    """
    if not has_planner(planner):
        return _without_planner(transitions, clusters, config, out)
    work = out.with_name(f".{out.name}.shards")
    shards = [work / f"{shard:05d}" for shard in range(config.shards)]
    for shard, folder in enumerate(shards):
        build_shard(planner, clusters, transitions, config, shard, folder)
    measures = merge(shards, planner, clusters, transitions, config, out)
    remove_folder(work, f"{shards[0].name}/{INPUTS}")
    return measures


def merge(
    shards: Sequence[Path], planner: Path, clusters: Path, transitions: Path, config: TableConfig, out: Path
) -> dict[str, float | int | str]:
    """Joins finished shards into a table, in any order of `shards`.

    Raises:
        DataError: a shard is missing, not finished, or there twice.
        VocabularyError: a shard was made with another planner, other clusters or another configuration.
    """
    from newfound.planner.planner import planner_digest

    if not has_planner(planner):
        return _without_planner(transitions, clusters, config, out)
    loaded = Clusters.load(clusters)
    mined = Transitions.load(transitions, loaded)
    plan = make_plan(mined, config, planner_digest(planner))
    hints = recent_hints(mined, config)
    rows, records = read_shards(shards, plan, config, hints)
    seconds = sum(record["seconds"] for record in records)
    again = _second_builds([record["second_build"] for record in records])
    record = {
        "source": "planner",
        "clusters_digest": loaded.digest,
        "planner": plan.identity["planner"],
        "settings": plan.identity["settings"],
        "recent_successors": len(hints),
        "engine": records[0]["engine"],
        "second_build": again,
        "seconds": round(seconds, 2),
    }
    return {
        **write_table(rows, record, loaded, out),
        "seconds": round(seconds, 2),
        "contexts_per_second": round(len(plan.contexts) / max(seconds, 1e-9), 2),
        "second_build_top1_agreement": again["top1_agreement"],
    }


def _second_builds(builds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Those of all shards as one: agreement by contexts, the largest difference of all."""
    total = sum(build["contexts"] for build in builds)
    agreed = sum(build["top1_agreement"] * build["contexts"] for build in builds)
    return {
        "contexts": total,
        "top1_agreement": agreed / total if total else 1.0,
        "largest_difference": max((build["largest_difference"] for build in builds), default=0.0),
    }


def _without_planner(transitions: Path, clusters: Path, config: TableConfig, out: Path) -> dict[str, float | int | str]:
    log.warning("table: there is no planner; pair frequencies with back-off answer instead")
    return frequency_table(transitions, clusters, config, out)


def frequency_table(transitions: Path, clusters: Path, config: TableConfig, out: Path) -> dict[str, float | int | str]:
    """A table of pair frequencies with back-off, for data without text, where a language model has nothing to read.

    Where the configuration wants a refresh, it counts recent transitions alone.
    """
    loaded = Clusters.load(clusters)
    mined = Transitions.load(transitions, loaded)
    plan = make_plan(mined, config, "")
    rows, seconds = frequency_rows(plan.contexts, mined, config.top_k, config.recent)
    record = {
        "source": "frequency",
        "clusters_digest": loaded.digest,
        "planner": None,
        "settings": plan.identity["settings"],
        "seconds": round(seconds, 2),
    }
    return write_table(rows, record, loaded, out)


def write_table(rows: pa.Table, record: dict[str, Any], clusters: Clusters, out: Path) -> dict[str, float | int | str]:
    """Writes the folder, whole or not at all, its rows sorted by context and rank."""
    order = np.lexsort((rows[RANK].to_numpy(), _context_order(rows)))
    rows = rows.take(pa.array(order)).combine_chunks()
    measures = {
        "contexts": pc.sum(pc.equal(rows[RANK], 0)).as_py() or 0,
        "rows": len(rows),
        **concentration(rows, clusters.interface),
    }
    text = json.dumps({"format": FORMAT, **record, "measures": measures}, indent=1, sort_keys=True)
    with new_folder(out, RECORD) as folder:
        pq.write_table(rows, folder / FILE)
        (folder / RECORD).write_text(text + "\n", encoding="utf-8")
    return measures


def _context_order(rows: pa.Table) -> Ints:
    joined = ["\x00".join(context) for context in rows[CONTEXT].to_pylist()]
    return np.unique(joined, return_inverse=True)[1]
