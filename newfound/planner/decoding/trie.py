"""Radix trie over the descriptions' tokens (Morrison 1968): an edge is chosen by its first token, the rest follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Node:
    """A place in the trie, and the edge that leads there.

    Args:
        tokens: of the edge from the parent; none for the root.
        parent: node; -1 for the root.
        depth: tokens from the root to the end of the edge.
        children: nodes, in the order of their first tokens.
        label: the sequence that ends here, if any.
        labels: all sequences at or below, sorted.
    """

    tokens: tuple[int, ...]
    parent: int
    depth: int
    children: list[int] = field(default_factory=list)
    label: int | None = None
    labels: list[int] = field(default_factory=list)


class Trie:
    """Token sequences as a radix trie; node 0 is the root. A sequence may be a prefix of another.

    Raises:
        ValueError: there is no sequence, an empty one, or two equal ones.
    """

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        if not sequences or any(len(s) == 0 for s in sequences):
            raise ValueError("a trie needs at least one sequence, and no empty one")
        order = sorted(range(len(sequences)), key=lambda i: tuple(sequences[i]))
        if any(tuple(sequences[a]) == tuple(sequences[b]) for a, b in zip(order, order[1:], strict=False)):
            raise ValueError("two sequences are equal")
        self.sequences = [tuple(s) for s in sequences]
        self.nodes = [Node((), -1, 0)]
        self._build(0, order)

    def _build(self, parent: int, labels: list[int]) -> None:
        node = self.nodes[parent]
        node.labels = sorted(labels)
        depth = node.depth
        rest = []
        for label in labels:
            if len(self.sequences[label]) == depth:
                node.label = label
            else:
                rest.append(label)
        groups: dict[int, list[int]] = {}
        for label in rest:
            groups.setdefault(self.sequences[label][depth], []).append(label)
        for group in groups.values():
            common = _common(self.sequences[group[0]], self.sequences[group[-1]])  # `labels` are sorted by tokens
            child = len(self.nodes)
            self.nodes.append(Node(self.sequences[group[0]][depth:common], parent, common))
            node.children.append(child)
            self._build(child, group)

    def __len__(self) -> int:
        return len(self.nodes)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length
