"""Ids that outlive a refit: nodes of two trees matched by the items that they share, and what changed between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from newfound.clusters.artifact import Clusters
from newfound.types import Ints

SAME: Final = 0.2  # Jaccard overlap of the shared items from which a node counts as the one that it was
DENSE_AT_MOST: Final = 4_000_000  # cells of an overlap matrix that is matched optimally; beyond, greedily


@dataclass(frozen=True)
class Changes:
    """Fate of the interface clusters in a refit.

    Attributes:
        kept: new node -> old node, at every level; ids are renamed by it.
        split: old interface node -> new ones that have most of their items from it, where there are several.
        merged: new interface node -> old ones that have most of their items in it, where there are several.
        appeared: new interface nodes without a predecessor, under their new ids.
        vanished: old interface nodes without a successor.
        moved_items: share of the shared items whose interface cluster is not the one that they had.
        shared_items: items that both trees hold.
    """

    kept: dict[str, str]
    split: dict[str, list[str]]
    merged: dict[str, list[str]]
    appeared: list[str]
    vanished: list[str]
    moved_items: float
    shared_items: int

    def record(self) -> dict[str, Any]:
        """For clusters.json: everything but the ids that were kept."""
        return {name: value for name, value in asdict(self).items() if name != "kept"}

    def renamed(self, ids: dict[str, str]) -> Changes:
        """The same with other ids for the new nodes."""
        return Changes(
            kept={ids[new]: old for new, old in self.kept.items()},
            split={old: [ids[new] for new in news] for old, news in self.split.items()},
            merged={ids[new]: olds for new, olds in self.merged.items()},
            appeared=[ids[new] for new in self.appeared],
            vanished=self.vanished,
            moved_items=self.moved_items,
            shared_items=self.shared_items,
        )


def match(old: Clusters, new: Clusters) -> Changes:
    """Matches the nodes of two trees, level by level as counted from the interface, so as to share the most items.

    Ids are opaque here: equal ids in both trees mean nothing.
    """
    kept: dict[str, str] = {}
    for offset in range(-max(old.interface_level, new.interface_level), max(old.depth, new.depth) + 1):
        level_old, level_new = old.interface_level + offset, new.interface_level + offset
        if not (1 <= level_old <= old.depth and 1 <= level_new <= new.depth):
            continue
        names_old, names_new = old.at_level(level_old), new.at_level(level_new)
        rows, columns, shared = _overlap(old, level_old, names_old, new, level_new, names_new)
        for row, column in _pairs(rows, columns, shared, len(names_old), len(names_new)):
            kept[names_new[column]] = names_old[row]
    return _describe_changes(old, new, kept)


def _overlap(
    old: Clusters, level_old: int, names_old: Sequence[str], new: Clusters, level_new: int, names_new: Sequence[str]
) -> tuple[Ints, Ints, Ints]:
    """Pairs of old and new nodes that share items, and how many: three arrays [pairs]."""
    place_old = {name: row for row, name in enumerate(names_old)}
    place_new = {name: row for row, name in enumerate(names_new)}
    of_old = dict(zip(old.item_order, old.nodes_at(level_old), strict=True))
    both = [
        place_old[of_old[item]] * len(names_new) + place_new[node]
        for item, node in zip(new.item_order, new.nodes_at(level_new), strict=True)
        if item in of_old
    ]
    cells, shared = np.unique(np.array(both, dtype=np.int64), return_counts=True)
    return cells // len(names_new), cells % len(names_new), shared


def _pairs(rows: Ints, columns: Ints, shared: Ints, n_old: int, n_new: int) -> list[tuple[int, int]]:
    """One-to-one pairs (old, new) of the largest summed Jaccard overlap, each of at least SAME."""
    if not len(rows):
        return []
    sizes_old, sizes_new = np.bincount(rows, shared, n_old), np.bincount(columns, shared, n_new)
    jaccard = shared / (sizes_old[rows] + sizes_new[columns] - shared)
    if n_old * n_new <= DENSE_AT_MOST:
        from scipy.optimize import linear_sum_assignment

        matrix = np.zeros((n_old, n_new))
        matrix[rows, columns] = jaccard
        chosen = zip(*linear_sum_assignment(matrix, maximize=True), strict=True)
        return [(int(row), int(column)) for row, column in chosen if matrix[row, column] >= SAME]
    pairs, used_old, used_new = [], set(), set()
    for cell in np.lexsort((columns, rows, -jaccard)):
        row, column = int(rows[cell]), int(columns[cell])
        if jaccard[cell] >= SAME and row not in used_old and column not in used_new:
            used_old.add(row)
            used_new.add(column)
            pairs.append((row, column))
    return pairs


def _describe_changes(old: Clusters, new: Clusters, kept: dict[str, str]) -> Changes:
    rows, columns, shared = _overlap(old, old.interface_level, old.interface, new, new.interface_level, new.interface)
    from_old = np.bincount(rows, shared, len(old.interface))
    into_new = np.bincount(columns, shared, len(new.interface))
    split: dict[str, list[str]] = {}
    merged: dict[str, list[str]] = {}
    stayed = 0
    for row, column, count in zip(rows.tolist(), columns.tolist(), shared.tolist(), strict=True):
        was, now = old.interface[row], new.interface[column]
        if 2 * count > into_new[column]:
            split.setdefault(was, []).append(now)
        if 2 * count > from_old[row]:
            merged.setdefault(now, []).append(was)
        if kept.get(now) == was:
            stayed += count
    total = int(shared.sum())
    survivors = set(kept.values())
    return Changes(
        kept=kept,
        split={was: nows for was, nows in split.items() if len(nows) > 1},
        merged={now: sorted(olds) for now, olds in merged.items() if len(olds) > 1},
        appeared=[node for node in new.interface if node not in kept],
        vanished=[node for node in old.interface if node not in survivors],
        moved_items=1 - stayed / total if total else 0.0,
        shared_items=total,
    )
