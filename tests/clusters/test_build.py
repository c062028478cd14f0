"""Building clusters from real and tiny data: invariants, determinism, refits, new items, given clusters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from newfound.clusters import Clusters, build_clusters, embed_new
from newfound.clusters.build import KEEPS_TEXT
from newfound.config import ClustersConfig
from newfound.datasets import Dataset
from newfound.errors import ConfigError, DataError
from newfound.features.histories import Histories

CONFIG = ClustersConfig(interface_size=40, coarse_sizes=(5,), leaf_items=6)
SEED = 11


@pytest.fixture(scope="session")
def built(movielens: Path, movielens_histories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clusters of the slice of MovieLens, with the real text model."""
    out = tmp_path_factory.mktemp("clusters") / "clusters"
    build_clusters(movielens, movielens_histories, CONFIG, SEED, out)
    return out


@pytest.fixture(scope="session")
def refitted(movielens: Path, movielens_histories: Path, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same a while later: the newest fifth of everybody's past is left out of the earlier fit's data."""
    folder = tmp_path_factory.mktemp("refit")
    shorter = pq.read_table(movielens_histories).to_pandas()
    for column in ("item_ids", "times", "engagements", "positives"):
        shorter[column] = shorter[column].map(lambda values: values[: max(1, len(values) * 4 // 5)])
    shorter.to_parquet(folder / "histories.parquet")
    build_clusters(movielens, folder / "histories.parquet", CONFIG, SEED, folder / "clusters", previous=built)
    return folder / "clusters"


def test_every_item_has_one_leaf_and_every_level_partitions_them(movielens: Path, built: Path):
    clusters, items = Clusters.load(built), Dataset(movielens).frame("items")
    assert sorted(clusters.item_order) == items["item_id"].tolist()
    assert clusters.info["sizes"][:2] == [5, 40]
    assert clusters.depth == 3
    for level in range(1, clusters.depth + 1):
        slices = [clusters.slice_of(node) for node in clusters.at_level(level)]
        assert slices[0][0] == 0
        assert slices[-1][1] == len(items)
        assert all(stop == start for (_, stop), (start, _) in zip(slices[:-1], slices[1:], strict=True))
    for node in clusters.nodes:
        children = clusters.children_of(node)
        assert all(clusters.parent_of(child) == node for child in children)
        if children:
            assert [item for child in children for item in clusters.items_under(child)] == clusters.items_under(node)
            traffic = clusters.tree.to_pandas().set_index("node")["traffic"]
            assert traffic[children].sum() == pytest.approx(traffic[node], abs=1e-5)
    for leaf in clusters.at_level(3):
        assert clusters.items_under(leaf) == sorted(clusters.items_under(leaf))


def test_traffic_is_the_share_of_positive_events(movielens_histories: Path, built: Path):
    clusters, past = Clusters.load(built), Histories.load(movielens_histories)
    counts = pd.Series(past.item_ids[past.positives]).map(clusters.cluster_of).value_counts(normalize=True)
    assert clusters.traffic == pytest.approx(counts.reindex(clusters.interface, fill_value=0).to_numpy(), abs=1e-6)


def test_neither_sizes_nor_traffic_are_too_skewed(built: Path):
    clusters = Clusters.load(built)
    sizes = np.array([len(clusters.items_under(node)) for node in clusters.interface])
    assert sizes.min() >= 2
    assert sizes.max() <= 5 * sizes.mean()
    assert clusters.traffic.max() <= 5 / 40


def test_descriptions_are_short_plain_and_tell_clusters_apart(built: Path):
    clusters = Clusters.load(built)
    for level in range(1, clusters.depth + 1):
        texts = [clusters.description_of(node) for node in clusters.at_level(level)]
        assert len(set(texts)) == len(texts)
        assert all(text.isprintable() and 0 < len(text) <= 60 for text in texts)
    words = [tuple(text.lower().replace(",", "").split()) for text in clusters.descriptions]
    assert not any(one != other and other[: len(one)] == one for one in words for other in words)
    assert np.mean([len(word) for word in words]) < 5


def test_clusters_are_coherent(movielens: Path, built: Path):
    """Two items of a cluster share a category far more often than any two items do."""
    clusters = Clusters.load(built)
    categories = Dataset(movielens).frame("items").set_index("item_id")["categories"].map(set)
    draw = np.random.default_rng(0)
    items = np.array(clusters.item_order)
    pairs = [(one, other) for one, other in draw.choice(items, (3000, 2)) if one != other]
    same = [
        (one, other)
        for node in clusters.interface
        for one, other in draw.choice(clusters.items_under(node), (50, 2))
        if one != other
    ]
    share = [np.mean([bool(categories[one] & categories[other]) for one, other in some]) for some in (pairs, same)]
    assert share[1] > 0.8
    assert share[1] > 1.5 * share[0]


def test_layout_has_a_point_a_cluster(built: Path):
    clusters = Clusters.load(built)
    layout = clusters.layout.to_pandas()
    assert layout["node"].tolist() == clusters.interface
    assert np.abs(layout[["x", "y"]].to_numpy()).max() == pytest.approx(1, abs=1e-6)
    assert len(layout[["x", "y"]].drop_duplicates()) == len(layout)


def test_vectors_follow_the_tree(built: Path):
    clusters = Clusters.load(built)
    assert clusters.item_vectors.shape == (len(clusters.item_order), clusters.node_vectors.shape[1])
    assert np.isfinite(clusters.item_vectors).all()
    assert np.linalg.norm(clusters.item_vectors, axis=1) == pytest.approx(1, abs=1e-4)
    assert clusters.vectors["text"].shape == (len(clusters.item_order), 384)


def test_two_builds_are_the_same(movielens: Path, movielens_histories: Path, built: Path, tmp_path: Path):
    measures = build_clusters(movielens, movielens_histories, CONFIG, SEED, tmp_path / "again")
    one, other = Clusters.load(built), Clusters.load(tmp_path / "again")
    assert measures["digest"] == one.digest == other.digest
    for name, array in one.vectors.items():
        assert np.array_equal(array, other.vectors[name]), name
    assert one.layout.equals(other.layout)
    assert (built / "clusters.json").read_text() == (tmp_path / "again" / "clusters.json").read_text()


def test_a_refit_keeps_ids_and_descriptions(built: Path, refitted: Path):
    old, new = Clusters.load(built), Clusters.load(refitted)
    kept = set(old.interface) & set(new.interface)
    assert len(kept) >= 0.9 * len(old.interface)
    assert new.info["changes"]["moved_items"] < 0.35
    assert set(new.info["changes"]["appeared"]) == set(new.interface) - kept
    assert set(new.info["changes"]["vanished"]) == set(old.interface) - kept
    stayed = 0
    for node in kept:
        before, now = set(old.items_under(node)), set(new.items_under(node))
        assert before & now
        if len(before & now) >= KEEPS_TEXT * len(before | now):
            assert old.description_of(node) == new.description_of(node)
            stayed += 1
    assert stayed >= 0.6 * len(kept)


def test_a_fresh_id_was_never_used(built: Path, refitted: Path):
    old, new = Clusters.load(built), Clusters.load(refitted)
    kept = set(new.info["changes"]["appeared"]) | set(new.interface)
    assert not (set(new.info["changes"]["appeared"]) & set(old.nodes))
    assert kept == set(new.interface)
    assert all(new.info["next_numbers"][kind] >= number for kind, number in old.info["next_numbers"].items())


def test_a_new_item_gets_its_leaf_without_a_refit(built: Path):
    clusters = Clusters.load(built)
    new = pd.DataFrame(
        {
            "item_id": ["new1", "new2", "new3"],
            "title": ["Moana (2016)", "Alien Covenant (2017)", "new3"],
            "text": [None, "Space horror", None],
            "categories": [["Animation", "Children's", "Musical"], ["Horror", "Sci-Fi"], []],
        }
    )
    vectors = embed_new(clusters, new)
    assert vectors.shape == (3, clusters.item_vectors.shape[1])
    leaves = clusters.assign(vectors)
    assert set(leaves) <= set(clusters.at_level(clusters.depth))
    assert np.array_equal(embed_new(clusters, new), vectors)


def test_new_items_land_among_their_kind(movielens: Path, built: Path):
    """Placed as if they were new, items share a category with the cluster's own more often than not."""
    clusters = Clusters.load(built)
    items = Dataset(movielens).frame("items").iloc[::10]
    categories = Dataset(movielens).frame("items").set_index("item_id")["categories"].map(set)
    near = []
    for item, leaf in zip(items["item_id"], clusters.assign(embed_new(clusters, items)), strict=True):
        others = [other for other in clusters.items_under(clusters.ancestor_of(leaf, 2)) if other != item]
        near.append(np.mean([bool(categories[item] & categories[other]) for other in others]))
    assert np.mean(near) > 0.7


def test_ids_alone(tiny: Path, tiny_histories: Path, tmp_path: Path):
    config = ClustersConfig(interface_size=4, coarse_sizes=(2,), leaf_items=2)
    measures = build_clusters(tiny, tiny_histories, config, 1, tmp_path / "clusters")
    clusters = Clusters.load(tmp_path / "clusters")
    assert measures["clusters"] == 4
    assert all(text.startswith("Items i") for text in clusters.descriptions)
    assert "text" not in clusters.vectors
    assert len(clusters.assign(clusters.item_vectors)) == 12
    with pytest.raises(ConfigError, match="without text"):
        embed_new(clusters, Dataset(tiny).frame("items"))


def test_fewer_items_than_clusters(tiny: Path, tiny_histories: Path, tmp_path: Path):
    measures = build_clusters(tiny, tiny_histories, ClustersConfig(), 1, tmp_path / "clusters")
    assert measures["clusters"] == 6
    assert (
        Clusters.load(tmp_path / "clusters").interface_level == 1
    )  # eight coarser ones above six would not be coarser


def test_by_categories(movielens: Path, movielens_histories: Path, tmp_path: Path):
    config = ClustersConfig(source="categories", behaviour_weight=1.0, leaf_items=6)
    build_clusters(movielens, movielens_histories, config, 1, tmp_path / "clusters")
    clusters = Clusters.load(tmp_path / "clusters")
    categories = Dataset(movielens).frame("items").set_index("item_id")["categories"]
    assert clusters.interface_level == 2
    assert {clusters.description_of(node) for node in clusters.at_level(1)} >= {"Drama", "Comedy", "Action"}
    for node in clusters.interface:
        for item in clusters.items_under(node):
            words = set(clusters.description_of(clusters.parent_of(node) or "").lower().split())
            assert words & {word.lower() for word in " ".join(categories[item]).split()} or not len(categories[item])


def test_by_file(tiny: Path, tiny_histories: Path, tmp_path: Path):
    rows = [
        f"i{item},{'even' if item % 2 == 0 else 'odd'},{'Even <b>ones</b>' if item == 0 else ''}" for item in range(11)
    ]
    given = tmp_path / "given.csv"
    given.write_text("item_id,cluster,description\n" + "\n".join(rows) + "\n")
    config = ClustersConfig(source="file", file=str(given), leaf_items=3)
    build_clusters(tiny, tiny_histories, config, 1, tmp_path / "clusters")
    clusters = Clusters.load(tmp_path / "clusters")
    assert sorted(clusters.descriptions) == ["Even ones", "Odd"]
    assert {clusters.cluster_of[f"i{item}"] for item in (0, 2, 4)} == {
        clusters.interface[clusters.descriptions.index("Even ones")]
    }
    assert clusters.cluster_of["i11"] in clusters.interface  # it was given none, and goes to the nearest


def test_what_is_refused(movielens: Path, movielens_histories: Path, tiny: Path, tiny_histories: Path, tmp_path: Path):
    out = tmp_path / "clusters"
    with pytest.raises(ConfigError, match=r"clusters\.file"):
        build_clusters(tiny, tiny_histories, ClustersConfig(source="file"), 1, out)
    with pytest.raises(DataError, match="no item has a category"):
        build_clusters(tiny, tiny_histories, ClustersConfig(source="categories"), 1, out)
    with pytest.raises(ConfigError, match=r"clusters\.text_model"):
        config = ClustersConfig(text_model=str(tmp_path / "no-model"))
        build_clusters(movielens, movielens_histories, config, 1, out)
    with pytest.raises(DataError, match="item 'i0'; expected items of the data set"):
        build_clusters(movielens, tiny_histories, CONFIG, 1, out)
    assert not out.exists()


def test_a_predecessor_must_tell_which_ids_are_free(tiny: Path, tiny_histories: Path, tmp_path: Path):
    config = ClustersConfig(interface_size=4, coarse_sizes=(2,), leaf_items=2)
    build_clusters(tiny, tiny_histories, config, 1, tmp_path / "old")
    record = json.loads((tmp_path / "old" / "clusters.json").read_text())
    del record["next_numbers"]
    (tmp_path / "old" / "clusters.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"old/clusters\.json: no `next_numbers`"):
        build_clusters(tiny, tiny_histories, config, 2, tmp_path / "new", previous=tmp_path / "old")
    assert not (tmp_path / "new").exists()


def test_the_record_says_how_it_was_made(built: Path):
    record = json.loads((built / "clusters.json").read_text())
    assert record["config"] == CONFIG.model_dump(mode="json")
    assert record["seed"] == SEED
    assert record["source"] == "learned"
    assert record["embedding"]["content_dim"] > 0
    assert record["embedding"]["behaviour_dim"] > 0
    assert 0 < record["description_fidelity"]["description_fidelity@10"] <= 1
