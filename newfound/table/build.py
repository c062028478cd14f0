"""Bulk inference: the planner's answers to every context, shard by shard, resumable within a shard."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from newfound.clusters import Clusters
from newfound.config import TableConfig
from newfound.errors import DataError, VocabularyError
from newfound.files import new_folder, remove_folder, write_json, write_text
from newfound.schema import CLUSTER, CONTEXT, RANK, SCORE, SOURCE, TABLE
from newfound.table.artifact import FILE, FORMAT, RECORD
from newfound.table.compare import concentration
from newfound.table.contexts import Plan, make_plan, write_parquet
from newfound.types import Context, Floats, Ints

if TYPE_CHECKING:
    from newfound.planner import Planner
    from newfound.planner.alignment import Alignment
    from newfound.planner.remote.planner import RemotePlanner

    Engine = Planner | RemotePlanner

log = logging.getLogger("newfound.table")

SHARD_FILE = "shard.parquet"
SHARD_RECORD = "shard.json"
INPUTS = "inputs.json"  # what the blocks of an unfinished shard were made from
BLOCK = 2048  # contexts between two saves: a full batch of a GPU, some seconds of a processor


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
        out: the table's folder.

    Returns:
        Counts, speed, agreement of a second build on a sample, and how the answers spread over the clusters.
    """
    if not _has_language_model(planner):
        log.warning("table: there is no planner; pair frequencies with back-off answer instead")
        return frequency_table(transitions, clusters, config, out)
    work = out.with_name(f".{out.name}.shards")
    shards = [work / f"{shard:05d}" for shard in range(config.shards)]
    for shard, folder in enumerate(shards):
        build_shard(planner, clusters, transitions, config, shard, folder)
    measures = merge(shards, planner, clusters, transitions, config, out)
    remove_folder(work, f"{shards[0].name}/{INPUTS}")
    return measures


def build_shard(
    planner: Path, clusters: Path, transitions: Path, config: TableConfig, shard: int, out: Path
) -> dict[str, float | int | str]:
    """Works out one shard: `shard.parquet` (schema.TABLE), then `shard.json`. Blocks that `out` holds are kept.

    Without a language model there is nothing to work out, and `merge` counts pairs instead.

    Returns:
        Contexts, seconds, and contexts a second of this call.
    """
    from newfound.compute.precision import product_dtype
    from newfound.planner.alignment import Alignment
    from newfound.planner.planner import Planner, planner_digest
    from newfound.planner.remote.planner import RemotePlanner

    if not _has_language_model(planner):
        out.mkdir(parents=True, exist_ok=True)
        (out / "absent").touch()
        return {"contexts": 0, "seconds": 0.0}
    loaded = Clusters.load(clusters)
    plan = make_plan(loaded, transitions, config, planner_digest(planner))
    hints = recent_hints(transitions, config)
    identity = shard_identity(plan, shard, config.shards, hints)
    contexts = plan.shard(shard, config.shards)
    if _finished(out, identity):
        log.info("table: shard %d of %d is there already", shard + 1, config.shards)
        return {"contexts": len(contexts), "seconds": 0.0}
    _prepare(out, identity)
    model: Engine
    if config.engine is None:
        model = Planner.load(planner, loaded, precision=config.precision)
    else:
        model = RemotePlanner.load(planner, loaded, config.engine, config.engine_model)
    alignment = Alignment.load(planner, loaded) if config.align else None
    started, done, fresh = time.monotonic(), 0, 0
    for start in range(0, len(contexts), BLOCK):
        block = contexts[start : start + BLOCK]
        file = out / f"block-{start:09d}.parquet"
        if not file.is_file():
            write_parquet(answer(model, block, config, hints, alignment), file)
            fresh += len(block)
        done += len(block)
        seconds = time.monotonic() - started
        log.info(
            "table: shard %d of %d, %d of %d contexts, %.1f a second, %.0f s",
            shard + 1, config.shards, done, len(contexts), fresh / max(seconds, 1e-9), seconds,
        )  # fmt: skip
    seconds = time.monotonic() - started
    blocks = [pq.read_table(out / f"block-{start:09d}.parquet") for start in range(0, len(contexts), BLOCK)]
    write_parquet(pa.concat_tables(blocks) if blocks else TABLE.empty_table(), out / SHARD_FILE)
    record = {
        **identity,
        "contexts": len(contexts),
        "seconds": round(seconds, 2),
        "engine": {**model.describe(), **versions(), "precision": str(product_dtype(config.precision))[6:]},
        "second_build": second_build(model, contexts, config, hints, pq.read_table(out / SHARD_FILE), alignment),
    }
    write_json(out / SHARD_RECORD, record)
    for file in out.glob("block-*.parquet"):
        file.unlink()
    return {"contexts": len(contexts), "seconds": round(seconds, 2), "contexts_per_second": round(fresh / seconds, 2)}


