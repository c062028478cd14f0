"""Two collectors, two publishers, a rollback, an erasure and skewed clocks together, in several orders."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.durability import collector_history
from tests.monitoring import servers

HISTORIES, BATCHES = 10, 150


def measure(folder: Path) -> dict[str, int]:
    """Runs them one after the other, each with choices of its own."""
    total: Counter[str] = Counter()
    with servers.running_postgres() as server:
        for seed in range(HISTORIES):
            here = folder / str(seed)
            here.mkdir()
            with _redis(here) as port:
                history, found = collector_history.run(here, server.new_database(), port, batches=BATCHES, seed=seed)
            total.update(found)
            total.update({name.replace(" ", "_"): count for name, count in history.faults.items()})
    return dict(total)


@contextmanager
def _redis(folder: Path) -> Iterator[int]:
    port = servers.free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        servers.wait_until(lambda: servers.answers(port), 10, "redis")
        yield port
    finally:
        process.terminate()
        process.wait()
