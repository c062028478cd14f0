"""Ids across refits: nodes are matched by what they share, and what changed is said."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newfound import schema
from newfound.clusters import Clusters, match, stable


def two_levels(groups: dict[str, list[str]]) -> Clusters:
    """Interface clusters with one leaf each, below one root."""
    total = sum(map(len, groups.values()))
    rows = [("root", None, 1, "Root", total, 1.0)]
    paths = []
    for node, items in groups.items():
        rows.append((node, "root", 2, f"About {node}", len(items), len(items) / total))
        rows.append((f"{node}-leaf", node, 3, f"Leaf {node}", len(items), len(items) / total))
        paths += [(item, ["root", node, f"{node}-leaf"]) for item in items]
    return Clusters(
        pa.table(dict(zip(schema.TREE.names, zip(*rows, strict=True), strict=True)), schema=schema.TREE),
        pa.table(dict(zip(schema.ITEM_PATHS.names, zip(*paths, strict=True), strict=True)), schema=schema.ITEM_PATHS),
        {"interface_level": 2},
    )


def test_the_same_clusters_keep_all_ids():
    old = two_levels({"a": ["1", "2"], "b": ["3"], "c": ["4", "5"]})
    new = two_levels({"x": ["4", "5"], "y": ["3"], "z": ["1", "2"]})
    changes = match(old, new)
    assert changes.kept == {
        "root": "root", "x": "c", "y": "b", "z": "a", "x-leaf": "c-leaf", "y-leaf": "b-leaf", "z-leaf": "a-leaf"
    }  # fmt: skip
    assert not changes.split and not changes.merged and not changes.appeared and not changes.vanished
    assert changes.moved_items == 0
    assert changes.shared_items == 5


def test_split_merge_appear_vanish():
    old = two_levels({"a": ["1", "2", "3", "4", "5"], "b": ["6", "7"], "c": ["8", "9", "10"], "d": ["11"]})
    new = two_levels({"v": ["1", "2", "3"], "w": ["4", "5"], "x": ["6", "7", "8", "9", "10"], "y": ["12", "13"]})
    changes = match(old, new)
    assert {name: changes.kept.get(name) for name in "vwxy"} == {"v": "a", "w": None, "x": "c", "y": None}
    assert changes.split == {"a": ["v", "w"]}
    assert changes.merged == {"x": ["b", "c"]}
    assert changes.appeared == ["w", "y"]
    assert changes.vanished == ["b", "d"]
    assert changes.shared_items == 10  # 11 is gone, 12 and 13 are new
    assert changes.moved_items == pytest.approx(4 / 10)  # 4 and 5 left a; 6 and 7 left b
    renamed = changes.renamed({node: node for node in new.nodes} | {"v": "a", "w": "n1", "x": "c", "y": "n2"})
    assert renamed.split == {"a": ["a", "n1"]}
    assert renamed.merged == {"c": ["b", "c"]}
    assert renamed.appeared == ["n1", "n2"]


def test_greedy_matching_agrees_where_nothing_competes(monkeypatch):
    old = two_levels({"a": ["1", "2", "3"], "b": ["4", "5"], "c": ["6"]})
    new = two_levels({"x": ["4", "5", "6"], "y": ["1", "2", "3"]})
    optimal = match(old, new)
    monkeypatch.setattr(stable, "DENSE_AT_MOST", 0)
    assert match(old, new) == optimal


def test_little_in_common_is_another_cluster():
    old = two_levels({"a": [str(item) for item in range(10)]})
    new = two_levels({"x": ["0", *(f"new{item}" for item in range(10))], "y": [str(item) for item in range(1, 10)]})
    assert match(old, new).kept["y"] == "a"
    assert "x" not in match(old, new).kept


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_ids_are_given_once(before, after):
    def tree(labels):
        groups: dict[str, list[str]] = {}
        for item, label in enumerate(labels):
            groups.setdefault(f"n{label}", []).append(str(item))
        return two_levels(groups)

    old, new = tree(before), tree(after)
    changes = match(old, new)
    assert len(set(changes.kept.values())) == len(changes.kept)
    for now, was in changes.kept.items():
        assert new.level_of(now) == old.level_of(was)
        assert set(new.items_under(now)) & set(old.items_under(was))
    assert set(changes.appeared) | (set(changes.kept) & set(new.interface)) == set(new.interface)
    assert set(changes.vanished) | (set(changes.kept.values()) & set(old.interface)) == set(old.interface)
    assert 0 <= changes.moved_items <= 1
