"""The planner's rows fitted to recent choices, for a refresh: the states stay, so nothing is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np
import torch

from newfound.errors import DataError
from newfound.planner.planner import Planner, closed_log_probs
from newfound.planner.training.finetune import RECORD
from newfound.planner.training.head_fit import HeadData, HeadFit
from newfound.planner.training.training_set import OBSERVED
from newfound.transitions.artifact import Transitions

PRIOR: Final = 30.0  # recent choices that the planner's own distribution counts for in every context


def fit_recent(planner: Planner, folder: Path, transitions: Transitions, recent: float) -> None:
    """Fits the planner's rows, in memory, to its own distributions mixed with everybody's recent choices.

    Args:
        planner: with the states of contexts.
        folder: the planner's, for the penalty of its fit.
        transitions: mined from everybody's events.
        recent: share of the transitions, the latest, that count.

    Raises:
        DataError: the planner has no states.
    """
    if planner.states is None or not len(planner.states):
        raise DataError(str(folder), "no states of contexts", expected="a planner that was fine-tuned here")
    states = torch.from_numpy(np.array(planner.states.values))
    contexts = planner.states.contexts
    places = [tuple(context) for context in contexts.tolist()]
    own = torch.from_numpy(np.exp(closed_log_probs(states.numpy() @ planner.rows.T, places)))
    counts = torch.zeros_like(own)
    chosen, labels, times = transitions.recent_pairs(recent)
    rows = planner.states.rows([tuple(context) for context in chosen.tolist()])
    held = rows >= 0
    counts[torch.from_numpy(rows[held]), torch.from_numpy(labels[held])] = torch.from_numpy(times[held]).float()
    made = counts.sum(1, keepdim=True)
    data = HeadData(
        states=states,
        targets=(PRIOR * own + counts) / (PRIOR + made),
        weights=1 + OBSERVED * made[:, 0],
        excluded=torch.zeros(own.shape, dtype=torch.bool).scatter(1, torch.from_numpy(contexts), True),
    )
    penalty = float(json.loads((folder / RECORD).read_text(encoding="utf-8"))["penalty"])
    planner.rows = HeadFit(states, len(planner)).fit(data, penalty).numpy()
