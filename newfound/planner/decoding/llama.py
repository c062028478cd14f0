"""A lean Llama-family decoder whose key-value cache branches: many continuations share one prefix.

Differs from the usual implementation where bulk decoding on a CPU spends its time: projections are fused, the norms'
gains are folded into the matrices that follow them, tokens of ragged segments are packed without padding (attention
alone sees a padded view), attention and residuals are float32 around bfloat16 matrix products.

Shapes: T packed tokens, E branches, L longest new segment, C cached tokens (padded), H query heads, G key-value heads,
R = H / G, d head dimension.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from newfound.errors import DataError

LAYER_PARTS = ("qkv", "out", "gate_up", "down")


@dataclass(frozen=True)
class Shape:
    """Dimensions and constants of the architecture, from a Hugging Face `config.json`."""

    layers: int
    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    eps: float
    theta: float

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Shape | None:
        """None where the architecture is not the plain Llama that this module computes."""
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        plain = (
            config.get("model_type") == "llama"
            and kind == "default"
            and config.get("hidden_act", "silu") == "silu"
            and not config.get("attention_bias")
            and not config.get("mlp_bias")
        )
        if not plain:
            return None
        heads, dim = config["num_attention_heads"], config["hidden_size"]
        return cls(
            layers=config["num_hidden_layers"],
            dim=dim,
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or dim // heads,
            hidden=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            eps=config["rms_norm_eps"],
            theta=rope.get("rope_theta") or config.get("rope_theta", 10000.0),
        )


@dataclass(frozen=True)
class Cache:
    """Keys and values of E branches, one pair of tensors a layer.

    Args:
        keys: per layer [E, G, C, d] float32.
        values: per layer [E, G, C, d] float32.
        valid: [E, C], False where padded.
        positions: [E], the number of tokens so far.
    """

    keys: list[Tensor]
    values: list[Tensor]
    valid: Tensor
    positions: Tensor

    def __len__(self) -> int:
        return len(self.positions)


class Packing:
    """Ragged segments as one run of tokens, and the way to a padded view and back."""

    def __init__(self, segments: Sequence[Sequence[int]]) -> None:
        lengths = torch.tensor([len(s) for s in segments])
        self.lengths = lengths
        self.longest = int(lengths.max())
        self.tokens = torch.tensor([t for s in segments for t in s])  # [T]
        self.branch = torch.repeat_interleave(torch.arange(len(segments)), lengths)  # [T]
        self.starts = lengths.cumsum(0) - lengths
        self.offset = torch.arange(len(self.tokens)) - self.starts[self.branch]  # [T], place within the segment
        place = torch.arange(self.longest)
        self.valid = place[None] < lengths[:, None]  # [E, L]
        self.padded = (self.starts[:, None] + place[None]).clamp(max=len(self.tokens) - 1)  # [E, L]
        self.flat = self.branch * self.longest + self.offset  # [T], into [E * L]
        self.last = self.starts + lengths - 1  # [E], each segment's last token
        self.uniform = bool((lengths == self.longest).all())

    def pad(self, x: Tensor) -> Tensor:
        """[T, ...] -> [E, L, ...]; padded places hold some other token's values."""
        if self.uniform:
            return x.view(len(self.lengths), self.longest, *x.shape[1:])
        return x.index_select(0, self.padded.flatten()).view(*self.padded.shape, *x.shape[1:])

    def pack(self, x: Tensor) -> Tensor:
        """[E, L, ...] -> [T, ...]."""
        flat = x.reshape(-1, *x.shape[2:])
        return flat if self.uniform else flat.index_select(0, self.flat)


