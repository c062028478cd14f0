"""Number of interface clusters that the data carry, where the configuration does not say."""

from __future__ import annotations

from typing import Final

AT_MOST: Final = 120  # a table of all pairs is filled in minutes up to here; more is a decision of the configuration's
AT_LEAST: Final = 8
ITEMS_EACH: Final = 14  # enough to choose from, and to say in words what they share
LIKED_EACH: Final = 200  # positive events: enough that a cluster is learned as an answer
USERS_EACH: Final = 5  # people who may open it


def default_size(items: int, liked: int, users: int) -> tuple[int, str]:
    """The number of interface clusters and why it is that.

    Args:
        items: in the catalogue.
        liked: positive events of the past.
        users: with a past.

    >>> default_size(1682, 45_764, 943)
    (120, '1682 items, 45764 liked events and 943 users would carry 120 or more')
    >>> default_size(300, 6_960, 290)
    (21, '300 items carry 21 at 14 each')
    """
    carried = {
        f"{items} items": (items // ITEMS_EACH, ITEMS_EACH),
        f"{liked} liked events": (liked // LIKED_EACH, LIKED_EACH),
        f"{users} users": (users // USERS_EACH, USERS_EACH),
    }
    scarce = min(carried, key=lambda name: carried[name][0])
    size, each = carried[scarce]
    most = max(1, items // 2)
    if size >= AT_MOST:
        first, second, third = carried
        return min(AT_MOST, most), f"{first}, {second} and {third} would carry {AT_MOST} or more"
    if size < AT_LEAST:
        return min(AT_LEAST, most), f"{scarce} carry few; {AT_LEAST} are the least that leave something to explore"
    return min(size, most), f"{scarce} carry {size} at {each} each"
