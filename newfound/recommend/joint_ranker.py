"""The items' side of the one decision: the best items of all interests that are new to somebody, in one call.

Up to `WHOLE` items all are scored. Above that, interests are visited in the order of what their best item could be
worth at most, until none that is left can enter the answer: the same answer, with nothing to tune. The bound of an
interest follows from its items' centroid and radius (Cauchy and Schwarz).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from newfound.clusters import Clusters
from newfound.errors import VocabularyError
from newfound.ranker import Ranker
from newfound.ranker.index import NO_ITEMS, Bonus, EncodedHistory
from newfound.recommend.item_terms import COUNTS, ItemTerms
from newfound.recommend.nested_logit import Coefficients, DecisionModel, joint_utilities
from newfound.recommend.query import JointAnswer, JointQuery, Ranking
from newfound.release.new_items import NewItems
from newfound.types import Bools, Doubles, Floats, Ints

WHOLE: Final = 500_000
TOGETHER: Final = 1 << 23  # utilities that are held at a time
FIRST: Final = 16  # interests that are visited at first; then twice as many, and so on
RUN: Final = 4096  # items whose products are turned into rows while they are near the processor
BLOCK: Final = 64  # values whose largest stands for them where the best of many are looked for
NEW_EACH: Final = 8  # new items that come with the best ones of an interest, where those are asked for


class JointRanker:
    """A ranker with the decision's terms of items.

    Args:
        ranker: the item policy.
        decision: the fitted coefficients.
        terms: of the ranker's items, in its order.
        interface: the clusters that offsets may name.
        new: ascending positions of items that appeared after the release was made.
    """

    def __init__(
        self,
        ranker: Ranker,
        decision: DecisionModel,
        terms: ItemTerms,
        interface: Sequence[str],
        new: Ints = NO_ITEMS,
    ) -> None:
        self.ranker, self.decision, self.terms = ranker, decision, terms
        self.items, self.new = ranker.items, new
        self.interface = list(interface)
        self._nest = {cluster: at for at, cluster in enumerate(self.interface)}
        spans = [ranker.slices[cluster] for cluster in self.interface]
        self.bounds: Ints = np.array([0, *(stop for _, stop in spans)], dtype=np.int64)
        if [start for start, _ in spans] != self.bounds[:-1].tolist() or self.bounds[-1] != len(self.items):
            raise VocabularyError(
                "the interface's slices do not follow one another; expected the ranker's own clusters"
            )
        # What the counts add is the same for every request.
        self.standing = {planner: self._counts(planner) for planner in (False, True)}
        self._visits = Bounds.of(self) if len(self.items) > WHOLE else None

    @classmethod
    def load(cls, folder: str | Path) -> JointRanker:
        """Reads the ranker and the decision of a release's folder; without a `decision`, the ranker decides alone.

        Raises:
            DataError: a file is missing or broken.
            VocabularyError: the parts were not made for one another.
        """
        root = Path(folder)
        clusters = Clusters.load(root / "clusters")
        ranker = Ranker.load(root / "ranker")
        terms = load_item_terms(root, len(ranker.items))
        if not (root / "decision").is_dir():
            return cls(ranker, DecisionModel(), terms, clusters.interface)
        return cls(ranker, DecisionModel.load(root / "decision", clusters.digest), terms, clusters.interface)

    def with_new(self, new: NewItems) -> JointRanker:
        """This ranker with the new items of its release in their leaves.

        Raises:
            VocabularyError: they were made for another ranker.
        """
        ranker, made = self.ranker.with_new(new.ids, [one.leaf for one in new.items], new.vectors)
        terms, places = self.terms.with_new(made, new.counts, new.text), made.places + np.arange(len(new))
        return JointRanker(ranker, self.decision, terms, self.interface, places)

    def top_k(self, queries: Sequence[JointQuery]) -> list[JointAnswer]:
        """The best items for each query; histories are encoded together.

        Raises:
            VocabularyError: a query names a cluster that there is not.
        """
        # No more of a history than the encoder reads, whoever sends it.
        known = [self.ranker.positions(query.history[-self.ranker.encoder.length :]) for query in queries]
        vectors = self.ranker.queries(known)
        parts = [self._part(*one) for one in zip(queries, known, vectors, strict=True)]
        if self._visits is not None:
            return [self._one(query, part, None) for query, part in zip(queries, parts, strict=True)]
        answers = []
        step = max(TOGETHER // max(len(self.items), 1), 1)
        for start in range(0, len(queries), step):
            some = parts[start : start + step]
            utilities = self._products(some)
            for row, part in enumerate(some):
                self._finish(part, utilities[row])
                answers.append(self._one(queries[start + row], part, utilities[row]))
        return answers

    def _one(self, query: JointQuery, part: _Part, utilities: Floats | None) -> JointAnswer:
        offsets = np.full(len(self.interface), -np.inf, dtype=np.float32)
        try:
            offsets[[self._nest[cluster] for cluster in query.offsets]] = list(query.offsets.values())
        except KeyError as error:
            raise VocabularyError(f"cluster {error.args[0]!r} is not one that the ranker was made for") from error
        new = [cluster for cluster in query.clusters if cluster in query.offsets]
        answer = JointAnswer()
        if query.k or new:
            places, values = self._best(part, offsets, query.k, utilities)
            answer.best.extend(self._named(places, values))
        for cluster, wanted in zip(query.clusters, query.wanted, strict=True):
            if cluster in query.offsets:
                answer.clusters[cluster] = self._best_of(part, offsets, self._nest[cluster], wanted)
        familiar = [cluster for cluster in query.clusters if cluster not in query.offsets]
        if familiar:
            sizes = dict(zip(query.clusters, query.wanted, strict=True))
            wants = [sizes[cluster] for cluster in familiar]
            found = self.ranker.best_of_clusters(part.encoded, familiar, wants, part.hidden)
            answer.clusters.update(zip(familiar, found, strict=True))
        return answer

    # --- utilities --------------------------------------------------------------------------------------------------

    def _coefficients(self, planner: bool) -> Coefficients:
        return self.decision.full if planner else self.decision.without_planner

    def _counts(self, planner: bool) -> Floats:
        """Part of each item's utility that its counts make, float32 [items]."""
        weights = np.array([self._coefficients(planner).items.get(name, 0.0) for name in COUNTS], dtype=np.float32)
        added: Floats = self.terms.counts @ weights
        return added

    def _part(self, query: JointQuery, history: Ints, vector: Floats) -> _Part:
        coefficients = self._coefficients(query.planner)
        weight, hidden = coefficients.items.get, self.ranker.positions(query.exclude)
        bonus = self.ranker.bonus(history, [(0, len(self.items))])
        own = weight("cooccurrence", 0.0) if len(history) else weight("ranker", 0.0)
        return _Part(
            encoded=EncodedHistory(vector, bonus),
            query=np.float32(weight("ranker", 0.0)) * vector,
            text=np.float32(weight("text", 0.0)) * self.terms.profile(history),
            bonus=Bonus(bonus.items, np.float32(own) * bonus.values),
            hidden=np.sort(hidden),
            planner=query.planner,
            dissimilarity=coefficients.dissimilarity,
        )

    def _products(self, parts: Sequence[_Part]) -> Floats:
        """[B, items], terms that are products; those of requests that came together are one product of matrices."""
        if len(parts) == 1:
            return self._alone(parts[0], [slice(None)])[None]
        standing = [self.standing[part.planner] for part in parts]
        pairs = [(self.ranker.index.vectors, np.stack([part.query for part in parts], axis=1))]
        if len(parts[0].text):
            pairs.append((self.terms.text, np.stack([part.text for part in parts], axis=1)))
        utilities = np.empty((len(parts), len(standing[0])), dtype=np.float32)
        for start in range(0, utilities.shape[1], RUN):
            run = slice(start, start + RUN)
            products = sum(vectors[run] @ own for vectors, own in pairs)
            for row, (added, product) in enumerate(zip(standing, np.asarray(products).T, strict=True)):
                np.add(product, added[run], out=utilities[row, run])
        return utilities

    def _alone(self, part: _Part, spans: Sequence[slice]) -> Floats:
        """Terms that are products, for the items of some spans, one span after the other."""
        found = np.concatenate([self.standing[part.planner][span] for span in spans])
        found += np.concatenate([self.ranker.index.vectors[span] @ part.query for span in spans])
        if len(part.text):
            found += np.concatenate([self.terms.text[span] @ part.text for span in spans])
        return found

    @staticmethod
    def _finish(part: _Part, utilities: Floats) -> None:
        """Adds what only some items have, in place, and hides what must not be shown."""
        utilities[part.bonus.items] += part.bonus.values
        utilities[part.hidden] = -np.inf

    def _best(self, part: _Part, offsets: Floats, k: int, utilities: Floats | None) -> tuple[Ints, Floats]:
        """Places and joint utilities of the k best items, best first, ties by place.

        Args:
            utilities: of all items; None: the interests are visited.
        """
        if utilities is not None or self._visits is None:
            assert utilities is not None, "few items, and they were not scored"
            joint = joint_utilities(utilities, self.bounds, offsets, part.dissimilarity)
            return _top(np.arange(len(joint)), joint, k)
        places, values, least = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32), np.float32(-np.inf)
        order, most = self._visits.order(part, offsets)
        at, size = 0, FIRST
        while len(nests := order[at : at + size][most[at : at + size] >= least]):
            own, joint = self._joint_of(part, offsets, nests)
            near = np.flatnonzero(joint >= least)
            places, values = _top(np.concatenate([places, own[near]]), np.concatenate([values, joint[near]]), k)
            least = values[-1] if len(values) == k else least
            at, size = at + size, 2 * size
        return places, values

    def _best_of(self, part: _Part, offsets: Floats, nest: int, wanted: int) -> Ranking:
        start = int(self.bounds[nest])
        own, joint = self._joint_of(part, offsets, np.array([nest]))
        places, values = _top(own, joint, wanted)
        low, high = np.searchsorted(self.new, (start, start + len(joint)))
        if high > low:  # new items have no past that could bring them among the best
            fresh, _ = _top(self.new[low:high], joint[self.new[low:high] - start], NEW_EACH)
            places = np.unique(np.concatenate([places, fresh]))
            places, values = _top(places, joint[places - start], len(places))
        return self._named(places, values)

    def _joint_of(self, part: _Part, offsets: Floats, nests: Ints) -> tuple[Ints, Floats]:
        """Places and joint utilities of all items of some nests."""
        starts, sizes = self.bounds[nests], self.bounds[nests + 1] - self.bounds[nests]
        edges = np.concatenate([[0], np.cumsum(sizes)])
        spans = [slice(start, start + size) for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)]
        utilities, shift = self._alone(part, spans), edges[:-1] - starts
        row = np.full(len(self.interface), -1)
        row[nests] = np.arange(len(nests))

        def here(items: Ints) -> tuple[Bools, Ints]:
            of = row[np.searchsorted(self.bounds, items, side="right") - 1]
            return of >= 0, items[of >= 0] + shift[of[of >= 0]]

        inside, places = here(part.bonus.items)
        utilities[places] += part.bonus.values[inside]
        utilities[here(part.hidden)[1]] = -np.inf
        joint = joint_utilities(utilities, edges, offsets[nests], part.dissimilarity)
        return np.arange(len(joint)) - np.repeat(shift, sizes), joint

    def _named(self, places: Ints, values: Floats) -> Ranking:
        return [(self.items[at], value) for at, value in zip(places.tolist(), values.tolist(), strict=True)]


