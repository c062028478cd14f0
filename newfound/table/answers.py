"""The planner's answers to contexts, as rows of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from newfound.config import TableConfig
from newfound.schema import CLUSTER, CONTEXT, RANK, SCORE, SOURCE, TABLE
from newfound.types import Context, Floats

if TYPE_CHECKING:
    from newfound.planner.alignment import Alignment
    from newfound.planner.planner import Planner
    from newfound.planner.remote.planner import RemotePlanner

    Engine = Planner | RemotePlanner


def planner_rows(
    model: Engine,
    contexts: Sequence[Context],
    config: TableConfig,
    hints: Mapping[Context, str],
    alignment: Alignment | None = None,
) -> pa.Table:
    """The planner's rows for some contexts; a context's own clusters are not new and never answered.

    Args:
        model: the planner, in this process or behind an engine.
        contexts: B of them.
        config: how many answers, and how many of them exact.
        hints: the most frequent recent successor of each context that has one.
        alignment: puts the answers in another order; None leaves the planner's.
    """
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
    """Answers as schema.TABLE.

    Args:
        contexts: B of them.
        best: [B, k] places in `nodes`; -1 is no answer.
        values: [B, k] natural-log probabilities.
        nodes: interface clusters.
        source: who answered.
    """
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


def second_build(
    model: Engine,
    contexts: Sequence[Context],
    config: TableConfig,
    hints: Mapping[Context, str],
    first: pa.Table,
    alignment: Alignment | None = None,
) -> dict[str, Any]:
    """Agreement of a sample's rows when worked out again, in other company.

    bfloat16 products depend a little on what is computed beside them, and an engine's batches on its load.

    Args:
        first: the rows of all contexts, in their order.
    """
    size = min(config.second_build, len(contexts))
    chosen = sorted(np.random.default_rng(0).permutation(len(contexts))[:size].tolist())
    if not chosen:
        return {"contexts": 0, "top1_agreement": 1.0, "largest_difference": 0.0}
    again = planner_rows(model, [contexts[i] for i in chosen], config, hints, alignment)
    before = first.filter(pc.equal(first[RANK], 0)).take(pa.array(chosen))
    after = again.filter(pc.equal(again[RANK], 0))
    same = np.array(before[CLUSTER].to_pylist()) == np.array(after[CLUSTER].to_pylist())
    differences = np.abs(before[SCORE].to_numpy() - after[SCORE].to_numpy())
    return {
        "contexts": len(chosen),
        "top1_agreement": float(same.mean()),
        "largest_difference": round(float(differences[same].max(initial=0.0)), 5),
    }
