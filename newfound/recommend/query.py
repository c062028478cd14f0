"""The question of a decision to the ranker, and its answer: neither knows how the other is reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Ranking = list[tuple[str, float]]
"""Items with their scores, best first."""


@dataclass(frozen=True, slots=True)
class JointQuery:
    """One request to the ranker.

    Attributes:
        history: item ids, oldest first.
        offsets: by interest that may be shown as new, what its items get on top.
        k: how many of the best items of all these interests.
        clusters: interests whose own best items are wanted beside them.
        wanted: of each of `clusters`, how many items.
        exclude: item ids never to be returned.
        planner: whether the planner's term is in the offsets, which decides whose coefficients hold.
    """

    history: Sequence[str]
    offsets: Mapping[str, float]
    k: int
    clusters: Sequence[str] = ()
    wanted: Sequence[int] = ()
    exclude: Sequence[str] = ()
    planner: bool = True


@dataclass(frozen=True, slots=True)
class JointAnswer:
    """The ranker's answer.

    Attributes:
        best: the best items of the new interests by joint utility.
        clusters: by interest of the query's `clusters`, its best items: by joint utility where the interest is new, and
            among them a few of its new items; by the ranker's own score where it is not.
    """

    best: Ranking = field(default_factory=list)
    clusters: dict[str, Ranking] = field(default_factory=dict)
