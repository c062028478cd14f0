"""Moments of the test: events at which methods are asked, with their histories, contexts and slices.

Nothing here is learned from. A user's history at test is everything that they consumed before the very event, including
what lies after the cut: that is what serving would know at that moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from newfound import schema
from newfound.clusters import Clusters
from newfound.config import PolicyConfig
from newfound.datasets import Dataset
from newfound.recommend import policy
from newfound.types import Array, Bools, Context, Ints, Reals


@dataclass(frozen=True)
class Journeys:
    """Everything that a group of users consumed, in order; users sorted, each one's events contiguous.

    `offsets` [U + 1] delimits the users' events; `past` [U] counts each user's events before the cut; the other arrays
    are parallel, one entry an event. `clusters` holds the interface index, -1 for an item in no cluster.
    """

    users: list[str]
    offsets: Ints
    past: Ints
    items: Array
    clusters: Ints
    positives: Bools
    engagements: Reals
    order: list[str]
    """interface clusters, by index"""

    @cached_property
    def row(self) -> Ints:
        """[E], the user's row of every event."""
        rows: Ints = np.repeat(np.arange(len(self.users)), np.diff(self.offsets))
        return rows

    @cached_property
    def position(self) -> Ints:
        """[E], 0, 1, 2, ... within the user."""
        positions: Ints = np.arange(len(self.items)) - self.offsets[self.row]
        return positions

    @cached_property
    def after_cut(self) -> Bools:
        """[E], whether the event lies after its user's cut."""
        later: Bools = self.position >= self.past[self.row]
        return later

    @cached_property
    def first_seen(self) -> Ints:
        """[U, N], position of the first event in the cluster, of any engagement; a huge number where there is none."""
        first = np.full((len(self.users), len(self.order)), np.iinfo(np.int64).max)
        known = self.clusters >= 0
        np.minimum.at(first, (self.row[known], self.clusters[known]), self.position[known])
        return first

    def items_before(self, event: int) -> list[str]:
        """Items that the event's user consumed before it, oldest first."""
        found: list[str] = self.items[self.offsets[self.row[event]] : event].tolist()
        return found

    def past_before(self, event: int) -> policy.Past:
        """The same history as the policy reads it."""
        start = self.offsets[self.row[event]]
        clusters = [self.order[c] if c >= 0 else None for c in self.clusters[start:event].tolist()]
        return policy.make_past(clusters, self.engagements[start:event].tolist(), self.positives[start:event].tolist())

    def recent_interests(self, event: int, count: int) -> Context:
        """The last `count` unique positive clusters before the event, oldest first; fewer where there are fewer."""
        found: list[int] = []
        for at in range(event - 1, int(self.offsets[self.row[event]]) - 1, -1):
            cluster = int(self.clusters[at])
            if cluster >= 0 and self.positives[at] and cluster not in found:
                found.append(cluster)
                if len(found) == count:
                    break
        return tuple(self.order[cluster] for cluster in reversed(found))


def read_journeys(
    dataset: Path, clusters: Clusters, groups: Sequence[str], users_at_most: int | None = None, seed: int = 0
) -> Journeys:
    """Reads the whole journeys of the users of some groups (of schema.GROUPS), past and future.

    Args:
        users_at_most: where there are more, a seeded choice of so many, the same whatever else is in the data.
    """
    import ibis

    data = Dataset(dataset)
    interactions, users = data.interactions, data.users
    chosen = users.filter(users[schema.GROUP].isin(list(groups)))[[schema.USER, schema.CUT]]
    if users_at_most is not None:
        lot = (ibis.literal(f"{seed}:") + chosen[schema.USER]).hexdigest("sha256")
        chosen = chosen.mutate(_lot=lot).order_by("_lot", schema.USER).limit(users_at_most).drop("_lot")
    table = interactions.inner_join(chosen, schema.USER)
    frame = (
        table.select(
            schema.USER,
            schema.ITEM,
            schema.ENGAGEMENT,
            schema.POSITIVE,
            schema.POSITION,
            past=(table[schema.TIME] < table[schema.CUT]),
        )
        .order_by([schema.USER, schema.POSITION])
        .to_pandas()
    )
    names, start = np.unique(frame[schema.USER].to_numpy(dtype=str), return_index=True)
    offsets = np.append(start, len(frame)).astype(np.int64)
    place = {item: clusters.index[cluster] for item, cluster in clusters.cluster_of.items()}
    return Journeys(
        users=names.tolist(),
        offsets=offsets,
        past=np.add.reduceat(frame["past"].to_numpy(np.int64), offsets[:-1]) if len(names) else np.zeros(0, np.int64),
        items=frame[schema.ITEM].to_numpy(dtype=object),
        clusters=frame[schema.ITEM].map(place).fillna(-1).to_numpy(np.int64),
        positives=frame[schema.POSITIVE].to_numpy(bool),
        engagements=frame[schema.ENGAGEMENT].to_numpy(np.float64),
        order=clusters.interface,
    )


