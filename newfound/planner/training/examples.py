"""Examples of a training set as tokens: prompts with drawn hints, drawn answers, and probabilities of next tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from newfound.planner.prompt import PromptCodec, Tokens
from newfound.planner.training.training_set import NO_HINT, TrainingSet
from newfound.types import Ints


class Examples:
    """Draws examples for contexts of a training set.

    Shapes: B contexts of a batch, T tokens of answers, R distinct tokens that answers are made of.

    Args:
        data: the training set.
        codec: the prompt.
        hint_share: share of the prompts that have a hint.
        seed: of the drawn answers, and of a step's hints.

    Attributes:
        answer_tokens: [R], see `answer_tokens`.
        rng: whose state a saved training run keeps.
    """

    def __init__(self, data: TrainingSet, codec: PromptCodec, hint_share: float, seed: int) -> None:
        self.data, self.codec, self.hint_share = data, codec, hint_share
        self.rng = np.random.default_rng([seed, 1])
        self.answer_tokens = answer_tokens(codec)
        place = torch.searchsorted(self.answer_tokens, torch.tensor([answer[0] for answer in codec.answers]))
        self._first_token = torch.eye(len(self.answer_tokens))[place]  # [N, R]

    def draw_answer(self, row: int) -> int:
        """The cluster whose description is read on after a context."""
        return self.data.draw_successor(row, self.rng)

    def draw_hints(self, rows: Ints, rng: np.random.Generator) -> Ints:
        """[B] the cluster that each prompt has as its hint, or `NO_HINT`."""
        if self.data.hint_boost is None:
            return np.full(len(rows), NO_HINT, dtype=np.int64)
        drawn = [self.data.draw_successor(row, rng) if rng.random() < self.hint_share else NO_HINT for row in rows]
        return np.array(drawn, dtype=np.int64)

    def prompts(self, rows: Ints, hints: Ints) -> list[list[Tokens]]:
        """The prompts of B contexts, as segments."""
        contexts = self.data.contexts[rows].tolist()
        return [
            self.codec.segments(tuple(context), None if hint == NO_HINT else hint)
            for context, hint in zip(contexts, hints.tolist(), strict=True)
        ]

    def first_token_targets(self, rows: Ints, hints: Ints) -> Tensor:
        """[B, R] probabilities of an answer's first token."""
        return torch.as_tensor(self.data.hinted_targets(rows, hints)) @ self._first_token

    def next_tokens(self, answers: Sequence[Tokens]) -> Tensor:
        """[T] the token after each one of the answers."""
        return torch.tensor([token for answer in answers for token in (*answer[1:], self.codec.end)])


def answer_tokens(codec: PromptCodec) -> Tensor:
    """[R] the distinct tokens that answers are made of, their end included, sorted."""
    return torch.tensor(sorted({codec.end, *(token for answer in codec.answers for token in answer)}))
