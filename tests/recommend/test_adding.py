"""Adding items to a release: their place, vector and terms, the loader's contract, and nothing done twice."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from newfound.clusters import Clusters
from newfound.clusters.embed import unit
from newfound.config import RankerConfig
from newfound.errors import ConfigError, DataError, ReleaseError, VocabularyError
from newfound.ranker.artifact import Ranker
from newfound.ranker.cooccurrence import CoOccurrence
from newfound.ranker.model import Encoder
from newfound.recommend import item_terms
from newfound.recommend.adding import Added, add_items
from newfound.recommend.catalogue import AvailableCatalogue, Catalogue, UserHistory
from newfound.recommend.cluster_terms import ClusterTerms
from newfound.recommend.item_terms import COUNTS, Components, ItemTerms
from newfound.recommend.joint_ranker import JointRanker
from newfound.recommend.nested_logit import RECORD, DecisionModel
from newfound.recommend.placing import Placer
from newfound.recommend.query import JointQuery
from newfound.recommend.recommender import Recommender
from newfound.release.new_items import MOST, NewItems, file_of, read_new_items
from newfound.release.store import publish, rollback
from newfound.release.takedown import Takedown
from newfound.schema import CATALOGUE, ITEM_PATHS, LAYOUT, TREE
from tests.release.gates import HELD

KINDS: Final = ("bread", "reef", "rail", "jazz")
DIM: Final = 8
AT: Final = datetime(2026, 1, 31, tzinfo=UTC)


def labelled(folder: Path, *, knows_how: bool = True, content: bool = True) -> dict[str, Path]:
    """Parts of a release whose items are told apart by categories alone, so that no text model is asked.

    Args:
        folder: for the parts.
        knows_how: whether ranker and decision say how they make what is new, as those of before do not.
        content: whether the clusters know any content.
    """
    rng = np.random.default_rng(1)
    names = [f"{kind}{n}" for kind in KINDS for n in range(4)]
    tree = [(f"c{at}", None, 1, kind, 4, 0.25) for at, kind in enumerate(KINDS)]
    tree = [row for at, one in enumerate(tree) for row in (one, (f"l{at}", f"c{at}", 2, f"all {one[3]}", 4, 0.25))]
    paths = [(name, [f"c{at // 4}", f"l{at // 4}"]) for at, name in enumerate(names)]
    own = np.repeat(unit(np.eye(4) + 0.1), 4, axis=0) + 0.05 * rng.normal(size=(16, 4))
    vectors = unit(own)
    means = vectors.reshape(4, 4, 4).mean(axis=1).repeat(2, axis=0)
    embedding = {"text": False, "categories": list(KINDS), "years": False, "behaviour_weight": 0.0, "content_dim": 4}
    clusters = Clusters(
        pa.table(dict(zip(TREE.names, map(list, zip(*tree, strict=True)), strict=True)), schema=TREE),
        pa.table(dict(zip(ITEM_PATHS.names, map(list, zip(*paths, strict=True)), strict=True)), schema=ITEM_PATHS),
        {"interface_level": 1, "source": "learned", "embedding": embedding if content else {}},
        {
            "nodes": np.hstack([means, np.zeros((8, 1))]).astype(np.float32),
            "items": np.hstack([vectors, np.zeros((16, 1))]).astype(np.float32),
            "category_idf": np.ones(4, dtype=np.float32),
            "categories_mean": np.zeros(4, dtype=np.float32),
            "projection": np.eye(4, dtype=np.float32),
            "ridge": np.zeros((5, 1), dtype=np.float32),
        },
        pa.table({"node": [f"c{at}" for at in range(4)], "x": [0.0] * 4, "y": [0.0] * 4}, schema=LAYOUT),
    )
    clusters.save(folder / "clusters")
    config = RankerConfig(dim=DIM, blocks=1, max_length=20)
    projection = rng.normal(size=(DIM, 4)).astype(np.float32)
    Ranker(
        Encoder(config),
        unit(vectors @ projection.T + 0.1 * rng.normal(size=(16, DIM))),
        np.linspace(-3, -1, 16, dtype=np.float32),
        CoOccurrence(np.zeros(17, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)),
        names,
        {node: clusters.slice_of(node) for node in clusters.nodes},
        {"config": config.model_dump(), "clusters_digest": clusters.digest},
        projection if knows_how else None,
    ).save(folder / "ranker")
    (folder / "decision").mkdir()
    counts = rng.normal(size=(16, len(COUNTS))).astype(np.float32)
    unseen = np.full(len(COUNTS), -2.5, dtype=np.float32) if knows_how else None
    ItemTerms(counts, np.zeros((16, 0), dtype=np.float32), unseen).save(folder / "decision")
    ClusterTerms.nothing(4, 2).save(folder / "decision")
    (folder / "decision" / RECORD).write_text(DecisionModel(clusters_digest=clusters.digest).model_dump_json())
    rows = {"item_id": sorted(names), "title": [f"Of {name}" for name in sorted(names)]}
    table = pa.table({**rows, "popularity": [1] * 16, "twins": pa.nulls(16, pa.string())}, schema=CATALOGUE)
    pq.write_table(table, folder / "items.parquet")
    return {name: folder / name for name in ("clusters", "ranker", "decision", "items.parquet")}


def published(folder: Path, note: str = "one", **how: bool) -> str:
    """Publishes such a release; the folder of all of them is `releases`."""
    parts = labelled(folder / note, **how)
    return publish(parts, str(folder / "releases"), lineage={"n": note}, measures={}, fits={}, gates=HELD).id


def rows(*items: tuple[str, str, list[str]]) -> pd.DataFrame:
    columns = dict(zip(("item_id", "title", "categories"), map(list, zip(*items, strict=True)), strict=True))
    return pd.DataFrame({**columns, "text": [None] * len(items)})


LATE: Final = rows(("late1", "Rye", ["bread"]), ("late2", "A quartet", ["jazz", "unheard of"]))


def placed(folder: Path, release: str, items: pd.DataFrame = LATE) -> NewItems:
    return Placer.load(folder / "releases" / release, release).place(items, AT, "new.csv")


def test_an_item_gets_what_training_gives_one_that_nobody_had(tmp_path: Path) -> None:
    release = published(tmp_path)
    new = placed(tmp_path, release)
    assert new.ids == ["late1", "late2"] and [one.leaf for one in new.items] == ["l0", "l3"]
    assert [one.title for one in new.items] == ["Rye", "A quartet"] and new.made == AT
    projection = Ranker.load(tmp_path / "releases" / release / "ranker").projection
    assert projection is not None
    np.testing.assert_allclose(new.vectors, unit(projection.T[[0, 3]]), rtol=1e-5)
    assert new.counts.tolist() == [[-2.5] * len(COUNTS)] * 2 and new.text.shape == (2, 0)


def test_a_release_of_before_gives_it_the_mean_of_its_nearest_siblings(tmp_path: Path) -> None:
    release = published(tmp_path, knows_how=False)
    new = placed(tmp_path, release)
    ranker = Ranker.load(tmp_path / "releases" / release / "ranker")
    np.testing.assert_allclose(new.vectors[1], unit(ranker.index.vectors[12:].mean(axis=0)[None])[0], rtol=1e-5)
    counts = ItemTerms.load(tmp_path / "releases" / release / "decision", 16).counts
    assert new.counts[0].tolist() == counts[counts[:, 0].argmin()].tolist()


def test_the_text_term_follows_the_components_of_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = unit(rng.normal(size=(30, 12)))
    components = Components.leading(vectors, 5)
    assert components is not None
    terms = ItemTerms(np.zeros((30, len(COUNTS)), dtype=np.float32), components.of(vectors), None, components)
    terms.save(tmp_path)
    kept = item_terms.ItemTerms.load(tmp_path, 30).components
    assert kept is not None
    np.testing.assert_allclose(kept.of(vectors[3:4]), terms.text[3:4], atol=1e-5)
    assert not kept.of(np.zeros((1, 12), dtype=np.float32)).any()


def test_near_duplicates_share_no_slate(tmp_path: Path) -> None:
    release = published(tmp_path)
    again = rows(("late1", "of BREAD2!", ["bread"]), ("late2", "Anew", ["jazz"]), ("late3", "anew", ["jazz"]))
    new = placed(tmp_path, release, again)
    assert [one.twin for one in new.items] == ["bread2", None, "late2"]
    twins = Catalogue.open(tmp_path / "releases" / release).with_new(new).twins
    assert twins == {"late1": "bread2", "bread2": "bread2", "late3": "late2", "late2": "late2"}


def test_nothing_that_says_nothing_is_placed(tmp_path: Path) -> None:
    release = published(tmp_path)
    for silent in (("late", "late", []), ("late", "A title, which these clusters do not read", ["unheard of"])):
        with pytest.raises(DataError, match=r"new.csv, column 'title': nothing says where item 'late' belongs"):
            placed(tmp_path, release, rows(silent))
    with pytest.raises(ConfigError, match="made without text or categories"):
        placed(tmp_path, published(tmp_path, "two", content=False))


def test_a_release_serves_with_its_new_items_and_without(tmp_path: Path) -> None:
    release = published(tmp_path)
    folder, new = tmp_path / "releases" / release, placed(tmp_path, release)
    catalogue, ranker = Catalogue.open(folder), JointRanker.load(folder)
    grown = catalogue.with_new(new)
    assert (grown.cluster_of["late1"], grown.titles["late1"], grown.sizes["c0"]) == ("c0", "Rye", 5)
    assert grown.popular_items("c3")[-1] == "late2" and grown.items_under("l0")[-1] == "late1"
    assert "late1" not in catalogue.cluster_of and catalogue.sizes["c0"] == 4 and "late2" not in catalogue.titles
    past, _ = grown.past_of(UserHistory(["late2"], [1.0], [True]))
    assert past.seen == {"c3"}
    for takedown, left in ((Takedown(frozenset({"late1"})), 4), (Takedown(clusters=frozenset({"l0"})), 0)):
        available = AvailableCatalogue(grown, takedown)
        assert "late1" in available.blocked and available.available["c0"] == left
    query = JointQuery(["reef1"], {"c0": 0.0, "c3": 0.0}, 50)
    shown = {item for item, _ in ranker.with_new(new).top_k([query])[0].best}
    assert shown == {*(f"{kind}{n}" for kind in ("bread", "jazz") for n in range(4)), "late1", "late2"}
    few = JointQuery(["reef1"], {"c0": 0.0, "c3": 0.0}, 0, ["c0", "c2"], [2, 2])
    (alone,), (with_it,) = ranker.top_k([few]), ranker.with_new(new).top_k([few])
    assert {*(item for item, _ in alone.clusters["c0"]), "late1"} == {item for item, _ in with_it.clusters["c0"]}
    values = [value for _, value in with_it.clusters["c0"]]
    assert values == sorted(values, reverse=True) and with_it.clusters["c2"] == alone.clusters["c2"]
    with pytest.raises(VocabularyError, match="'late1' is in the release already"):
        grown.with_new(new)
    elsewhere = NewItems(release, AT, (new.items[0].model_copy(update={"leaf": "c0"}),), *_first(new))
    with pytest.raises(VocabularyError, match="has no leaf 'c0'"):
        catalogue.with_new(elsewhere)


def _first(new: NewItems) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return new.vectors[:1], new.counts[:1], new.text[:1]


def write(folder: Path, text: str) -> str:
    (folder / "new.csv").write_text(text)
    return str(folder / "new.csv")


def test_what_was_added_is_recommended_from_its_release_alone(tmp_path: Path) -> None:
    first, second = published(tmp_path), published(tmp_path, "two")
    root = str(tmp_path / "releases")
    source = write(tmp_path, "item_id,title,categories\nlate1,Rye,bread\nlate2,A quartet,jazz|swing\n")
    assert add_items(root, source) == Added(second, 2, 0, 0, 2)
    assert add_items(root, source) == Added(second, 0, 2, 0, 2)
    source = write(tmp_path, "item_id,title,categories\nlate1,Rye bread,bread\nlate3,Bebop,jazz\n")
    assert add_items(root, source) == Added(second, 2, 0, 0, 3)
    found = read_new_items(root, second)
    assert found is not None and {one.item: one.title for one in found.items} == {
        "late1": "Rye bread", "late2": "A quartet", "late3": "Bebop"
    }  # fmt: skip
    history = UserHistory(["reef1", "rail2"], [1.0, 1.0], [True, True])
    slate = Recommender.open(tmp_path / "releases" / second).recommend(history, k=16, novel=16, seed=1)
    assert {"late1", "late2", "late3"} < {one.item for one in slate.items}
    rollback(root)
    assert not [one for one in Recommender.open(tmp_path / "releases" / first).catalogue.titles if "late" in one]
    assert add_items(root, source, release=second, replace=True).whole == 2
    file = tmp_path / "releases" / file_of(second)
    file.write_bytes(file.read_bytes()[:-1])
    assert "late1" not in Recommender.open(tmp_path / "releases" / second).catalogue.titles, "left out, and told"
    with pytest.raises(ReleaseError, match="not those of its record"):
        add_items(root, source, release=second)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("item_id,title,genre\na,A,b\n", "column 'genre': nobody reads this column; expected none but item_id, title"),
        ("item_id,name\na,A\n", "column 'title': the column is missing"),
        ("item_id,title\nbread1,A\n", "column 'item_id': item 'bread1' is in release"),
        ("item_id,title\n,A\n", "column 'item_id', row 1: is empty; expected an id in every row"),
        (f"item_id,title\na,A\n{'b' * 257},B\n", "row 2: long id"),
        ("item_id,title\na,A\na,B\n", "row 2: duplicate item 'a'"),
        (f"item_id,title\na,{'t' * 131_073}\n", "row 1: long text"),
        ("item_id,title\na,A,B\nb,B\n", "row 1: has another number of fields"),
        ("item_id,title\n", "holds no rows"),
    ],
)
def test_bad_rows_are_refused_and_nothing_is_added(tmp_path: Path, text: str, said: str) -> None:
    release = published(tmp_path)
    with pytest.raises(DataError) as caught:
        add_items(str(tmp_path / "releases"), write(tmp_path, text))
    assert said in str(caught.value) and "new.csv" in str(caught.value)
    assert not (tmp_path / "releases" / file_of(release)).exists()


def test_items_of_the_release_are_passed_over_where_that_is_asked(tmp_path: Path) -> None:
    release = published(tmp_path)
    source = write(tmp_path, "item_id,title,categories\nbread1,A,bread\nlate,B,bread\n")
    root = str(tmp_path / "releases")
    assert add_items(root, source, skip_known=True) == Added(release, 1, 0, 1, 1)
    assert add_items(root, source, skip_known=True) == Added(release, 0, 1, 1, 1)
    with pytest.raises(ReleaseError, match="no release was published yet"):
        add_items(str(tmp_path / "nowhere"), source)
    assert MOST == 10_000