@dataclass(frozen=True)
class Events:
    """Moments at which a user, known by their history, opened something: the rows that methods are asked to predict."""

    journeys: Journeys
    at: Ints
    """[B], the event's index in the journeys"""
    contexts: list[Context]
    """the K interests that the moment offers, oldest first"""

    def __len__(self) -> int:
        return len(self.at)

    @cached_property
    def users(self) -> Array:
        """[B], user ids."""
        return np.array(self.journeys.users)[self.journeys.row[self.at]]

    @cached_property
    def labels(self) -> Ints:
        """[B], index of the event's own cluster."""
        labels: Ints = self.journeys.clusters[self.at]
        return labels

    @cached_property
    def items(self) -> list[str]:
        """The item of every event."""
        found: list[str] = self.journeys.items[self.at].tolist()
        return found

    @cached_property
    def seen(self) -> Bools:
        """[B, N], clusters that the user had consumed before, positive or not."""
        first = self.journeys.first_seen[self.journeys.row[self.at]]
        earlier: Bools = first < self.journeys.position[self.at][:, None]
        return earlier

    @cached_property
    def histories(self) -> list[list[str]]:
        """Items consumed before every event, oldest first."""
        return [self.journeys.items_before(int(event)) for event in self.at]

    @cached_property
    def past_sizes(self) -> Ints:
        """[B], events that the user had before the cut."""
        sizes: Ints = self.journeys.past[self.journeys.row[self.at]]
        return sizes

    def take(self, rows: Ints) -> Events:
        """The events of some rows."""
        return Events(self.journeys, self.at[rows], [self.contexts[int(row)] for row in rows])

    def with_contexts(self, contexts: list[Context]) -> Events:
        """The same moments, offering other contexts."""
        return Events(self.journeys, self.at, contexts)


def novel_events(journeys: Journeys, size: int) -> Events:
    """Every positive event after the cut in a cluster that its user had never consumed, in context of the last `size`.

    Moments that offer fewer than `size` interests are left out: no context can be made of them.
    """
    known = np.flatnonzero(journeys.after_cut & journeys.positives & (journeys.clusters >= 0))
    first = journeys.first_seen[journeys.row[known], journeys.clusters[known]] == journeys.position[known]
    at = known[first]
    contexts = [journeys.recent_interests(int(event), size) for event in at]
    full = np.array([len(context) == size for context in contexts], dtype=bool)
    return Events(journeys, at[full], [context for context, whole in zip(contexts, full, strict=True) if whole])


def sampled_contexts(events: Events, config: PolicyConfig, size: int, seed: int) -> list[Context]:
    """A context for every moment, drawn as `newfound.recommend.policy` draws it, each moment from its own generator."""
    drawn = _draw(events, config, size, seed, None)
    return [context or last for context, last in zip(drawn, events.contexts, strict=True)]


def withheld_contexts(
    events: Events, withheld: set[Context], config: PolicyConfig, size: int, seed: int
) -> tuple[Bools, list[Context]]:
    """For every moment that could have been given a withheld context, one of those, drawn as serving would draw it.

    Returns:
        [B], which moments could have been given one; and the contexts, the last interests where none could.
    """
    drawn = _draw(events, config, size, seed, withheld)
    found = np.array([context is not None for context in drawn], dtype=bool)
    return found, [context or last for context, last in zip(drawn, events.contexts, strict=True)]


def _draw(
    events: Events, config: PolicyConfig, size: int, seed: int, among: set[Context] | None
) -> list[Context | None]:
    """Serving's draw of a full context, given that it falls among some; None where that cannot happen."""
    drawn: list[Context | None] = []
    for event in events.at.tolist():
        found = policy.interests(events.journeys.past_before(event), config)
        possible = [
            (context, probability)
            for context, probability in policy.context_distribution(found, size)
            if len(context) == size and probability > 0 and (among is None or context in among)
        ]
        rng = np.random.default_rng([seed, event])
        drawn.append(possible[policy.sample_context(possible, rng)][0] if possible else None)
    return drawn


def at_most(events: Events, unique_contexts: int, seed: int) -> Events:
    """Whole users, in a seeded random order, for as long as their contexts stay within a number of unique ones."""
    row = events.journeys.row[events.at]
    order = np.random.default_rng(seed).permutation(np.unique(row))
    starts, stops = np.searchsorted(row, order), np.searchsorted(row, order, side="right")
    contexts: set[Context] = set()
    kept: list[int] = []
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        more = contexts.union(events.contexts[start:stop])
        if len(more) > unique_contexts and kept:
            break
        contexts = more
        kept.extend(range(start, stop))
    return events.take(np.sort(np.array(kept, dtype=np.int64)))


def next_item_events(journeys: Journeys) -> Events:
    """Leave one out for the ranker: each user's first item after the cut that they had not consumed before.

    Users without a past are left out: there is nothing to rank from.
    """
    at = []
    for row in range(len(journeys.users)):
        start, stop, cut = int(journeys.offsets[row]), int(journeys.offsets[row + 1]), int(journeys.past[row])
        if cut == 0:
            continue
        known = set(journeys.items[start : start + cut].tolist())
        at.extend([e for e in range(start + cut, stop) if journeys.items[e] not in known][:1])
    return Events(journeys, np.array(at, dtype=np.int64), [()] * len(at))


def next_positive_events(journeys: Journeys, size: int, per_user: int) -> Events:
    """Each user's first positive events after the cut on fresh items, novel or not, `per_user` at most."""
    at, contexts = [], []
    for row in range(len(journeys.users)):
        start, stop, cut = int(journeys.offsets[row]), int(journeys.offsets[row + 1]), int(journeys.past[row])
        known = set(journeys.items[start : start + cut].tolist())
        taken = 0
        for event in range(start + cut, stop):
            fresh = journeys.items[event] not in known
            known.add(journeys.items[event])
            if taken < per_user and fresh and journeys.positives[event] and journeys.clusters[event] >= 0:
                context = journeys.recent_interests(event, size)
                if len(context) == size:
                    at.append(event)
                    contexts.append(context)
                    taken += 1
    return Events(journeys, np.array(at, dtype=np.int64), contexts)


def light_users(events: Events) -> Bools:
    """[B], events of users with no more past than the median user among them; the other half are heavy users."""
    _, first, inverse = np.unique(events.users, return_index=True, return_inverse=True)
    sizes = events.past_sizes[first]
    light: Bools = (sizes <= np.median(sizes))[inverse] if len(sizes) else np.zeros(0, dtype=bool)
    return light
