"""How long the joint decision's best items take, as the catalogue grows: `make bench-joint`.

Items lie around the centres of their interests, interests around those of their branches, which lie along a few
directions, as trained vectors do. Visiting by bound stands beside scoring every item, both by the code that serves, on
the same queries in turns; both must answer alike.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from newfound.ranker.index import NO_BONUS, ItemIndex
from newfound.recommend import joint_ranker
from newfound.recommend.item_terms import COUNTS, ItemTerms
from newfound.recommend.joint_ranker import JointRanker
from newfound.recommend.nested_logit import Coefficients, DecisionModel
from newfound.recommend.query import JointQuery
from newfound.types import Floats, Ints
from tests.benchmarks.record import machine, write_record

DIM, INTERESTS, BRANCHES, K, SEEN = 64, 800, 40, 64, 30


class _Histories:
    """What the joint ranker needs of a ranker, with queries that are made up."""

    def __init__(self, vectors: Floats, slices: dict[str, tuple[int, int]], queries: Floats) -> None:
        self.items = [str(at) for at in range(len(vectors))]
        self.slices, self.index, self._queries = slices, ItemIndex(vectors), queries
        self.encoder, self.cooccurrence = SimpleNamespace(length=50), SimpleNamespace(weight=0.0)

    def positions(self, items: list[str]) -> np.ndarray:
        return np.array([int(item) for item in items], dtype=np.int64)

    def queries(self, histories: list[np.ndarray]) -> Floats:
        return self._queries[[history[0] % len(self._queries) for history in histories]]

    def bonus(self, history: np.ndarray, spans: object) -> Any:
        return NO_BONUS


def catalogue(items: int, seed: int, bounds: Ints | None = None) -> tuple[Floats, Ints]:
    """Unit vectors by interest [items, DIM], and where interests start [INTERESTS + 1].

    Args:
        items: number of items.
        seed: of everything.
        bounds: where interests start, of an earlier call; None: drawn.
    """
    rng = np.random.default_rng(seed)
    spread = (1 + np.arange(DIM)) ** -0.7
    branches = rng.normal(size=(BRANCHES, DIM)) * spread
    centres = branches[rng.integers(0, BRANCHES, INTERESTS)] + 0.5 * rng.normal(size=(INTERESTS, DIM)) * spread
    if bounds is None:
        sizes = rng.dirichlet(np.full(INTERESTS, 3.0)) * items
        bounds = np.concatenate([[0], np.cumsum(np.maximum(sizes, 1)).astype(np.int64)])
        bounds[-1] = items
    vectors = np.empty((items, DIM), dtype=np.float32)
    for nest in range(INTERESTS):
        part = slice(int(bounds[nest]), int(bounds[nest + 1]))
        own = centres[nest] + 0.3 * rng.normal(size=(part.stop - part.start, DIM)) * spread
        vectors[part] = own / np.linalg.norm(own, axis=1, keepdims=True)
    return vectors, bounds


def rankers(items: int, seed: int) -> tuple[JointRanker, JointRanker, list[JointQuery]]:
    """One that visits by bound, one that scores all, and queries."""
    rng = np.random.default_rng(seed + 1)
    vectors, bounds = catalogue(items, seed)
    names = [f"c{nest}" for nest in range(INTERESTS)]
    slices = {name: (int(bounds[at]), int(bounds[at + 1])) for at, name in enumerate(names)}
    queries = (12 * vectors[rng.integers(0, items, 64)]).astype(np.float32)
    inner = cast(Any, _Histories(vectors, slices, queries))
    full = Coefficients(items={"ranker": 0.5, "popularity": 0.2}, clusters={"planner": 1.0}, dissimilarity=0.8)
    terms = ItemTerms(rng.normal(size=(items, len(COUNTS))).astype(np.float32), np.zeros((items, 0), np.float32))
    made = []
    for whole in (0, items):
        joint_ranker.WHOLE = whole  # type: ignore[misc]
        made.append(JointRanker(inner, DecisionModel(full=full), terms, names))
    asked = []
    for number in range(64):
        open_ = rng.permutation(INTERESTS)[SEEN:]
        offsets = dict(zip((names[at] for at in open_), rng.normal(size=len(open_)).tolist(), strict=True))
        asked.append(JointQuery([str(number)], offsets, K))
    return made[0], made[1], asked


def measure(items: int, repeats: int) -> dict[str, float]:
    """Medians of one query each, and how many interests were visited."""
    visiting, whole, queries = rankers(items, 7)
    visited: list[int] = []
    inside = visiting._joint_of

    def counted(part: Any, offsets: Floats, nests: Ints) -> tuple[Ints, Floats]:
        visited[-1] += len(nests)
        return inside(part, offsets, nests)

    visiting._joint_of = counted  # type: ignore[method-assign]
    took: dict[str, list[float]] = {"visiting": [], "whole": []}
    for repeat in range(repeats):
        query = queries[repeat % len(queries)]
        answers = {}
        for name, ranker in (("visiting", visiting), ("whole", whole)):
            visited.append(0)
            began = time.perf_counter()
            (answers[name],) = ranker.top_k([query])
            took[name].append(time.perf_counter() - began)
        scores = [np.array([value for _, value in answers[name].best]) for name in took]
        assert np.allclose(*scores, atol=1e-3), "visiting by bound answers otherwise"
    medians = {f"{name}_ms": 1e3 * float(np.median(values)) for name, values in took.items()}
    share = float(np.mean(visited[::2])) / INTERESTS
    return {**medians, "visited_share": share, "ratio": medians["whole_ms"] / medians["visiting_ms"]}


def main() -> None:
    """Measures every size and writes `runs/bench/joint.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 300_000, 1_000_000, 5_000_000])
    parser.add_argument("--repeats", type=int, default=60)
    options = parser.parse_args()
    record: dict[str, object] = {}
    for items in options.items:
        found = measure(items, options.repeats)
        print(f"{items:>9,} items  " + "  ".join(f"{name} {value:.3f}" for name, value in found.items()), flush=True)
        record |= {f"{name}@{items}": value for name, value in found.items()}
    write_record(Path("runs/bench/joint.json"), {**record, **machine()})


if __name__ == "__main__":
    main()
