"""Recommendations in one process: a release's table, policy and ranker together.

The command line and the batch pipeline use it; the explorer takes the same steps with a remote ranker and planner.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import ValidationError

from newfound.config import PolicyConfig
from newfound.errors import DataError, ReleaseError
from newfound.planner.prompt import has_planner
from newfound.recommend.catalogue import AvailableCatalogue, Catalogue, UserHistory
from newfound.recommend.decision import (
    SUCCESSORS,
    AnswerCache,
    Decision,
    PlannerAnswer,
    PlannerQuery,
    SlateRequest,
    draft,
)
from newfound.recommend.query import JointAnswer, JointQuery
from newfound.recommend.slate import Offer, Slate
from newfound.release.manifest import is_id
from newfound.release.new_items import NewItems, find_new_items
from newfound.release.takedown import Takedown, read_takedown

SEED_BITS: Final = 53  # a seed survives being read as a floating-point number
REMEMBERED: Final = 10_000  # answers of the planner that are kept


class Planner(Protocol):
    """The language policy's part that recommending needs."""

    def answers(self, asks: Sequence[PlannerQuery]) -> Sequence[PlannerAnswer]: ...


class ItemPolicy(Protocol):
    """The ranker's part that recommending needs."""

    def top_k(self, queries: Sequence[JointQuery]) -> Sequence[JointAnswer]: ...


