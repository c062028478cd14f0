"""Public data and your own files, validated, as one kind of folder."""

from newfound.datasets.dataset import Dataset
from newfound.datasets.loading import load_interactions

__all__ = ["Dataset", "load_interactions"]
