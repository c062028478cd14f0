"""Bulk inference: the transition table from the planner's answers to every context, shard by shard."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from newfound.clusters import Clusters
from newfound.config import TableConfig
from newfound.files import new_folder, remove_folder
from newfound.planner.prompt import has_planner
from newfound.table.artifact import CONTEXTS_FILE, FILE, FORMAT, RECORD, check_arrays
from newfound.table.compare import concentration
from newfound.table.contexts import make_plan
from newfound.table.frequency import frequency_rows
from newfound.table.shards import INPUTS, build_shard, load_engine, read_shards
from newfound.transitions.artifact import Transitions
from newfound.types import Array, Ints

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
        transitions: folder of the mined transitions: which contexts are frequent.
        config: of the table.
        out: the table's folder.

    Returns:
        Counts, speed, agreement of a second build on a sample, and how the answers spread over the clusters.
    """
    if not has_planner(planner):
        return _without_planner(transitions, clusters, config, out)
    work = out.with_name(f".{out.name}.shards")
    shards = [work / f"{shard:05d}" for shard in range(config.shards)]
    load = cache(lambda: load_engine(planner, clusters, transitions, config))
    for shard, folder in enumerate(shards):
        build_shard(planner, clusters, transitions, config, shard, folder, load)
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
    log_probs, records = read_shards(shards, plan, config)
    seconds = sum(record["seconds"] for record in records)
    again = _second_builds([record["second_build"] for record in records])
    record = {
        "source": "planner",
        "clusters_digest": loaded.digest,
        "planner": plan.identity["planner"],
        "settings": plan.identity["settings"],
        "asked": sum(record["asked"] for record in records),
        "engine": records[0]["engine"],
        "second_build": again,
        "seconds": round(seconds, 2),
    }
    return {
        **write_table(plan.contexts, log_probs, record, loaded, out),
        "asked": record["asked"],
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
    log_probs = frequency_rows(plan.contexts, mined, config.recent)
    record = {
        "source": "frequency",
        "clusters_digest": loaded.digest,
        "planner": None,
        "settings": plan.identity["settings"],
    }
    return write_table(plan.contexts, log_probs, record, loaded, out)


def write_table(
    contexts: Ints, log_probs: Array, record: dict[str, Any], clusters: Clusters, out: Path
) -> dict[str, float | int | str]:
    """Writes the folder, whole or not at all.

    Args:
        contexts: [P, K] cluster indices, in order.
        log_probs: float16 [P, N].
        record: what `table.json` says beside the measures.
        clusters: those in use.
    """
    places = contexts.astype(np.int32)
    check_arrays(places, log_probs, len(clusters.interface))
    measures: dict[str, float | int | str] = {"contexts": len(contexts), **concentration(log_probs)}
    content = {"format": FORMAT, "interface": list(clusters.interface), **record, "measures": measures}
    with new_folder(out, RECORD) as folder:
        np.save(folder / CONTEXTS_FILE, places, allow_pickle=False)
        np.save(folder / FILE, log_probs, allow_pickle=False)
        (folder / RECORD).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return measures
