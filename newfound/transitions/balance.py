"""The cap on samples of one label, which keeps a planner from answering with a few frequent clusters alone.

Source: arXiv 2405.16363, section 4: some ten contexts a label.
"""

from __future__ import annotations

from typing import Any, Final

import ibis

from newfound.schema import CONTEXT, NEXT, WEIGHT

SEPARATOR: Final = "\x1f"
"""Between the clusters of a context where they are hashed as one text."""


def balance(pairs: Any, per_label: int, seed: int) -> Any:
    """At most `per_label` samples a label: the most frequent, of those as frequent by hash.

    Args:
        pairs: an Ibis table of context, next and weight.
        per_label: samples kept of one label.
        seed: of the choice among samples as frequent.
    """
    lot = (ibis.literal(f"{seed}:") + pairs[CONTEXT].join(SEPARATOR)).hexdigest("sha256")
    place = ibis.row_number().over(group_by=NEXT, order_by=[ibis.desc(pairs[WEIGHT]), lot, pairs[CONTEXT]])
    return pairs.mutate(_place=place).filter(lambda t: t["_place"] < per_label).drop("_place")
