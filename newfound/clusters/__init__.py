"""Interest clusters: item vectors, a balanced tree over them, descriptions, and ids that outlive a refit.

Only `Clusters` is loaded at once; building needs heavier packages, which come when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from newfound.clusters.artifact import Clusters

if TYPE_CHECKING:
    from newfound.clusters.build import build_clusters
    from newfound.clusters.embed import embed_new
    from newfound.clusters.stable import Changes, match

__all__ = ["Changes", "Clusters", "build_clusters", "embed_new", "match"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    homes = {"build_clusters": "build", "embed_new": "embed", "Changes": "stable", "match": "stable"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{homes[name]}"), name)
