"""Context of a request: its id, the time it arrived at, its sender's timeout, and its share of the service's capacity.

It travels in a context variable: a header or gRPC metadata of the client's could claim anything.
"""

from __future__ import annotations

import math
import re
import secrets
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from serving.http.errors import Busy
from serving.metrics import SHED

TIMEOUT: Final = "x-newfound-timeout-ms"
"""Header or metadata: milliseconds after which the sender waits no longer."""
REQUEST_ID: Final = "x-request-id"
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_MILLISECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")


@dataclass(slots=True)
class Capacity:
    """Instances that may be answered at a time, by both protocols together.

    Attributes:
        limit: most of them.
        running: how many are being answered.
    """

    limit: int
    running: int = 0


@dataclass(slots=True)
class RequestContext:
    """One request body on its way.

    Attributes:
        id: as the sender gave it, where it is plain; made up otherwise.
        capacity: of the service.
        timeout_s: seconds that the sender still waited when the request arrived; None where it did not say.
        arrived: `time.monotonic()` when all of the request had arrived.
        taken: instances that it takes of the capacity.
    """

    id: str
    capacity: Capacity
    timeout_s: float | None = None
    arrived: float = field(default_factory=time.monotonic)
    taken: int = 0

    def take(self, instances: int) -> None:
        """Takes capacity for so many instances in all, what was taken before included.

        Raises:
            Busy: there is not that much left.
        """
        more = instances - self.taken
        if self.capacity.running + more > self.capacity.limit:
            SHED.inc()
            raise Busy
        self.capacity.running += more
        self.taken = instances

    def release(self) -> None:
        """Gives back what was taken."""
        self.capacity.running -= self.taken
        self.taken = 0


CURRENT: Final[ContextVar[RequestContext | None]] = ContextVar("request", default=None)


def current() -> RequestContext:
    """The context of the running request; one without bounds outside of a server."""
    return CURRENT.get() or RequestContext("", Capacity(1 << 30))


def request_id(given: str) -> str:
    """The id of a request, as its sender gave it, or a new one: ids go into logs and to other services."""
    return given if _PLAIN_ID.fullmatch(given) else secrets.token_hex(8)


def timeout_s(given: str | None) -> float | None:
    """The header's milliseconds in seconds; None where they are absent or no plain number.

    >>> timeout_s("150"), timeout_s("nan"), timeout_s("-1"), timeout_s(None)
    (0.15, None, None, None)
    """
    if given is None or not _MILLISECONDS.fullmatch(given):
        return None
    return float(given) / 1000


def shorter(*timeouts: float | None) -> float | None:
    """The shortest of some timeouts in seconds, of those that are finite numbers."""
    return min((one for one in timeouts if one is not None and math.isfinite(one)), default=None)
