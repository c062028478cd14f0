"""Simulated days from a published release, as traffic alone or with a report of each."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from monitoring.rehearsal.stack import Services, copy_features, services
from monitoring.rehearsal.traffic import Day, items_by_cluster, live_a_day, successors_of
from monitoring.report.job import WindowReport, report_window
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.users.interactions import read_interactions
from newfound.clusters import Clusters
from newfound.errors import DataError, ReleaseError
from newfound.files import remove_folder, write_json
from newfound.release import store as published
from newfound.schema import USER_HISTORY
from newfound.simulation import Drift, Population

log: Final = logging.getLogger("newfound.monitoring.monitor")
SECRET: Final = "key of a rehearsal alone"  # its users are simulated
DAY: Final = timedelta(days=1)
RECORD: Final = "rehearsal.json"  # by which a later rehearsal knows the folder as its own


def simulate(
    releases: Path,
    dataset: Path,
    features: Path,
    out: Path,
    stop: datetime,
    *,
    days: int = 7,
    drift_after: int | None = None,
    users_a_day: int = 60,
    returning: float = 0.25,
    wander: int = 4,
    seed: int = 7,
) -> Iterator[tuple[Services, Store, Day]]:
    """Lets simulated clients live some days with the current release's services, and gives each day once it is over.

    Some of a day's clients come back the next day, and nobody later, so that none runs out of new interests.

    Args:
        releases: root of releases with a current one.
        dataset: what it was trained on: what the clients consumed before.
        features: its feature store, of which a copy is used.
        out: folder that is made anew (an earlier one's is emptied), for the store, spools and logs.
        stop: end of the last day.
        days: how many.
        drift_after: days before tastes move; None leaves them.
        users_a_day: clients active on a day.
        returning: share of them who come back the next day.
        wander: clusters that each of them consumes from on other paths.
        seed: of tastes and of everything that the clients do.

    Raises:
        ReleaseError: nothing was published yet.
        DataError: the dataset or its feature store is not there.
        ConfigError: `out` holds something that no rehearsal made.
    """
    now = published.current(str(releases))
    if now is None:
        raise ReleaseError(f"{releases}: no release was published yet; `make run` makes one")
    if not (features / f"{USER_HISTORY}.parquet").is_file():
        raise DataError(str(features), "holds no feature store", expected="the folder `features` of a run")
    folder = published.load(str(releases), now).path
    clusters = Clusters.load(folder / "clusters")
    remove_folder(out, RECORD)
    write_json(out / RECORD, {"days": days, "seed": seed})
    successors = successors_of(folder / "table", top=2)
    with closing(Store(f"sqlite:///{out.absolute()}/events.db", SECRET.encode())) as store:
        before = dict(read_interactions(dataset))
        store.import_interactions(iter(before.items()))
        liked_before = {user: liked for user, events in before.items() if (liked := _liked(events, clusters))}
        people = Population(liked_before, clusters.interface, seed=seed, successors=successors)
        log.info("feature store: copied, applied, materialised")
        copied = copy_features(features, out / "features")
        with services(out, releases, copied, SECRET) as up:
            for day in range(days):
                if day == drift_after:
                    people.drift(Drift(share=1.0, successors=_renamed(successors, clusters.interface, seed)))
                    log.info("tastes drift")
                start = stop - (days - day) * DAY
                users = _cohort(people, round(day * users_a_day * (1 - returning)), users_a_day)
                traffic = live_a_day(up, people, users, items_by_cluster(clusters), start, wander=wander)
                log.info("day %d of %d: %d slates, %d feedback events", day + 1, days, traffic.slates, traffic.feedback)
                yield up, store, traffic


def rehearse(
    releases: Path,
    dataset: Path,
    features: Path,
    out: Path,
    stop: datetime,
    config: MonitoringConfig,
    *,
    reference: timedelta = 3 * DAY,
    each_day: Callable[[Services, Store, WindowReport], None] | None = None,
    **simulated: Any,
) -> list[WindowReport]:
    """Simulates days (see `simulate`) and reports each of them.

    Args:
        config: bounds and meanings.
        reference: how far back each day is compared.
        each_day: called after each day's report.
        simulated: options of `simulate`; its other arguments are the same.
    """
    reports: list[WindowReport] = []
    for up, store, traffic in simulate(releases, dataset, features, out, stop, **simulated):
        until = traffic.start + DAY
        reports.append(report_window(store, out, until, DAY, reference, config, root=str(releases)))
        for check in reports[-1].failed:
            log.warning("day to %s: %s", until, check)
        if each_day is not None:
            each_day(up, store, reports[-1])
    return reports


def _liked(events: Sequence[tuple[str, int, float, bool]], clusters: Clusters) -> list[str]:
    of = clusters.cluster_of
    return [of[item] for item, _, _, positive in events if positive and item in of]


def _cohort(people: Population, first: int, size: int) -> list[str]:
    users = people.users
    return [users[(first + place) % len(users)] for place in range(min(size, len(users)))]


def _renamed(successors: Mapping[str, Sequence[str]], clusters: Sequence[str], seed: int) -> dict[str, list[str]]:
    """Successors of an interest after the drift: each another cluster than it was, and no less popular."""
    shuffled = random.Random(seed).sample(list(clusters), len(clusters))
    other = dict(zip(shuffled, shuffled[1:] + shuffled[:1], strict=True))
    return {cluster: [other[after] for after in followers] for cluster, followers in successors.items()}