def merge(
    shards: Sequence[Path], planner: Path, clusters: Path, transitions: Path, config: TableConfig, out: Path
) -> dict[str, float | int | str]:
    """Joins finished shards into a table, in any order of `shards`.

    Raises:
        DataError: a shard is missing, not finished, or there twice.
        VocabularyError: a shard was made with another planner, other clusters or another configuration.
    """
    from newfound.planner.planner import planner_digest

    if not _has_language_model(planner):
        log.warning("table: there is no planner; pair frequencies with back-off answer instead")
        return frequency_table(transitions, clusters, config, out)
    loaded = Clusters.load(clusters)
    plan = make_plan(loaded, transitions, config, planner_digest(planner))
    hints = recent_hints(transitions, config)
    records: dict[int, dict[str, Any]] = {}
    places: dict[int, Path] = {}
    for folder in shards:
        record = _read_shard(folder)
        if record["shard"] in records:
            raise DataError(str(folder), f"shard {record['shard']} is there twice", expected="each shard once")
        expected = shard_identity(plan, record["shard"], config.shards, hints)
        if any(record[key] != value for key, value in expected.items()):
            raise VocabularyError(f"{folder / SHARD_RECORD}: made with other inputs; expected those of this table")
        records[record["shard"]], places[record["shard"]] = record, folder
    missing = sorted(set(range(config.shards)) - set(records))
    if missing:
        raise DataError("table shards", f"shard {missing[0]} is missing", expected=f"shards 0 to {config.shards - 1}")
    rows = pa.concat_tables([pq.read_table(places[shard] / SHARD_FILE) for shard in sorted(records)])
    if pc.sum(pc.equal(rows[RANK], 0)).as_py() != len(plan.contexts):
        raise DataError("table shards", "contexts are missing or doubled", expected=f"{len(plan.contexts)} contexts")
    builds = [record["second_build"] for record in records.values() if record["second_build"]["contexts"]]
    sampled = sum(build["contexts"] for build in builds)
    seconds = sum(record["seconds"] for record in records.values())
    record = {
        "source": "planner",
        "clusters_digest": loaded.digest,
        "planner": plan.identity["planner"],
        "settings": plan.identity["settings"],
        "recent_successors": len(hints),
        "engine": records[0]["engine"],
        "second_build": {
            "contexts": sampled,
            "top1_agreement": _mean(builds, "top1_agreement", sampled),
            "largest_difference": max((build["largest_difference"] for build in builds), default=0.0),
        },
        "seconds": round(seconds, 2),
    }
    measures = write_table(rows, record, loaded, out)
    return {
        **measures,
        "seconds": round(seconds, 2),
        "contexts_per_second": round(len(plan.contexts) / max(seconds, 1e-9), 2),
        "second_build_top1_agreement": record["second_build"]["top1_agreement"],
    }


def frequency_table(transitions: Path, clusters: Path, config: TableConfig, out: Path) -> dict[str, float | int | str]:
    """A table of pair frequencies with back-off, for data without text, where a language model has nothing to read."""
    from newfound.planner.training.training_set import training_set
    from newfound.transitions.frequency_model import FrequencyModel

    loaded = Clusters.load(clusters)
    contexts, labels, weights = training_set(transitions / "balanced.parquet", loaded)
    model = FrequencyModel(contexts, labels, len(loaded.interface), weights)
    plan = make_plan(loaded, transitions, config, "")
    started = time.monotonic()
    tables = []
    for start in range(0, len(plan.contexts), BLOCK):
        block = plan.contexts[start : start + BLOCK]
        found = model.distribution(np.array([[loaded.index[c] for c in context] for context in block]))
        k = min(config.top_k, found.shape[1])
        best = np.argsort(-found, axis=1, kind="stable")[:, :k].astype(np.int32)
        values = np.take_along_axis(found, best, axis=1)
        with np.errstate(divide="ignore"):
            tables.append(rows_of(block, np.where(values > 0, best, -1), np.log(values), loaded.interface, "frequency"))
    record = {
        "source": "frequency",
        "clusters_digest": loaded.digest,
        "planner": None,
        "settings": plan.identity["settings"],
        "seconds": round(time.monotonic() - started, 2),
    }
    return write_table(pa.concat_tables(tables), record, loaded, out)


def _has_language_model(planner: Path) -> bool:
    from newfound.planner.prompt import RECORD as PROMPT

    return (planner / PROMPT).is_file()


# --- the parts -------------------------------------------------------------------------------------------------------


