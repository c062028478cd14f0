"""A day of simulated clients: slates, the feedback on them, and what is consumed on other paths."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from monitoring.rehearsal.stack import Services, wait_until_delivered
from newfound.clusters import Clusters
from newfound.events import BATCH, FeedbackEvent, envelope
from newfound.simulation import Population, Shown

log: Final = logging.getLogger("newfound.monitoring.rehearsal")
SOURCE: Final = "/newfound/rehearsal"
_LATEST: Final = 78_000  # second of the day of the last request: its feedback lies in the same day


@dataclass(frozen=True)
class Day:
    """One day of traffic.

    Attributes:
        start: its first moment.
        slates: asked for.
        feedback: events sent.
    """

    start: datetime
    slates: int
    feedback: int


def live_a_day(
    up: Services,
    people: Population,
    users: Sequence[str],
    items: Mapping[str, Sequence[str]],
    start: datetime,
    *,
    slates: int = 2,
    wander: int = 4,
    k: int = 10,
    seed: int = 0,
) -> Day:
    """Lets clients live a day.

    Args:
        up: the services.
        people: the population, whose tastes decide.
        users: who is active.
        items: items by cluster, for what is consumed on other paths.
        start: the day's first moment, in simulated time.
        slates: a user asks for so many.
        wander: a user consumes from so many clusters on other paths.
        k: slots of a slate.
        seed: of the moments within the day.
    """
    rng = random.Random(f"{seed} {start}")
    moments = sorted((start + timedelta(seconds=rng.randrange(_LATEST)), user) for user in users for _ in range(slates))
    sent: list[dict[str, Any]] = []
    total = 0
    for at, user in moments:
        slate = _slate_of(up, user, at, k, rng.randrange(2**32))
        if slate is not None:
            # The seed and the day name the response: ids differ from run to run, and so would everything else.
            sent += _responses(people, user, slate, at, name=f"{start} {at}")
        if len(sent) > 200:
            total += _send(up, sent)
    for user in users:
        for number, cluster in enumerate(people.wander(user, str(start), wander)):
            at = start + timedelta(seconds=rng.randrange(_LATEST))
            if items.get(cluster):
                event = FeedbackEvent(
                    id=f"{user}-{start:%Y%m%d}-{number}",
                    at=at,
                    user_id=user,
                    item=rng.choice(items[cluster]),
                    kind="liked",
                )
                sent.append(envelope(event, SOURCE))
    total += _send(up, sent)
    wait_until_delivered(up)
    return Day(start, len(moments), total)


def _slate_of(up: Services, user: str, at: datetime, k: int, seed: int) -> dict[str, Any] | None:
    """The explorer's slate, which counts as answered at the given moment; None where it did not answer."""
    answer = up.client.post(
        f"{up.explorer}/v1/models/newfound:predict", json={"instances": [{"user_id": user, "k": k, "seed": seed}]}
    )
    if answer.status_code != 200:
        log.error("the explorer answered %d: %s", answer.status_code, answer.text[:200])
        return None
    slate: dict[str, Any] = answer.json()["predictions"][0]
    up.relay.moments[slate["id"]] = at
    return slate


def _responses(
    people: Population, user: str, slate: Mapping[str, Any], at: datetime, *, name: str
) -> list[dict[str, Any]]:
    """A user's feedback on a slate, as CloudEvents."""
    shown = [Shown(place, slot["item"], slot["cluster"]) for place, slot in enumerate(slate["items"])]
    return [
        envelope(
            FeedbackEvent(
                id=f"{slate['id']}-{number}",
                at=at + timedelta(seconds=did.delay),
                recommendation_id=slate["id"],
                user_id=user,
                item=did.item,
                kind=did.kind,  # type: ignore[arg-type]
                share=did.share,
            ),
            SOURCE,
        )
        for number, did in enumerate(people.respond(user, name, shown))
    ]


def items_by_cluster(clusters: Clusters) -> dict[str, list[str]]:
    """The items of every interface cluster."""
    return {node: list(clusters.items_under(node)) for node in clusters.interface}


def successors_of(table: Path, top: int = 5) -> dict[str, list[str]]:
    """Successors of each interest by a release's table, most answered first: latent interests are drawn from it."""
    import numpy as np

    from newfound.table.artifact import read_arrays, read_record

    names = read_record(table)["interface"]
    contexts, log_probs = read_arrays(table)
    counts: dict[str, dict[str, int]] = {}
    for context, row in zip(contexts.tolist(), log_probs, strict=True):
        here = counts.setdefault(names[context[-1]], {})
        for rank, cluster in enumerate(np.argsort(-row, kind="stable")[:top].tolist()):
            here[names[cluster]] = here.get(names[cluster], 0) + top - rank
    return {last: sorted(after, key=lambda c: (-after[c], c)) for last, after in sorted(counts.items())}


def _send(up: Services, sent: list[dict[str, Any]]) -> int:
    count = len(sent)
    for first in range(0, count, 500):
        answer = up.client.post(
            f"{up.collector}/v1/events", json=sent[first : first + 500], headers={"content-type": BATCH}
        )
        answer.raise_for_status()
    sent.clear()
    return count
