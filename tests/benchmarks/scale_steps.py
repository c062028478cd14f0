"""The library's own table steps over a generated data set, one a process: `python -m tests.benchmarks.scale_steps`.

Prints a line of JSON: the seconds of the step alone (imports and reading of its settings are before it) and its
measures. The parts that a step needs but that are not measured (`PREPARATIONS`) are made here as well.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from newfound import schema
from newfound.clusters import Clusters
from newfound.config import DataConfig, FeaturesConfig, SplitConfig, TransitionsConfig
from newfound.datasets import load_interactions
from newfound.datasets.generated.generate import generate
from newfound.datasets.generated.world import Size
from newfound.features.user_history import write_user_history
from newfound.features.user_interests import write_interests
from newfound.transitions.artifact import Transitions
from newfound.transitions.frequency_model import FrequencyModel
from newfound.transitions.mine import mine_transitions

LIKE: Final = "movielens"
EVENTS_A_USER, EVENTS_AN_ITEM, CLUSTERS, SEED = 100, 100, 120, 7


@dataclass(frozen=True)
class Place:
    """Where the files of one size lie.

    Attributes:
        folder: of everything.
    """

    folder: Path

    @property
    def generated(self) -> Path:
        return self.folder / "generated"

    @property
    def csv(self) -> Path:
        return self.folder / "interactions.csv"

    @property
    def dataset(self) -> Path:
        return self.folder / "dataset"

    @property
    def dataset_of_csv(self) -> Path:
        return self.folder / "dataset-of-csv"

    @property
    def rows(self) -> Path:
        return self.folder / "user_history.parquet"

    @property
    def histories(self) -> Path:
        return self.folder / "histories.parquet"

    @property
    def clusters(self) -> Path:
        return self.folder / "clusters"

    @property
    def interests(self) -> Path:
        return self.folder / "user_interests.parquet"

    @property
    def transitions(self) -> Path:
        return self.folder / "transitions"

    @property
    def frequencies(self) -> Path:
        return self.folder / "pair_frequencies.npz"


def size_of(interactions: int) -> Size:
    """A data set of so many interactions: users and items grow with them, the interests do not."""
    users, items = max(interactions // EVENTS_A_USER, 30), max(interactions // EVENTS_AN_ITEM, 1000)
    return Size(interactions, users, items, min(CLUSTERS, items // 8), SEED)


# --- what is not measured, but must be there --------------------------------------------------------------------------


def generate_files(place: Place, interactions: int) -> dict[str, Any]:
    """Interactions, items and interests."""
    return generate(size_of(interactions), LIKE, place.generated)


def write_csv(place: Place, interactions: int) -> dict[str, Any]:
    """The generated interactions as CSV, in the same order."""
    with duckdb.connect() as con:
        source = str(place.generated / "interactions.parquet")
        con.execute("SET TimeZone = 'UTC'")
        con.execute("COPY (FROM read_parquet($file)) TO $out (FORMAT csv)", {"file": source, "out": str(place.csv)})
    return {"bytes": place.csv.stat().st_size}


def write_clusters(place: Place, interactions: int) -> dict[str, Any]:
    """The generated interests as clusters, without vectors: embedding titles is no table step."""
    found = pq.read_table(place.generated / "interests.parquet").select([schema.ITEM, schema.CLUSTER])
    kept = pa.table({schema.ITEM: pq.read_table(place.dataset / "items.parquet", columns=[schema.ITEM])[schema.ITEM]})
    rows = found.join(kept, schema.ITEM, join_type="inner").sort_by(
        [(name, "ascending") for name in found.column_names[::-1]]
    )
    names, sizes = np.unique(rows[schema.CLUSTER].to_numpy(), return_counts=True)
    columns = zip(
        *((name, None, 1, f"about {name}", size, 1 / len(names)) for name, size in zip(names, sizes, strict=True)),
        strict=True,
    )
    tree = pa.table(
        [pa.array(list(column), field.type) for column, field in zip(columns, schema.TREE, strict=True)],
        schema=schema.TREE,
    )
    leaf = rows[schema.CLUSTER].combine_chunks()
    paths = pa.ListArray.from_arrays(np.arange(len(leaf) + 1, dtype=np.int32), leaf)
    items = pa.table([rows[schema.ITEM].combine_chunks(), paths], schema=schema.ITEM_PATHS)
    empty = {"nodes": np.zeros((len(names), 1), np.float32), "items": np.zeros((len(rows), 1), np.float32)}
    Clusters(tree, items, {"interface_level": 1}, empty).save(place.clusters)
    return {"clusters": len(names), "items": len(rows)}


def write_past(place: Place, interactions: int) -> dict[str, Any]:
    """Histories as of the cut, what a point-in-time join of the feature store answers."""
    with duckdb.connect(config={"memory_limit": "4GB", "temp_directory": str(place.folder)}) as con:
        query = (
            "COPY (SELECT r.* FROM read_parquet($rows) r JOIN read_parquet($users) u USING (user_id)"
            " WHERE r.event_timestamp < u.cut) TO $out (FORMAT parquet)"
        )
        users = str(place.dataset / "users.parquet")
        con.execute(query, {"rows": str(place.rows), "users": users, "out": str(place.histories)})
    return {"bytes": place.histories.stat().st_size}


# --- what is measured -------------------------------------------------------------------------------------------------


def load(place: Place, interactions: int) -> dict[str, Any]:
    """Parquet -> a checked data set."""
    return _load(place, place.generated / "interactions.parquet", place.dataset)


def load_csv(place: Place, interactions: int) -> dict[str, Any]:
    """CSV -> the same data set."""
    return _load(place, place.csv, place.dataset_of_csv)


def _load(place: Place, source: Path, out: Path) -> dict[str, Any]:
    config = DataConfig(loader="files", interactions=str(source), items=str(place.generated / "items.parquet"))
    return load_interactions(config, SplitConfig(), SEED, out)


def histories(place: Place, interactions: int) -> dict[str, Any]:
    """Everybody's history in one row, as of the cut and as of the end."""
    return write_user_history(place.dataset, FeaturesConfig().history_length, place.rows)


