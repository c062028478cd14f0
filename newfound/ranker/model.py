"""The item policy: a causal transformer over item sequences, scored by cosine against every item's vector.

What it computes, for a history i_1 .. i_t (oldest first):

    u_i = unit(e_i + W x_i)                          item vector: id embedding plus projected text vector, length 1
    h   = blocks(sqrt(d) u_{i_1}, ..., sqrt(d) u_{i_t})   causal self-attention; positions only as learned distances
    q   = exp(s) unit(layer_norm(h_t))               the query; exp(s) is a learned inverse temperature
    score(i) = q . u_i  +  m_i                       m: co-occurrence with the user's last items

Bounded scores are what lets the softmax over all items be trained for long without long vectors for frequent items. An
item that nobody has consumed has no id part: its text alone places it.
"""

from __future__ import annotations

import math
from typing import Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from newfound.config import RankerConfig

DISTANCES: Final = 64  # distance buckets: 0 .. 31 one by one, then by powers of 2 ** (1 / 8)


def distance_buckets(length: int) -> Tensor:
    """Bucket of the distance from each query position back to each key position, int64 [length, length]."""
    at = torch.arange(length)
    distance = (at[:, None] - at[None, :]).clamp_min(0)
    far = 32 + (8 * torch.log2(distance.clamp_min(1) / 32)).long()
    return torch.where(distance < 32, distance, far).clamp_max(DISTANCES - 1)


class MaskPool(nn.Module):
    """Dropout whose masks are runs of one pool of random numbers, drawn once and entered at a random place.

    Drawing a mask a value at a time takes longer on a CPU than the layer that it is meant for.
    """

    def __init__(self, rate: float, size: int = 1 << 21) -> None:
        super().__init__()
        self.rate, self.size = rate, size
        self._pool: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        if x.numel() >= self.size:
            return F.dropout(x, self.rate)
        if self._pool is None or self._pool.device != x.device:
            # Of a generator of its own, so that a resumed run has the pool of the run that it goes on with.
            source = torch.Generator("cpu").manual_seed(0)
            drawn = torch.rand(self.size, generator=source, device="cpu")
            self._pool = (drawn >= self.rate).to(x) / (1 - self.rate)
        start = int(torch.randint(self.size - x.numel(), (), device="cpu"))
        return x * self._pool[start : start + x.numel()].view_as(x)


