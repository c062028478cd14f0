"""States of the language model that the head's rows are fitted to, with the tokens that should follow them.

Under torchrun each process reads its share of the blocks; all of them get all states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from newfound.compute.distributed import add_up, rank, size
from newfound.planner.decoding.backbone import Backbone
from newfound.planner.decoding.search import CONTEXTS, Work, read_prompts
from newfound.planner.prompt import Tokens
from newfound.planner.training.examples import Examples
from newfound.types import Ints

ANSWERS_PER_CONTEXT = 0.25
ANSWERS_AT_LEAST = 256  # of all blocks together


@dataclass(frozen=True)
class Block:
    """Prompts that are read together, and the answers that are read on after some of them.

    Args:
        rows: [B] contexts of the training set.
        hints: [B] of their prompts, or `NO_HINT`.
        parents: [A] the prompt, by its place in the block, that each answer comes after.
        answers: A descriptions as tokens.
    """

    rows: Ints
    hints: Ints
    parents: Ints
    answers: list[Tokens]

    def __len__(self) -> int:
        """States: one a prompt, and one a token of an answer."""
        return len(self.rows) + sum(map(len, self.answers))


class HeadStates:
    """Draws blocks of examples and reads their states.

    Shapes: M states of all blocks, R distinct tokens that answers are made of.

    Args:
        backbone: the language model.
        examples: what the blocks are drawn from.
        dim: of a state.
        seed: of the draws.
    """

    def __init__(self, backbone: Backbone, examples: Examples, dim: int, seed: int) -> None:
        self.backbone, self.examples, self.dim, self.seed = backbone, examples, dim, seed

    def draw_blocks(self, contexts: int, every_description: bool) -> list[Block]:
        """Blocks of so many contexts at most.

        Args:
            every_description: reads every description at least once. Chance passes some by where there are many, and
                rows that no state has seen would never be said.
        """
        data, rng = self.examples.data, np.random.default_rng([self.seed, 2])
        count = min(max(contexts, 1), len(data))
        share = data.weights.astype(np.float64)
        drawn = np.sort(rng.choice(len(data), count, replace=False, p=share / share.sum()))
        drawn = drawn[np.lexsort(data.contexts[drawn].T[::-1])]
        each = max(ANSWERS_PER_CONTEXT, ANSWERS_AT_LEAST / count)
        unread = set(range(len(self.examples.codec)))
        blocks = [
            self._draw_block(drawn[start : start + CONTEXTS], each, rng, unread) for start in range(0, count, CONTEXTS)
        ]
        if every_description:
            left = rng.permutation(sorted(unread)).astype(np.int64)
            blocks = [self._with_answers(block, left[at :: len(blocks)], rng) for at, block in enumerate(blocks)]
        return blocks

    def _draw_block(self, rows: Ints, each: float, rng: np.random.Generator, unread: set[int]) -> Block:
        """A block with `each` answers a context; those are taken out of `unread`."""
        parents = np.resize(rng.permutation(len(rows)), max(1, round(len(rows) * each)))
        hints = self.examples.draw_hints(rows, rng)
        labels = [self.examples.draw_answer(row) for row in rows[parents]]
        unread.difference_update(labels)
        return Block(rows, hints, parents, [self.examples.codec.answers[label] for label in labels])

    def _with_answers(self, block: Block, labels: Ints, rng: np.random.Generator) -> Block:
        """The block with more answers, each after a prompt to which it is new; without those that are new to none."""
        parents, answers = block.parents.tolist(), list(block.answers)
        for label in labels.tolist():
            places = np.flatnonzero(self.examples.data.targets[block.rows, label])
            if len(places):
                parents.append(int(rng.choice(places)))
                answers.append(self.examples.codec.answers[label])
        return replace(block, parents=np.array(parents, dtype=np.int64), answers=answers)

    def read(self, blocks: Sequence[Block]) -> Tensor:
        """[M, dim] states after the prompts, then within the answers, block by block."""
        states = torch.zeros(sum(map(len, blocks)), self.dim)
        parts = torch.split(states, [len(block) for block in blocks])
        for at in range(rank(), len(blocks), size()):
            parts[at].copy_(self.read_block(blocks[at]))
        add_up(states)
        return states

    def read_block(self, block: Block) -> Tensor:
        """[B + T, dim] the states of one block."""
        prompts = self.examples.prompts(block.rows, block.hints)
        after, cache = read_prompts(self.backbone, prompts, Work())
        within, _, _ = self.backbone.extend(cache, torch.as_tensor(block.parents), block.answers, keep=False)
        return torch.cat([after, within])

    def targets(self, blocks: Sequence[Block]) -> Tensor:
        """[M, R] probabilities of the tokens that follow the states."""
        return torch.cat([self._targets(block) for block in blocks])

    def _targets(self, block: Block) -> Tensor:
        first = self.examples.first_token_targets(block.rows, block.hints)
        following = self.examples.next_tokens(block.answers)[:, None] == self.examples.answer_tokens
        return torch.cat([first, following.float()])
