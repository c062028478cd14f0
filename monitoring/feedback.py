"""The meaning of feedback, for the SQL of reports and the Python of histories alike.

What a user did with an item of one slate is one interaction; what was consumed without a slate is one a day. A like or
a dismissal, the later of the two, wins over every implicit sign; otherwise the largest of the watched shares and of the
configured engagement of a click counts. An impression alone is no interaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

IMPRESSION: Final = "shown"
CLICKED: Final = "clicked"
WATCHED: Final = "watched"
EXPLICIT: Final[Mapping[str, float]] = {"liked": 1.0, "dismissed": 0.0}
"""Engagement of the kinds that say outright what a user thinks of an item."""
CONSUMING: Final = (CLICKED, WATCHED, "liked")
"""Kinds that consume the item: what UCI, UEUC and unknown items count."""
DAY: Final = 86_400_000_000
"""Microseconds within which feedback without a slate is one interaction."""


def sql_list(values: Iterable[str]) -> str:
    """Strings as the right side of SQL's IN.

    >>> sql_list(["liked", "dismissed"])
    "('liked', 'dismissed')"
    """
    return "(" + ", ".join(f"'{value}'" for value in values) + ")"
