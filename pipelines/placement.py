"""Steps in their places: left as they are on this machine, spread over pods on a cluster.

The pipelines' files are the same here and there; this module holds the shapes that differ. Workers share the search for
the ranker's settings, shards of the table are built side by side, Kubeflow Trainer runs what trains, a release that
passed its gates is deployed.
"""

from __future__ import annotations

from typing import Any

from kfp import dsl

from components.build_table import build_table
from components.build_table_shard import build_table_shard
from components.deploy_release import deploy_release
from components.merge_table import merge_table
from components.tune_ranker import tune_ranker
from pipelines.platform import Platform, component_of

REFIT = " (refit)"


class Placement:
    """Places of one pipeline's steps.

    Args:
        platform: the cluster; None means this machine.
        shards: of the table, where a cluster builds them side by side.
    """

    def __init__(self, platform: Platform | None = None, shards: int = 1) -> None:
        self._platform, self._shards = platform, shards

    @property
    def has_canary(self) -> bool:
        """Whether a release is deployed beside the one that serves, instead of serving at once."""
        return self._platform is not None and self._platform.canary is not None

    def place(self, task: Any, *, refit: bool = False) -> Any:
        """A task in its place.

        Args:
            task: of a pipeline that is being defined.
            refit: whether it is the refit's, whose name says so.
        """
        placed = task if self._platform is None else self._platform.place(task)
        return placed.set_display_name(component_of(task) + REFIT) if refit else placed

    def place_always(self, task: Any) -> Any:
        """The same for a task with effects outside of its artifacts: on a cluster it never comes from a cache."""
        return self.place(task) if self._platform is None else self.place(task).set_caching_options(False)

    def train(self, component: Any, *, refit: bool = False, **inputs: Any) -> Any:
        """finetune_planner or train_ranker, in a pod of its own or as a TrainJob."""
        job = self._platform.train_job(component.name.replace("-", "_")) if self._platform else ""
        return self.place(component(**inputs, **({"job": job} if job else {})), refit=refit)

    def build_table(self, *, refit: bool = False, **inputs: Any) -> Any:
        """build_table, or its shards side by side."""
        if self._platform is None or self._platform.table_shards_at_once == 1:
            return self.place(build_table(**inputs), refit=refit)
        with dsl.ParallelFor(list(range(self._shards)), parallelism=self._platform.table_shards_at_once) as shard:
            built = self.place(build_table_shard(shard=shard, **inputs))
        merged = self.place(merge_table(parts=dsl.Collected(built.outputs["part"]), **inputs))
        return merged.set_display_name(f"build-table{REFIT}") if refit else merged

    def tune_ranker(self, **inputs: Any) -> Any:
        """tune_ranker, by one worker or several that share a study; the last only writes down what they found."""
        if self._platform is None or self._platform.tuning_workers == 1:
            return self.place(tune_ranker(**inputs))
        with dsl.ParallelFor(list(range(self._platform.tuning_workers))) as _:
            worker = self.place_always(tune_ranker(**inputs))
        return self.place(tune_ranker(**inputs)).after(worker)

    def deploy(self, **inputs: Any) -> None:
        """deploy_release, where the cluster has a canary."""
        if self._platform is not None and self._platform.canary is not None:
            self.place_always(deploy_release(**inputs, canary=self._platform.canary.model_dump_json()))
