"""Real servers and plain events for the monitoring tests; each server on a loopback port, in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from newfound.events import FeedbackEvent, RecommendationEvent, SlotEvent, envelope, user_key

ROOT = Path(__file__).parents[2]
SECRET = "a key of the tests alone"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(check: Any, seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if check():
                return
        except (OSError, httpx.HTTPError):
            pass
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")


@dataclass
class Collector:
    """A collector process that can be killed and started again."""

    store: str
    folder: Path
    arguments: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        log = (self.folder / "collector.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "monitoring.collector", "--port", str(self.port), *self.arguments],
            cwd=ROOT,
            env={**os.environ, "NEWFOUND_STORE": self.store, "NEWFOUND_USER_KEY": SECRET, **self.environment},
            stdout=log,
            stderr=log,
        )
        wait_until(lambda: httpx.get(f"{self.url}/readyz").status_code == 200, 90, "collector")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=30)


def postgres_bin() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@dataclass
class Postgres:
    """A private cluster; `crash` is what a power cut would be to it."""

    bin: Path
    data: Path
    port: int

    def run(self, *command: str) -> None:
        line = [str(self.bin / command[0]), *command[1:]]
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            line = ["runuser", "-u", "postgres", "--", *line]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.data} -c shared_buffers=64MB"
        self.run("pg_ctl", "-D", str(self.data), "-l", f"{self.data}/log", "-w", "-o", options, "start")

    def crash(self) -> None:
        self.run("pg_ctl", "-D", str(self.data), "-m", "immediate", "stop")

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"t{time.time_ns()}"
        self.run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", name)
        return self.url(name)


@contextmanager
def running_postgres(superuser: str = "postgres") -> Iterator[Postgres]:
    """A cluster in a folder of its own, not below pytest's, which the user postgres may not enter."""
    tools = postgres_bin()
    assert tools is not None, "PostgreSQL is not installed (apt-get install postgresql)"
    data = Path(tempfile.mkdtemp(prefix="newfound-postgres-"))
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(data, owner.pw_uid, owner.pw_gid)
    server = Postgres(tools, data, free_port())
    try:
        server.run("initdb", "-D", str(data), "-A", "trust", "-U", superuser, "-E", "UTF8", "--locale=C")
        server.start()
        yield server
        server.crash()
    finally:
        shutil.rmtree(data, ignore_errors=True)


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def feedback(number: int | str, **changes: Any) -> FeedbackEvent:
    values: dict[str, Any] = {
        "id": f"f{number}",
        "at": datetime.now(UTC),
        "user_id": "42",
        "item": "50",
        "kind": "liked",
        **changes,
    }
    return FeedbackEvent(**values)


def recommendation(number: int | str, **changes: Any) -> RecommendationEvent:
    user = changes.get("user_id", "42")
    values: dict[str, Any] = {
        "id": f"r{number}",
        "at": datetime.now(UTC),
        "user_id": user,
        "user_key": user_key(user, SECRET.encode()),
        "release": "one",
        "slots": (
            SlotEvent(position=0, item="50", cluster="a", kind="novel", propensity=0.5, reason="table"),
            SlotEvent(position=1, item="51", cluster="b", kind="familiar", propensity=1.0, reason="familiar"),
        ),
        "seed": 7,
        "latency_ms": 2.0,
        **changes,
    }
    return RecommendationEvent(**values)


def batch(events: list[Any]) -> list[dict[str, Any]]:
    return [envelope(event, "/tests") for event in events]
