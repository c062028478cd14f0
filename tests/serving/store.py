"""``python -m tests.serving.store FOLDER``: registers and materialises what lies in the folder, as a run does.

With a second argument, a file, it fetches everybody's history by point in time instead, and writes it there. A process
of its own: the environment says which folder and which store, and Feast reads it when it is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]


def environment(folder: Path, redis: str | None = None) -> dict[str, str]:
    """What a process must be told to use the store in `folder`, on sqlite or on Redis."""
    name = "feature_store.yaml" if redis is None else "feature_store.production.yaml"
    told = {"NEWFOUND_FEATURES": str(folder), "FEAST_FS_YAML_FILE_PATH": str(ROOT / "feature_repo" / name)}
    return told if redis is None else {**told, "NEWFOUND_REDIS": redis}


def write_sources(folder: Path, histories: pa.Table, interests: list[dict[str, object]]) -> None:
    """Writes the source files."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(histories, folder / "user_history.parquet")
    columns = {
        "user_id": pa.array([row["user_id"] for row in interests], pa.string()),
        "event_timestamp": pa.array([row["event_timestamp"] for row in interests], pa.timestamp("us", tz="UTC")),
        "seen_leaves": pa.array([row["seen_leaves"] for row in interests], pa.list_(pa.string())),
        "clusters_digest": pa.array([row["clusters_digest"] for row in interests], pa.string()),
    }
    pq.write_table(pa.table(columns), folder / "user_interests.parquet")


def fill(folder: Path, redis: str | None = None) -> None:
    """Registers and materialises, in a process of its own."""
    _run(folder, redis)


def fetch(folder: Path, out: Path) -> None:
    """Everybody's history from the offline store, as of now, in a process of its own."""
    _run(folder, None, str(out))


def _run(folder: Path, redis: str | None, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "tests.serving.store", str(folder), *arguments],
        check=True,
        cwd=ROOT,
        env={**os.environ, **environment(folder, redis)},
        stdout=subprocess.DEVNULL,
    )


def main() -> None:
    from feature_repo.store import apply, fetch_as_of, materialise, open_store

    store = open_store(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        from newfound.features.user_history import check_histories

        users = pq.read_table(Path(sys.argv[1]) / "user_history.parquet", columns=["user_id"]).to_pandas()
        check_histories(fetch_as_of(store, users.assign(event_timestamp=datetime.now(UTC))), Path(sys.argv[2]))
        return
    apply(store)
    materialise(store)


if __name__ == "__main__":
    main()
