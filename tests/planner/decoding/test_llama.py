"""Branches that share a beginning read what each would have read alone."""

from __future__ import annotations

import torch

from newfound.planner.decoding.llama import Shape
from tests.planner.tiny_planner import tiny_backbone, tiny_config


def test_ragged_branches_equal_whole_sequences() -> None:
    for seed in (0, 1):
        model = tiny_backbone(seed).model
        begin, seconds, thirds = [[5, 6, 7]], [[8], [9, 10, 11], [12, 4]], [[3, 4], [5], [6, 7, 8], [9]]
        parents = [0, 1, 1, 2]
        with torch.inference_mode():
            _, cache, _ = model.extend(model.empty(), torch.tensor([0]), begin)
            _, cache, _ = model.extend(cache, torch.tensor([0, 0, 0]), seconds)
            states, none, packing = model.extend(cache, torch.tensor(parents), thirds, keep=False)
            assert none is None
            for branch, (parent, third) in enumerate(zip(parents, thirds, strict=True)):
                whole = [*begin[0], *seconds[parent], *third]
                alone, _, _ = model.extend(model.empty(), torch.tensor([0]), [whole], keep=False)
                end = int(packing.last[branch]) + 1
                torch.testing.assert_close(states[end - len(third) : end], alone[-len(third) :], atol=1e-4, rtol=1e-4)


def test_another_architecture_is_none_of_ours() -> None:
    for change in ({"model_type": "gpt2"}, {"attention_bias": True}, {"rope_parameters": {"rope_type": "yarn"}}):
        assert Shape.from_config({**tiny_config(0), **change}) is None
