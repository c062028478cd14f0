"""The served slate beside its simplest baseline, by the code that serves: one decision for each moment and draw."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq

from newfound import measures
from newfound.clusters import Clusters
from newfound.config import PolicyConfig
from newfound.evaluation.bootstrap import Bootstrap
from newfound.evaluation.methods import put
from newfound.evaluation.moments import Events
from newfound.ranker import Ranker
from newfound.recommend.catalogue import Catalogue, UserHistory
from newfound.recommend.cluster_terms import ClusterTerms
from newfound.recommend.item_terms import ItemTerms
from newfound.recommend.joint_ranker import JointRanker
from newfound.recommend.nested_logit import DecisionModel
from newfound.recommend.recommender import Recommender
from newfound.release.items import write_catalogue
from newfound.release.takedown import Takedown
from newfound.table import TransitionTable
from newfound.types import Doubles, Ints

DRAWS: Final = 4
CHUNK: Final = 256
K: Final = 10


@dataclass(frozen=True)
class Shown:
    """Outcome of slates of `K` novel slots at some moments.

    Attributes:
        hits: [B], share of the draws whose slate held the moment's item.
        gains: [B], mean discounted gain of its position.
        clusters: [N], in how many slates each interest was shown.
    """

    hits: Doubles
    gains: Doubles
    clusters: Ints


def open_recommender(
    dataset: Path, clusters: Path, table: Path, ranker: Path, decision: Path, policy: PolicyConfig
) -> Recommender:
    """The recommender of a fit that is not published: the same parts as a release's."""
    interests = Clusters.load(clusters)
    policy_of_items = Ranker.load(ranker)
    with tempfile.TemporaryDirectory(prefix="newfound-") as folder:
        file = Path(folder) / "items.parquet"
        write_catalogue(dataset, clusters, file)
        items = pq.read_table(file)
    model = DecisionModel.load(decision, interests.digest)
    terms = ClusterTerms.load(decision, len(interests.interface))
    catalogue = Catalogue("measured", interests, TransitionTable.load(table, interests), items, model, terms)
    joint = JointRanker(
        policy_of_items, model, ItemTerms.load(decision, len(policy_of_items.items)), interests.interface
    )
    return Recommender(catalogue, joint, None, policy, Takedown())


def served_slates(recommender: Recommender, events: Events, draws: int = DRAWS) -> Shown:
    """Slates with nothing but novel slots, `draws` at each moment, each from a seed of its own."""
    hits, gains = np.zeros(len(events)), np.zeros(len(events))
    index = recommender.catalogue.clusters.index
    shown = np.zeros(len(index), dtype=np.int64)
    items = events.items
    for start in range(0, len(events), CHUNK):
        rows = range(start, min(start + CHUNK, len(events)))
        histories = [history_before(events, row) for row in rows]
        for draw in range(draws):
            seeds = [(int(events.at[row]) * draws + draw) for row in rows]
            slates = recommender.recommend_all(histories, seeds, k=K, novel=K)
            for row, slate in zip(rows, slates, strict=True):
                names = [entry.item for entry in slate.items]
                for cluster in {entry.cluster for entry in slate.items}:
                    shown[index[cluster]] += 1
                if items[row] in names:
                    place = np.array([names.index(items[row])])
                    hits[row] += 1 / draws
                    gains[row] += float(measures.gains(place, K)[0]) / draws
    return Shown(hits, gains, shown)


def history_before(events: Events, row: int) -> UserHistory:
    """The history that serving would know at a moment."""
    journeys, event = events.journeys, int(events.at[row])
    start = int(journeys.offsets[journeys.row[event]])
    return UserHistory(
        journeys.items[start:event].tolist(),
        journeys.engagements[start:event].tolist(),
        journeys.positives[start:event].tolist(),
    )


def direct_slates(ranker: Ranker, events: Events) -> Shown:
    """The ranker's own best items of never-consumed clusters: a filter, and no planner."""
    order = events.journeys.order
    hits, gains, shown = np.zeros(len(events)), np.zeros(len(events)), np.zeros(len(order), dtype=np.int64)
    cluster_of = _clusters_of(ranker, order)
    for start, histories in _chunks(events):
        rows = range(start, start + len(histories))
        novel = [[order[c] for c in np.flatnonzero(~events.seen[row])] for row in rows]
        for row, best in zip(rows, ranker.top_k(histories, novel, K, histories), strict=True):
            names = [item for item, _ in best]
            for cluster in {cluster_of[item] for item in names}:
                shown[cluster] += 1
            if events.items[row] in names:
                hits[row] = 1.0
                gains[row] = float(measures.gains(np.array([names.index(events.items[row])]), K)[0])
    return Shown(hits, gains, shown)


def _clusters_of(ranker: Ranker, order: Sequence[str]) -> dict[str, int]:
    spans = [ranker.slices[cluster] for cluster in order]
    return {ranker.items[at]: place for place, (start, stop) in enumerate(spans) for at in range(start, stop)}


def _chunks(events: Events) -> Iterator[tuple[int, list[list[str]]]]:
    for start in range(0, len(events), CHUNK):
        yield start, events.histories[start : start + CHUNK]


def coverage(shown: Ints) -> float:
    """Share of the interests that any slate showed."""
    return float((shown > 0).mean()) if len(shown) else 0.0


def served_measures(recommender: Recommender, ranker: Ranker, events: Events, boot: Bootstrap) -> dict[str, float]:
    """`served.*` and `rival.ranker_direct.*`, and how far the first is ahead, over the same resamples."""
    found: dict[str, float] = {}
    slates = {"served": served_slates(recommender, events), "rival.ranker_direct": direct_slates(ranker, events)}
    for name, shown in slates.items():
        put(found, f"{name}.novel_hr@10", boot.mean(shown.hits))
        put(found, f"{name}.novel_ndcg@10", boot.mean(shown.gains))
        found[f"{name}.slate_coverage"] = coverage(shown.clusters)
    served, direct = slates["served"], slates["rival.ranker_direct"]
    put(found, "served.minus.ranker_direct.novel_hr@10", boot.difference(served.hits, direct.hits))
    put(found, "served.minus.ranker_direct.novel_ndcg@10", boot.difference(served.gains, direct.gains))
    return found
