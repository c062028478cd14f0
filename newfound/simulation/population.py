"""A seeded population that reacts to slates: whoever built it knows what every client truly likes.

A client has an *affinity* in [0, 1] for every cluster. Some clusters are familiar (in the client's past), some are
latent: liked, but never met. A good recommender of new interests finds the latent ones. What a client does with a slot
depends on the affinity for its cluster, on the slot's place in the slate, and on chance drawn from the seed, the client
and the slate alone, so that the same slate always gets the same response, whatever happened in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from newfound.errors import ConfigError
from newfound.types import Doubles

_LOOKS_AT: Final = 0.97  # the chance to look at the next slot, having looked at this one


@dataclass(frozen=True)
class Shown:
    """A slot that a client may look at."""

    position: int
    item: str
    cluster: str


@dataclass(frozen=True)
class Response:
    """One kind of a client's feedback on one item.

    Attributes:
        kind: shown, clicked, watched, liked or dismissed.
        share: watched share; None for the other kinds.
        delay: seconds after the slate.
    """

    item: str
    kind: str
    share: float | None
    delay: float


@dataclass(frozen=True)
class Drift:
    """Tastes that change at a moment.

    Attributes:
        share: of the clients' latent interests that move to other clusters.
        successors: what follows an interest from now on: they move to successors of the client's familiar clusters,
            and anywhere where there are none.
    """

    share: float = 0.5
    successors: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Population:
    """Clients and their tastes.

    Args:
        pasts: clusters that each client consumed and liked before, by client, oldest first.
        clusters: all interface clusters.
        seed: of tastes and responses.
        latent: clusters a client would like if they ever met them.
        successors: clusters that tend to be liked by who likes a cluster, likeliest first: latent interests are drawn
            from them, as they are in the world that a planner learns from. Where a cluster has none, from all.

    Raises:
        ConfigError: there are no clients, or fewer clusters than a client has interests.
    """

    def __init__(
        self,
        pasts: Mapping[str, Sequence[str]],
        clusters: Sequence[str],
        *,
        seed: int,
        latent: int = 6,
        successors: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        if not pasts:
            raise ConfigError("simulation: no clients; expected at least one with a past")
        if len(clusters) <= latent:
            raise ConfigError(f"simulation: {len(clusters)} clusters; expected more than the {latent} latent interests")
        self.clusters = list(clusters)
        self.users = sorted(pasts)
        self._seed = seed
        self._column = {cluster: place for place, cluster in enumerate(self.clusters)}
        self._row = {user: place for place, user in enumerate(self.users)}
        rng = np.random.default_rng(seed)
        # Nobody hates a stranger's interest outright: a small affinity for everything.
        self.affinity: Doubles = rng.beta(1.0, 12.0, (len(self.users), len(self.clusters)))
        self.familiar: dict[str, list[str]] = {}
        self.latent: dict[str, list[str]] = {}
        for user in self.users:
            row = self._row[user]
            lately = dict.fromkeys(reversed(pasts[user]))  # oldest first, by when it was last consumed
            familiar = [cluster for cluster in reversed(lately) if cluster in self._column]
            self.familiar[user] = familiar
            for cluster in familiar:
                self.affinity[row, self._column[cluster]] = rng.beta(8.0, 5.0)
            self.latent[user] = self._next_interests(rng, user, successors or {}, set(familiar), latent)
            for cluster in self.latent[user]:
                self.affinity[row, self._column[cluster]] = rng.beta(8.0, 4.0)

    def _next_interests(
        self, rng: np.random.Generator, user: str, successors: Mapping[str, Sequence[str]], known: set[str], count: int
    ) -> list[str]:
        """Clusters that follow the client's familiar ones, none of them known; others where those are too few.

        The likeliest successors of all familiar clusters come first, those of the most recent one foremost.
        """
        after = [successors.get(cluster, ()) for cluster in reversed(self.familiar[user])]
        likely = [
            found[rank] for rank in range(max(map(len, after), default=0)) for found in after if rank < len(found)
        ]
        pool = [cluster for cluster in dict.fromkeys(likely) if cluster in self._column and cluster not in known]
        rest = [cluster for cluster in self.clusters if cluster not in known and cluster not in pool]
        chosen = _draw(rng, pool, count)
        return chosen + _draw(rng, rest, count - len(chosen))

    def drift(self, change: Drift, seed: int | None = None) -> None:
        """Moves latent interests elsewhere: what would have been liked is not any more, and something else is."""
        rng = np.random.default_rng(self._seed + 1 if seed is None else seed)
        for user in self.users:
            row = self._row[user]
            moved = _draw(rng, self.latent[user], round(change.share * len(self.latent[user])))
            known = {*self.familiar[user], *self.latent[user]}
            arrived = self._next_interests(rng, user, change.successors, known, len(moved))
            for old in moved:
                self.affinity[row, self._column[old]] = rng.beta(1.0, 12.0)
            for new in arrived:
                self.affinity[row, self._column[new]] = rng.beta(8.0, 4.0)
            self.latent[user] = [c for c in self.latent[user] if c not in moved] + arrived

    def expected(self, user: str, cluster: str) -> float:
        """The probability that the client, looking at an item of the cluster, responds positively: the known truth."""
        return float(self.affinity[self._row[user], self._column[cluster]])

    def wander(self, user: str, moment: str, count: int) -> list[str]:
        """Clusters that the client consumes from on other paths, the more liked the likelier: what a log is made of.

        Args:
            user: the client.
            moment: any name; the same one always leads the same way.
            count: how many, without repetition.
        """
        rng = np.random.default_rng(_digest(self._seed, user, f"wander {moment}"))
        weights = self.affinity[self._row[user]] ** 2
        chosen: Any = rng.choice(len(self.clusters), count, replace=False, p=weights / weights.sum())
        return [self.clusters[place] for place in chosen]

    def respond(self, user: str, slate: str, slots: Sequence[Shown]) -> list[Response]:
        """A client's feedback on a slate, in the order in which it happens.

        Args:
            user: the client.
            slate: id of the recommendation; the same one always gets the same response.
            slots: from the top down.
        """
        rng = np.random.default_rng(_digest(self._seed, user, slate))
        done: list[Response] = []
        clock = 0.0
        for slot in sorted(slots, key=lambda slot: slot.position):
            clock += float(rng.exponential(4.0))
            done.append(Response(slot.item, "shown", None, clock))
            liking = self.expected(user, slot.cluster) if slot.cluster in self._column else 0.0
            if rng.random() < liking:
                done.append(Response(slot.item, "clicked", None, clock + 1))
                done.append(Response(slot.item, "watched", round(float(rng.uniform(0.6, 1.0)), 3), clock + 30))
                if rng.random() < 0.4:
                    done.append(Response(slot.item, "liked", None, clock + 31))
            elif rng.random() < 0.15:
                done.append(Response(slot.item, "clicked", None, clock + 1))
                done.append(Response(slot.item, "watched", round(float(rng.uniform(0.0, 0.5)), 3), clock + 8))
            elif rng.random() < 0.03:
                done.append(Response(slot.item, "dismissed", None, clock + 2))
            if rng.random() > _LOOKS_AT:
                break
        return sorted(done, key=lambda response: response.delay)


def _draw(rng: np.random.Generator, pool: Sequence[str], count: int) -> list[str]:
    """Up to `count` of the pool, the earlier ones likelier."""
    if not pool or count <= 0:
        return []
    weights = 1.0 / np.arange(1, len(pool) + 1)
    chosen: Any = rng.choice(len(pool), min(count, len(pool)), replace=False, p=weights / weights.sum())
    return [pool[place] for place in chosen]


def _digest(seed: int, user: str, slate: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\n{user}\n{slate}".encode()).digest()[:8], "big")
