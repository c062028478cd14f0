"""Exact top-k over a closed vocabulary of descriptions, by best-first search with bounds.

The score of a description is its true log-probability: the sum over its tokens and the end token, each under the
softmax over the whole vocabulary. What has been read of a description bounds the whole from above, since every further
token can only lower it. So the search reads on, for all contexts at once, only below those trie nodes whose bound is
among a context's k best values; when complete descriptions hold all k places, nothing unread can displace them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from newfound.compute.threads import side_by_side, workers
from newfound.planner.decoding.backbone import Backbone
from newfound.planner.decoding.trie import Trie
from newfound.planner.prompt import Tokens
from newfound.types import Bools, Floats, Ints

CONTEXTS = 256  # decoded at once: enough rows for the matrix products, also where few are read on; a bounded cache
BRANCHES = 512  # continued at once
TOGETHER = 32  # so few are continued at once, whatever comes after them
WIDE = 4  # best that are wanted of each; where it is more, fewer contexts are decoded at once
ON_GPU = 8  # times as many, where its memory allows


@dataclass
class Decoded:
    """What is known of every description after a search.

    Args:
        scores: [B, N] log-probabilities; where not `exact`, the bound, never above the k-th exact one.
        exact: [B, N].
    """

    scores: Floats
    exact: Bools

    def top(self, k: int) -> tuple[npt.NDArray[np.int32], Floats]:
        """Indices [B, k] and scores [B, k], best first, ties by index; -1 and -inf where fewer are allowed."""
        # An exact score comes before an equal bound.
        order = np.lexsort(
            (np.broadcast_to(np.arange(self.scores.shape[1]), self.scores.shape), ~self.exact, -self.scores)
        )
        best = order[:, :k].astype(np.int32)
        values = np.take_along_axis(self.scores, best, axis=1)
        return np.where(np.isneginf(values), np.int32(-1), best), values


@dataclass
class Work:
    """What a search cost."""

    contexts: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    rounds: int = 0

    def add(self, other: Work) -> None:
        """Adds another search's."""
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True)
class _Edge:
    """A trie node's questions: at which of its tokens, which next token, and whose value the answer is."""

    offsets: Ints
    tokens: Ints
    forced: int  # the first so many are the edge's own tokens
    children: Ints
    label: int


class ExactDecoder:
    """Searches one vocabulary.

    Args:
        backbone: the language model.
        trie: of the descriptions.
        end: the token that ends a description.
    """

    def __init__(self, backbone: Backbone, trie: Trie, end: int) -> None:
        self.backbone = backbone
        self.trie = trie
        self.n = len(trie.sequences)
        self.edges = [self._edge(i, end) for i in range(len(trie))]
        roots = trie.nodes[0].children
        self._root_children = np.array(roots, dtype=np.int64)
        with there(backbone.device):
            self._root_tokens = torch.tensor([trie.nodes[c].tokens[0] for c in roots])
        self.below = np.zeros((len(trie), self.n), dtype=bool)
        for i, node in enumerate(trie.nodes):
            self.below[i, node.labels] = True
        self.branching = np.array([len(node.children) > 0 for node in trie.nodes])
        self.work = Work()
        times = 1
        if backbone.device.type == "cuda":  # a search holds the caches of several rounds
            free = torch.cuda.mem_get_info(backbone.device)[0]
            times = min(max(free // (8 * CONTEXTS * backbone.cache_bytes), 1), ON_GPU)
        self.contexts, self.branches = CONTEXTS * times, BRANCHES * times

    def _edge(self, index: int, end: int) -> _Edge:
        node = self.trie.nodes[index]
        last = len(node.tokens) - 1
        children = list(node.children)
        after = [self.trie.nodes[c].tokens[0] for c in children] + ([end] if node.label is not None else [])
        return _Edge(
            offsets=np.array([*range(last), *([last] * len(after))], dtype=np.int64),
            tokens=np.array([*node.tokens[1:], *after], dtype=np.int64),
            forced=max(last, 0),
            children=np.array(children, dtype=np.int64),
            label=-1 if node.label is None else node.label,
        )

    def decode(
        self, prompts: Sequence[Sequence[Tokens]], k: int, allowed: Bools | None = None, forced: bool = True
    ) -> Decoded:
        """Finds each prompt's k best descriptions.

        Args:
            prompts: each as segments; prompts that start with the same segments share them. All have equally many.
            k: how many are wanted exactly; 0 gives bounds alone, N everything.
            allowed: [B, N] which descriptions may be answered; None: all.
            forced: False stops where a description is told apart from all others: what is left of it is not read, and
                the k best by their bounds are told apart, but not exact.

        Returns:
            What is known of all descriptions; those not allowed score minus infinity.
        """
        scores = np.full((len(prompts), self.n), -np.inf, dtype=np.float32)
        exact = np.zeros((len(prompts), self.n), dtype=bool)
        order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
        on_processor = self.backbone.device.type == "cpu"
        at_once = workers() if on_processor else 1
        # For the memory: no more than two full batches at a time, and smaller ones where many are wanted.
        size = max(1, int(self.contexts / max(at_once / 2, 1) / max(k / WIDE, 1)))
        batches = [order[start : start + size] for start in range(0, len(order), size)]

        def search(rows: list[int]) -> Work:
            given = None if allowed is None else allowed[rows]
            found = _Search(self, [prompts[i] for i in rows], k, given, forced)
            with torch.inference_mode(), there(self.backbone.device):
                scores[rows], exact[rows] = found.run()
            return found.work

        tasks = [partial(search, rows) for rows in batches]
        for work in side_by_side(tasks) if on_processor else [task() for task in tasks]:
            self.work.add(work)
        return Decoded(scores, exact)

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Sequence[Tokens]], end: int, at_most: int) -> list[list[int]]:
        """Free greedy decoding: the most probable token after token, without the trie, up to `end`."""
        out: list[list[int]] = [[] for _ in prompts]
        order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
        with there(self.backbone.device):
            for start in range(0, len(order), self.contexts):
                rows = order[start : start + self.contexts]
                states, cache = read_prompts(self.backbone, [prompts[i] for i in rows], Work())
                for _ in range(at_most):
                    tokens = self.backbone.likeliest(states).tolist()
                    going = [place for place, token in enumerate(tokens) if token != end]
                    if not going:
                        break
                    for place in going:
                        out[rows[place]].append(tokens[place])
                    rows = [rows[place] for place in going]
                    states, cache, _ = self.backbone.extend(cache, torch.tensor(going), [[tokens[p]] for p in going])
        return out


