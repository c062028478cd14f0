"""Shards of the table: each is built block by block, resumable, and read back when all are there."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from newfound.clusters import Clusters
from newfound.config import TableConfig
from newfound.errors import DataError, VocabularyError
from newfound.files import new_file, remove_folder, write_json, write_text
from newfound.planner.prompt import has_planner
from newfound.table.answers import MainEffects, second_build
from newfound.table.contexts import Plan, make_plan
from newfound.transitions.artifact import Transitions
from newfound.types import Array, Bools, Ints

if TYPE_CHECKING:
    from newfound.table.answers import Engine

log = logging.getLogger("newfound.table")

FILE = "log_probs.npy"  # float16 [P, N]
ASKED = "asked.npy"  # bool [P]
RECORD = "shard.json"
INPUTS = "inputs.json"  # what the blocks of an unfinished shard were made from
BLOCK = 2048  # contexts between two saves: a full batch of a GPU, some seconds of a processor


def build_shard(
    planner: Path,
    clusters: Path,
    transitions: Path,
    config: TableConfig,
    shard: int,
    out: Path,
    load: Callable[[], Engine] | None = None,
) -> dict[str, float | int | str]:
    """Works out one shard: its arrays, then `shard.json`. Blocks that `out` holds are kept.

    Without a language model there is nothing to work out, and `merge` counts pairs instead.

    Args:
        load: what answers, for several shards; None: it is loaded for this one.

    Returns:
        Contexts, those that were asked, seconds, and contexts a second of this call.
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
    identity = shard_identity(plan, shard, config.shards)
    contexts = plan.shard(shard, config.shards)
    if _finished(out, identity):
        log.info("table: shard %d of %d is there already", shard + 1, config.shards)
        return {"contexts": len(contexts), "seconds": 0.0}
    _prepare(out, identity)
    model = load() if load else load_engine(planner, clusters, transitions, config)
    started = time.monotonic()
    log_probs, fresh = _build_blocks(model, contexts, config, shard, out)
    asked: Bools = np.asarray(np.isfinite(log_probs).any(axis=1))
    _save(log_probs, out / FILE)
    _save(asked, out / ASKED)
    seconds = time.monotonic() - started
    named = [tuple(loaded.interface[at] for at in context) for context in contexts.tolist()]
    record = {
        **identity,
        "contexts": len(contexts),
        "asked": int(asked.sum()),
        "seconds": round(seconds, 2),
        "engine": {**model.describe(), **versions(), "precision": str(product_dtype(config.precision))[6:]},
        "second_build": second_build(model, named, asked, log_probs, config),
    }
    write_json(out / RECORD, record)
    for file in out.glob("block-*.npy"):
        file.unlink()
    return {
        "contexts": len(contexts),
        "asked": int(asked.sum()),
        "seconds": round(seconds, 2),
        "contexts_per_second": round(fresh / max(seconds, 1e-9), 2),
    }


def load_engine(planner: Path, clusters: Path, transitions: Path, config: TableConfig) -> Engine:
    """The answering planner: in this process or behind an engine; for a refresh, fitted to recent choices."""
    from newfound.planner.planner import Planner
    from newfound.planner.remote.planner import RemotePlanner
    from newfound.planner.training.recent import fit_recent

    loaded = Clusters.load(clusters)
    if config.engine is not None and config.recent is None:
        return RemotePlanner.load(planner, loaded, config.engine, config.engine_model)
    model = Planner.load(planner, loaded, precision=config.precision)
    if config.recent is not None:
        fit_recent(model, planner, Transitions.load(transitions, loaded), config.recent)
    return model


