"""The search is exact: it finds what scoring every description in full finds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newfound.planner.decoding.backbone import LeanBackbone
from newfound.planner.decoding.search import ExactDecoder
from newfound.planner.decoding.trie import Trie
from tests.planner.tiny_planner import tiny_backbone

END = 2


def exhaustive(backbone: LeanBackbone, prompt: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> np.ndarray:
    """log p(answer, end | prompt), each sequence read whole and on its own."""
    head = backbone.model.weights["head"].float()
    start = [t for segment in prompt for t in segment]
    out = []
    with torch.inference_mode():
        for answer in answers:
            tokens = [*start, *answer]
            states, _, _ = backbone.extend(backbone.empty(), torch.tensor([0]), [tokens], False)
            logp = (states.float() @ head.T).log_softmax(-1)
            places = range(len(start) - 1, len(tokens))
            out.append(sum(float(logp[i, t]) for i, t in zip(places, [*answer, END], strict=True)))
    return np.array(out)


tokens = st.integers(min_value=3, max_value=8)  # few tokens, so that descriptions share beginnings
sequences = st.lists(st.lists(tokens, min_size=1, max_size=4).map(tuple), min_size=2, max_size=12, unique=True)
prompts = st.lists(
    st.tuples(st.just((9, 10, 11)), *[st.lists(st.integers(3, 39), min_size=1, max_size=3).map(tuple)] * 2).map(list),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 20),
    sharpness=st.sampled_from([0.5, 3.0, 8.0]),
    answers=sequences,
    asked=prompts,
    data=st.data(),
)
def test_top_k_equals_exhaustive_scoring(
    seed: int,
    sharpness: float,
    answers: list[tuple[int, ...]],
    asked: list[list[tuple[int, ...]]],
    data: st.DataObject,
) -> None:
    backbone = tiny_backbone(seed, sharpness)
    k = data.draw(st.integers(1, len(answers)))
    masked = data.draw(st.booleans())
    allowed = None
    if masked:
        rows = st.lists(st.booleans(), min_size=len(answers), max_size=len(answers))
        allowed = np.array(data.draw(st.lists(rows, min_size=len(asked), max_size=len(asked))), dtype=bool)
    decoded = ExactDecoder(backbone, Trie(answers), END).decode(asked, k, allowed)
    best, values = decoded.top(k)
    for row, prompt in enumerate(asked):
        truth = exhaustive(backbone, prompt, answers)
        if allowed is not None:
            truth = np.where(allowed[row], truth, -np.inf)
        order = np.argsort(-truth, kind="stable")[:k]
        expected = truth[order]
        found = np.isfinite(expected)
        assert (best[row] >= 0).tolist() == found.tolist()
        np.testing.assert_allclose(values[row][found], expected[found], atol=2e-3, rtol=1e-4)
        for place in np.flatnonzero(found):  # the same clusters, except where values tie within rounding
            assert truth[best[row, place]] == pytest.approx(expected[place], abs=2e-3, rel=1e-4)
        assert decoded.exact[row][best[row][found]].all()
        # Whatever was not read in full has a bound that holds.
        rest = np.isfinite(truth) & ~decoded.exact[row]
        assert (decoded.scores[row][rest] >= truth[rest] - 2e-3).all()
        assert (values[row] <= 1e-5).all()


def test_a_description_that_is_a_prefix_of_another_is_told_apart() -> None:
    answers = [(5,), (5, 6), (5, 6, 7), (8,)]
    backbone = tiny_backbone(1)
    prompt = [(9, 10), (4, 3), (6, 3)]
    decoded = ExactDecoder(backbone, Trie(answers), END).decode([prompt], 4)
    np.testing.assert_allclose(decoded.scores[0], exhaustive(backbone, prompt, answers), atol=1e-3)
    assert decoded.exact.all()


def test_pooling_along_the_trie_is_not_what_is_computed() -> None:
    """Greedy decoding picks the likelier first token even when no single description below it is the best."""
    answers = [(5, a, b) for a in range(3, 9) for b in range(3, 9)] + [(6, a) for a in range(3, 9)]
    differ = 0
    for seed in range(12):
        backbone = tiny_backbone(seed, 0.5)  # unsure, as before training
        prompt = [(9, 10), (4, 3), (seed + 3, 3)]
        best = int(ExactDecoder(backbone, Trie(answers), END).decode([prompt], 1).top(1)[0][0, 0])
        truth = exhaustive(backbone, prompt, answers)
        assert truth[best] == pytest.approx(truth.max(), abs=1e-3)
        total: dict[int, float] = {}
        for answer, score in zip(answers, truth, strict=True):
            total[answer[0]] = total.get(answer[0], 0.0) + float(np.exp(score))
        differ += max(total, key=lambda t: total[t]) != answers[best][0]
    assert differ > 0


def test_only_what_may_be_among_the_best_is_read() -> None:
    answers = [(first, 9, 9, 9) for first in range(3, 33)]
    decoder = ExactDecoder(tiny_backbone(3), Trie(answers), END)
    prompt = [(9, 10), (4, 3), (6, 3)]
    decoder.decode([prompt], 0)
    assert decoder.work.answer_tokens == 0
    allowed = np.zeros((1, len(answers)), dtype=bool)
    allowed[0, [4, 17]] = True
    best, _ = decoder.decode([prompt], 3, allowed).top(3)
    assert sorted(best[0].tolist()) == [-1, 4, 17]
    assert decoder.work.answer_tokens == 8


def test_shared_beginnings_are_read_once() -> None:
    decoder = ExactDecoder(tiny_backbone(3), Trie([(5, 6), (7,)]), END)
    decoder.decode([[(9, 10, 11), (4, a), (b, 3)] for a in (3, 4) for b in (5, 6, 7)], 0)
    assert decoder.work.prompt_tokens == 3 + 2 * 2 + 6 * 2


def test_results_do_not_depend_on_order_or_company() -> None:
    answers = [(5, 6), (5, 7, 3), (7,), (8, 3, 3, 3)]
    decoder = ExactDecoder(tiny_backbone(2), Trie(answers), END)
    asked = [[(9, 10, 11), (4, a), (b, 3, *([5] * (b % 3)))] for a in (3, 4) for b in (5, 6, 7)]
    together = decoder.decode(asked, 2)
    for row in (5, 0, 3):
        alone = decoder.decode([asked[row]], 2)
        np.testing.assert_array_equal(alone.top(2)[0][0], together.top(2)[0][row])
        np.testing.assert_allclose(alone.top(2)[1][0], together.top(2)[1][row], atol=1e-4)


def test_batches_side_by_side_give_the_same() -> None:
    answers = [(3,), (3, 4), (4, 5, 6), (5,), (6, 7)]
    asked = [[(9, 10, 11), (3 + a, 7), (5, 3 + b)] for a in range(6) for b in range(6)]
    alone = ExactDecoder(tiny_backbone(1), Trie(answers), END)
    shared = ExactDecoder(tiny_backbone(1), Trie(answers), END)
    alone.contexts = shared.contexts = 5
    before = torch.get_num_threads()
    one = alone.decode(asked, 2)
    torch.set_num_threads(2)
    try:
        other = shared.decode(asked, 2)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(one.exact, other.exact)
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-5)
    assert alone.work == shared.work and alone.work.contexts == 36


def test_an_empty_vocabulary_and_equal_descriptions_are_refused() -> None:
    for bad in ([], [()], [(1, 2), (1, 2)]):
        with pytest.raises(ValueError):
            Trie(bad)