class Recommender:
    """Everything that a recommendation needs, in one process.

    Args:
        catalogue: the release's clusters, table, items and decision.
        ranker: the item policy; None lets popularity stand in.
        planner: the language policy for what the table cannot answer; None does without.
        policy: settings of the decisions.
        takedown: what must not be shown.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        ranker: ItemPolicy | None,
        planner: Planner | None = None,
        policy: PolicyConfig | None = None,
        takedown: Takedown | None = None,
    ) -> None:
        self.catalogue, self.ranker, self.planner = catalogue, ranker, planner
        self.policy = policy or PolicyConfig()
        self.available = AvailableCatalogue(catalogue, takedown or Takedown())
        self.answer_cache = AnswerCache(REMEMBERED)

    @classmethod
    def open(
        cls,
        release: str | Path,
        policy: PolicyConfig | None = None,
        takedown: Takedown | None = None,
        new: NewItems | None = None,
    ) -> Recommender:
        """Reads a release folder; the planner is read when a request first needs it.

        Args:
            release: folder of a verified release, or one with the same layout.
            policy: settings of the decisions; None takes those that the release was evaluated with.
            takedown: what must not be shown; None reads the list beside the release.
            new: what appeared after it was made; None reads the file beside the release, where there is one.
        """
        from newfound.recommend.joint_ranker import JointRanker

        folder = Path(release)
        catalogue = Catalogue.open(folder)
        ranker = JointRanker.load(folder)
        if new is None and is_id(folder.name):
            new = find_new_items(str(folder.parent), folder.name)
        if new is not None:
            catalogue, ranker = catalogue.with_new(new), ranker.with_new(new)
        planner = LocalPlanner(folder / "planner", catalogue) if has_planner(folder / "planner") else None
        return cls(
            catalogue,
            ranker,
            planner,
            policy or released_policy(folder),
            read_takedown(str(folder.parent)) if takedown is None else takedown,
        )

    def recommend(
        self,
        history: UserHistory,
        *,
        k: int | None = None,
        novel: int | float | None = None,
        exclude: Collection[str] = (),
        seed: int | None = None,
    ) -> Slate:
        """Answers one request.

        Args:
            history: oldest first.
            k: slots in the slate; None means the policy's.
            novel: slots (int) or share (float) for new interests; None follows the user's appetite.
            exclude: items that must not be shown, beside those in the history.
            seed: of every random choice; None draws one, which the slate names.
        """
        seed = secrets.randbits(SEED_BITS) if seed is None else seed
        return self.recommend_all([history], [seed], k=k, novel=novel, exclude=exclude)[0]

    def recommend_all(
        self,
        histories: Sequence[UserHistory],
        seeds: Sequence[int],
        *,
        k: int | None = None,
        novel: int | float | None = None,
        exclude: Collection[str] = (),
        planner: bool = True,
    ) -> list[Slate]:
        """Answers many requests alike, each as `recommend` does; the planner and the ranker see them together.

        Args:
            histories: oldest first.
            seeds: of each one's random choices.
            k: see `recommend`, also for `novel` and `exclude`.
            planner: whether the planner, if there is one, may be asked.
        """
        request = SlateRequest(k or self.policy.k, novel, frozenset(exclude))
        asking = planner and self.planner is not None
        cache = self.answer_cache if asking else None
        drafts = [
            draft(self.available, history, request, seed, self.policy, cache)
            for history, seed in zip(histories, seeds, strict=True)
        ]
        if asking:
            self._ask(drafts)
        plans = [made.plan() for made in drafts]
        if self.ranker is None:
            offers = [made.popular(plan) for made, plan in zip(drafts, plans, strict=True)]
        else:
            answers = self.ranker.top_k([made.query(plan) for made, plan in zip(drafts, plans, strict=True)])
            offers = [Offer(answer.best, answer.clusters) for answer in answers]
        return [
            made.slate(made.finish(plan, offer), ranked=self.ranker is not None)
            for made, plan, offer in zip(drafts, plans, offers, strict=True)
        ]

    def _ask(self, drafts: Sequence[Decision]) -> None:
        """Lets the planner answer what the drafts lack; the same question is asked once."""
        assert self.planner is not None
        asks = list(dict.fromkeys(ask for made in drafts if (ask := made.ask()) is not None))
        for start in range(0, len(asks), REMEMBERED):
            some = asks[start : start + REMEMBERED]
            for ask, answer in zip(some, self.planner.answers(some), strict=True):
                self.answer_cache.put(ask, answer)


class LocalPlanner:
    """The release's planner in this process, read when first asked.

    Args:
        folder: the planner's.
        catalogue: of the same release.
    """

    def __init__(self, folder: Path, catalogue: Catalogue) -> None:
        self._folder, self._catalogue = folder, catalogue
        self._loaded: Any = None

    def answers(self, asks: Sequence[PlannerQuery]) -> list[PlannerAnswer]:
        """For each question, the clusters of the highest probability with its logarithm, best first."""
        import numpy as np

        if self._loaded is None:
            from newfound.planner.planner import Planner as LanguagePolicy

            self._loaded = LanguagePolicy.load(self._folder, self._catalogue.clusters)
        names = self._catalogue.interface
        allowed = np.array([[name not in ask.context for name in names] for ask in asks])
        found, values = self._loaded.top_k([ask.context for ask in asks], SUCCESSORS, allowed)
        return [
            {names[at]: value for at, value in zip(row, scores, strict=True) if at >= 0}
            for row, scores in zip(found.tolist(), values.tolist(), strict=True)
        ]


def released_policy(folder: Path) -> PolicyConfig:
    """The policy that a release was evaluated with; the defaults where its manifest does not say."""
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return PolicyConfig()
    config = json.loads(manifest.read_text(encoding="utf-8"))["lineage"].get("config")
    try:
        return PolicyConfig.model_validate(config["policy"] if isinstance(config, dict) and "policy" in config else {})
    except ValidationError as error:
        raise ReleaseError(f"{manifest}: lineage.config.policy: {error.errors()[0]['msg']}") from error


def history_of_items(items: Sequence[str]) -> UserHistory:
    """A history of liked items, oldest first, whose times and engagement nobody knows."""
    return UserHistory(tuple(items), (1.0,) * len(items), (True,) * len(items))


def history_of_user(path: Path, user: str) -> UserHistory:
    """A user's history from `histories.parquet` or the folder that holds it.

    Raises:
        DataError: the file cannot be read, or the user has no history in it.
    """
    from newfound.features.histories import Histories

    file = path / "histories.parquet" if path.is_dir() else path
    histories = Histories.load(file)
    if user not in histories:
        raise DataError(str(file), f"holds no history of user {user!r}", expected="a user with a past")
    events = histories.of(user)
    newest = int(events.times[-1]) if len(events.times) else None
    return UserHistory(events.item_ids, events.engagements.tolist(), events.positives.tolist(), newest)