def load_item_terms(release: Path, items: int) -> ItemTerms:
    """The decision's terms of a release's items; zeros where it has no `decision`.

    Raises:
        DataError: the file is broken, or of another number of items.
    """
    if (release / "decision").is_dir():
        return ItemTerms.load(release / "decision", items)
    return ItemTerms(np.zeros((items, len(COUNTS)), dtype=np.float32), np.zeros((items, 0), dtype=np.float32))


@dataclass(frozen=True, slots=True)
class _Part:
    """One request's side of the utilities."""

    encoded: EncodedHistory
    query: Floats
    text: Floats
    bonus: Bonus
    hidden: Ints
    planner: bool
    dissimilarity: float


class Bounds:
    """Upper bound of the best item's worth in every nest.

    Args:
        vectors: centroids [N, dim] and radii [N] of the items' vectors, by matrix.
        standing: [N] with and without the planner, the most that an item has before anybody asks.
        sizes: [N], items.
        bounds: [N + 1].
    """

    def __init__(
        self, vectors: Sequence[tuple[Floats, Floats]], standing: Mapping[bool, Floats], sizes: Ints, bounds: Ints
    ) -> None:
        self._vectors, self._standing, self._sizes, self._bounds = vectors, standing, sizes, bounds

    @classmethod
    def of(cls, ranker: JointRanker) -> Bounds:
        """Looks at every item once."""
        bounds = ranker.bounds
        slices = [slice(int(start), int(stop)) for start, stop in zip(bounds[:-1], bounds[1:], strict=True)]

        def ball(vectors: Floats) -> tuple[Floats, Floats]:
            centres = np.stack([vectors[s].mean(axis=0) for s in slices])
            radii = [np.linalg.norm(vectors[s] - c, axis=1).max() for s, c in zip(slices, centres, strict=True)]
            return centres, np.array(radii, dtype=np.float32)

        standing = {planner: np.array([values[s].max() for s in slices]) for planner, values in ranker.standing.items()}
        return cls([ball(ranker.ranker.index.vectors), ball(ranker.terms.text)], standing, np.diff(bounds), bounds)

    def most(self, part: _Part, offsets: Floats) -> Doubles:
        """Upper bounds of the joint utilities, [N]; minus infinity where an interest must not be shown."""
        bound = np.zeros(len(self._sizes))
        for (centres, radii), query in zip(self._vectors, (part.query, part.text), strict=True):
            bound += centres @ query + radii * np.linalg.norm(query)
        bound += self._standing[part.planner]
        extra = np.zeros(len(self._sizes))
        nests = np.searchsorted(self._bounds, part.bonus.items, side="right") - 1
        np.maximum.at(extra, nests, part.bonus.values)
        bound += extra
        # The inclusive value lies between the best item's utility and that plus the log of the items.
        scale = part.dissimilarity
        spread = np.maximum(scale - 1.0, 0.0) * np.log(self._sizes)
        slack = 1e-4 * (1.0 + np.abs(bound))  # single precision
        found: Doubles = scale * bound + spread + slack + offsets
        return found

    def order(self, part: _Part, offsets: Floats) -> tuple[Ints, Doubles]:
        """Nests that may be shown, and what the best item of each can be worth, in descending order of that."""
        most = self.most(part, offsets)
        order = np.argsort(-most, kind="stable")
        order = order[np.isfinite(most[order])]
        return order, most[order]


def _top(places: Ints, values: Floats, k: int) -> tuple[Ints, Floats]:
    """The k best that may be shown, best first, ties by place."""
    chosen = np.arange(len(values))
    if 0 < k < len(values):
        # In k blocks the largest value is no less than the bound, so the k best are among the values that are not.
        # A block takes one value of every run: neighbours are alike, and the bound is the better the fewer share one.
        blocks = len(values) // BLOCK
        largest = values[: blocks * BLOCK].reshape(BLOCK, blocks).max(axis=0) if blocks >= k else values
        chosen = np.flatnonzero(values >= np.partition(largest, len(largest) - k)[len(largest) - k])
    chosen = chosen[np.isfinite(values[chosen])]
    order = np.lexsort((places[chosen], -values[chosen]))[:k]
    return places[chosen[order]], values[chosen[order]]
