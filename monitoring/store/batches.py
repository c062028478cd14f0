"""Batches of events in one commit: the rows that are new, and the batches that are refused whole.

The events of a batch share their fate, so a sender knows what became of them from one answer. Batches are looked at one
after the other: an event that a refused batch brought is still new when a later batch brings it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from monitoring.feedback import DAY
from monitoring.store.rows import Row, Stored, is_repetition

CONFLICT: Final = 409
INVALID: Final = 422


@dataclass(frozen=True)
class Batch:
    """The events of one request.

    Attributes:
        events: checked ones.
        corrected: ids of those whose sender's clock was too far ahead; their moment is that of their arrival.
    """

    events: Sequence[Stored]
    corrected: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Refusal:
    """The reason why nothing of a batch was stored.

    Attributes:
        status: of HTTP, 4xx.
        problems: `event` (index in the batch), `field` and `problem` of every event at fault.
    """

    status: int
    problems: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Written:
    """Result of one commit.

    Attributes:
        new: events stored, by table.
        duplicates: events that were stored already.
        erased: events of erased users from before the erasure, which are dropped.
        refused: batches of which nothing was stored, by index.
    """

    new: Mapping[str, int]
    duplicates: int = 0
    erased: int = 0
    refused: Mapping[int, Refusal] = field(default_factory=dict)


class Selection:
    """The rows that a commit inserts.

    Args:
        known: stored rows by table and id, of ids that the commit brings once more.
        marks: by hash of an erased user, the moment until which events are dropped.
        counts: stored feedback by user and UTC day.
        quota: feedback that a user may have on a day; None sets no limit.
    """

    def __init__(
        self,
        known: Mapping[tuple[str, str], Mapping[str, Any]],
        marks: Mapping[str, int],
        counts: Mapping[tuple[str, int], int],
        quota: int | None,
    ) -> None:
        self._known = dict(known)
        self._marks, self._counts, self._quota = marks, Counter(counts), quota
        self.rows: dict[str, list[Row]] = {}
        self.duplicates = self.erased = 0

    def add(self, rows: Sequence[tuple[str, Row]], corrected: frozenset[str]) -> Refusal | None:
        """Takes a batch's rows, or refuses all of them.

        Args:
            rows: table and row of every event.
            corrected: see `Batch`.
        """
        fresh: dict[tuple[str, str], Row] = {}
        counts: Counter[tuple[str, int]] = Counter()
        problems: list[dict[str, Any]] = []
        duplicates = erased = 0
        status = INVALID
        for index, (table, row) in enumerate(rows):
            place = (table, row["id"])
            stored = self._known.get(place) or fresh.get(place)
            if self._is_erased(row, corrected):
                erased += 1
            elif stored is not None and is_repetition(row, stored):
                duplicates += 1
            elif stored is not None:
                status = CONFLICT
                problems.append({"event": index, "field": "id", "problem": "another event has this id"})
            elif table == "feedback" and self._exceeds(row, counts):
                problem = f"more than {self._quota} events of one user on that day"
                problems.append({"event": index, "field": "data.user_id", "problem": problem})
            else:
                fresh[place] = row
        if problems:
            return Refusal(status, problems)
        for (table, _), row in fresh.items():
            self.rows.setdefault(table, []).append(row)
        self._known.update(fresh)
        self._counts += counts
        self.duplicates += duplicates
        self.erased += erased
        return None

    def _is_erased(self, row: Row, corrected: frozenset[str]) -> bool:
        """Whether the user was erased after the event, or may have been: a corrected moment is none to trust."""
        mark = self._marks.get(row.get("user_key", ""))
        return mark is not None and (row["at"] <= mark or row["id"] in corrected)

    def _exceeds(self, row: Row, counts: Counter[tuple[str, int]]) -> bool:
        day = (row["user_id"], row["at"] // DAY)
        counts[day] += 1
        return self._quota is not None and self._counts[day] + counts[day] > self._quota
