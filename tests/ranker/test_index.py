"""The index: equal to scoring everything and masking, whatever the spans, exclusions and ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newfound.ranker.index import Bonus, ItemIndex, disjoint

SIZE, DIM = 60, 5


def _by_masking(
    index: ItemIndex, query: np.ndarray, spans: list[tuple[int, int]], k: int, out: np.ndarray, bonus: Bonus
) -> list[tuple[int, float]]:
    everything = index.scores(query, np.arange(len(index)), bonus)
    allowed = {item for start, stop in spans for item in range(start, stop)} - set(out.tolist())
    ranked = sorted(allowed, key=lambda item: (-everything[item], item))
    return [(item, float(everything[item])) for item in ranked[:k]]


@st.composite
def requests(draw: st.DrawFn) -> dict[str, object]:
    # Few distinct values make exact ties frequent, the noise near-ties.
    seed = draw(st.integers(0, 1000))
    random = np.random.default_rng(seed)
    kinds = random.integers(-1, 2, (draw(st.integers(1, 6)), DIM))
    vectors = kinds[random.integers(0, len(kinds), SIZE)].astype(np.float32)
    vectors += draw(st.sampled_from([0.0, 1e-7, 0.3])) * random.standard_normal((SIZE, DIM)).astype(np.float32)
    count = draw(st.integers(1, 4))
    ends = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(lambda pair: (min(pair), max(pair)))
    bonus_items = np.flatnonzero(random.random(SIZE) < 0.3)
    return {
        "vectors": np.ascontiguousarray(vectors),
        "queries": random.integers(-2, 3, (count, DIM)).astype(np.float32)
        * np.float32(draw(st.sampled_from([1, 0.1]))),
        "spans": draw(st.lists(st.lists(ends, max_size=4), min_size=count, max_size=count)),
        "k": draw(st.integers(0, 70)),
        "exclude": [np.flatnonzero(random.random(SIZE) < draw(st.sampled_from([0, 0.3, 1]))) for _ in range(count)],
        "bonus": [Bonus(bonus_items, random.integers(0, 3, len(bonus_items)).astype(np.float32))] * count,
    }


@settings(deadline=None, max_examples=200)
@given(requests())
def test_equal_to_scoring_everything_and_masking(request: dict) -> None:
    index = ItemIndex(request["vectors"], longest=float(np.linalg.norm(request["vectors"], axis=1).max()))
    found = index.top_k(request["queries"], request["spans"], request["k"], request["exclude"], request["bonus"])
    for row, best in enumerate(found):
        expected = _by_masking(
            index,
            request["queries"][row],
            request["spans"][row],
            request["k"],
            request["exclude"][row],
            request["bonus"][row],
        )
        assert list(zip(best.items.tolist(), best.scores.tolist(), strict=True)) == expected


@settings(deadline=None, max_examples=200)
@given(requests(), st.data())
def test_the_best_of_each_span_are_those_of_the_span_alone(request: dict, data: st.DataObject) -> None:
    index = ItemIndex(request["vectors"], longest=float(np.linalg.norm(request["vectors"], axis=1).max()))
    for row, spans in enumerate(request["spans"]):
        wanted = data.draw(st.lists(st.integers(0, 12), min_size=len(spans), max_size=len(spans)))
        query, exclude, bonus = (request[name][row] for name in ("queries", "exclude", "bonus"))
        found = index.top_k_per_span(query, spans, wanted, exclude, bonus)
        assert len(found) == len(spans)
        for span, k, best in zip(spans, wanted, found, strict=True):
            (alone,) = index.top_k(query[None], [[span]], k, [exclude], [bonus])
            assert best.items.tolist() == alone.items.tolist()
            assert best.scores.tolist() == alone.scores.tolist()


def test_ties_at_the_edge_go_to_the_lower_position_in_a_large_slice() -> None:
    # Long vectors, all alike: kernels may add the rows at the end of a slice in another order than the others.
    random = np.random.default_rng(0)
    vectors = np.ascontiguousarray(np.tile(random.standard_normal(67).astype(np.float32), (4099, 1)))
    index = ItemIndex(vectors, longest=float(np.linalg.norm(vectors[0])))
    (best,) = index.top_k(random.standard_normal((1, 67)).astype(np.float32), [[(1000, 4099), (3, 500)]], 5)
    assert best.items.tolist() == [3, 4, 5, 6, 7]


def test_requests_of_a_batch_do_not_touch_each_other() -> None:
    random = np.random.default_rng(1)
    index = ItemIndex(random.standard_normal((50, 8)).astype(np.float32), longest=10.0)
    queries = random.standard_normal((3, 8)).astype(np.float32)
    spans = [[(0, 10)], [], [(5, 50), (0, 6)]]
    together = index.top_k(queries, spans, 7)
    assert [len(best.items) for best in together] == [7, 0, 7]
    for row in range(3):
        (alone,) = index.top_k(queries[row : row + 1], spans[row : row + 1], 7)
        assert alone.items.tolist() == together[row].items.tolist()


@pytest.mark.parametrize("span", [(-1, 3), (4, 3), (2, 9)])
def test_spans_outside_the_catalogue_are_refused(span: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="span"):
        disjoint([span], 8)


def test_a_negative_k_is_refused() -> None:
    with pytest.raises(ValueError, match="k is -1"):
        ItemIndex(np.zeros((2, 2), dtype=np.float32)).top_k(np.zeros((1, 2), dtype=np.float32), [[(0, 2)]], -1)