def there(device: torch.device) -> AbstractContextManager[object]:
    """Makes the device torch's default, unless it is already."""
    return nullcontext() if torch.get_default_device() == device else device


def read_prompts(backbone: Backbone, prompts: Sequence[Sequence[Tokens]], work: Work) -> tuple[torch.Tensor, Any]:
    """Reads prompts segment by segment, each distinct beginning once.

    Returns:
        [B, dim] the states after the last tokens, and a cache with a branch a prompt.
    """
    depth = len(prompts[0])
    cache = backbone.empty()
    index: dict[tuple[Tokens, ...], int] = {(): 0}
    states = torch.empty(0)
    for level in range(1, depth + 1):
        # Equal prompts stay one branch each at the last level, so that branch i is prompt i.
        starts = (
            [tuple(p) for p in prompts] if level == depth else list(dict.fromkeys(tuple(p[:level]) for p in prompts))
        )
        parents = torch.tensor([index[s[:-1]] for s in starts])
        segments = [s[-1] for s in starts]
        work.prompt_tokens += sum(len(s) for s in segments)
        states, cache, packing = backbone.extend(cache, parents, segments, look=level == depth)
        states = states[packing.last]
        index = {s: i for i, s in enumerate(starts)}
    work.contexts += len(prompts)
    return states, cache


@dataclass
class _Branch:
    """Where a trie node's cache lies."""

    cache: Any
    row: int


