"""The planner: contexts of clusters in, the log-probabilities of every next cluster out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from newfound.clusters import Clusters
from newfound.compute.distributed import on_accelerator
from newfound.errors import DataError, VocabularyError
from newfound.planner.decoding.backbone import Backbone, likeliest, load_backbone, read_prompts
from newfound.planner.prompt import RECORD, PromptCodec, Tokens
from newfound.planner.states import CONTEXTS_FILE, States, read_states
from newfound.types import Bools, Context, Floats, Ints32


class Planner:
    """A language model over one set of interface clusters, each of which is one token of its vocabulary.

    Args:
        backbone: the language model.
        codec: how contexts become tokens, and which tokens answer.
        nodes: the interface clusters' ids, in the codec's order.
        digest: identifies the weights and the prompt.
        states: of contexts that were read before.
    """

    def __init__(
        self,
        backbone: Backbone,
        codec: PromptCodec,
        nodes: Sequence[str],
        digest: str = "",
        states: States | None = None,
    ) -> None:
        if len(nodes) != len(codec):
            raise VocabularyError(f"planner has {len(codec)} descriptions; expected {len(nodes)}, one a cluster")
        self.backbone, self.codec, self.nodes, self.digest = backbone, codec, list(nodes), digest
        self.index = {node: place for place, node in enumerate(self.nodes)}
        self.states = states
        self.rows: Floats = backbone.head[codec.first_token :][: len(codec)].float().cpu().numpy()
        """[N, dim] of the interests' tokens in the head"""

    @classmethod
    def load(cls, path: str | Path, clusters: Clusters, *, precision: str = "auto", lean: bool = True) -> Planner:
        """Reads a planner folder; it answers on a GPU where there is one.

        Args:
            clusters: those in use.
            precision: of the matrix products, `bfloat16`, `float32` or `auto`.
            lean: False computes with transformers even where the lean decoder fits.

        Raises:
            DataError: the folder is no planner.
            VocabularyError: the planner was made for other clusters.
        """
        folder = Path(path)
        codec = PromptCodec.load(folder, clusters.descriptions)
        states = States.load(folder) if (folder / CONTEXTS_FILE).is_file() else None
        with on_accelerator():
            backbone = load_backbone(folder, precision, lean)
        return cls(backbone, codec, clusters.interface, planner_digest(folder), states)

    def __len__(self) -> int:
        return len(self.nodes)

    def describe(self) -> dict[str, str | int]:
        """Engine, version, threads and device, on which answers may depend beside their inputs."""
        return {
            "engine": self.backbone.name,
            "torch": torch.__version__.split("+")[0],
            "threads": torch.get_num_threads(),
            "device": self.backbone.device.type,
        }

    def places(self, contexts: Sequence[Context]) -> list[tuple[int, ...]]:
        """Contexts by cluster indices.

        Raises:
            VocabularyError: a context names no interface cluster, or is empty.
        """
        if not all(contexts):
            raise VocabularyError("a context is empty; expected at least one cluster")
        try:
            return [tuple(self.index[cluster] for cluster in context) for context in contexts]
        except KeyError as error:
            raise VocabularyError(f"{error.args[0]!r} is no interface cluster of this planner") from None

    def has_read(self, contexts: Sequence[Context]) -> Bools:
        """[B], whether the state of a context is at hand."""
        if self.states is None:
            return np.zeros(len(contexts), dtype=bool)
        return self.states.rows(self.places(contexts)) >= 0

    def log_probs(self, contexts: Sequence[Context], *, anew: bool = False) -> Floats:
        """Natural-log probabilities of all clusters after some contexts, exact.

        Args:
            contexts: B tuples of interface clusters, oldest first.
            anew: reads every prompt, also those whose states are at hand.

        Returns:
            float32 [B, N]; a context's own clusters are no answers and have minus infinity, the others sum to one.
        """
        return closed_log_probs(self.logits(contexts, anew=anew), self.places(contexts))

    def logits(self, contexts: Sequence[Context], *, anew: bool = False) -> Floats:
        """float32 [B, N] logits of the interests' tokens."""
        found: Floats = self._states(contexts, anew) @ self.rows.T
        return found

    def top_k(self, contexts: Sequence[Context], k: int, allowed: Bools | None = None) -> tuple[Ints32, Floats]:
        """The k next clusters of the highest log-probability.

        Args:
            contexts: B tuples of interface clusters, oldest first.
            k: at most the number of clusters.
            allowed: [B, N] clusters that may be answered; None: all but the context's own.

        Returns:
            Indices [B, k] into the interface clusters and natural-log probabilities [B, k], best first; -1 and minus
            infinity where fewer are allowed. Equal ones are ordered by index.
        """
        return best_of(self.log_probs(contexts), min(k, len(self)), allowed)

    def read(self, prompts: Sequence[Tokens]) -> Floats:
        """float32 [B, dim] states after whole prompts, as tokens."""
        found: Floats = read_prompts(self.backbone, [[prompt] for prompt in prompts]).numpy()
        return found

    def match_rate(self, contexts: Sequence[Context]) -> float:
        """Share of free answers that are an interest: the likeliest token of the whole vocabulary, nothing masked."""
        if not len(contexts):
            return 1.0
        tokens = likeliest(self.backbone.head, torch.from_numpy(self._states(contexts, anew=True)))
        return float(np.mean([self.codec.cluster_of(token) is not None for token in tokens.tolist()]))

    def _states(self, contexts: Sequence[Context], anew: bool) -> Floats:
        places = self.places(contexts)
        out = np.zeros((len(places), self.rows.shape[1]), dtype=np.float32)
        at_hand = np.full(len(places), -1) if anew or self.states is None else self.states.rows(places)
        if self.states is not None:
            out[at_hand >= 0] = self.states.values[at_hand[at_hand >= 0]]
        missing = np.flatnonzero(at_hand < 0)
        for length in sorted({len(places[row]) for row in missing}):
            rows = [row for row in missing.tolist() if len(places[row]) == length]
            unique = np.array(sorted({places[row] for row in rows}), dtype=np.int64).reshape(-1, length)
            read = read_states(self.backbone, self.codec, unique)
            out[rows] = read.values[read.rows([places[row] for row in rows])]
        return out


def closed_log_probs(logits: Floats, contexts: Sequence[tuple[int, ...]]) -> Floats:
    """Log-probabilities among the clusters that are not the context's own, [B, N]; those have minus infinity."""
    found = logits.astype(np.float32)
    for row, context in enumerate(contexts):
        found[row, list(context)] = -np.inf
    found -= found.max(axis=1, keepdims=True)
    result: Floats = found - np.log(np.exp(found).sum(axis=1, keepdims=True))
    return result


def best_of(log_probs: Floats, k: int, allowed: Bools | None = None) -> tuple[Ints32, Floats]:
    """The k best of each row, see `Planner.top_k`."""
    scores = log_probs if allowed is None else np.where(allowed, log_probs, -np.inf)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int32)
    values: Floats = np.take_along_axis(scores, best, axis=1).astype(np.float32)
    return np.where(np.isneginf(values), -1, best), values


def planner_digest(folder: Path) -> str:
    """sha256 over the weights and the prompt record.

    Raises:
        DataError: the folder holds no weights.
    """
    found = hashlib.sha256()
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise DataError(str(folder), "no model*.safetensors", expected="a planner folder")
    for file in [*files, folder / RECORD]:
        with file.open("rb") as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()
