"""Ranks of held-out items among all items, and the figures by which an epoch is chosen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist

from newfound.compute.distributed import rank, size
from newfound.measures import hit_rate, ndcg, ranks_of
from newfound.ranker.cooccurrence import CoOccurrence
from newfound.ranker.data import PAD, Sequences
from newfound.ranker.model import SequenceModel
from newfound.types import Floats, Ints

SCORES = 1 << 24  # held at a time
NONE = np.zeros(0, dtype=np.int64)


def figures(ranks: Ints) -> dict[str, float]:
    """NDCG@10 and HR@10; 0 where there is nobody to measure.

    >>> {name: round(value, 4) for name, value in figures(np.array([0, 2, 10])).items()}
    {'ndcg@10': 0.5, 'hr@10': 0.6667}
    """
    return {"ndcg@10": ndcg(ranks, 10), "hr@10": hit_rate(ranks, 10)} if len(ranks) else {"ndcg@10": 0.0, "hr@10": 0.0}


def held_out_users(past: Sequences, targets: Ints) -> Ints:
    """Users to measure: those with a past and a target that is not in it (a seen item is never recommended)."""
    owner = np.repeat(np.arange(len(past)), past.lengths)
    seen = np.zeros(len(past), dtype=bool)
    seen[owner[past.items == targets[owner]]] = True
    return np.flatnonzero((targets != PAD) & (past.lengths > 0) & ~seen)


def rank_held_out(
    model: SequenceModel,
    past: Sequences,
    targets: Ints,
    users: Ints | None = None,
    cooccurrence: CoOccurrence | None = None,
) -> Ints:
    """Each target's rank (from 0) among all items that the user has not had.

    Args:
        model: in evaluation mode.
        past: what each user has had.
        targets: an item a user, `PAD` for none.
        users: whom to measure; None: `held_out_users`. Processes of a distributed run share them.
        cooccurrence: adds its part to the scores.

    Returns:
        One rank a user, in no particular order.
    """
    users = held_out_users(past, targets) if users is None else users
    ranks = [NONE]
    for some, scores in held_out_scores(model, past, users[rank() :: size()]):
        if cooccurrence is not None:
            for row, user in enumerate(some):
                found, bonus = cooccurrence.bonus(past.row(user))
                scores[row, found] += bonus
        ranks.append(ranks_of(scores, targets[some]))
    if size() == 1:
        return np.concatenate(ranks)
    parts: list[Ints] = [NONE] * size()
    dist.all_gather_object(parts, np.concatenate(ranks))
    return np.concatenate(parts)


@torch.inference_mode()
def held_out_scores(model: SequenceModel, past: Sequences, users: Ints) -> Iterator[tuple[Ints, Floats]]:
    """Users of about the same history length, and the model's scores for them.

    Yields:
        Users [b], and float32 [b, items] with minus infinity for the items that each has had.
    """
    vectors = model.item_vectors()
    users = users[np.argsort(past.lengths[users], kind="stable")]
    step = max(1, min(1024, SCORES // len(vectors)))
    for start in range(0, len(users), step):
        some = users[start : start + step]
        history = torch.from_numpy(past.padded(some, model.encoder.length)).to(vectors.device)
        scores: Floats = (model.encoder.last_query(vectors, history) @ vectors.t()).cpu().numpy()
        for row, user in enumerate(some):
            scores[row, past.row(user)] = -np.inf
        yield some, scores
