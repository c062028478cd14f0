"""A release of items with words, made by the pipeline's own steps but for the language model, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from newfound.clusters import build_clusters
from newfound.config import ClustersConfig, DataConfig, RankerConfig, TrainingConfig
from newfound.datasets import load_interactions
from newfound.evaluation.decision_fit import fit_decision
from newfound.ranker import train_ranker
from newfound.release.items import write_catalogue
from newfound.release.store import Manifest, publish
from newfound.table import frequency_table
from newfound.transitions.mine import mine_transitions
from tests.conftest import fetch_past
from tests.release.gates import HELD

WORDS: Final = {
    "bread": ["Sourdough", "baking", "oven", "loaf", "rye", "dough", "yeast", "crust"],
    "reef": ["Coral", "diving", "reef", "sea", "fish", "scuba", "lagoon", "ocean"],
    "rail": ["Steam", "locomotive", "railway", "train", "engine", "track", "station", "carriage"],
    "jazz": ["Jazz", "trumpet", "saxophone", "swing", "improvisation", "bebop", "quartet", "blues"],
    "alps": ["Alpine", "climbing", "summit", "rope", "glacier", "ridge", "mountain", "ice"],
    "rose": ["Roses", "garden", "pruning", "flower", "hedge", "bloom", "soil", "seed"],
}
ITEMS: Final = 8  # of each interest
SEED: Final = 3


def title_of(interest: str, number: int) -> str:
    """Four of the interest's words."""
    words = WORDS[interest]
    return " ".join(words[(number + step) % len(words)] for step in (0, 1, 3, 6))


def write_data(folder: Path, users: int = 60) -> DataConfig:
    """Interactions of people who wander over three of the interests, and the items' titles."""
    rng = np.random.default_rng(SEED)
    items = [(f"{kind}{n}", title_of(kind, n)) for kind in WORDS for n in range(ITEMS)]
    pd.DataFrame(items, columns=["item_id", "title"]).to_csv(folder / "items.csv", index=False)
    rows = []
    for user in range(users):
        kinds = rng.permutation(list(WORDS))[:3]
        drawn = [f"{kinds[min(step // 4, 2)]}{rng.integers(ITEMS)}" for step in range(12)]
        rows += [(f"u{user}", item, 1_700_000_000 + step) for step, item in enumerate(dict.fromkeys(drawn))]
    columns = ["user_id", "item_id", "timestamp"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "interactions.csv", index=False)
    files = {"interactions": str(folder / "interactions.csv"), "items": str(folder / "items.csv")}
    return DataConfig(loader="files", min_user_events=3, **files)


def write_parts(folder: Path) -> dict[str, Path]:
    """The parts of a release by name, as `publish` takes them."""
    config = TrainingConfig(
        data=write_data(folder),
        clusters=ClustersConfig(interface_size=len(WORDS), coarse_sizes=(), leaf_items=4, behaviour_weight=0.2),
        ranker=RankerConfig(dim=16, blocks=1, epochs=3, max_length=50, refit=False),
    )
    parts = {name: folder / name for name in ("dataset", "clusters", "transitions", "table", "ranker", "decision")}
    load_interactions(config.data, config.split, config.seed, parts["dataset"])
    past = fetch_past(parts["dataset"], folder / "histories.parquet")
    build_clusters(parts["dataset"], past, config.clusters, config.seed, parts["clusters"])
    dataset, clusters, transitions = parts["dataset"], parts["clusters"], parts["transitions"]
    mine_transitions(past, dataset, clusters, config.transitions, config.seed, transitions)
    frequency_table(transitions, clusters, config.table, parts["table"])
    train_ranker(dataset, past, clusters, config.ranker, config.seed, 1, parts["ranker"])
    fit_decision(dataset, past, clusters, transitions, parts["table"], parts["ranker"], config, parts["decision"])
    write_catalogue(dataset, clusters, folder / "items.parquet")
    return {**{name: parts[name] for name in ("clusters", "table", "ranker", "decision")},
            "items.parquet": folder / "items.parquet"}  # fmt: skip


def publish_parts(parts: dict[str, Path], root: Path, note: str) -> Manifest:
    """Publishes a release of these parts, which `note` tells from others."""
    return publish(parts, str(root), lineage={"note": note}, measures={}, fits={}, gates=HELD)
