"""Blocks of users, taken one after the other so that what is collected of each stays within memory.

Files of events and histories are sorted by user, so a block is read from the row groups that hold it alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import ibis

from newfound.schema import USER

EVENTS: Final = 1 << 22
"""Events of a block, about: a gigabyte or two while they are collected."""

Block = tuple[str, str]


def user_blocks(sizes: Any, events: str) -> list[Block]:
    """First and last user of each block, in order; one block without anybody where there is no row.

    Args:
        sizes: an Ibis table, one row a user.
        events: its column that counts the user's events.
    """
    before = sizes[events].sum().over(ibis.cumulative_window(order_by=USER)) - sizes[events]
    if sizes.get_backend().name != "duckdb":  # an engine that spreads users over machines takes all at once
        before = ibis.literal(0)
    blocks = sizes.mutate(_block=(before / EVENTS).floor())
    blocks = blocks.group_by("_block").agg(first=blocks[USER].min(), last=blocks[USER].max())
    found = [(row["first"], row["last"]) for row in blocks.order_by("_block").to_pyarrow().to_pylist()]
    return found or [("", "")]


def of_block(table: Any, block: Block) -> Any:
    """The rows of a table that belong to a block's users."""
    return table.filter(table[USER].between(*block))


def gather(con: Any, name: str, parts: Iterable[Any]) -> Any:
    """A temporary table of the rows of all parts, which are computed one after the other."""
    first, *others = parts
    table = con.create_table(name, first, temp=True)
    for part in others:
        con.insert(name, part)
    return table
