"""Language models behind one interface: the lean Llama where it fits, transformers for any other architecture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from newfound.compute.allocator import keep_freed_memory
from newfound.compute.precision import product_dtype
from newfound.planner.decoding.llama import Cache, Llama, Packing
from newfound.planner.prompt import Tokens

BLOCK = 128  # states whose logits over the whole vocabulary are held at a time


class Backbone(Protocol):
    """A causal language model that reads branching token sequences."""

    name: str

    @property
    def device(self) -> torch.device:
        """The device that computes; inputs have to be there."""

    @property
    def head(self) -> Tensor:
        """[V, dim], the rows that states are multiplied with."""

    @property
    def embedding(self) -> Tensor:
        """[V, dim], the tokens' inputs."""

    def empty(self) -> Any:
        """A cache of one branch without tokens."""

    def extend(
        self, cache: Any, parents: Tensor, segments: Sequence[Sequence[int]], keep: bool = True
    ) -> tuple[Tensor, Any, Packing]:
        """Reads one more segment in each new branch; see `Llama.extend`."""


class LeanBackbone:
    """The Llama family, computed by `newfound.planner.decoding.llama`."""

    name = "lean"

    def __init__(self, model: Llama) -> None:
        self.model = model

    @property
    def device(self) -> torch.device:
        return self.model.weights["embedding"].device

    @property
    def head(self) -> Tensor:
        return self.model.weights["head"]

    @property
    def embedding(self) -> Tensor:
        return self.model.weights["embedding"]

    def empty(self) -> Cache:
        return self.model.empty()

    def extend(
        self, cache: Cache, parents: Tensor, segments: Sequence[Sequence[int]], keep: bool = True
    ) -> tuple[Tensor, Cache | None, Packing]:
        return self.model.extend(cache, parents, segments, keep)


class TransformersBackbone:
    """Any causal language model of transformers. Slower: a branch is its tokens, and each step reads them all again."""

    name = "transformers"
    rows = 64  # sequences read at once

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        from transformers import AutoModelForCausalLM

        found = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype)
        self.module = found.to(torch.get_default_device()).eval()

    @property
    def device(self) -> torch.device:
        found: torch.device = self.module.device
        return found

    @property
    def head(self) -> Tensor:
        weight: Tensor = self.module.get_output_embeddings().weight
        return weight.detach()

    @property
    def embedding(self) -> Tensor:
        weight: Tensor = self.module.get_input_embeddings().weight
        return weight.detach()

    def empty(self) -> list[tuple[int, ...]]:
        return [()]

    def extend(
        self, cache: list[tuple[int, ...]], parents: Tensor, segments: Sequence[Sequence[int]], keep: bool = True
    ) -> tuple[Tensor, list[tuple[int, ...]], Packing]:
        packing = Packing(segments)
        branches = [cache[int(p)] + tuple(s) for p, s in zip(parents, segments, strict=True)]
        if keep:  # a branch is its tokens, so nothing is read before its end
            return torch.empty(len(packing.tokens), 0), branches, packing
        states = []
        for start in range(0, len(branches), self.rows):
            part = branches[start : start + self.rows]
            ids, mask = padded(part)
            found = self.module.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            for row, branch in enumerate(part):
                states.append(found[row, len(branch) - len(segments[start + row]) : len(branch)])
        return torch.cat(states), branches, packing


@torch.inference_mode()
def read_prompts(backbone: Backbone, prompts: Sequence[Sequence[Tokens]]) -> Tensor:
    """Reads prompts segment by segment, each distinct beginning once.

    Args:
        backbone: the language model.
        prompts: B of them, in equally many segments.

    Returns:
        [B, dim] float32, the states after the last tokens.
    """
    depth = len(prompts[0])
    with backbone.device:
        cache = backbone.empty()
        index: dict[tuple[Tokens, ...], int] = {(): 0}
        for level in range(1, depth):
            starts = list(dict.fromkeys(tuple(prompt[:level]) for prompt in prompts))
            parents = torch.tensor([index[start[:-1]] for start in starts])
            _, cache, _ = backbone.extend(cache, parents, [start[-1] for start in starts])
            index = {start: place for place, start in enumerate(starts)}
        parents = torch.tensor([index[tuple(prompt[:-1])] for prompt in prompts])
        states, _, packing = backbone.extend(cache, parents, [prompt[-1] for prompt in prompts], keep=False)
        return states[packing.last].float().cpu()


@torch.inference_mode()
def likeliest(head: Tensor, states: Tensor) -> Tensor:
    """[B] the most probable next tokens, of the whole vocabulary.

    Args:
        head: [V, dim].
        states: [B, dim].
    """
    rows = head.float()
    return torch.cat([(part.to(rows.device) @ rows.T).argmax(-1).cpu() for part in torch.split(states, BLOCK)])


def padded(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Right-padded ids and their mask, [B, L] each; padding is told apart by length, never by its id."""
    longest = max(len(s) for s in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask = torch.zeros(len(sequences), longest, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return ids, mask


def load_backbone(folder: Path, precision: str, lean: bool = True) -> Backbone:
    """Reads a Hugging Face model folder.

    Args:
        precision: see `product_dtype`.
        lean: whether the lean decoder may be used; False compares against transformers.
    """
    keep_freed_memory()
    dtype = product_dtype(precision)
    if lean:
        model = Llama.load(folder, dtype)
        if model is not None:
            return LeanBackbone(model)
    return TransformersBackbone(folder, dtype)
