"""`make serve` as a process, over a made-up release with a planner and a feature store."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from serving.local.processes import free_port
from tests.serving import store
from tests.serving.synthetic import World, histories, history_table, publish_with_planner

USERS: Final = 5
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on.

    They lie below those that outgoing connections get: while a service is down, any connection of any process could
    take its port, and the service could not come back.
    """
    below = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.exists() else 32_768
    while True:
        first = 10_000 + (free_port() * 7) % (below - 10_000 - count)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except (OSError, OverflowError):
            continue


@contextmanager
def launched_serve(
    world: World, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The launcher's process and the first of its ports; its output is in `output` in the folder.

    Args:
        world: the release's.
        folder: for everything that is written.
        environment: added to this process's own.
    """
    root = publish_with_planner(world, folder)
    store.write_sources(folder / "features", history_table(histories(world, USERS, 30)), [])
    store.fill(folder / "features")
    port = free_ports(6)
    command = [sys.executable, "-m", "serving.local.__main__", "--releases", str(root), "--planner", "local"]
    command += ["--features", str(folder / "features"), "--port", str(port), "--work", str(folder / "work")]
    told = {**os.environ, **(environment or {})}
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, cwd=store.ROOT, stdout=output, stderr=output, text=True, env=told)
        try:
            yield process, port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)
