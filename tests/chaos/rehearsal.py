"""One rehearsal: requests at a fixed rate, one fault after another, and the accounts at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from serving.settings import ServingConfig
from tests.benchmarks import load
from tests.chaos import accounts
from tests.chaos.parts import Part
from tests.chaos.system import SETTINGS, running

FAULT_S, REST_S = 6.0, 6.0
"""How long a part is broken, and left in peace afterwards."""
WARM_UP: Final = 100  # requests before any fault


def rehearse(
    folder: Path,
    requests: int,
    rate: float,
    engine: str,
    faults: Sequence[tuple[str, str]] | None = None,
    fault_s: float = FAULT_S,
    rest_s: float = REST_S,
) -> dict[str, Any]:
    """Starts everything, brings the faults one after another, and adds up.

    Args:
        folder: for everything that is written.
        requests: at least so many; they go on until the last part has been back for a while.
        rate: requests a second.
        engine: the planner's, `vllm` or `local`.
        faults: names of parts and what befalls them; None: everything that may befall each part.
        fault_s: seconds for which a part is broken.
        rest_s: seconds of peace once it is back.
    """
    with running(folder, engine) as system:
        # The table answers whoever has two interests; a single one is what the planner is asked about.
        asked = [({"user_id": row["user_id"]}, {"history": row["item_ids"][:1]}) for row in system.rows]
        bodies = [json.dumps({"instances": [request]}) for pair in asked for request in pair]
        order = {"port": system.explorer, "path": "/v1/models/newfound:predict", "bodies": bodies}
        warm = load.run(**order, rate=min(rate, 20), requests=WARM_UP)
        outgoing = accounts.Outgoing(system.explorer)
        generator = load.start(**order, rate=rate, requests=requests, until_told=True)
        time.sleep(rest_s)
        wanted = every_fault(list(system.parts.values())) if faults is None else faults
        episodes = [
            _strike(system.parts[name], fault, fault_s, rest_s) for name, fault in wanted if name in system.parts
        ]
        generator.terminate()
        results = load.collect(generator)
        deadline = ServingConfig.model_validate(SETTINGS[engine]).deadline_ms
        record = accounts.of_requests(results, episodes, deadline)
        if system.database is not None:
            answered = sum(status == 200 for _, _, status, _ in [*warm, *results])
            record |= accounts.of_events(outgoing, answered, episodes, system.database)
        record["recovery_s"] = max((value for name, value in record.items() if name.startswith("recovery_s")))
        store = "redis" if "redis" in system.parts else "sqlite"
        return {**record, "rate_per_s": rate, "engine": engine, "online_store": store}


def every_fault(parts: Sequence[Part]) -> list[tuple[str, str]]:
    """All faults, so that no part is struck twice in a row."""
    rounds = zip_longest(*([(part.name, fault) for fault in part.faults] for part in parts))
    return [one for faults in rounds for one in faults if one is not None]


def _strike(part: Part, fault: str, fault_s: float, rest_s: float) -> accounts.Episode:
    broken = time.monotonic()
    part.break_it(fault)
    time.sleep(fault_s)
    part.mend(fault)
    mended = time.monotonic()
    print(f"{part.name} {fault}: away for {mended - broken:.1f} s", flush=True)
    time.sleep(rest_s)
    return accounts.Episode(part, fault, broken, mended)
