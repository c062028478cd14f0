"""The fine-tuned planner: contexts of clusters in, the next novel clusters out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from newfound.clusters import Clusters
from newfound.compute.distributed import on_accelerator
from newfound.errors import DataError, VocabularyError
from newfound.planner.decoding.backbone import Backbone, load_backbone
from newfound.planner.decoding.search import Decoded, ExactDecoder
from newfound.planner.decoding.trie import Trie
from newfound.planner.prompt import PromptCodec, Tokens
from newfound.types import Bools, Floats

TOLD_APART = 10
Contexts = Sequence[tuple[str, ...]]
Ints32 = npt.NDArray[np.int32]
Hints = Sequence[str | None]


class Planner:
    """A language model over one set of interface clusters.

    Args:
        backbone: the language model.
        codec: how contexts and descriptions become tokens.
        nodes: the interface clusters' ids, in the codec's order.
        digest: identifies the weights and the prompt.
    """

    def __init__(self, backbone: Backbone, codec: PromptCodec, nodes: Sequence[str], digest: str = "") -> None:
        if len(nodes) != len(codec):
            raise VocabularyError(f"planner has {len(codec)} descriptions; expected {len(nodes)}, one a cluster")
        self.backbone = backbone
        self.codec = codec
        self.nodes = list(nodes)
        self.digest = digest
        self.index = {node: place for place, node in enumerate(self.nodes)}
        self.decoder = ExactDecoder(backbone, Trie(codec.answers), codec.end)

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
        with on_accelerator():
            backbone = load_backbone(folder, precision, lean)
        return cls(backbone, codec, clusters.interface, planner_digest(folder))

    def __len__(self) -> int:
        return len(self.nodes)

    def describe(self) -> dict[str, str | int]:
        """What the answers may depend on beside their inputs: the engine, its version, threads and batch sizes."""
        return {
            "engine": self.backbone.name,
            "torch": torch.__version__.split("+")[0],
            "threads": torch.get_num_threads(),
            "device": self.backbone.device.type,
            "contexts_a_batch": self.decoder.contexts,
            "branches_a_batch": self.decoder.branches,
        }

    def prompts(self, contexts: Contexts, hints: Hints | None = None) -> list[list[Tokens]]:
        """Each context's prompt as segments.

        Args:
            hints: for each context the most frequent recent successor of that very context, or None.

        Raises:
            VocabularyError: a context or a hint names no interface cluster, or a context is empty.
        """
        out = []
        try:
            for place, context in enumerate(contexts):
                if not context:
                    raise VocabularyError("a context is empty; expected at least one cluster")
                hint = hints[place] if hints is not None else None
                at = None if hint is None else self.index[hint]
                out.append(self.codec.segments(tuple(self.index[c] for c in context), at))
        except KeyError as error:
            raise VocabularyError(f"{error.args[0]!r} is no interface cluster of this planner") from None
        return out

    def decode(
        self,
        contexts: Contexts,
        k: int,
        allowed: Bools | None = None,
        hints: Hints | None = None,
        forced: bool = True,
    ) -> Decoded:
        """What is known of all clusters once each context's k best are exact; see `ExactDecoder.decode`."""
        prompts = self.prompts(contexts, hints)
        scores = np.full((len(prompts), len(self)), -np.inf, dtype=np.float32)
        exact = np.zeros((len(prompts), len(self)), dtype=bool)
        for rows in _by_depth(prompts):
            given = None if allowed is None else allowed[rows]
            part = self.decoder.decode([prompts[i] for i in rows], k, given, forced)
            scores[rows], exact[rows] = part.scores, part.exact
        return Decoded(scores, exact)

    def top_k(
        self, contexts: Contexts, k: int, allowed: Bools | None = None, hints: Hints | None = None
    ) -> tuple[Ints32, Floats]:
        """The k next clusters of the highest true log-probability, exactly.

        Args:
            contexts: B tuples of interface clusters, oldest first.
            k: at most the number of clusters.
            allowed: [B, N] clusters that may be answered; None: all.

        Returns:
            Indices [B, k] into the interface clusters and natural-log probabilities [B, k] of the whole descriptions
            with their end, best first; -1 and minus infinity where fewer are allowed.
        """
        k = min(k, len(self))
        return self.decode(contexts, k, allowed, hints).top(k)

    def scores(
        self,
        contexts: Contexts,
        *,
        exact: int = 0,
        exhaustive: bool = False,
        allowed: Bools | None = None,
        hints: Hints | None = None,
    ) -> Floats:
        """A score of every cluster for ranking, [B, N].

        The `exact` best are true log-probabilities. Every other cluster has its upper bound: the log-probability of
        the part of its description that has been read, at least the first token (and never above the last exact one).
        With `exact=0` descriptions are read until the ten best are told apart from the others. Where first tokens
        differ that costs no more than reading the prompt; the order is the true one as far as the rest of a
        description follows from what tells it apart, which is what fine-tuning teaches.

        Args:
            exhaustive: reads every description in full instead.
            allowed: [B, N] clusters that may be answered; minus infinity for others.
        """
        if exhaustive:
            return self.decode(contexts, len(self), allowed, hints).scores
        if exact:
            return self.decode(contexts, min(exact, len(self)), allowed, hints).scores
        return self.decode(contexts, min(TOLD_APART, len(self)), allowed, hints, forced=False).scores

    def free_generate(self, contexts: Contexts, hints: Hints | None = None) -> list[str]:
        """What the model writes when nothing holds it to the descriptions: greedy, without the trie."""
        prompts = self.prompts(contexts, hints)
        longest = max(len(answer) for answer in self.codec.answers)
        out = [""] * len(prompts)
        for rows in _by_depth(prompts):
            answers = self.decoder.generate([prompts[i] for i in rows], self.codec.end, longest + 1)
            for row, tokens in zip(rows, answers, strict=True):
                out[row] = self.codec.decode(tokens)
        return out

    def match_rate(self, contexts: Contexts, hints: Hints | None = None) -> float:
        """Share of free generations that are exactly one of the descriptions."""
        answers = self.free_generate(contexts, hints)
        return sum(self.codec.cluster_of(answer) is not None for answer in answers) / max(len(answers), 1)


def _by_depth(prompts: Sequence[Sequence[Tokens]]) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        groups.setdefault(len(prompt), []).append(place)
    return [groups[depth] for depth in sorted(groups)]


def planner_digest(folder: Path) -> str:
    """sha256 over the weights and the prompt record.

    Raises:
        DataError: the folder holds no weights.
    """
    found = hashlib.sha256()
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise DataError(str(folder), "no model*.safetensors", expected="a planner folder")
    for file in [*files, folder / "prompt.json"]:
        with file.open("rb") as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()
