"""Fuzz target: a sender's metadata, over gRPC and HTTP alike: the request's id and how long the sender waits."""

from __future__ import annotations

import math
import re
import time
from typing import Final

from serving.deadline import Deadline
from serving.http.context import Capacity, RequestContext, request_id, shorter, timeout_s
from serving.settings import ServingConfig

SEEDS: Final = [b"150|7f3a", b"nan|", b"1e18|x", b"-1|a b", b"0|\n", b"999999999.999999|" + b"a" * 128, "٣|é".encode()]
_PLAIN: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Target:
    """Whatever is claimed, the request has a plain id and a deadline that is finite and within bounds."""

    def __init__(self) -> None:
        self.limit = ServingConfig().deadline_at_most_ms

    def __call__(self, data: bytes) -> None:
        told, _, named = data.decode("utf-8", "surrogateescape").partition("|")
        patience = shorter(timeout_s(told), None, math.inf)
        assert patience is None or 0 <= patience < 1e6
        context = RequestContext(request_id(named), Capacity(1), patience)
        assert _PLAIN.fullmatch(context.id)
        waits = self.limit if context.timeout_s is None else min(context.timeout_s * 1000, self.limit)
        left = Deadline(waits, context.arrived).left()
        assert 0 <= left <= self.limit / 1000 and abs(time.monotonic() - context.arrived) < 60
