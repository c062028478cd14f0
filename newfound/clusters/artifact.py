"""The clusters artifact: a tree of interests, the item that each leaf holds, and their vectors.

A folder of `tree.parquet`, `items.parquet` (schema.TREE, schema.ITEM_PATHS), `layout.parquet`, `centroids.safetensors`
and `clusters.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from newfound import schema
from newfound.errors import DataError
from newfound.files import new_folder
from newfound.types import Floats, Ints, Ints32

FORMAT: Final = 1
RECORD: Final = "clusters.json"
TREE_FILE: Final = "tree.parquet"
ITEMS_FILE: Final = "items.parquet"
LAYOUT_FILE: Final = "layout.parquet"
VECTORS_FILE: Final = "centroids.safetensors"


class Clusters:
    """A tree of interests over items.

    Every leaf lies at the same depth. Nodes come in depth-first order and items in that order too, so each node's
    items are one contiguous run of `item_order`. The *interface* is the level at which planner, table and ranker meet.

    Args:
        tree: schema.TREE, depth-first.
        items: schema.ITEM_PATHS, in the tree's order.
        info: the record; must hold `interface_level`. `digest` is computed here and checked where it is given.
        vectors: arrays by name: `nodes` [nodes, dim], `items` [items, dim], `text` [items, dim] where items have text,
            and what the encoder of new items needs.
        layout: schema.LAYOUT, a point a interface cluster.

    Raises:
        DataError: the parts contradict each other.
    """

    def __init__(
        self,
        tree: pa.Table,
        items: pa.Table,
        info: dict[str, Any],
        vectors: dict[str, Floats] | None = None,
        layout: pa.Table | None = None,
        *,
        source: Path | None = None,
    ) -> None:
        self._name = str(source) if source else "clusters"
        self._folder = source
        self._vectors = vectors
        self._layout = layout
        self.tree = tree.cast(schema.TREE)
        self.items = items.cast(schema.ITEM_PATHS)
        self.nodes: list[str] = self.tree[schema.NODE].to_pylist()
        self.levels: npt.NDArray[np.int8] = self.tree[schema.LEVEL].to_numpy()
        self.item_order: list[str] = self.items[schema.ITEM].to_pylist()
        self._row = {node: row for row, node in enumerate(self.nodes)}
        self._parents: list[str | None] = self.tree[schema.PARENT].to_pylist()
        self._descriptions: list[str] = self.tree[schema.DESCRIPTION].to_pylist()
        self.interface_level = int(info["interface_level"])
        self.depth = int(self.levels.max(initial=0))
        self._paths = self._read_paths()
        self._starts, self._stops = self._check()
        self.digest = _digest(self.tree, self.items, self.interface_level)
        if info.get("digest", self.digest) != self.digest:
            raise self._error(RECORD, "digest does not match the tree and the items", "an artifact that nobody edited")
        self.info = {**info, "digest": self.digest}
        at_interface = self.levels == self.interface_level
        self.interface: list[str] = [self.nodes[row] for row in np.flatnonzero(at_interface)]
        self.descriptions: list[str] = [self._descriptions[row] for row in np.flatnonzero(at_interface)]
        self.index: dict[str, int] = {node: place for place, node in enumerate(self.interface)}

    @classmethod
    def load(cls, path: str | Path) -> Clusters:
        """Reads an artifact folder and checks it; vectors are read when first asked for.

        Raises:
            DataError: a file is missing or broken, or the digest does not hold.
        """
        folder = Path(path)
        try:
            info = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            tree = pq.read_table(folder / TREE_FILE, memory_map=True)
            items = pq.read_table(folder / ITEMS_FILE, memory_map=True)
            if info["format"] != FORMAT:
                raise DataError(str(folder / RECORD), f"format {info['format']!r}", expected=f"format {FORMAT}")
            return cls(tree, items, info, source=folder)
        except FileNotFoundError as error:
            raise DataError(str(error.filename), "file is missing", expected="a clusters artifact") from error
        except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
            raise DataError(
                str(folder), f"cannot be read ({' '.join(str(error).split())})", expected="a clusters artifact"
            ) from error

    def save(self, out: str | Path) -> None:
        """Writes the artifact folder, whole or not at all."""
        from safetensors.numpy import save_file

        with new_folder(out, RECORD) as folder:
            pq.write_table(self.tree, folder / TREE_FILE)
            pq.write_table(self.items, folder / ITEMS_FILE)
            pq.write_table(self.layout, folder / LAYOUT_FILE)
            arrays = {name: np.ascontiguousarray(array) for name, array in self.vectors.items()}
            save_file(arrays, folder / VECTORS_FILE)
            record = json.dumps({"format": FORMAT, **self.info}, indent=1, sort_keys=True, ensure_ascii=False)
            (folder / RECORD).write_text(record + "\n", encoding="utf-8")

    # --- looking up -------------------------------------------------------------------------------------------------

    @cached_property
    def cluster_of(self) -> dict[str, str]:
        """Item -> its interface cluster."""
        return dict(zip(self.item_order, self.nodes_at(self.interface_level), strict=True))

    @cached_property
    def leaf_of(self) -> dict[str, str]:
        """Item -> its leaf."""
        return dict(zip(self.item_order, self.nodes_at(self.depth), strict=True))

    @cached_property
    def _position(self) -> dict[str, int]:
        return {item: place for place, item in enumerate(self.item_order)}

    def path_of(self, item: str) -> tuple[str, ...]:
        """Nodes from level 1 down to the item's leaf.

        Raises:
            KeyError: the item is in no cluster.
        """
        return tuple(self.nodes[row] for row in self._paths[self._position[item]])

    def slice_of(self, node: str) -> tuple[int, int]:
        """Start and stop of the node's items in `item_order`."""
        row = self._row[node]
        return int(self._starts[row]), int(self._stops[row])

    def items_under(self, node: str) -> list[str]:
        """The node's items, in tree order."""
        start, stop = self.slice_of(node)
        return self.item_order[start:stop]

    def parent_of(self, node: str) -> str | None:
        """The node above, None at level 1."""
        return self._parents[self._row[node]]

    @cached_property
    def _children(self) -> dict[str | None, list[str]]:
        children: dict[str | None, list[str]] = {}
        for node, parent in zip(self.nodes, self._parents, strict=True):
            children.setdefault(parent, []).append(node)
        return children

    def children_of(self, node: str | None) -> list[str]:
        """The nodes right below, in tree order; those of level 1 for None, none below a leaf."""
        return self._children.get(node, [])

    def level_of(self, node: str) -> int:
        """1 is the coarsest."""
        return int(self.levels[self._row[node]])

    def at_level(self, level: int) -> list[str]:
        """The nodes of a level, in tree order."""
        return [self.nodes[row] for row in np.flatnonzero(self.levels == level)]

    def nodes_at(self, level: int) -> list[str]:
        """Each item's node at a level, in `item_order`."""
        return [self.nodes[row] for row in self._paths[:, level - 1].tolist()]

    def ancestor_of(self, node: str, level: int) -> str:
        """The node itself or the one above it that lies at `level`.

        Raises:
            ValueError: the node lies above that level.
        """
        if not 1 <= level <= self.level_of(node):
            raise ValueError(f"node {node!r} lies at level {self.level_of(node)}; it has no ancestor at {level}")
        start, _ = self.slice_of(node)
        return self.nodes[int(self._paths[start, level - 1])]

    def description_of(self, node: str) -> str:
        """Keywords, unique within the node's level."""
        return self._descriptions[self._row[node]]

    @property
    def has_words(self) -> bool:
        """Whether descriptions say something: made from the items' content or given, rather than made of item ids."""
        content = self.info.get("embedding", {}).get("items_with_content")
        return content is None or content > 0 or self.info.get("source") == "file"

    @cached_property
    def traffic(self) -> Floats:
        """Each interface cluster's share of the positive interactions, in `interface` order."""
        shares: Floats = self.tree[schema.TRAFFIC].to_numpy()[self.levels == self.interface_level]
        return shares

    # --- vectors ----------------------------------------------------------------------------------------------------

    @property
    def vectors(self) -> dict[str, Floats]:
        """All arrays of the artifact by name."""
        if self._vectors is None:
            from safetensors.numpy import load_file

            assert self._folder is not None
            try:
                self._vectors = dict(load_file(self._folder / VECTORS_FILE))
            except Exception as error:  # safetensors raises its own type, which is no public one
                raise self._error(VECTORS_FILE, f"cannot be read ({error})", "a safetensors file") from error
            for name, rows in (("nodes", len(self.nodes)), ("items", len(self.item_order))):
                if len(self._vectors.get(name, ())) != rows:
                    raise self._error(VECTORS_FILE, f"array {name!r} is absent or of another length", f"{rows} rows")
        return self._vectors

    @property
    def item_vectors(self) -> Floats:
        """[items, dim] in `item_order`."""
        return self.vectors["items"]

    @property
    def node_vectors(self) -> Floats:
        """[nodes, dim] in `nodes` order: the traffic-weighted mean of the node's items."""
        return self.vectors["nodes"]

    @cached_property
    def interface_vectors(self) -> Floats:
        """[N, dim], of the interface clusters, in their order."""
        return self.node_vectors[np.flatnonzero(self.levels == self.interface_level)]

    @property
    def layout(self) -> pa.Table:
        """schema.LAYOUT: where each interface cluster lies on the map of interests."""
        if self._layout is None:
            if self._folder is None:
                return schema.LAYOUT.empty_table()
            self._layout = pq.read_table(self._folder / LAYOUT_FILE).cast(schema.LAYOUT)
        return self._layout

    def assign(self, vectors: Floats) -> list[str]:
        """The leaf of each new item, without a refit: the nearest child, from the top down.

        Args:
            vectors: [B, dim], in the space of `item_vectors` (see `newfound.clusters.embed_new`).
        """
        nodes = self.node_vectors
        leaves: list[str] = []
        below = {node: np.array([self._row[child] for child in children]) for node, children in self._children.items()}
        for vector in vectors:
            node: str | None = None
            while node in below:
                rows = below[node]
                node = self.nodes[rows[np.argmin(((nodes[rows] - vector) ** 2).sum(axis=1))]]
            assert node is not None
            leaves.append(node)
        return leaves

    # --- checks -----------------------------------------------------------------------------------------------------

    def _error(self, file: str, problem: str, expected: str) -> DataError:
        return DataError(f"{self._name}/{file}", problem, expected=expected)

    def _read_paths(self) -> Ints32:
        """[items, depth]: rows of `nodes`."""
        paths = self.items[schema.PATH].combine_chunks()
        lengths = pc.list_value_length(paths).to_numpy(zero_copy_only=False)
        if not (lengths == self.depth).all():
            raise self._error(ITEMS_FILE, "a path stops above the leaves", f"{self.depth} nodes a path")
        rows = pc.index_in(paths.flatten(), value_set=self.tree[schema.NODE].combine_chunks())
        if rows.null_count:
            raise self._error(ITEMS_FILE, "a path names a node that the tree lacks", "nodes of tree.parquet")
        matrix: Ints32 = rows.to_numpy().astype(np.int32).reshape(-1, max(self.depth, 1))
        return matrix

    def _check(self) -> tuple[Ints, Ints]:
        """Checks the tree against the items; returns where each node's run starts and stops."""
        if not self.nodes or not self.item_order:
            raise self._error(TREE_FILE, "holds nothing", "at least one node and one item")
        if len(self._row) != len(self.nodes):
            raise self._error(TREE_FILE, "names a node twice", "unique nodes")
        if len(set(self.item_order)) != len(self.item_order):
            raise self._error(ITEMS_FILE, "names an item twice", "each item in one leaf")
        if not 1 <= self.interface_level <= self.depth:
            raise self._error(RECORD, f"interface level {self.interface_level}", f"a level from 1 to {self.depth}")
        stack: list[str] = []
        for node, parent, level in zip(self.nodes, self._parents, self.levels.tolist(), strict=True):
            del stack[level - 1 :]
            if len(stack) != level - 1 or (stack[-1] if stack else None) != parent:
                raise self._error(TREE_FILE, f"node {node!r} does not follow its parent", "depth-first order")
            stack.append(node)
        for level in range(1, self.depth + 1):
            texts = [self._descriptions[row] for row in np.flatnonzero(self.levels == level)]
            if len(set(texts)) != len(texts) or not all(texts):
                raise self._error(TREE_FILE, f"level {level} has an empty or repeated description", "unique ones")
        starts = np.zeros(len(self.nodes), dtype=np.int64)
        stops = np.zeros(len(self.nodes), dtype=np.int64)
        parent_rows = np.array([-1 if parent is None else self._row[parent] for parent in self._parents])
        for level in range(1, self.depth + 1):
            column = self._paths[:, level - 1]
            first = np.flatnonzero(np.r_[True, column[1:] != column[:-1]])
            at = column[first]
            above = self._paths[first, level - 2] if level > 1 else np.full(len(first), -1)
            if not np.array_equal(at, np.flatnonzero(self.levels == level)) or (parent_rows[at] != above).any():
                raise self._error(ITEMS_FILE, f"level {level} does not follow the tree", "the tree's own order")
            starts[at], stops[at] = first, np.r_[first[1:], len(column)]
        if not np.array_equal(stops - starts, self.tree[schema.SIZE].to_numpy()):
            raise self._error(TREE_FILE, "a size differs from the items below its node", "the number of items")
        return starts, stops


def _digest(tree: pa.Table, items: pa.Table, interface_level: int) -> str:
    """sha256 over ids, shape, descriptions and paths; traffic and vectors may move without making anything stale."""
    sums = hashlib.sha256(f"newfound clusters {FORMAT} {interface_level}\n".encode())
    columns: Sequence[str] = (schema.NODE, schema.PARENT, schema.LEVEL, schema.DESCRIPTION)
    for row in zip(*(tree[column].to_pylist() for column in columns), strict=True):
        sums.update(json.dumps(row).encode() + b"\n")
    for start in range(0, items.num_rows, 65536):
        part = items.slice(start, 65536)
        for item, path in zip(part[schema.ITEM].to_pylist(), part[schema.PATH].to_pylist(), strict=True):
            sums.update(json.dumps([item, path[-1]]).encode() + b"\n")
    return sums.hexdigest()
