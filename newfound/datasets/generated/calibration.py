"""Shape of a real data set, in numbers that a generated one follows.

    python -m newfound.datasets.generated.calibration NAME DATASET CLUSTERS

measures a folder of `load_interactions` with interest clusters of it, and keeps that as NAME in calibrations.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from newfound.datasets.dataset import Dataset
from newfound.errors import ConfigError
from newfound.files import write_text
from newfound.schema import CLUSTER, ENGAGEMENT, ITEM, PARENT, PATH, POSITION, POSITIVE, TIME, TITLE, USER
from newfound.types import Array, Doubles, Ints

FILE: Final = Path(__file__).with_name("calibrations.json")
RANKS: Final = (*(2.0**-power for power in range(14, 2, -1)), *np.linspace(0.2, 1.0, 17).round(2).tolist())
"""Shares of the items, or users, with the most events."""
LEVELS: Final = (*np.linspace(0, 0.95, 39).round(3).tolist(), 0.97, 0.98, 0.99, 0.995, 0.999, 1.0)
"""Levels of quantiles."""
POSITIONS: Final = tuple(2**power for power in range(14))
"""Numbers of earlier events."""

FEW: Final = 100
"""Events that tell how often one opens an interest; where there are fewer, it falls by a fifth from position to
position."""


@dataclass(frozen=True)
class Calibration:
    """Shape of a data set; shares are in [0, 1], times in seconds.

    A head curve holds the share of all events that belong to a share of the items (or users) with the most of them, by
    `RANKS`; NaN below one item. Quantiles are by `LEVELS`.

    Attributes:
        popularity: head curve of the items.
        activity: head curve of the users.
        opening: by `POSITIONS`, how often a user's event is the first in its interest, after so many events.
        staying: how often another event stays in the interest of the one before it.
        kinship: how often a first event in an interest lies on the branch of the event before, beyond chance.
        gaps: quantiles of the time between a user's events; empty where times are ordinals.
        span: from the first event of all to the last.
        ratings: engagements and their shares.
        positive_at: engagement from which an event is positive.
        quality: share of the engagements' variance that the item explains.
        mildness: share that the user explains.
        words: quantiles of the number of words of a title.
        telling: share of a title's words that are its interest's own.
    """

    popularity: tuple[float, ...]
    activity: tuple[float, ...]
    opening: tuple[float, ...]
    staying: float
    kinship: float
    gaps: tuple[float, ...]
    span: float
    ratings: tuple[tuple[float, float], ...]
    positive_at: float
    quality: float
    mildness: float
    words: tuple[float, ...]
    telling: float


def load_calibration(name: str) -> Calibration:
    """A measured set's shape, by name.

    Raises:
        ConfigError: no such set was measured.
    """
    found = _read()
    if name not in found:
        raise ConfigError(f"calibration {name!r}: not measured; expected one of {', '.join(sorted(found))}")
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in found[name].items()
    }
    return Calibration(**{**values, "ratings": tuple(tuple(pair) for pair in values["ratings"])})


def measure(dataset: Path, interests: pd.DataFrame) -> Calibration:
    """Measures a data set.

    Args:
        dataset: folder of `load_interactions`.
        interests: columns item_id, cluster (the interest) and parent (its branch).
    """
    data = Dataset(dataset)
    events = data.frame("interactions").sort_values([USER, POSITION], ignore_index=True)
    row = events[USER].factorize()[0].astype(np.int64)
    engagement = events[ENGAGEMENT].to_numpy(np.float64)
    ordinal = data.info["time"] == "ordinal"
    seconds = events[TIME].astype("int64").to_numpy() / 1e6
    values, counts = np.unique(engagement.round(6), return_counts=True)
    item = events[ITEM].factorize()[0]
    gaps = np.diff(seconds)[np.diff(row) == 0]
    opening, staying, kinship = _journeys(events, row, interests)
    titles = data.frame("items")[[ITEM, TITLE]].merge(interests, on=ITEM)
    words = np.array([len(title.split()) for title in titles[TITLE]], dtype=np.float64)
    return Calibration(
        popularity=head_curve(events[ITEM].value_counts().to_numpy()),
        activity=head_curve(events[USER].value_counts().to_numpy()),
        opening=opening,
        staying=staying,
        kinship=kinship,
        gaps=() if ordinal else _quantiles(gaps),
        span=0.0 if ordinal else float(np.ptp(seconds)),
        ratings=tuple(zip(values.tolist(), (counts / len(events)).round(6).tolist(), strict=True)),
        positive_at=round(float(engagement[events[POSITIVE].to_numpy(bool)].min()), 6),
        quality=_explained(engagement, item),
        mildness=_explained(engagement, row),
        words=_quantiles(words),
        telling=_telling(titles),
    )


def head_curve(counts: Array) -> tuple[float, ...]:
    """Shares of the total that the largest `RANKS` of the counts hold."""
    total = np.concatenate([[0.0], np.cumsum(np.sort(counts)[::-1])])
    at = np.array(RANKS) * len(counts)
    shares = np.interp(at, np.arange(len(counts) + 1), total) / total[-1]
    return tuple(np.where(at < 1, 0.0, shares).round(6).tolist())


def split_by(curve: Sequence[float], n: int) -> Doubles:
    """Shares of n items (or users), largest first, which add up to 1 and have the head curve `curve`.

    Between its points, and above the first that is known, the curve is a power of the share of items.
    """
    known = np.array(curve)
    there = known > 0
    ranks, shares = np.log(np.array(RANKS)[there]), np.log(known[there])
    at = np.log(np.arange(1, n + 1) / n)
    head = np.interp(at, ranks, shares)
    slope = (shares[1] - shares[0]) / (ranks[1] - ranks[0])
    head = np.where(at < ranks[0], shares[0] + slope * (at - ranks[0]), head)
    found: Doubles = np.sort(np.diff(np.exp(head), prepend=0.0))[::-1]
    return found


def read_interests(clusters: Path) -> pd.DataFrame:
    """Items with interest and branch, from a folder of clusters."""
    paths = pd.read_parquet(clusters / "items.parquet")
    level = json.loads((clusters / "clusters.json").read_text(encoding="utf-8"))["interface_level"]
    above = [path[max(level - 2, 0)] for path in paths[PATH]]
    return pd.DataFrame({ITEM: paths[ITEM], CLUSTER: [path[level - 1] for path in paths[PATH]], PARENT: above})


def _journeys(events: pd.DataFrame, row: Ints, interests: pd.DataFrame) -> tuple[tuple[float, ...], float, float]:
    """Opening, staying and kinship of everybody's events."""
    walk = events[[ITEM]].assign(row=row).join(interests.set_index(ITEM), on=ITEM).dropna()
    position = walk.groupby("row").cumcount().to_numpy()
    new = ~walk.duplicated(["row", CLUSTER]).to_numpy()
    before = walk.shift()
    later = position > 0
    same = (walk[CLUSTER] == before[CLUSTER]).to_numpy() & later
    edges = np.searchsorted(POSITIONS, position, side="right") - 1
    opening, last = [], 0.5
    for step in range(len(POSITIONS)):
        here = new[later & (edges == step)]
        last = float(here.mean()) if len(here) >= FEW else last * 0.8
        opening.append(round(last, 4))
    opened = walk[new & later]
    kin = float((opened[PARENT] == before[PARENT][new & later]).mean())
    share = walk[PARENT].value_counts(normalize=True)
    chance = float((share**2).sum())
    return (
        tuple(opening),
        round(float(same.sum() / (later & ~new).sum()), 4),
        round(max(0.0, (kin - chance) / max(1 - chance, 1e-9)), 4),
    )