def _build_blocks(model: Engine, contexts: Ints, config: TableConfig, shard: int, out: Path) -> tuple[Array, int]:
    """A shard's rows, and how many contexts were worked out rather than read from blocks of an earlier build."""
    started, fresh = time.monotonic(), 0
    blocks = [np.zeros((0, len(model)), dtype=np.float16)]
    for start in range(0, len(contexts), BLOCK):
        block = contexts[start : start + BLOCK]
        file = out / f"block-{start:09d}.npy"
        if not file.is_file():
            # The clock is for reading in this process; an engine is there to be asked.
            bounded = config.minutes is not None and config.engine is None
            late = bounded and time.monotonic() - started > (config.minutes or 0) * 60 / config.shards
            _save(_answer(model, block, late), file)
            fresh += len(block)
        blocks.append(np.load(file, allow_pickle=False))
        seconds = time.monotonic() - started
        log.info(
            "table: shard %d of %d, %d of %d contexts, %.1f a second, %.0f s",
            shard + 1, config.shards, start + len(block), len(contexts), fresh / max(seconds, 1e-9), seconds,
        )  # fmt: skip
    return np.concatenate(blocks), fresh


def _answer(model: Engine, contexts: Ints, late: bool) -> Array:
    """float16 [B, N] the rows of some contexts; where it is late, minus infinity for those that need reading."""
    named = [tuple(model.nodes[at] for at in context) for context in contexts.tolist()]
    asked = model.has_read(named) if late else np.ones(len(named), dtype=bool)
    out = np.full((len(named), len(model)), -np.inf, dtype=np.float16)
    if asked.any():
        out[asked] = model.log_probs([named[at] for at in np.flatnonzero(asked)])
    return out


def read_shards(folders: Sequence[Path], plan: Plan, config: TableConfig) -> tuple[Array, list[dict[str, Any]]]:
    """Rows and records of all shards of a table, in order; what was not asked follows from what was.

    Args:
        folders: of the shards, in any order.
        plan: the table's contexts.
        config: the table's.

    Raises:
        DataError: a shard is missing, not finished, or there twice, or nothing was asked.
        VocabularyError: a shard was made with another planner, other clusters or another configuration.
    """
    found: dict[int, tuple[dict[str, Any], Path]] = {}
    for folder in folders:
        record = _read_record(folder)
        shard = record["shard"]
        if shard in found:
            raise DataError(str(folder), f"shard {shard} is there twice", expected="each shard once")
        expected = shard_identity(plan, shard, config.shards)
        if any(record[key] != value for key, value in expected.items()):
            raise VocabularyError(f"{folder / RECORD}: made with other inputs; expected those of this table")
        found[shard] = record, folder
    missing = sorted(set(range(config.shards)) - set(found))
    if missing:
        raise DataError("table shards", f"shard {missing[0]} is missing", expected=f"shards 0 to {config.shards - 1}")
    ordered = [found[shard] for shard in sorted(found)]
    try:
        log_probs = np.concatenate([np.load(folder / FILE, allow_pickle=False) for _, folder in ordered])
        asked = np.concatenate([np.load(folder / ASKED, allow_pickle=False) for _, folder in ordered])
    except (OSError, ValueError, EOFError) as error:
        raise DataError("table shards", f"cannot be read ({error})", expected="finished shards") from None
    if len(log_probs) != len(plan.contexts) or not asked.any():
        problem = f"{asked.sum()} of {len(log_probs)} contexts were asked"
        raise DataError("table shards", problem, expected=f"{len(plan.contexts)} contexts")
    left = np.flatnonzero(~asked)
    if len(left):
        effects = MainEffects(plan.contexts[asked], log_probs[asked])
        for start in range(0, len(left), BLOCK):
            rows = left[start : start + BLOCK]
            log_probs[rows] = effects.log_probs(plan.contexts[rows])
    return log_probs, [record for record, _ in ordered]


def shard_identity(plan: Plan, shard: int, shards: int) -> dict[str, Any]:
    """Inputs of a shard, which make its answers what they are."""
    digest = hashlib.sha256(plan.shard(shard, shards).astype(np.int32).tobytes()).hexdigest()
    return {**plan.identity, "shard": shard, "shards": shards, "contexts_digest": digest}


def _save(array: Array, file: Path) -> None:
    """Writes an array, whole or not at all."""
    with new_file(file) as part, part.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


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
