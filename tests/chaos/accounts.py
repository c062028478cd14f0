"""What became of every request and of every event."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
from sqlalchemy import create_engine, func, select

from monitoring.store.tables import recommendations
from tests.benchmarks import load
from tests.chaos.parts import Part
from tests.serving.synthetic import World

LIMITS: Final = {
    "unanswered": 0.0,
    "http_5xx": 0.0,
    "http_4xx": 0.0,
    "shed": 0.0,
    "degraded_without_code": 0.0,
    "degraded_without_fault": 0.0,
    "events_lost": 0.0,
    "recovery_s": 5.0,
}


@dataclass
class Episode:
    """A fault, from when to when; `time.monotonic()`."""

    part: Part
    fault: str
    broken: float
    mended: float


class Outgoing:
    """Follows the explorer's outbox through its metrics, several times a second."""

    def __init__(self, port: int) -> None:
        self._url, self._ended = f"http://127.0.0.1:{port}/metrics", threading.Event()
        # One client: to make one takes up to 80 ms for TLS, in which the proxies of this process pass nothing on.
        self._client = httpx.Client(timeout=10)
        self.sent: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def read(self) -> dict[str, float]:
        """The metrics now, summed over their labels."""
        found: dict[str, float] = {}
        for line in self._client.get(self._url).text.splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name.split("{")[0]] = found.get(name.split("{")[0], 0.0) + float(value)
        return found

    def _follow(self) -> None:
        while not self._ended.wait(0.2):
            try:
                self.sent.append((time.monotonic(), self.read().get("newfound_events_sent_total", 0.0)))
            except httpx.HTTPError:
                continue

    def recovery(self, since: float) -> float:
        """Seconds from a moment until events were acknowledged again."""
        before = max((count for at, count in self.sent if at <= since), default=0.0)
        return next((at - since for at, count in self.sent if at > since and count > before), float("inf"))

    def drain(self, seconds: float) -> dict[str, float]:
        """Waits until nothing is on its way any more; the metrics then."""
        end = time.monotonic() + seconds
        while True:
            now = self.read()
            waiting = now.get("newfound_outbox_events", 0) + now.get("newfound_spool_bytes", 0)
            if (not waiting and time.monotonic() > end - seconds + 2) or time.monotonic() > end:
                self._ended.set()
                self._thread.join()
                return now
            time.sleep(0.5)


def stored_events(database: str) -> int:
    """Slates that the store holds."""
    engine = create_engine(database)
    with engine.connect() as connection:
        count = int(connection.scalar(select(func.count()).select_from(recommendations)) or 0)
    engine.dispose()
    return count


def of_requests(
    results: Sequence[tuple[float, float, int, str]], episodes: Sequence[Episode], deadline: float
) -> dict[str, Any]:
    """What became of every request; recovery is from the part's being back to its last degraded answer."""
    latencies = [latency * 1e3 for _, latency, _, _ in results]
    record: dict[str, Any] = {
        "seed": World().seed,
        "requests": len(results),
        "faults": len(episodes),
        "unanswered": sum(status == 0 for _, _, status, _ in results),
        "http_5xx": sum(status >= 500 and status != 503 for _, _, status, _ in results),
        "shed": sum(status == 503 for _, _, status, _ in results),
        "http_4xx": sum(400 <= status < 500 for _, _, status, _ in results),
        "degraded": sum(bool(codes) for _, _, _, codes in results),
        "degraded_without_code": sum("unsaid" in codes for _, _, _, codes in results),
        "deadline_ms": deadline,
        "p50_ms": round(load.percentile(latencies, 0.5), 1),
        "p99_ms": round(load.percentile(latencies, 0.99), 1),
        "max_ms": round(load.percentile(latencies, 1.0), 1),
    }
    recoveries = []
    for number, one in enumerate(episodes):
        until = episodes[number + 1].broken if number + 1 < len(episodes) else float("inf")
        during = [codes for due, _, _, codes in results if one.broken <= due < one.mended]
        late = [
            due - one.mended
            for due, _, _, codes in results
            if one.mended <= due < until and one.part.code and one.part.code in codes.split(",")
        ]
        recoveries.append(max(_in_company(late), default=0.0))
        name = f"{one.part.name}.{one.fault}"
        record[f"degraded_share.{name}"] = round(statistics.fmean(bool(codes) for codes in during), 3)
        record[f"recovery_s.{name}"] = round(recoveries[-1], 2)
    return record | _unexplained(results, episodes) | {"recovery_s": round(max(recoveries, default=0.0), 2)}


def _in_company(moments: Sequence[float]) -> list[float]:
    """Moments with another within a second; an answer that is late on its own is no outage, and is counted below."""
    ordered = sorted(moments)
    return [at for at in ordered if any(0 < abs(at - other) <= 1 for other in ordered)]


def _unexplained(results: Sequence[tuple[float, float, int, str]], episodes: Sequence[Episode]) -> dict[str, int]:
    """Degraded answers that no fault accounts for, told one by one."""
    found: dict[str, int] = {}
    for due, latency, _, codes in results:
        for code in filter(None, codes.split(",")):
            if not any(code == one.part.code and one.broken - 0.5 <= due <= one.mended + 5 for one in episodes):
                before = max((one for one in episodes if one.broken <= due), key=lambda one: one.broken, default=None)
                where = "before any fault" if before is None else f"{due - before.broken:.1f} s into {before.part.name}"
                print(f"no fault accounts for {code!r}: {where}, answered in {latency * 1e3:.0f} ms")
                found[code] = found.get(code, 0) + 1
    # An engine that shares two cores with everything else here does not always answer in its time.
    late = found.pop("planner", 0)
    each = {f"degraded_without_fault.{code}": count for code, count in sorted(found.items())}
    return {**each, "degraded_without_fault": sum(found.values()), "planner_late_without_fault": late}


def of_events(outgoing: Outgoing, answered: int, episodes: Sequence[Episode], database: str) -> dict[str, Any]:
    """What became of every slate's event, and how soon events arrived again after what keeps them from it."""
    last = outgoing.drain(120)
    dropped = int(last.get("newfound_events_dropped_total", 0))  # no label of it was used, nothing was dropped
    stored = stored_events(database)
    record: dict[str, Any] = {
        "events": answered,
        "events_stored": stored,
        "events_dropped": dropped,
        "events_lost": max(answered - stored - dropped, 0),
    }
    for one in episodes:
        if one.part.name in ("postgres", "collector", "disk"):
            record[f"recovery_s.{one.part.name}.{one.fault}"] = round(outgoing.recovery(one.mended), 2)
    return record


def misses(record: dict[str, Any]) -> list[str]:
    """The promises that were not kept."""
    limits = LIMITS | {"p99_ms": record["deadline_ms"] + 100}
    return [
        f"{name} is {record[name]}, at most {limit:g}"
        for name, limit in limits.items()
        if name in record and record[name] > limit
    ]