def _explained(values: Doubles, group: Array) -> float:
    """Share of the variance that the groups' means explain, less what chance makes of them."""
    count = np.bincount(group)
    mean = np.bincount(group, values) / count
    within = float(((values - mean[group]) ** 2).sum() / max(len(values) - len(count), 1))
    total = float(values.var())
    return round(max(0.0, 1 - within / total), 4) if total > 0 else 0.0


def _telling(titles: pd.DataFrame) -> float:
    """Share of the words in titles that three times as many other titles of their interest hold as titles in all."""
    words = titles[[TITLE, CLUSTER]].assign(word=titles[TITLE].str.lower().str.split()).explode("word")
    words = words.assign(row=words.index).drop_duplicates(["row", "word"])
    size = titles[CLUSTER].value_counts()
    inside = words.groupby([CLUSTER, "word"])["word"].transform("size") - 1
    others = (size[words[CLUSTER]].to_numpy() - 1).clip(min=1)
    everywhere = words.groupby("word")["word"].transform("size") / len(titles)
    return round(float(((inside > 0) & (inside / others >= 3 * everywhere)).mean()), 4)


def _quantiles(values: Doubles) -> tuple[float, ...]:
    return tuple(np.quantile(values, LEVELS).round(3).tolist())


def _read() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    return found


def main(name: str, dataset: str, clusters: str) -> None:
    """Measures a set and keeps the result."""
    made = {**_read(), name: asdict(measure(Path(dataset), read_interests(Path(clusters))))}
    write_text(FILE, json.dumps(made, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