def interests(place: Place, interactions: int) -> dict[str, Any]:
    """Everybody's interests in one row."""
    digest = json.loads((place.clusters / "clusters.json").read_text(encoding="utf-8"))["digest"]
    return write_interests(place.dataset, place.clusters / "items.parquet", digest, place.interests)


def transitions(place: Place, interactions: int) -> dict[str, Any]:
    """Novel transitions, contexts that are withheld, and the balanced set."""
    return mine_transitions(
        place.histories, place.dataset, place.clusters, TransitionsConfig(), SEED, place.transitions
    )


def pair_frequencies(place: Place, interactions: int) -> dict[str, Any]:
    """The frequency model over all transitions that may be learned from."""
    found = Transitions.load(place.transitions, Clusters.load(place.clusters)).counts()
    model = FrequencyModel(found.contexts, found.labels, found.n)
    np.savez(place.frequencies, popularity=model.popularity, singles=model.singles, mass=model.context_mass)
    return {"transitions": len(found.labels), "contexts": len(model.known)}


Part = Callable[[Place, int], Mapping[str, Any]]
PREPARATIONS: Final[dict[str, Part]] = {
    part.__name__: part for part in (generate_files, write_csv, write_clusters, write_past)
}
STEPS: Final[dict[str, Part]] = {
    part.__name__: part for part in (load, load_csv, histories, interests, transitions, pair_frequencies)
}


def main() -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=[*PREPARATIONS, *STEPS])
    parser.add_argument("folder", type=Path)
    parser.add_argument("interactions", type=int)
    options = parser.parse_args()
    part = {**PREPARATIONS, **STEPS}[options.part]
    began = time.perf_counter()
    measures = part(Place(options.folder), options.interactions)
    print(json.dumps({"seconds": time.perf_counter() - began, "measures": measures}, default=str))


if __name__ == "__main__":
    main()
