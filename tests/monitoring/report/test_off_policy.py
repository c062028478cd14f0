"""A report's estimates of policies that never served, against clients whose tastes are known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from monitoring.rehearsal.traffic import successors_of
from monitoring.report.export import export
from monitoring.report.off_policy import ALL, POLICIES
from monitoring.report.windows import measure
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from newfound.config import PolicyConfig
from newfound.events import FeedbackEvent, SlotEvent
from newfound.recommend.catalogue import Catalogue, UserHistory
from newfound.recommend.decision import SlateRequest, draft
from newfound.recommend.recommender import Recommender
from newfound.simulation import Population, Shown
from tests.monitoring import servers as parts
from tests.serving.synthetic import World, histories, publish_world

START = datetime(2026, 3, 10, tzinfo=UTC)
USERS = 1500


def test_known_truth_is_recovered_from_logged_propensities(sqlite_url: str, tmp_path: Path) -> None:
    world = World()
    made_release = publish_world(world, tmp_path / "releases", tmp_path / "parts")
    recommender = Recommender(Catalogue.open(tmp_path / "releases" / made_release.id), None)
    cluster_of = recommender.catalogue.cluster_of
    policy = PolicyConfig(exploration=0.2, novel_share=0.5)
    rows = {str(row["user_id"]): row for row in histories(world, USERS, 12)}
    # Clients like what the table says follows, so that its likeliest answer beats chance by far.
    successors = successors_of(tmp_path / "parts" / "table")
    pasts = {user: [cluster_of[item] for item in row["item_ids"]] for user, row in rows.items()}  # type: ignore[attr-defined]
    people = Population(pasts, recommender.catalogue.interface, seed=3, successors=successors)
    store = Store(sqlite_url, parts.SECRET.encode())
    truth: dict[str, list[float]] = {policy_name: [] for policy_name in POLICIES}
    logged: list[float] = []
    for number, (user, row) in enumerate(rows.items()):
        history = UserHistory(row["item_ids"], row["engagements"], row["positives"], row["times"][-1])  # type: ignore[arg-type,index]
        made = draft(recommender.available, history, SlateRequest(8), number, policy, None)
        plan = made.plan()
        placed = made.finish(plan, made.popular(plan))
        slots = tuple(
            SlotEvent(
                position=place,
                item=entry.item,
                cluster=entry.cluster,
                kind=entry.kind.value,
                propensity=entry.propensity,
                reason=entry.reason.value,
                candidates=dict(entry.candidates or {}),
                floor=entry.floor,
                eligible=entry.eligible,
            )
            for place, entry in enumerate(placed)
        )
        at = START + timedelta(seconds=number)
        slate = parts.recommendation(number, at=at, user_id=user, slots=slots)
        done = people.respond(user, slate.id, [Shown(s.position, s.item, s.cluster) for s in slots])
        seen = {one.item for one in done}
        for slot in slots:
            if slot.kind == "novel" and slot.eligible and slot.item in seen:
                best = max(slot.candidates.values(), default=0)
                tops = [cluster for cluster, value in slot.candidates.items() if value == best]
                truth["uniform"].append(np.mean([people.expected(user, cluster) for cluster in made.eligible]))
                truth["likeliest"].append(np.mean([people.expected(user, cluster) for cluster in tops]))
                logged.append(people.expected(user, slot.cluster))
        about = {"user_id": user, "recommendation_id": slate.id}
        store.write(
            [
                slate,
                *(
                    FeedbackEvent(id=f"{number}-{n}", at=at + timedelta(seconds=one.delay), item=one.item,
                                  kind=one.kind, share=one.share, **about)  # type: ignore[arg-type]
                    for n, one in enumerate(done)
                ),
            ]
        )  # fmt: skip
    export(store, tmp_path / "exports")
    found = measure(tmp_path / "exports", START, START + timedelta(days=1), MonitoringConfig()).measures[ALL]
    store.close()
    means = {name: float(np.mean(values)) for name, values in truth.items()}
    assert means["uniform"] < np.mean(logged) - 0.03 < np.mean(logged) < means["likeliest"], "or nothing is shown"
    for name in POLICIES:
        for figure in ("ips", "snips", "dr"):
            value, error = found[f"offpolicy.{name}.{figure}"], found[f"offpolicy.{name}.{figure}_error"]
            assert value is not None and error is not None and error < 0.05
            assert abs(value - means[name]) < 4 * error, (name, figure, value, means[name], error)
        assert (found[f"offpolicy.{name}.effective_sample_size"] or 0) > 200
