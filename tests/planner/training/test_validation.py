"""The checkpoint is chosen by the measures that evaluation reports."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newfound.planner.training.validation import sample, validation_measures
from newfound.transitions.choice_model import Choices


def test_known_clusters_are_taken_out() -> None:
    known = np.array([[True, True, False, False], [True, False, False, True]])
    choices = Choices(np.array([[0, 1], [3, 0]]), np.array([3, 1]), known)
    scores = np.array([[9.0, 8.0, 1.0, 2.0], [9.0, 1.0, 2.0, 8.0]], dtype=np.float32)
    found = validation_measures(scores, choices)
    assert found["novel_recall@1"] == 0.5 and found["novel_recall@10"] == 1.0
    assert found["mrr"] == 0.75 and found["chance@1"] == 0.5 and found["chance@10"] == 1.0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), distinct=st.integers(1, 6))
def test_equal_scores_count_in_the_order_in_which_they_would_be_shown(seed: int, distinct: int) -> None:
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, distinct, (20, 15)).astype(np.float32)
    known = draw.random(scores.shape) < 0.4
    labels = draw.integers(0, 15, 20)
    known[np.arange(20), labels] = False
    shown = np.argsort(np.where(known, np.inf, -scores), axis=1, kind="stable")
    places = (shown == labels[:, None]).argmax(axis=1)
    found = validation_measures(scores, Choices(np.zeros((20, 2), np.int64), labels, known))
    assert found["novel_recall@1"] == np.mean(places == 0)
    assert found["novel_recall@10"] == np.mean(places < 10)
    assert found["mrr"] == pytest.approx(np.mean(1 / (places + 1)))


def test_a_model_that_answers_with_no_numbers_recalls_nothing() -> None:
    choices = Choices(np.zeros((3, 2), np.int64), np.array([1, 2, 3]), np.zeros((3, 5), dtype=bool))
    found = validation_measures(np.full((3, 5), np.nan, dtype=np.float32), choices)
    assert found["novel_recall@1"] == found["novel_recall@10"] == found["mrr"] == 0


def test_a_sample_keeps_the_order() -> None:
    rows = np.arange(30)
    choices = Choices(np.stack([rows, rows], axis=1), rows, np.zeros((30, 40), dtype=bool))
    some = sample(choices, 12, 5)
    assert len(some) == 12 and some.labels.tolist() == sorted(some.labels.tolist())
    assert some.labels.tolist() == sample(choices, 12, 5).labels.tolist() != sample(choices, 12, 6).labels.tolist()
