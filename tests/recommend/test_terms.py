"""Terms of items and of interests: counts by hand, texts, what is kept and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from newfound.errors import DataError
from newfound.features.histories import Histories
from newfound.recommend.cluster_terms import FLOOR, ClusterTerms, planner_term
from newfound.recommend.item_terms import COUNTS, ItemTerms, leading_components, make_item_terms
from newfound.transitions.choice_model import ChoiceModel
from tests.serving.synthetic import World, write_release


def histories(rows: list[tuple[str, str, int, bool]]) -> Histories:
    """Events of one user after the other: user, item, time, whether it was positive."""
    users = sorted({user for user, *_ in rows})
    ordered = sorted(rows, key=lambda row: (row[0], row[2]))
    lengths = [sum(row[0] == user for row in rows) for user in users]
    return Histories(
        users,
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array([row[1] for row in ordered], dtype=object),
        np.array([row[2] for row in ordered], dtype=np.int64),
        np.ones(len(rows), dtype=np.float32),
        np.array([row[3] for row in ordered]),
    )


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory):
    from newfound.clusters import Clusters

    return Clusters.load(write_release(World(), tmp_path_factory.mktemp("terms"))["clusters"])


def test_counts_by_hand(clusters):
    first, second = clusters.item_order[:2]
    past = histories(
        [("a", first, 0, True), ("b", first, 1000, False), ("a", second, 1000, True), ("a", "unknown", 900, True)]
    )
    terms = make_item_terms(past, clusters)
    counts = dict(zip(COUNTS, terms.counts.T, strict=True))
    assert counts["popularity"][0] - counts["popularity"][1] == pytest.approx(np.log(3) - np.log(2), abs=1e-6)
    share = 2 / 3
    one = np.log(1 + 10 * share) - np.log(1 + 10 * (1 - share))
    two = np.log(1 + 10 * share) - np.log(10 * (1 - share))
    assert counts["approval"][0] - counts["approval"][1] == pytest.approx(one - two, abs=1e-6)
    # The first item's older event lies twenty half-lives back; the newest time is that of the known items' events.
    trend = np.log1p(1 + 0.5**20) - np.log(3) - (np.log(2) - np.log(2))
    assert counts["trend"][0] - counts["trend"][1] == pytest.approx(trend, abs=1e-6)
    assert counts["freshness"][0] - counts["freshness"][1] == pytest.approx(-np.log(1.01) + np.log(0.01), abs=1e-5)
    assert np.abs(terms.counts.mean(axis=0)).max() < 1e-5


def test_a_history_without_texts_has_no_profile_and_a_later_text_counts_more(clusters):
    text = np.eye(3, dtype=np.float32)
    terms = ItemTerms(np.zeros((3, len(COUNTS)), dtype=np.float32), text)
    assert not terms.profile(np.array([], dtype=np.int64)).any()
    assert terms.profile(np.array([0, 1])) == pytest.approx(np.array([0.9, 1.0, 0.0]) / 1.9)
    assert make_item_terms(histories([("a", clusters.item_order[0], 0, True)]), clusters).text.shape[1] == 0


def test_components_leave_items_without_text_out():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 12)).astype(np.float32)
    vectors[7] = 0
    found = leading_components(vectors, 5)
    assert found.shape == (50, 5) and not found[7].any()
    assert np.linalg.norm(np.delete(found, 7, axis=0), axis=1) == pytest.approx(np.ones(49), abs=1e-5)
    again = leading_components(np.concatenate([vectors, vectors]), 5)
    np.testing.assert_allclose(again[:50], found, atol=1e-4)
    assert leading_components(np.zeros((4, 3), dtype=np.float32), 2).shape == (4, 0)


def test_terms_are_kept_and_broken_ones_refused(tmp_path: Path):
    rng = np.random.default_rng(1)
    items = ItemTerms(rng.normal(size=(6, len(COUNTS))).astype(np.float32), rng.normal(size=(6, 2)).astype(np.float32))
    model = ChoiceModel(rng.normal(size=3).astype(np.float32), rng.normal(size=(2, 3, 3)).astype(np.float32))
    clusters = ClusterTerms(model, rng.normal(size=3).astype(np.float32))
    items.save(tmp_path)
    clusters.save(tmp_path)
    np.testing.assert_array_equal(ItemTerms.load(tmp_path, 6).counts, items.counts)
    np.testing.assert_array_equal(ClusterTerms.load(tmp_path, 3).choice.pull, model.pull)
    with pytest.raises(DataError, match="6 items"):
        ItemTerms.load(tmp_path, 7)
    with pytest.raises(DataError, match="3 clusters"):
        ClusterTerms.load(tmp_path, 4)
    with pytest.raises(DataError, match="cannot be read"):
        ClusterTerms.load(tmp_path / "nowhere", 3)


def test_what_people_choose_is_pooled_among_what_is_new():
    terms = ClusterTerms(
        ChoiceModel(np.zeros(3, np.float32), np.zeros((2, 3, 3), np.float32)), np.arange(3.0, dtype=np.float32)
    )
    allowed = np.array([False, True, True])
    found = terms.of(np.array([[0, 1]]), [1.0], allowed)
    assert found["choice"] == pytest.approx([0.0, np.log(0.5), np.log(0.5)])
    assert found["demand"].tolist() == [0.0, 1.0, 2.0]
    nobody = terms.of(np.zeros((0, 2), dtype=np.int64), [], allowed)
    assert not nobody["choice"].any() and nobody["demand"].tolist() == [0.0, 1.0, 2.0]


def test_a_context_without_an_answer_has_no_say_and_a_ruled_out_cluster_a_floor():
    rows = np.log(np.array([[0.5, 0.5, 1e-30], [1 / 3, 1 / 3, 1 / 3]], dtype=np.float32))
    allowed = np.array([True, False, True])
    silent = np.full((1, 3), -np.inf, dtype=np.float32)
    assert planner_term(silent, [1.0], allowed) is None and planner_term(rows, [0.0, 0.0], allowed) is None
    alone = planner_term(np.concatenate([silent, rows[1:]]), [0.9, 0.1], allowed)
    assert alone == pytest.approx([np.log(0.5), 0.0, np.log(0.5)])
    ruled = planner_term(rows[:1], [1.0], allowed)
    assert ruled is not None and ruled[2] == pytest.approx(FLOOR - np.log(0.5 + np.exp(FLOOR)), abs=1e-4)
