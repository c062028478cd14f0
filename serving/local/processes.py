"""Services as child processes on loopback: started, watched until they are ready, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Service:
    """One process.

    Args:
        name: for messages and the log's file name.
        command: what to run.
        logs: folder of `<name>.log`.
        ready: URL that answers 200 once it is ready, or host and port that take connections.
        environment: added to the current one.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        logs: Path,
        ready: str | tuple[str, int],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.command, self.ready = name, list(command), ready
        self.log = logs / f"{name}.log"
        self.environment = {**os.environ, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def module(
        cls,
        name: str,
        module: str,
        arguments: Sequence[str],
        logs: Path,
        ready: str,
        environment: Mapping[str, str] | None = None,
    ) -> Service:
        """A Python module of ours."""
        return cls(name, [sys.executable, "-m", module, *arguments], logs, ready, environment)

    def start(self) -> Service:
        """Starts it, in a process group of its own."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=self.environment, start_new_session=True
            )
        return self

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self.process is not None
        return self.process.pid

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            if isinstance(self.ready, tuple):
                with socket.create_connection(self.ready, timeout=1):
                    return True
            with urllib.request.urlopen(self.ready, timeout=1) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def wait(self, seconds: float = 300) -> Service:
        """Waits until it is ready.

        Raises:
            RuntimeError: it ended, or is not ready in time; the message holds the end of its log.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.is_ready():
                return self
            if self.process is not None and self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended ({self.process.returncode})\n{self.tail()}")
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} is not ready within {seconds:.0f} s\n{self.tail()}")

    def tail(self, characters: int = 2000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""

    def signal(self, number: int) -> None:
        """Sends a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def stop(self, seconds: float = 10) -> None:
        """Asks it to end, and makes it."""
        if self.process is None:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self.kill()
        self.process = None

    def kill(self) -> None:
        """Ends it at once, and with it what it started: an engine's workers would outlive it, with all their memory."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
