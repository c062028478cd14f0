"""Contracts between the services: whatever the explorer asks the ranker answers, whatever it emits the collector takes.

Requests are drawn from everything that the explorer's own bounds let through, stored histories from everything that a
feature store may hold, takedowns at random.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from monitoring.collector.intake import Intake
from monitoring.settings import MonitoringConfig
from newfound.events import BATCH
from newfound.recommend.catalogue import UserHistory
from newfound.schema import ENGAGEMENTS, ITEM_IDS, POSITIVES, TIMES
from newfound.types import ID_CHARACTERS
from serving.circuit_breaker import State
from serving.explorer.features import history_of
from serving.http.api import YEAR_10000
from tests.serving.conftest import WORLD
from tests.serving.in_process import KEY, Pair, paired

KNOWN = st.builds(
    lambda cluster, item: f"i{cluster}.{item}",
    st.integers(0, WORLD.clusters - 1),
    st.integers(0, WORLD.items - 1),
)
# Whatever the one contract of ids takes: printable, as far as control characters go, and all of Unicode otherwise.
ANY_ID = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[*map(chr, range(32)), "\x7f"]),
    min_size=1,
    max_size=ID_CHARACTERS,
)
ITEMS = st.one_of(KNOWN, KNOWN, KNOWN, ANY_ID)
UNIT = st.floats(0, 1, allow_nan=False)
NO_SHRINK = [Phase.explicit, Phase.reuse, Phase.generate]  # hundreds of requests an example
USERS = [f"u{number}" for number in range(4)]


def instances() -> st.SearchStrategy[dict[str, Any]]:
    """Requests that the explorer must take."""
    event = st.fixed_dictionaries(
        {"item": ITEMS},
        optional={"engagement": UNIT, "positive": st.booleans(), "at": st.integers(0, YEAR_10000 - 1) | st.none()},
    )
    history = st.lists(ITEMS | event, max_size=30)
    optional = {
        "k": st.integers(1, 100),
        "novel": st.integers(0, 100) | UNIT,
        "exclude": st.lists(ITEMS, max_size=20),
        "seed": st.integers(0, 2**53 - 1),
    }
    known = st.fixed_dictionaries(
        {"user_id": st.sampled_from(USERS) | ANY_ID}, optional={**optional, "history": history}
    )
    return known | st.fixed_dictionaries({"history": history}, optional=optional)


def stored() -> st.SearchStrategy[UserHistory]:
    """Rows of a feature store, those that no loader would write included."""
    columns = {
        ITEM_IDS: st.lists(ITEMS, max_size=30),
        ENGAGEMENTS: st.lists(st.floats(width=32) | UNIT, max_size=30),
        POSITIVES: st.lists(st.booleans(), max_size=30),
        TIMES: st.lists(st.integers(-(2**63), 2**63 - 1), max_size=2),
    }
    events = st.lists(st.tuples(ITEMS, st.floats(width=32) | UNIT, st.booleans(), st.just(1)), min_size=1, max_size=30)
    whole = events.map(lambda rows: dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)))
    return (whole | st.fixed_dictionaries(columns)).map(history_of)


@pytest.fixture(scope="module")
def pair(release_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.Runner, Pair]]:
    with asyncio.Runner() as runner:
        context = paired(release_root, tmp_path_factory.mktemp("cache"))
        one = runner.run(context.__aenter__())
        try:
            yield runner, one
        finally:
            one.take_down([], [])
            runner.run(context.__aexit__(None, None, None))


@settings(max_examples=60, deadline=None, phases=NO_SHRINK, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bodies=st.lists(instances(), min_size=1, max_size=4),
    histories=st.lists(stored(), min_size=len(USERS), max_size=len(USERS)),
    gone=st.lists(ITEMS, max_size=8),
    nodes=st.lists(st.sampled_from(["c1", "c2", "p0", "l3.0", "elsewhere"]), max_size=2),
)
def test_what_the_explorer_asks_is_answered_and_what_it_emits_is_taken(pair, bodies, histories, gone, nodes):
    runner, one = pair
    one.statuses.clear()
    one.events.kept.clear()
    one.histories.rows = dict(zip(USERS, histories, strict=True))
    one.take_down(gone, nodes)

    async def story() -> list[dict[str, Any]]:
        slates = await one.predict(*bodies)
        await asyncio.sleep(0)  # reports come at the loop's next iteration
        return slates

    slates = runner.run(story())
    assert set(one.statuses) == {200} and one.breakers["ranker"].state is State.CLOSED
    assert [slate["degraded"] for slate in slates] == [[]] * len(bodies)
    shown = {item["item"]: item["cluster"] for slate in slates for item in slate["items"]}
    assert not set(shown) & set(gone) and not set(shown.values()) & set(nodes)
    events = one.events.kept
    if not events:
        return
    assert [event["id"] for event in events] == [slate["id"] for slate in slates if slate["items"]]
    read = Intake(MonitoringConfig(), KEY).read({"content-type": BATCH}, orjson.dumps(events), datetime.now(UTC))
    by_id = {event.id: event for event in read.events}
    for body, slate in zip(bodies, slates, strict=True):
        if not slate["items"]:
            continue
        event = by_id[slate["id"]]
        assert event.client_seed == (body.get("seed") is not None)
        assert [slot.item for slot in event.slots] == [item["item"] for item in slate["items"]]
        assert all(0 < slot.propensity <= 1 and math.isfinite(slot.score or 0) for slot in event.slots)
