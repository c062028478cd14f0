"""A hint counts for as much as hints have been worth."""

from __future__ import annotations

import numpy as np

from newfound.config import PlannerConfig
from newfound.planner.training.hints import fit_hint_boost, successors_of_others
from newfound.transitions.choice_model import Choices


def choices_of(contexts: list[tuple[int, int]], labels: list[int], n: int) -> Choices:
    known = np.zeros((len(labels), n), dtype=bool)
    for row, context in enumerate(contexts):
        known[row, list(context)] = True
    return Choices(np.array(contexts), np.array(labels), known)


def test_a_hint_is_what_others_chose_most_in_the_very_context() -> None:
    contexts = [(0, 1), (0, 1), (0, 1), (1, 0), (0, 1), (2, 3)]
    found = successors_of_others(choices_of(contexts, [4, 4, 5, 6, 5, 4], 7))
    assert found.tolist() == [5, 5, 4, -1, 4, -1]


def test_a_hint_counts_for_as_much_as_it_has_been_worth(planner_config: PlannerConfig) -> None:
    draw = np.random.default_rng(0)
    contexts = [tuple(draw.choice(10, 2, replace=False).tolist()) for _ in range(3000)]
    blind = [int(draw.integers(10, 16)) for _ in contexts]
    # What each very context leads to is more than what its two interests add up to.
    own = {context: int(draw.integers(10, 16)) for context in contexts}
    hinted = [own[context] if draw.random() < 0.4 else label for context, label in zip(contexts, blind, strict=True)]
    config = planner_config.finetune.model_copy(update={"teacher_penalty": 50.0})
    assert fit_hint_boost(choices_of(contexts, blind, 16), config, 0) < 0.2
    assert 0.8 < fit_hint_boost(choices_of(contexts, hinted, 16), config, 0) < 2
    alone = choices_of([(0, 1), (1, 2)], [3, 3], 4)
    assert fit_hint_boost(alone, config, 0) == 0
