"""Requests on their way through the explorer: one job a request, one batch a body."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from newfound.recommend.catalogue import UserHistory
from newfound.recommend.decision import Decision, PlannerAnswer
from newfound.recommend.slate import Offer, Plan
from serving.deadline import Deadline
from serving.explorer.loaded_release import LoadedRelease
from serving.http.api import Recommend


@dataclass(slots=True)
class Job:
    """One request with what is known and decided of it."""

    request: Recommend
    history: UserHistory
    seed: int
    degraded: list[str]
    decision: Decision
    plan: Plan
    answer: PlannerAnswer | None
    generated: int


@dataclass(slots=True)
class Batch:
    """The requests of one body: one release, one deadline.

    `offers` holds what the ranker answered to each job, None where it did not.
    """

    payload: Any
    id: str
    deadline: Deadline
    arrived: float
    loaded: LoadedRelease
    jobs: list[Job] = field(default_factory=list)
    offers: list[Offer | None] = field(default_factory=list)
