"""The split: one cut between past and future, and disjoint groups of users."""

from __future__ import annotations

from typing import Any

import ibis

from newfound.config import SplitConfig
from newfound.schema import CUT, GROUP, TIME, USER


def split_users(events: Any, config: SplitConfig, seed: int) -> Any:
    """One row a user with group and cut (microseconds since the epoch), from events with user and time.

    A cut falls between two moments and never inside one: of all boundaries with events on both sides, it is the one
    that leaves nearest to the wanted share of the events in the future; of two as near, the later. Everything lies in
    the past of a user (or, with a global cut, of a log) with a single moment.

    A user's group depends on the seed and the user id alone, so it survives new data.
    """
    users = events.select(USER).distinct()
    if config.cut == "global":
        cuts = users.cross_join(_cuts(events.mutate(_all=0), "_all", config.future).select(CUT))
    else:
        cuts = _cuts(events, USER, config.future)
    return cuts.mutate(**{GROUP: _group(cuts[USER], config, seed)}).select(USER, GROUP, CUT)


def _group(user: Any, config: SplitConfig, seed: int) -> Any:
    # Hexadecimal digits of one length compare as text as they do as numbers, on every engine.
    lot = (ibis.literal(f"{seed}:") + user).hexdigest("sha256")[:12]
    test = _digits(config.test_users)
    validation = _digits(config.test_users + config.validation_users)
    return ibis.cases((lot < test, "test"), (lot < validation, "validation"), else_="train")


def _digits(share: float) -> str:
    return format(min(int(share * 16**12), 16**12 - 1), "012x")


def _cuts(events: Any, key: str, future: float) -> Any:
    """The best boundary per key."""
    moments = events.group_by(key, TIME).agg(n=events.count())
    whole = ibis.window(group_by=key)
    upto = ibis.cumulative_window(group_by=key, order_by=TIME)
    moments = moments.mutate(
        total=moments["n"].sum().over(whole),
        before=moments["n"].sum().over(upto) - moments["n"],
        last=moments[TIME].max().over(whole),
    )
    # In whole events and doubles: the same on every engine.
    distance = (moments["total"] - moments["before"] - moments["total"] * future).abs()
    inside = moments.mutate(distance=distance, outside=(moments["before"] == 0).cast("int8"))
    best = ibis.row_number().over(
        group_by=key, order_by=[inside["outside"], inside["distance"], ibis.desc(inside[TIME])]
    )
    ranked = inside.mutate(place=best)
    first = ranked.filter(ranked["place"] == 0)
    return first.select(key, **{CUT: ibis.ifelse(first["outside"] == 1, first["last"] + 1, first[TIME])})
