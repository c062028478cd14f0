"""Interest clusters: item vectors, a balanced tree over them, descriptions, and ids that outlive a refit."""

from newfound.clusters.artifact import Clusters

__all__ = ["Clusters"]