class Llama:
    """The decoder: embeddings, layers and the head, as plain tensors by name.

    Args:
        shape: the architecture.
        weights: `embedding` [V, dim], `head` [V, dim], `norm` [dim], and for each layer i `i.qkv` [(H + 2G)d, dim],
            `i.out` [dim, Hd], `i.gate_up` [2 hidden, dim], `i.down` [dim, hidden].
    """

    def __init__(self, shape: Shape, weights: dict[str, Tensor]) -> None:
        self.shape = shape
        self.weights = weights
        self.layers = [{part: weights[f"{i}.{part}"] for part in LAYER_PARTS} for i in range(shape.layers)]
        half = shape.head_dim // 2
        self._frequencies = shape.theta ** -(torch.arange(half, dtype=torch.float64) / half)

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrix products."""
        return self.weights["0.qkv"].dtype

    # --- files ------------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype) -> Llama | None:
        """Reads a Hugging Face folder to torch's default device; None where the architecture is another.

        Raises:
            DataError: the folder is no model folder.
        """
        from safetensors.torch import load_file

        try:
            shape = Shape.from_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
            if shape is None:
                return None
            files = sorted(folder.glob("model*.safetensors"))
            device = torch.get_default_device()
            raw = {name: tensor.to(device) for file in files for name, tensor in load_file(file).items()}
            return cls(shape, fuse(shape, raw, dtype))
        except (OSError, ValueError, KeyError) as error:
            raise DataError(str(folder), f"cannot be read ({error})", expected="a Hugging Face model folder") from error

    # --- computing --------------------------------------------------------------------------------------------------

    def empty(self) -> Cache:
        """One branch without tokens."""
        s = self.shape
        nothing = [torch.zeros(1, s.kv_heads, 0, s.head_dim) for _ in range(s.layers)]
        return Cache(nothing, list(nothing), torch.zeros(1, 0, dtype=torch.bool), torch.zeros(1, dtype=torch.long))

    def extend(
        self, cache: Cache, parents: Tensor, segments: Sequence[Sequence[int]], keep: bool = True
    ) -> tuple[Tensor, Cache | None, Packing]:
        """Reads one more segment in each of E new branches.

        Args:
            cache: what was read before.
            parents: [E], the branch of `cache` that each segment goes on from.
            segments: E token sequences, none empty.
            keep: whether the new branches will be extended in turn.

        Returns:
            [T, dim] states after the last norm in the products' precision, the cache of the E new branches (None unless
            `keep`), and how the T tokens are packed.
        """
        s = self.shape
        packing = Packing(segments)
        past_valid = cache.valid[parents]  # [E, C]
        positions = cache.positions[parents][packing.branch] + packing.offset  # [T]
        angles = positions.double()[:, None] * self._frequencies[None]
        cos, sin = angles.cos().float()[:, None], angles.sin().float()[:, None]  # [T, 1, d / 2]
        mask = self._mask(past_valid, packing)  # [E G, R L, C + L]
        same = len(cache) == len(parents) and bool((parents == torch.arange(len(parents))).all())
        keys, values = [], []
        x = functional.embedding(packing.tokens, self.weights["embedding"]).float()  # [T, dim]
        for i in range(s.layers):
            past_k = cache.keys[i] if same else cache.keys[i].index_select(0, parents)
            past_v = cache.values[i] if same else cache.values[i].index_select(0, parents)
            mixed, k, v = self._attend(i, self._norm(x), past_k, past_v, cos, sin, mask, packing)
            if keep:
                keys.append(k)
                values.append(v)
            x = x + self._linear(i, "out", mixed)
            gate, up = self._linear(i, "gate_up", self._norm(x)).chunk(2, dim=-1)
            x = x + self._linear(i, "down", functional.silu(gate) * up)
        new = None
        if keep:
            valid = torch.cat([past_valid, packing.valid], dim=1)
            new = Cache(keys, values, valid, cache.positions[parents] + packing.lengths)
        states = (x * self._scale(x) * self.weights["norm"].float()).to(self.dtype)
        return states, new, packing

    def _attend(
        self,
        layer: int,
        x: Tensor,
        past_k: Tensor,
        past_v: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        packing: Packing,
    ) -> tuple[Tensor, Tensor, Tensor]:
        s = self.shape
        qkv = self._linear(layer, "qkv", x).view(len(x), -1, s.head_dim)  # [T, H + 2G, d]
        turned = rotate(qkv[:, : s.heads + s.kv_heads].float(), cos, sin)
        both = packing.pad(torch.cat([turned, qkv[:, s.heads + s.kv_heads :].float()], dim=1))  # [E, L, H + 2G, d]
        q, k, v = torch.split(both, [s.heads, s.kv_heads, s.kv_heads], dim=2)
        branches, longest, group = len(both), packing.longest, s.heads // s.kv_heads
        # [E G, R L, d]: the R query heads of a group share its keys, so they are rows of one product.
        q = q.reshape(branches, longest, s.kv_heads, group, s.head_dim).permute(0, 2, 3, 1, 4)
        q = q.reshape(branches * s.kv_heads, group * longest, s.head_dim)
        k = torch.cat([past_k, k.transpose(1, 2)], dim=2)  # [E, G, C + L, d]
        v = torch.cat([past_v, v.transpose(1, 2)], dim=2)
        scores = torch.baddbmm(mask, q, k.flatten(0, 1).transpose(1, 2), alpha=s.head_dim**-0.5)  # [E G, R L, C + L]
        mixed = torch.bmm(scores.softmax(-1), v.flatten(0, 1))
        mixed = mixed.view(branches, s.kv_heads, group, longest, s.head_dim).permute(0, 3, 1, 2, 4)
        flat = packing.pack(mixed.reshape(branches, longest, s.heads * s.head_dim))
        return flat.to(self.dtype), k, v

    def _mask(self, past_valid: Tensor, packing: Packing) -> Tensor:
        """[E G, R L, C + L]: 0 where a new token may look, minus infinity elsewhere; a token always sees itself."""
        s, longest, branches = self.shape, packing.longest, len(past_valid)
        own = torch.ones(longest, longest, dtype=torch.bool).tril()
        past = past_valid[:, None].expand(-1, longest, -1)
        seen = torch.cat([past, own[None].expand(branches, -1, -1)], dim=2)
        mask = torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))[:, None, None]
        every = mask.expand(-1, s.kv_heads, s.heads // s.kv_heads, -1, -1)
        return every.reshape(branches * s.kv_heads, -1, seen.shape[2])

    def _scale(self, x: Tensor) -> Tensor:
        return torch.rsqrt(x.square().mean(-1, keepdim=True) + self.shape.eps)

    def _norm(self, x: Tensor) -> Tensor:
        return (x * self._scale(x)).to(self.dtype)

    def _linear(self, layer: int, part: str, x: Tensor) -> Tensor:
        return functional.linear(x, self.layers[layer][part])


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864), halves paired as in Hugging Face's Llama."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def fuse(shape: Shape, raw: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Hugging Face's weights as this module's: projections joined, gains folded in, in `dtype`."""
    embedding = raw["model.embed_tokens.weight"].to(dtype)
    weights = {
        "embedding": embedding,
        "head": raw.get("lm_head.weight", embedding),  # as it was stored: rows of interests are finer than bfloat16
        "norm": raw["model.norm.weight"].to(dtype),
    }
    for i in range(shape.layers):
        base = f"model.layers.{i}"

        def read(name: str, base: str = base) -> Tensor:
            return raw[f"{base}.{name}.weight"].float()

        qkv = torch.cat([read(f"self_attn.{part}_proj") for part in "qkv"])
        gate_up = torch.cat([read("mlp.gate_proj"), read("mlp.up_proj")])
        weights[f"{i}.qkv"] = (qkv * read("input_layernorm")).to(dtype)
        weights[f"{i}.out"] = read("self_attn.o_proj").to(dtype)
        weights[f"{i}.gate_up"] = (gate_up * read("post_attention_layernorm")).to(dtype)
        weights[f"{i}.down"] = read("mlp.down_proj").to(dtype)
    return weights
