"""The best of each cluster is what the index says of that cluster alone, ties and rounding included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newfound.grounding import best_of_each
from newfound.ranker.index import Bonus, ItemIndex


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    items=st.integers(1, 60),
    levels=st.integers(2, 5),
    data=st.data(),
)
def test_equals_the_index_cluster_by_cluster(seed, items, levels, data):
    rng = np.random.default_rng(seed)
    # Few distinct values: many ties, and products that round.
    vectors = rng.integers(-levels, levels + 1, size=(items, 8)).astype(np.float32) / 7
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    query = rng.normal(size=8).astype(np.float32)
    at = st.integers(0, items)
    spans = [tuple(sorted(span)) for span in data.draw(st.lists(st.tuples(at, at), min_size=1, max_size=5))]
    wanted = data.draw(st.lists(st.integers(0, 12), min_size=len(spans), max_size=len(spans)))
    exclude = rng.permutation(items)[: data.draw(at)].astype(np.int64)
    with_bonus = np.sort(rng.permutation(items)[: data.draw(at)]).astype(np.int64)
    bonus = Bonus(with_bonus, rng.integers(0, 3, size=len(with_bonus)).astype(np.float32))
    index = ItemIndex(vectors)
    found = best_of_each(index, query, spans, wanted, exclude, bonus)
    for span, k, (positions, scores) in zip(spans, wanted, found, strict=True):
        expected = index.top_k(query[None], [[span]], k, [exclude], [bonus])[0]
        assert positions.tolist() == expected.items.tolist()
        assert scores.tolist() == pytest.approx(expected.scores.tolist(), abs=0)