@dataclass
class _Search:
    """One batch of contexts."""

    decoder: ExactDecoder
    prompts: Sequence[Sequence[Tokens]]
    k: int
    allowed: Bools | None
    forced: bool
    work: Work = field(default_factory=Work)

    def run(self) -> tuple[Floats, Bools]:
        decoder, batch = self.decoder, len(self.prompts)
        states, self.cache = read_prompts(decoder.backbone, self.prompts, self.work)
        nodes = len(decoder.trie)
        self.bounds = np.full((batch, nodes), -np.inf, dtype=np.float32)  # of open nodes
        self.scores = np.full((batch, decoder.n), -np.inf, dtype=np.float32)  # of complete descriptions
        self.branches: dict[tuple[int, int], _Branch] = {}
        first = decoder.backbone.block_log_probs(states, decoder._root_tokens).cpu().numpy()
        self.bounds[:, decoder._root_children] = first
        self.open = np.ones((batch, nodes), dtype=bool)  # nodes that may still lead to an allowed description
        if self.allowed is not None:
            self.open = self.allowed @ decoder.below.T
            self.bounds[~self.open] = -np.inf
        while self.k > 0:
            wanted = self._wanted()
            if not len(wanted):
                break
            self.work.rounds += 1
            for part in self._batches(wanted):
                self._expand(part)
            self._forget()
        return self._result()

    def _wanted(self) -> Ints:
        """[W, 2] context and node: the open nodes whose bound is among a context's k best values."""
        kth = _kth(np.concatenate([self.scores, self.bounds], axis=1), self.k)
        chosen = (self.bounds >= kth[:, None]) & (self.bounds > _kth(self.scores, self.k)[:, None])
        return np.argwhere(chosen if self.forced else chosen & self.decoder.branching)

    def _forget(self) -> None:
        """Lets go of what was read above nodes that are read themselves, or need not be."""
        settled = _kth(self.scores, self.k)
        self.branches = {
            (context, node): branch
            for (context, node), branch in self.branches.items()
            if (self.bounds[context, self.decoder.edges[node].children] > settled[context]).any()
        }

    def _batches(self, wanted: Ints) -> Iterator[list[tuple[int, int]]]:
        """Groups by the cache that they go on from, of bounded size."""
        groups: dict[int, list[tuple[int, int]]] = {}
        for context, node in wanted.tolist():
            branch = self.branches.get((context, self.decoder.trie.nodes[node].parent))
            groups.setdefault(id(branch.cache if branch else self.cache), []).append((context, node))
        for group in groups.values():
            # What is read for its own sake is not kept for that which leads on.
            leads_on = self.decoder.branching[[node for _, node in group]]
            kinds = (leads_on, ~leads_on) if len(group) > TOGETHER else (leads_on | True,)
            for kind in kinds:
                some = [pair for pair, chosen in zip(group, kind, strict=True) if chosen]
                for start in range(0, len(some), self.decoder.branches):
                    yield some[start : start + self.decoder.branches]

    def _expand(self, part: list[tuple[int, int]]) -> None:
        decoder = self.decoder
        nodes = decoder.trie.nodes
        sources = [self.branches.get((context, nodes[node].parent)) for context, node in part]
        cache = sources[0].cache if sources[0] else self.cache
        parents = torch.tensor([s.row if s else c for s, (c, _) in zip(sources, part, strict=True)])
        keep = any(nodes[node].children for _, node in part)
        states, new, packing = decoder.backbone.extend(cache, parents, [nodes[node].tokens for _, node in part], keep)
        self.work.answer_tokens += len(packing.tokens)
        edges = [decoder.edges[node] for _, node in part]
        starts = packing.starts.tolist()
        rows = np.concatenate([edge.offsets + start for edge, start in zip(edges, starts, strict=True)])
        tokens = np.concatenate([edge.tokens for edge in edges])
        answers = decoder.backbone.token_log_probs(states, torch.as_tensor(rows), torch.as_tensor(tokens)).cpu().numpy()
        place = 0
        for row, ((context, node), edge) in enumerate(zip(part, edges, strict=True)):
            mine = answers[place : place + len(edge.tokens)]
            place += len(edge.tokens)
            reached = self.bounds[context, node] + mine[: edge.forced].sum(dtype=np.float32)
            self.bounds[context, node] = -np.inf
            if edge.label >= 0 and (self.allowed is None or self.allowed[context, edge.label]):
                self.scores[context, edge.label] = reached + mine[-1]
            if len(edge.children):
                below = reached + mine[edge.forced : edge.forced + len(edge.children)]
                self.bounds[context, edge.children] = np.where(self.open[context, edge.children], below, -np.inf)
                self.branches[context, node] = _Branch(new, row)

    def _result(self) -> tuple[Floats, Bools]:
        exact = ~np.isneginf(self.scores)
        out = self.scores.copy()
        ceiling = np.full(len(out), np.inf, dtype=np.float32)
        if 0 < self.k <= self.decoder.n:
            kth = _kth(self.scores, self.k)
            ceiling = np.where(np.isneginf(kth), np.inf, kth)
        for node in np.flatnonzero(~np.isneginf(self.bounds).all(axis=0)):
            labels = self.decoder.trie.nodes[node].labels
            bound = np.minimum(self.bounds[:, node], ceiling)[:, None]
            out[:, labels] = np.where(exact[:, labels], out[:, labels], np.maximum(out[:, labels], bound))
        if self.allowed is not None:
            out[~self.allowed] = -np.inf
            exact &= self.allowed
        return out, exact


def _kth(values: Floats, k: int) -> Floats:
    """[B] the k-th largest of each row, or its smallest where there are fewer."""
    k = min(k, values.shape[1])
    found: Floats = -np.partition(-values, k - 1, axis=1)[:, k - 1]
    return found
