"""Ranks of held-out items among all items, and NDCG@k and HR@k from them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist

from newfound.ranker.cooccurrence import CoOccurrence
from newfound.ranker.data import PAD, Sequences
from newfound.ranker.model import SequenceModel
from newfound.types import Floats, Ints

SCORES = 1 << 24  # held at a time
NONE = np.zeros(0, dtype=np.int64)


def ndcg_and_hit_rate(ranks: Ints, k: int = 10) -> tuple[float, float]:
    """Means over events of 1 / log2(rank + 2) and of 1 where rank < k, with ranks counted from 0.

    >>> ndcg, hits = ndcg_and_hit_rate(np.array([0, 2, 10]))
    >>> round(ndcg, 4), round(hits, 4)
    (0.5, 0.6667)
    """
    if not len(ranks):
        return 0.0, 0.0
    hit = ranks < k
    return float((hit / np.log2(ranks + 2.0)).mean()), float(hit.mean())


def held_out_users(past: Sequences, targets: Ints) -> Ints:
    """Users to measure: those with a past and a target that is not in it (a seen item is never recommended)."""
    owner = np.repeat(np.arange(len(past)), past.lengths)
    seen = np.zeros(len(past), dtype=bool)
    seen[owner[past.items == targets[owner]]] = True
    return np.flatnonzero((targets != PAD) & (past.lengths > 0) & ~seen)


def rank_held_out(
    model: SequenceModel, past: Sequences, targets: Ints, users: Ints | None = None, memory: CoOccurrence | None = None
) -> Ints:
    """Each target's rank (from 0) among all items that the user has not had; a tie counts against the target.

    Args:
        model: in evaluation mode.
        past: what each user has had.
        targets: an item a user, `PAD` for none.
        users: whom to measure; None: `held_out_users`. Processes of a distributed run share them.
        memory: adds its part to the scores.

    Returns:
        One rank a user, in no particular order.
    """
    users = held_out_users(past, targets) if users is None else users
    ranks = [NONE]
    shared = dist.is_initialized()
    mine = users[dist.get_rank() :: dist.get_world_size()] if shared else users
    for some, scores in held_out_scores(model, past, mine):
        if memory is not None:
            for row, user in enumerate(some):
                found, bonus = memory.bonus(past.row(user))
                scores[row, found] += bonus
        ranks.append(ranks_among(scores, targets[some]))
    if not shared:
        return np.concatenate(ranks)
    parts: list[Ints] = [NONE] * dist.get_world_size()
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


def ranks_among(scores: Floats, targets: Ints) -> Ints:
    """How many others score at least as much as each row's target, int64 [b]."""
    own = scores[np.arange(len(targets)), targets]
    ranks: Ints = (scores >= own[:, None]).sum(axis=1) - 1
    return ranks
