"""Shards of the table: each is built block by block, resumable, and read back when all are there."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from newfound.clusters import Clusters
from newfound.config import TableConfig
from newfound.errors import DataError, VocabularyError
from newfound.files import remove_folder, write_json, write_text
from newfound.planner.prompt import has_planner
from newfound.schema import RANK, TABLE
from newfound.table.answers import planner_rows, second_build
from newfound.table.contexts import Plan, make_plan, write_parquet
from newfound.transitions.artifact import Transitions
from newfound.types import Context

if TYPE_CHECKING:
    from newfound.planner.alignment import Alignment
    from newfound.table.answers import Engine

log = logging.getLogger("newfound.table")

FILE = "shard.parquet"
RECORD = "shard.json"
INPUTS = "inputs.json"  # what the blocks of an unfinished shard were made from
BLOCK = 2048  # contexts between two saves: a full batch of a GPU, some seconds of a processor


def build_shard(
    planner: Path, clusters: Path, transitions: Path, config: TableConfig, shard: int, out: Path
) -> dict[str, float | int | str]:
    """Works out one shard: `shard.parquet` (schema.TABLE), then `shard.json`. Blocks that `out` holds are kept.

    Without a language model there is nothing to work out, and `merge` counts pairs instead.

    Returns:
        Contexts, seconds, and contexts a second of this call.
    """
    from newfound.compute.precision import product_dtype
    from newfound.planner.planner import planner_digest

    if not has_planner(planner):
        out.mkdir(parents=True, exist_ok=True)
        (out / "absent").touch()
        return {"contexts": 0, "seconds": 0.0}
    loaded = Clusters.load(clusters)
    mined = Transitions.load(transitions, loaded)
    plan = make_plan(mined, config, planner_digest(planner))
    hints = recent_hints(mined, config)
    identity = shard_identity(plan, shard, config.shards, hints)
    contexts = plan.shard(shard, config.shards)
    if _finished(out, identity):
        log.info("table: shard %d of %d is there already", shard + 1, config.shards)
        return {"contexts": len(contexts), "seconds": 0.0}
    _prepare(out, identity)
    model, alignment = _load(planner, loaded, config)
    started = time.monotonic()
    rows, fresh = _build_blocks(model, contexts, config, hints, alignment, shard, out)
    write_parquet(rows, out / FILE)
    seconds = time.monotonic() - started
    record = {
        **identity,
        "contexts": len(contexts),
        "seconds": round(seconds, 2),
        "engine": {**model.describe(), **versions(), "precision": str(product_dtype(config.precision))[6:]},
        "second_build": second_build(model, contexts, config, hints, rows, alignment),
    }
    write_json(out / RECORD, record)
    for file in out.glob("block-*.parquet"):
        file.unlink()
    return {"contexts": len(contexts), "seconds": round(seconds, 2), "contexts_per_second": round(fresh / seconds, 2)}


def _load(planner: Path, clusters: Clusters, config: TableConfig) -> tuple[Engine, Alignment | None]:
    from newfound.planner.alignment import Alignment
    from newfound.planner.planner import Planner
    from newfound.planner.remote.planner import RemotePlanner

    model: Engine
    if config.engine is None:
        model = Planner.load(planner, clusters, precision=config.precision)
    else:
        model = RemotePlanner.load(planner, clusters, config.engine, config.engine_model)
    return model, Alignment.load(planner, clusters) if config.align else None


def _build_blocks(
    model: Engine,
    contexts: Sequence[Context],
    config: TableConfig,
    hints: Mapping[Context, str],
    alignment: Alignment | None,
    shard: int,
    out: Path,
) -> tuple[pa.Table, int]:
    """All rows of a shard, and how many contexts were worked out rather than read from blocks of an earlier build."""
    started, fresh = time.monotonic(), 0
    blocks = [TABLE.empty_table()]
    for start in range(0, len(contexts), BLOCK):
        block = contexts[start : start + BLOCK]
        file = out / f"block-{start:09d}.parquet"
        if not file.is_file():
            write_parquet(planner_rows(model, block, config, hints, alignment), file)
            fresh += len(block)
        blocks.append(pq.read_table(file))
        seconds = time.monotonic() - started
        log.info(
            "table: shard %d of %d, %d of %d contexts, %.1f a second, %.0f s",
            shard + 1, config.shards, start + len(block), len(contexts), fresh / max(seconds, 1e-9), seconds,
        )  # fmt: skip
    return pa.concat_tables(blocks), fresh


def read_shards(
    folders: Sequence[Path], plan: Plan, config: TableConfig, hints: Mapping[Context, str]
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Rows and records of all shards of a table, in order.

    Args:
        folders: of the shards, in any order.
        plan: the table's contexts.
        config: the table's.
        hints: the most frequent recent successors.

    Raises:
        DataError: a shard is missing, not finished, or there twice.
        VocabularyError: a shard was made with another planner, other clusters or another configuration.
    """
    found: dict[int, tuple[dict[str, Any], Path]] = {}
    for folder in folders:
        record = _read_record(folder)
        shard = record["shard"]
        if shard in found:
            raise DataError(str(folder), f"shard {shard} is there twice", expected="each shard once")
        expected = shard_identity(plan, shard, config.shards, hints)
        if any(record[key] != value for key, value in expected.items()):
            raise VocabularyError(f"{folder / RECORD}: made with other inputs; expected those of this table")
        found[shard] = record, folder
    missing = sorted(set(range(config.shards)) - set(found))
    if missing:
        raise DataError("table shards", f"shard {missing[0]} is missing", expected=f"shards 0 to {config.shards - 1}")
    ordered = [found[shard] for shard in sorted(found)]
    rows = pa.concat_tables([pq.read_table(folder / FILE) for _, folder in ordered])
    if pc.sum(pc.equal(rows[RANK], 0)).as_py() != len(plan.contexts):
        raise DataError("table shards", "contexts are missing or doubled", expected=f"{len(plan.contexts)} contexts")
    return rows, [record for record, _ in ordered]


def recent_hints(transitions: Transitions, config: TableConfig) -> dict[Context, str]:
    """The most frequent recent successor of each context, where the configuration wants a refresh."""
    return {} if config.recent is None else transitions.recent_successors(config.recent)


def shard_identity(plan: Plan, shard: int, shards: int, hints: Mapping[Context, str]) -> dict[str, Any]:
    """Inputs of a shard, which make its answers what they are."""
    content = json.dumps([plan.shard(shard, shards), sorted(hints.items())]).encode()
    return {**plan.identity, "shard": shard, "shards": shards, "contexts_digest": hashlib.sha256(content).hexdigest()}


def versions() -> dict[str, str]:
    """Of this package and of Python."""
    return {"newfound": version("newfound"), "python": platform.python_version()}


def _prepare(out: Path, identity: dict[str, Any]) -> None:
    """Keeps the blocks of an interrupted build with the same inputs, and no others."""
    note = out / INPUTS
    text = json.dumps({**identity, "block": BLOCK}, sort_keys=True)
    if not (note.is_file() and note.read_text(encoding="utf-8") == text):
        remove_folder(out, INPUTS)
        write_text(note, text)


def _finished(out: Path, identity: dict[str, Any]) -> bool:
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
        return all(record[key] == value for key, value in identity.items()) and (out / FILE).is_file()
    except (OSError, ValueError, KeyError):
        return False


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        record["shard"], record["second_build"]["contexts"]
        return record
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(str(folder), f"not a finished shard ({error!r})", expected=RECORD) from error
