"""The language planner of the closed loop: a bilinear head on a language model's states of the descriptions.

Fine-tuning the whole model for every world would take hours. The descriptions are the same in all worlds, so they are
read once, and for each world a head learns, once, from the older system's log which description follows which two. It
knows interests by what the model makes of their words alone: what it learns of one pair holds for all that read alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from newfound.simulation.journal import Journal
from newfound.types import Bools, Floats

DIRECTIONS: Final = 20
PENALTY: Final = 0.3
STEPS: Final = 150


def read_descriptions(descriptions: Sequence[str], folder: Path) -> Floats:
    """The packaged language model's states after each description, [C, dim].

    Args:
        folder: where the unpacked model is kept.
    """
    import torch

    from newfound.planner.base_model import base_model
    from newfound.planner.decoding.backbone import load_backbone
    from newfound.planner.prompt import load_tokenizer

    model = base_model(None, folder)
    backbone, tokenizer = load_backbone(model, "float32"), load_tokenizer(model)
    found = []
    with torch.inference_mode():
        for description in descriptions:
            tokens = tokenizer.encode(f"A person's interest: {description};").ids
            states, _, _ = backbone.extend(backbone.empty(), torch.zeros(1, dtype=torch.long), [tokens], keep=False)
            found.append(states.float().mean(dim=0).numpy())
    return np.stack(found)


def word_vectors(descriptions: Sequence[str]) -> Floats:
    """Parts of each description, [C, parts]: what a reader without any language model could know."""
    parts = sorted({part for text in descriptions for part in text.split(", ")})
    return np.array([[float(part in text.split(", ")) for part in parts] for text in descriptions], dtype=np.float32)


def whitened(states: Floats, directions: int = DIRECTIONS) -> Floats:
    """Centred states along their main directions, each of spread 1, [C, directions]."""
    centred = states.astype(np.float64) - states.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    count = min(directions, int((values > 1e-6 * values[0]).sum()))
    found: Floats = (left[:, :count] * np.sqrt(len(states))).astype(np.float32)
    return found


def fit_language_planner(journal: Journal, states: Floats, learners: Bools, seed: int) -> Floats:
    """Log-probabilities of the next interest for every pair, [C, C, C]: older, newer, next.

    A multinomial logit among the interests that were new to the person: utility of c after (a, b) is
    bias_c + e_a' A e_c + e_b' B e_c, e being the whitened states.

    Args:
        journal: of the older system.
        states: [C, dim].
        learners: [U], whose choices count.
        seed: of the optimisation's start.
    """
    import torch

    torch.manual_seed(seed)
    choices = journal.choices()
    rows = np.flatnonzero(learners[choices.users] & (choices.recent[:, 1] >= 0))
    contexts = torch.from_numpy(choices.recent[rows][:, [1, 0]])
    labels = torch.from_numpy(journal.cluster_of[choices.items[rows]])
    known = torch.from_numpy(choices.known[rows])
    e = torch.from_numpy(whitened(states))
    ties = torch.zeros(2, e.shape[1], e.shape[1], requires_grad=True)
    bias = torch.zeros(len(e), requires_grad=True)
    optimizer = torch.optim.Adam([ties, bias], lr=0.03)
    for _ in range(STEPS):
        pulls = torch.stack([e @ ties[0] @ e.T, e @ ties[1] @ e.T])
        utility = (bias + pulls[0][contexts[:, 0]] + pulls[1][contexts[:, 1]]).masked_fill(known, -1e9)
        loss = torch.nn.functional.cross_entropy(utility, labels)
        loss = loss + PENALTY * ties.square().sum() * len(e) / max(len(rows), 1)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    with torch.inference_mode():
        pulls = torch.stack([e @ ties[0] @ e.T, e @ ties[1] @ e.T])
        table: Floats = (bias + pulls[0][:, None] + pulls[1][None]).log_softmax(dim=-1).numpy()
    return table
