"""Language models behind one interface: the lean Llama where it fits, transformers for any other architecture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from newfound.compute.allocator import keep_freed_memory
from newfound.compute.precision import product_dtype
from newfound.planner.decoding import log_probs as head
from newfound.planner.decoding.llama import Cache, Llama, Packing

TOKENS = 64  # of a prompt and an answer, about: for the size of a cache


class Backbone(Protocol):
    """A causal language model that reads branching token sequences."""

    name: str

    @property
    def device(self) -> torch.device:
        """Where it computes; what it is given has to be there."""

    @property
    def cache_bytes(self) -> int:
        """Of a context of ordinary length, about."""

    def empty(self) -> Any:
        """A cache of one branch without tokens."""

    def extend(
        self,
        cache: Any,
        parents: Tensor,
        segments: Sequence[Sequence[int]],
        keep: bool = True,
        need_states: bool = True,
    ) -> tuple[Tensor, Any, Packing]:
        """Reads one more segment in each new branch; see `Llama.extend`. Without `need_states` they may be empty."""

    def logits(self, states: Tensor) -> Tensor:
        """[T, V] float32."""

    def token_log_probs(self, states: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
        """[Q] log p(token | state); `rows` are sorted."""

    def block_log_probs(self, states: Tensor, tokens: Tensor) -> Tensor:
        """[T, R] log p(token | state) of the same tokens for every state."""

    def likeliest(self, states: Tensor) -> Tensor:
        """[T] the most probable next tokens."""


class LeanBackbone:
    """The Llama family, computed by `newfound.planner.decoding.llama`."""

    name = "lean"

    def __init__(self, model: Llama) -> None:
        self.model = model

    @property
    def device(self) -> torch.device:
        return self.model.weights["embedding"].device

    @property
    def cache_bytes(self) -> int:
        shape = self.model.shape
        return TOKENS * 2 * 4 * shape.layers * shape.kv_heads * shape.head_dim

    def empty(self) -> Cache:
        return self.model.empty()

    def extend(
        self,
        cache: Cache,
        parents: Tensor,
        segments: Sequence[Sequence[int]],
        keep: bool = True,
        need_states: bool = True,
    ) -> tuple[Tensor, Cache | None, Packing]:
        return self.model.extend(cache, parents, segments, keep)

    def logits(self, states: Tensor) -> Tensor:
        return functional.linear(states, self.model.weights["head"]).float()

    def token_log_probs(self, states: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
        return head.token_log_probs(self.model.weights["head"], states, rows, tokens)

    def block_log_probs(self, states: Tensor, tokens: Tensor) -> Tensor:
        return head.block_log_probs(self.model.weights["head"], states, tokens)

    def likeliest(self, states: Tensor) -> Tensor:
        return head.likeliest(self.model.weights["head"], states)


class TransformersBackbone:
    """Any causal language model of transformers. Slower: a branch is its tokens, and each step reads them all again.

    Its states are the logits themselves, since architectures differ in what they do after the head.
    """

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
    def cache_bytes(self) -> int:
        return TOKENS // 8 * 4 * int(self.module.config.vocab_size)  # its states are logits, of what is new

    def empty(self) -> list[tuple[int, ...]]:
        return [()]

    def extend(
        self,
        cache: list[tuple[int, ...]],
        parents: Tensor,
        segments: Sequence[Sequence[int]],
        keep: bool = True,
        need_states: bool = True,
    ) -> tuple[Tensor, list[tuple[int, ...]], Packing]:
        packing = Packing(segments)
        branches = [cache[int(p)] + tuple(s) for p, s in zip(parents, segments, strict=True)]
        if not need_states:
            return torch.empty(len(packing.tokens), 0), branches, packing
        states = []
        for start in range(0, len(branches), self.rows):
            part = branches[start : start + self.rows]
            ids, mask = padded(part)
            logits = self.module(input_ids=ids, attention_mask=mask, use_cache=False).logits
            for row, branch in enumerate(part):
                new = len(segments[start + row])
                states.append(logits[row, len(branch) - new : len(branch)].float())
        return torch.cat(states), branches, packing

    def logits(self, states: Tensor) -> Tensor:
        return states

    def token_log_probs(self, states: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
        return states[rows, tokens] - states.logsumexp(-1)[rows]

    def block_log_probs(self, states: Tensor, tokens: Tensor) -> Tensor:
        return states[:, tokens] - states.logsumexp(-1, keepdim=True)

    def likeliest(self, states: Tensor) -> Tensor:
        return states.argmax(-1)


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


def end_token(folder: Path) -> int:
    """The id that ends an answer, from the model's generation settings or its configuration."""
    for name in ("generation_config.json", "config.json"):
        file = folder / name
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
            if found is not None:
                return int(found[0] if isinstance(found, list) else found)
    raise ValueError(f"{folder}: no eos_token_id in its configuration")
