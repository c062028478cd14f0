"""One release, loaded for the explorer: catalogue, policy, and answers of its planner."""

from __future__ import annotations

import copy
import json
from pathlib import Path

from newfound.config import PolicyConfig
from newfound.errors import ReleaseError
from newfound.planner.prompt import has_planner
from newfound.recommend.catalogue import AvailableCatalogue, Catalogue
from newfound.recommend.decision import AnswerCache
from newfound.recommend.recommender import released_policy
from newfound.release.manifest import MANIFEST, parse_manifest
from newfound.release.new_items import NewItems
from newfound.release.takedown import Takedown
from serving.planner.client import Prompts

PARTS = (
    "clusters",
    "table",
    "items.parquet",
    "ranker/ranker.json",
)
OPTIONAL = ("decision/decision.json", "decision/clusters.safetensors")  # releases of before have none


class LoadedRelease:
    """A release's catalogue, its policy, and what a live planner answered about it.

    Args:
        catalogue: clusters, table, items.
        policy: settings of the decisions.
        history_length: events that its ranker reads.
        prompts: for the live planner; None where there is none.
        remembered: most planner answers kept.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        policy: PolicyConfig,
        history_length: int,
        prompts: Prompts | None,
        remembered: int,
    ) -> None:
        self.catalogue, self.policy, self.history_length, self.prompts = catalogue, policy, history_length, prompts
        self.answer_cache = AnswerCache(remembered)
        self._available = AvailableCatalogue(catalogue, Takedown())

    @property
    def release(self) -> str:
        """The release's id."""
        return self.catalogue.release

    def with_new(self, new: NewItems) -> LoadedRelease:
        """This release with its new items; it goes on with the planner's answers.

        Raises:
            VocabularyError: they were made for another release.
        """
        made = copy.copy(self)
        made.catalogue = self.catalogue.with_new(new)
        made._available = AvailableCatalogue(made.catalogue, Takedown())
        return made

    def available(self, takedown: Takedown) -> AvailableCatalogue:
        """The catalogue without what was taken down."""
        if self._available.takedown is not takedown:
            self._available = AvailableCatalogue(self.catalogue, takedown)
        return self._available


def build_loaded_release(folder: Path, release: str, *, planner: bool, remembered: int) -> LoadedRelease:
    """Loads a release for the explorer.

    Raises:
        NewfoundError: its parts do not fit each other.
    """
    catalogue = Catalogue.open(folder)
    if catalogue.release != release:
        raise ReleaseError(f"{folder / 'manifest.json'}: names release {catalogue.release}, not {release}")
    record = json.loads((folder / "ranker" / "ranker.json").read_text(encoding="utf-8"))
    if record["clusters_digest"] != catalogue.clusters.digest:
        raise ReleaseError(f"{release}/ranker/ranker.json: made for other clusters than the release's own")
    catalogue.warm()
    _ = catalogue.clusters.layout  # read now: the files will be gone
    prompts = None
    if planner and has_planner(folder / "planner"):
        name = _planner_name(folder / MANIFEST)
        prompts = Prompts(folder / "planner", name, catalogue.clusters.interface, catalogue.clusters.descriptions)
    length = int(record["config"]["max_length"])
    return LoadedRelease(catalogue, released_policy(folder), length, prompts, remembered)


def _planner_name(manifest: Path) -> str:
    name = parse_manifest(manifest.read_bytes(), str(manifest)).planner_name
    assert name is not None, "a planner's files are among the release's"
    return name
