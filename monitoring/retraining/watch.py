"""The canary that has traffic, judged on a schedule: taken off it where it is worse, promoted by people alone."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from monitoring.retraining.canary import Verdict, compare_releases
from monitoring.retraining.traffic import Gateway, canary_on
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.store.rows import micros
from monitoring.store.tables import verdicts
from newfound.errors import ReleaseError
from newfound.release.storage import Storage
from newfound.release.store import current, manifest_of


@dataclass(frozen=True)
class Judged:
    """A canary's verdict.

    Attributes:
        release: its id.
        rolled_back: whether its traffic was taken from it.
    """

    release: str
    verdict: Verdict
    rolled_back: bool


def watch(
    store: Store, root: str, config: MonitoringConfig, now: datetime, gateway: Gateway, *, roll_back: bool
) -> Judged | None:
    """Judges the canary that has traffic by all slates since its release was made, and remembers the verdict.

    Args:
        store: where events are.
        root: folder or URL of all releases.
        config: of the comparison.
        now: UTC.
        gateway: whose weights they are.
        roll_back: whether a canary that is worse loses its traffic; else it is only said.

    Returns:
        The verdict; None where no canary has traffic, or the one that has it is current by now.

    Raises:
        ReleaseError: the gateway names a release that is not there.
        TrafficError: the cluster refuses.
    """
    route = gateway.route()
    digest = canary_on(route)
    if digest is None:
        return None
    release = _release_of(root, digest)
    if release == current(root):
        return None
    span = now - datetime.fromisoformat(manifest_of(root, release).created)
    with tempfile.TemporaryDirectory(prefix="newfound-") as exports:
        verdict, _ = compare_releases(store, Path(exports), release, root, span, config, now, repeatedly=True)
    rolled_back = roll_back and verdict.action == "rollback"
    if rolled_back:
        gateway.roll_back(route)
    row = {"at": micros(now), "release": release, "action": verdict.action, "reason": verdict.reason}
    with store.engine.begin() as connection:
        connection.execute(verdicts.insert(), [{**row, "rolled_back": rolled_back}])
    return Judged(release, verdict, rolled_back)


def _release_of(root: str, digest: str) -> str:
    found = [name for name in Storage(root).folders() if name.endswith(f"-{digest}")]
    if len(found) != 1:
        raise ReleaseError(f"{root}: {len(found)} releases end in {digest}, which the gateway names; expected one")
    return found[0]
