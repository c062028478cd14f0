"""Choices among what was new to a person, step by step: what `Transitions.choices` must agree with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def choices(
    rows: Sequence[Mapping[str, Any]], index: Mapping[str, int], withheld_too: bool
) -> tuple[list[list[int]], list[int], list[list[bool]], list[list[bool]]]:
    """Walks through each person's transitions.

    Args:
        rows: of schema.TRANSITIONS, in the file's order.
        index: of every cluster.
        withheld_too: whether a choice in a withheld context counts.

    Returns:
        Contexts, labels and what was known of every choice; and of every person, what they like.
    """
    contexts, labels, known, liked = [], [], [], []
    for user in sorted({row["user_id"] for row in rows}):
        seen, likes = np.zeros(len(index), dtype=bool), np.zeros(len(index), dtype=bool)
        for row in (row for row in rows if row["user_id"] == user):
            places, target = [index[cluster] for cluster in row["context"]], index[row["next"]]
            seen[places] = True
            if row["positive"] and not seen[target] and (withheld_too or not row["held_out"]):
                contexts.append(places)
                labels.append(target)
                known.append(seen.tolist())
            seen[target] = True
            if not row["held_out"]:
                likes[[*places, target] if row["positive"] else places] = True
        liked.append(likes.tolist())
    return contexts, labels, known, liked