class Block(nn.Module):
    """Self-attention, then a feed-forward layer, each on normalised input and added to what came in."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_feed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim, bias=False)
        self.mix = nn.Linear(dim, dim, bias=False)
        self.widen, self.narrow = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.distance = nn.Parameter(torch.zeros(heads, DISTANCES))
        self.dropout = MaskPool(dropout)

    def forward(self, x: Tensor, buckets: Tensor, future: Tensor) -> Tensor:
        batch, length, dim = x.shape
        parts = self.query_key_value(self.norm_attention(x)).view(batch, length, 3, self.heads, dim // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # each [B, heads, L, dim / heads]
        bias = self.distance[:, buckets] + future  # [heads, L, L]
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(batch, -1, -1, -1))
        return self.feed(x + self.dropout(self.mix(seen.transpose(1, 2).reshape(batch, length, dim))))

    def feed(self, x: Tensor) -> Tensor:
        """The feed-forward layer, on [..., dim]."""
        wide = F.silu(self.widen(self.norm_feed(x)))  # [..., 2 dim]
        fed: Tensor = x + self.dropout(self.narrow(wide))
        return fed

    def at(self, x: Tensor, last: Tensor, buckets: Tensor, future: Tensor) -> Tensor:
        """`forward` at one position of each sequence, [B, dim]: its own keys and values, a single query."""
        batch, length, dim = x.shape
        own = torch.arange(batch, device=x.device), last
        normed, query_key_value = self.norm_attention(x), self.query_key_value.weight
        q = F.linear(normed[own], query_key_value[:dim]).view(batch, self.heads, 1, dim // self.heads)
        parts = F.linear(normed, query_key_value[dim:]).view(batch, length, 2, self.heads, dim // self.heads)
        k, v = parts.permute(2, 0, 3, 1, 4)  # each [B, heads, L, dim / heads]
        bias = (self.distance[:, buckets[last]] + future[last]).transpose(0, 1)[:, :, None]  # [B, heads, 1, L]
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.feed(x[own] + self.dropout(self.mix(seen.reshape(batch, dim))))


class Encoder(nn.Module):
    """The transformer: from the vectors of a history's items to a query. All that serving needs beside the vectors."""

    buckets: Tensor
    future: Tensor

    def __init__(self, config: RankerConfig) -> None:
        super().__init__()
        self.dim, self.length = config.dim, config.max_length
        self.dropout = MaskPool(config.dropout)
        self.blocks = nn.ModuleList(Block(config.dim, config.heads, config.dropout) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(12.0)))
        self.register_buffer("buckets", distance_buckets(self.length), persistent=False)
        self.register_buffer("future", torch.full((self.length, self.length), -torch.inf).triu(1), persistent=False)

    def hidden(self, vectors: Tensor, sequences: Tensor) -> Tensor:
        """Hidden states [B, L, dim] of item positions [B, L]; padding (negative) may only follow a sequence."""
        x, buckets, future = self._read(vectors, sequences)
        for block in self.blocks:
            x = block(x, buckets, future)
        return x

    def query(self, hidden: Tensor) -> Tensor:
        """Queries [..., dim] of hidden states [..., dim]: their product with item vectors is the score."""
        queries: Tensor = F.normalize(self.norm(hidden), dim=-1) * self.log_scale.exp()
        return queries

    def last_query(self, vectors: Tensor, sequences: Tensor) -> Tensor:
        """Queries [B, dim] after the last item of each sequence [B, L], padded at its end; zeros for an empty one."""
        if sequences.shape[1] == 0:
            return vectors.new_zeros(len(sequences), self.dim)
        lengths = (sequences >= 0).sum(1)
        last = (lengths - 1).clamp_min(0)
        x, buckets, future = self._read(vectors, sequences)
        for block in self.blocks[:-1]:
            x = block(x, buckets, future)
        top = cast(Block, self.blocks[-1])  # nobody reads what it makes of the earlier positions
        queries: Tensor = self.query(top.at(x, last, buckets, future)) * (lengths > 0)[:, None]
        return queries

    def _read(self, vectors: Tensor, sequences: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Input of the first block: [B, L, dim], and the buckets and the mask, [L, L] each."""
        length = sequences.shape[1]
        x: Tensor = self.dropout(vectors[sequences.clamp_min(0)] * math.sqrt(self.dim))
        return x, self.buckets[:length, :length], self.future[:length, :length]


class SequenceModel(nn.Module):
    """The encoder and the items that it reads and ranks.

    Args:
        items: number of items.
        config: dimensions and dropout.
        text: text vectors [items, text dim], where there are any.
        known: bool [items], which items training data names; where there is text, the others get no id part. Without
            text they keep it, and being everyone's negatives moves them to the end of every ranking. None: all.
    """

    text: Tensor | None
    known: Tensor

    def __init__(
        self, items: int, config: RankerConfig, text: Tensor | None = None, known: Tensor | None = None
    ) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.id_dropout = config.id_dropout
        self.ids = nn.Embedding(items, config.dim)
        nn.init.normal_(self.ids.weight, std=0.02)
        self.project = None if text is None else nn.Linear(text.shape[1], config.dim, bias=False)
        if self.project is not None:
            nn.init.normal_(self.project.weight, std=0.02)
        self.register_buffer("text", text, persistent=False)
        self.register_buffer("known", torch.ones(items, dtype=torch.bool) if known is None else known, persistent=False)

    def projection(self) -> Tensor | None:
        """Matrix that makes an item's vector of its content vector alone, [dim, text dim]; None without content."""
        return None if self.project is None else self.project.weight.detach()

    def item_vectors(self) -> Tensor:
        """Unit vectors [items, dim]. In training, some items lose their id part, so that text learns to do alone."""
        vectors = self.ids.weight
        if self.project is not None and self.text is not None:
            with_id = self.known
            if self.training and self.id_dropout > 0:
                with_id = with_id & (torch.rand(len(with_id)) >= self.id_dropout)
            vectors = vectors * with_id[:, None] + self.project(self.text)
        return F.normalize(vectors, dim=1)
