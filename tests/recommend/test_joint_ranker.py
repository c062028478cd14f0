"""The items' side of the decision: against the formula, item by item, and visiting by bound against scoring all."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from newfound.errors import DataError, VocabularyError
from newfound.recommend import joint_ranker
from newfound.recommend.item_terms import COUNTS
from newfound.recommend.joint_ranker import JointRanker
from newfound.recommend.query import JointQuery
from tests.serving.synthetic import World, histories, publish_world

WORLD = World()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("joint")
    return base / "releases" / publish_world(WORLD, base / "releases", base / "parts").id


@pytest.fixture(scope="module")
def ranker(folder: Path) -> JointRanker:
    return JointRanker.load(folder)


def past(user: int = 2) -> list[str]:
    return histories(WORLD, user + 1, 40)[user]["item_ids"]  # type: ignore[return-value]


def by_hand(ranker: JointRanker, query: JointQuery) -> dict[str, float]:
    """log P(item) up to a constant, one item after the other."""
    inner, model = ranker.ranker, ranker.decision
    weights = model.full if query.planner else model.without_planner
    known = inner.positions(query.history)
    vector = inner.queries([known])[0].astype(np.float64)
    near = dict(zip(*(column.tolist() for column in inner.cooccurrence.bonus(known)), strict=True))
    profile = ranker.terms.profile(known)
    found: dict[str, float] = {}
    for cluster, offset in query.offsets.items():
        utilities = {}
        for at in range(*inner.slices[cluster]):
            if inner.items[at] in query.exclude:
                continue
            terms = {
                "ranker": float(inner.index.vectors[at] @ vector),
                "cooccurrence": near.get(at, 0.0),
                "text": float(ranker.terms.text[at] @ profile),
                **{name: float(ranker.terms.counts[at, place]) for place, name in enumerate(COUNTS)},
            }
            utilities[inner.items[at]] = sum(weight * terms[name] for name, weight in weights.items.items())
        inclusive = math.log(sum(map(math.exp, utilities.values()))) if utilities else 0.0
        for item, utility in utilities.items():
            found[item] = utility + offset + (weights.dissimilarity - 1) * inclusive
    return found


OFFSETS = {f"c{at}": math.sin(3 * at) for at in range(4, 20)}


@pytest.mark.parametrize("planner", [True, False])
def test_utilities_are_those_of_the_formula(ranker, planner):
    query = JointQuery(past(), OFFSETS, 40, exclude=["i5.3", "i6.0"], planner=planner)
    (answer,) = ranker.top_k([query])
    expected = by_hand(ranker, query)
    best = sorted(expected, key=lambda item: -expected[item])[:40]
    assert [item for item, _ in answer.best] == best
    assert [value for _, value in answer.best] == pytest.approx([expected[item] for item in best], abs=1e-4)


def test_best_items_of_a_cluster_new_or_not(ranker):
    query = JointQuery(past(), OFFSETS, 5, ["c5", "c21"], [4, 3], exclude=["i5.3"])
    (answer,) = ranker.top_k([query])
    expected = {item: value for item, value in by_hand(ranker, query).items() if item.startswith("i5.")}
    assert [item for item, _ in answer.clusters["c5"]] == sorted(expected, key=lambda item: -expected[item])[:4]
    alone = ranker.ranker.top_k([past()], [["c21"]], 3, [["i5.3"]])[0]
    assert [item for item, _ in answer.clusters["c21"]] == [item for item, _ in alone], "by the ranker's own score"


def test_visiting_by_bound_answers_as_scoring_all_does(folder, ranker, monkeypatch):
    monkeypatch.setattr(joint_ranker, "WHOLE", 0)
    visiting = JointRanker.load(folder)
    for dissimilarity in (0.0, 0.5, 1.0, 1.6):
        for one in (visiting, ranker):
            full = one.decision.full.model_copy(update={"dissimilarity": dissimilarity})
            one.decision = one.decision.model_copy(update={"full": full})
        for user in range(3):
            for k in (1, 64, 1000):
                query = JointQuery(past(user), {**OFFSETS, "c9": 6.0, "c4": -9.0}, k, exclude=past(user)[:3])
                (one,), (other,) = visiting.top_k([query]), ranker.top_k([query])
                assert [item for item, _ in one.best] == [item for item, _ in other.best]
                assert [v for _, v in one.best] == pytest.approx([v for _, v in other.best], abs=1e-5)


def test_few_nests_are_visited_where_one_is_far_better(folder, monkeypatch):
    monkeypatch.setattr(joint_ranker, "WHOLE", 0)
    visiting = JointRanker.load(folder)
    visited: list[int] = []
    inside = visiting._joint_of
    monkeypatch.setattr(
        visiting, "_joint_of", lambda part, offsets, nests: visited.extend(nests) or inside(part, offsets, nests)
    )
    visiting.top_k([JointQuery(past(), {**OFFSETS, "c9": 50.0}, 5)])
    assert 9 in visited and len(visited) <= joint_ranker.FIRST


def test_after_no_history_popularity_ranks(ranker):
    (answer,) = ranker.top_k([JointQuery([], OFFSETS, 10)])
    assert len(answer.best) == 10 and np.isfinite([value for _, value in answer.best]).all()


def test_unknown_clusters_and_parts_that_do_not_fit_are_refused(ranker, folder, tmp_path):
    with pytest.raises(VocabularyError, match="'nowhere'"):
        ranker.top_k([JointQuery([], {"nowhere": 0.0}, 1)])
    import shutil

    shutil.copytree(folder, tmp_path / "r")
    (tmp_path / "r" / "decision" / "items.safetensors").write_bytes(b"no tensors")
    with pytest.raises(DataError, match=r"items\.safetensors: cannot be read"):
        JointRanker.load(tmp_path / "r")