def answer(
    model: Engine,
    contexts: Sequence[Context],
    config: TableConfig,
    hints: dict[Context, str],
    alignment: Alignment | None = None,
) -> pa.Table:
    """The planner's rows for some contexts; a context's own clusters are not new and never answered."""
    from newfound.planner.decoding.search import Decoded

    own = np.array([[model.index[c] for c in context] for context in contexts])
    allowed = np.ones((len(contexts), len(model)), dtype=bool)
    np.put_along_axis(allowed, own, False, axis=1)
    given = [hints.get(context) for context in contexts] if hints else None
    k = min(config.exact or config.top_k, config.top_k, len(model))
    found = model.decode(contexts, k, allowed, given)
    if alignment is not None:
        # The second model has the last word on the order, so no rank is an exact one any more.
        found = Decoded(alignment.rerank(found.scores, own), np.zeros_like(found.exact))
    best, values = found.top(min(config.top_k, len(model)))
    return rows_of(contexts, best, values, model.nodes, "planner")


def rows_of(
    contexts: Sequence[Context],
    best: npt.NDArray[np.int32],
    values: Floats,
    nodes: Sequence[str],
    source: str,
) -> pa.Table:
    """Answers [B, k] as schema.TABLE; -1 is no answer."""
    row, rank = np.nonzero(best >= 0)
    return pa.table(
        {
            CONTEXT: pa.array(list(map(list, contexts)), TABLE.field(CONTEXT).type).take(pa.array(row)),
            RANK: pa.array(rank, pa.int16()),
            CLUSTER: pa.array(nodes).take(pa.array(best[row, rank])),
            SCORE: pa.array(values[row, rank], pa.float32()),
            SOURCE: pa.array([source]).take(pa.array(np.zeros(len(row), dtype=np.int32))),
        },
        schema=TABLE,
    )


def write_table(rows: pa.Table, record: dict[str, Any], clusters: Clusters, out: Path) -> dict[str, float | int | str]:
    """Writes the folder, whole or not at all; rows come sorted by context and rank."""
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


def recent_hints(transitions: Path, config: TableConfig) -> dict[Context, str]:
    """The most frequent recent successor of each context, where the configuration asks for a refresh."""
    if config.recent is None:
        return {}
    from newfound.transitions.mine import recent_successors

    return recent_successors(transitions, 1 - config.recent)


def shard_identity(plan: Plan, shard: int, shards: int, hints: dict[Context, str]) -> dict[str, Any]:
    """What a shard's answers depend on."""
    content = json.dumps([plan.shard(shard, shards), sorted(hints.items())]).encode()
    return {**plan.identity, "shard": shard, "shards": shards, "contexts_digest": hashlib.sha256(content).hexdigest()}


def _prepare(out: Path, identity: dict[str, Any]) -> None:
    """Keeps the blocks of an interrupted build with the same inputs, and no others."""
    note = out / INPUTS
    text = json.dumps({**identity, "block": BLOCK}, sort_keys=True)
    if not (note.is_file() and note.read_text(encoding="utf-8") == text):
        remove_folder(out, INPUTS)
        write_text(note, text)


def _finished(out: Path, identity: dict[str, Any]) -> bool:
    try:
        record = json.loads((out / SHARD_RECORD).read_text(encoding="utf-8"))
        return all(record[key] == value for key, value in identity.items()) and (out / SHARD_FILE).is_file()
    except (OSError, ValueError, KeyError):
        return False


def _read_shard(folder: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((folder / SHARD_RECORD).read_text(encoding="utf-8"))
        record["shard"], record["second_build"]["contexts"]
        return record
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(str(folder), f"not a finished shard ({error!r})", expected=SHARD_RECORD) from error


def _mean(builds: Sequence[dict[str, Any]], name: str, total: int) -> float:
    return sum(build[name] * build["contexts"] for build in builds) / total if total else 1.0


def versions() -> dict[str, str]:
    """Of this package and of Python."""
    return {"newfound": version("newfound"), "python": platform.python_version()}


def second_build(
    model: Engine,
    contexts: Sequence[Context],
    config: TableConfig,
    hints: dict[Context, str],
    first: pa.Table,
    alignment: Alignment | None = None,
) -> dict[str, Any]:
    """Works a sample out again, in other company: bfloat16 products depend a little on what is computed beside them."""
    size = min(config.second_build, len(contexts))
    chosen = sorted(np.random.default_rng(0).permutation(len(contexts))[:size].tolist())
    if not chosen:
        return {"contexts": 0, "top1_agreement": 1.0, "largest_difference": 0.0}
    again = answer(model, [contexts[i] for i in chosen], config, hints, alignment)
    heads = first.filter(pc.equal(first[RANK], 0)).take(pa.array(chosen))
    mine = again.filter(pc.equal(again[RANK], 0))
    same = np.array(heads[CLUSTER].to_pylist()) == np.array(mine[CLUSTER].to_pylist())
    differences = np.abs(heads[SCORE].to_numpy() - mine[SCORE].to_numpy())
    return {
        "contexts": len(chosen),
        "top1_agreement": float(same.mean()),
        "largest_difference": round(float(differences[same].max(initial=0.0)), 5),
    }
